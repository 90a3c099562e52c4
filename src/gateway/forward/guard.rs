//! The answer guard: what an HTTP/1.1 upstream sends, before hyper reads it.
//!
//! hyper's client forgives what this hop must not: bare line feeds, bytes that nobody asked for on a connection at rest, interim
//! answers without end. The guard reads heads only, line by line and without a copy; behind the head of the final answer bytes
//! pass unseen. It knows where a head may begin because the pool tells it that a request is to be sent ([`Watch::arm`]); bytes
//! before that, and bytes that lie in the socket when the request's first byte is written, are no answer to it.
//!
//! Not here: what fields say about framing (`framing`), bodies (hyper).

mod scan;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::UpstreamIo;
use crate::gateway::rejection::Break;

use scan::{Refused, Scan};

/// Nothing was asked: what comes now is no answer.
const RESTING: u8 = 0;
/// A request is to be sent, and not a byte of it was.
const ARMED: u8 = 1;
/// It is being sent; the head of its answer may come.
const HEAD: u8 = 2;
/// The head of the final answer has come.
const PASSING: u8 = 3;

/// What the guard of a connection and its user tell each other.
#[derive(Debug, Default)]
pub(super) struct Watch {
    phase: AtomicU8,
    broken: AtomicU8,
}

impl Watch {
    /// A request is about to be sent.
    pub(super) fn arm(&self) {
        self.phase.store(ARMED, Ordering::Relaxed);
    }

    /// Its answer has come whole.
    pub(super) fn rest(&self) {
        self.phase.store(RESTING, Ordering::Relaxed);
    }

    /// What went wrong, if the guard has seen it.
    pub(super) fn broken(&self) -> Option<Break> {
        match self.broken.load(Ordering::Relaxed) {
            1 => Some(Break::Terminated),
            2 => Some(Break::Incomplete),
            3 => Some(Break::Protocol),
            4 => Some(Break::HeadTooLarge),
            _ => None,
        }
    }

    /// The first thing that goes wrong is the one to tell.
    fn breaks(&self, how: Break) {
        let code = match how {
            Break::Terminated => 1,
            Break::Incomplete => 2,
            Break::HeadTooLarge => 4,
            Break::Protocol | Break::TransferCoding | Break::Upgrade => 3,
        };
        let _ = self
            .broken
            .compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A connection to an upstream that speaks HTTP/1.1.
pub(super) struct Guarded {
    io: UpstreamIo,
    watch: Arc<Watch>,
    scan: Scan,
}

impl Guarded {
    pub(super) fn new(io: UpstreamIo) -> (Self, Arc<Watch>) {
        let watch = Arc::<Watch>::default();
        let guarded = Self {
            io,
            watch: Arc::clone(&watch),
            scan: Scan::default(),
        };
        (guarded, watch)
    }

    /// The stream itself, for a tunnel.
    pub(super) fn into_inner(self) -> UpstreamIo {
        self.io
    }

    fn refuse(&self, why: Refused) -> io::Error {
        self.watch.breaks(why.kind());
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    /// Before the first byte of a request: nothing may have come.
    fn begin(&mut self) -> io::Result<()> {
        if self.io.has_unread() {
            return Err(self.refuse(Refused::Unasked));
        }
        self.scan = Scan::default();
        self.watch.phase.store(HEAD, Ordering::Relaxed);
        Ok(())
    }

    /// What was read, empty at the end of the stream.
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.watch.phase.load(Ordering::Relaxed) {
            PASSING => Ok(()),
            HEAD if bytes.is_empty() => {
                self.watch.breaks(self.scan.cut());
                Ok(())
            }
            HEAD => match self.scan.feed(bytes) {
                Ok(true) => {
                    self.watch.phase.store(PASSING, Ordering::Relaxed);
                    Ok(())
                }
                Ok(false) => Ok(()),
                Err(why) => Err(self.refuse(why)),
            },
            _ if bytes.is_empty() => Ok(()),
            _ => Err(self.refuse(Refused::Unasked)),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match std::task::ready!(Pin::new(&mut this.io).poll_read(context, buffer)) {
            Ok(()) => {
                let came = this.came(buffer.filled().get(before..).unwrap_or_default());
                if came.is_err() {
                    buffer.set_filled(before);
                }
                Poll::Ready(came)
            }
            Err(error) => {
                if this.watch.phase.load(Ordering::Relaxed) == HEAD {
                    this.watch.breaks(this.scan.cut());
                }
                Poll::Ready(Err(error))
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.watch.phase.load(Ordering::Relaxed) == ARMED {
            this.begin()?;
        }
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.watch.phase.load(Ordering::Relaxed) == ARMED {
            this.begin()?;
        }
        Pin::new(&mut this.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thing_that_breaks_is_told() {
        let watch = Watch::default();
        assert_eq!(watch.broken(), None);
        watch.breaks(Break::Incomplete);
        watch.breaks(Break::Protocol);
        assert_eq!(watch.broken(), Some(Break::Incomplete));
    }
}
