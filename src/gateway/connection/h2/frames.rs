//! The byte stream of an HTTP/2 connection as h2 sees it: with an end when its client asks for too much.
//!
//! Then the bytes that go too far never reach h2. The client is told by GOAWAY, written here between two frames of h2's, and h2
//! finds its stream broken. A head that has begun must be whole within the `head` timeout, whatever else goes on.
//!
//! Not here: what is too much (`scan`, `budget`).

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    budget::Budget,
    scan::{Scan, Violation},
};
use crate::gateway::connection::linger::Linger;

const HEAD: usize = 9;
const PROTOCOL_ERROR: u8 = 1;
const ENHANCE_YOUR_CALM: u8 = 11;

/// See the module.
pub(super) struct Frames<S> {
    stream: S,
    scan: Scan,
    sent: Sent,
    budget: Arc<Budget>,
    /// Runs while a head is not whole.
    slow: Option<Pin<Box<Sleep>>>,
    head_timeout: Duration,
    /// Counts ends.
    ended: Counter,
    /// Whether nothing more is written.
    shut: bool,
    linger: Linger,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub(super) fn new(
        stream: S,
        scan: Scan,
        budget: Arc<Budget>,
        head_timeout: Duration,
        ended: Counter,
    ) -> Self {
        Self {
            stream,
            scan,
            sent: Sent::default(),
            budget,
            slow: None,
            head_timeout,
            ended,
            shut: false,
            linger: Linger::default(),
        }
    }

    /// Says GOAWAY if that is possible at once, and ends the stream for h2.
    fn end(&mut self, violation: Violation, context: &mut Context<'_>) -> io::Error {
        self.budget.spend();
        self.ended.inc();
        let code = match violation {
            Violation::Malformed => PROTOCOL_ERROR,
            Violation::Flood => ENHANCE_YOUR_CALM,
        };
        if self.sent.is_between_frames() {
            let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code];
            frame[HEAD..HEAD + 4].copy_from_slice(&self.scan.latest().to_be_bytes());
            // A client that takes nothing is not waited for.
            let _ = Pin::new(&mut self.stream).poll_write(context, &frame);
        }
        let _ = Pin::new(&mut self.stream).poll_flush(context);
        let _ = Pin::new(&mut self.stream).poll_shutdown(context);
        io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the client asked for too much",
        )
    }

    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.scan.is_unfinished() {
            self.slow = None;
            return Poll::Pending;
        }
        let timeout = self.head_timeout;
        let slow = self
            .slow
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        slow.as_mut().poll(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.budget.is_spent() {
            return Poll::Ready(Err(this.end(Violation::Flood, context)));
        }
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(context, buffer) else {
            ready!(this.poll_slow(context));
            return Poll::Ready(Err(this.end(Violation::Flood, context)));
        };
        read?;
        let scanned = this.scan.read(&buffer.filled()[before..]);
        Poll::Ready(scanned.map_err(|violation| {
            buffer.set_filled(before);
            this.end(violation, context)
        }))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        let frames = this.sent.wrote(&bytes[..written]);
        this.scan.sent(frames);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            this.shut = true;
        }
        this.linger.poll(&mut this.stream, context).map(Ok)
    }
}

/// Where we are in what h2 writes.
#[derive(Default)]
struct Sent {
    head: [u8; HEAD],
    have: usize,
    left: usize,
}

impl Sent {
    fn is_between_frames(&self) -> bool {
        self.have == 0
    }

    /// Follows what was written; how many DATA frames began in it.
    fn wrote(&mut self, mut bytes: &[u8]) -> i32 {
        let mut frames = 0;
        while !bytes.is_empty() {
            if self.have < HEAD {
                let part = bytes.len().min(HEAD - self.have);
                self.head[self.have..self.have + part].copy_from_slice(&bytes[..part]);
                self.have += part;
                bytes = &bytes[part..];
                if self.have < HEAD {
                    break;
                }
                let [a, b, c, kind, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                frames += i32::from(kind == 0);
            }
            let part = self.left.min(bytes.len());
            self.left -= part;
            bytes = &bytes[part..];
            if self.left == 0 {
                self.have = 0;
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_followed_however_it_is_cut() {
        let bytes = [
            &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
            &[0, 0, 2, 0, 0, 0, 0, 0, 1, 7, 7],
            &[0, 0, 0, 0, 1, 0, 0, 0, 1],
            &[0, 0, 1, 1, 4, 0, 0, 0, 3, 0x88],
        ]
        .concat();
        for size in 1..=bytes.len() {
            let mut sent = Sent::default();
            let frames: i32 = bytes.chunks(size).map(|chunk| sent.wrote(chunk)).sum();
            assert_eq!(frames, 2);
            assert!(sent.is_between_frames());
            sent.wrote(&[0]);
            assert!(!sent.is_between_frames());
        }
    }
}
