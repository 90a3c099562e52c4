//! The last moment of a connection: what its client still sends is taken, within bounds. A socket that is closed with bytes unread is
//! reset, and a reset takes what was said last away from a client that has not read it yet.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Sleep,
};

const BYTES: usize = 64 * 1024;
const FOR: Duration = Duration::from_secs(2);

/// See the module. Begins when it is asked first.
#[derive(Default)]
pub(super) struct Linger(Option<Begun>);

struct Begun {
    sleep: Pin<Box<Sleep>>,
    left: usize,
}

impl Linger {
    /// To be asked when nothing more is written. Ready when the stream may be closed.
    pub(super) fn poll<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let begun = self.0.get_or_insert_with(|| Begun {
            sleep: Box::pin(tokio::time::sleep(FOR)),
            left: BYTES,
        });
        let mut rest = [0; 4096];
        while begun.left > 0 {
            if begun.sleep.as_mut().poll(context).is_ready() {
                break;
            }
            let mut read = ReadBuf::new(&mut rest);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {
                    begun.left = begun.left.saturating_sub(read.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn over(stream: &mut tokio::io::DuplexStream) {
        let mut linger = Linger::default();
        std::future::poll_fn(|context| linger.poll(stream, context)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_still_comes_is_taken_until_the_client_ends_or_it_is_enough() {
        let (mut here, mut there) = tokio::io::duplex(2 * BYTES);
        there.write_all(b"the last word of a client").await.unwrap();
        drop(there);
        let begun = tokio::time::Instant::now();
        over(&mut here).await;
        assert!(begun.elapsed() < FOR, "its client has ended");

        let (mut here, mut there) = tokio::io::duplex(2 * BYTES);
        there.write_all(&[0; 2 * BYTES]).await.unwrap();
        over(&mut here).await;
        assert!(begun.elapsed() < FOR, "it is enough");

        let (mut here, _there) = tokio::io::duplex(16);
        over(&mut here).await;
        assert!(begun.elapsed() >= FOR, "its client does not end");
    }
}
