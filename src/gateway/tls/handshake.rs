//! The handshake: from the first byte of a connection to a stream in which HTTP is spoken, or a reason why not.
//!
//! The client's hello is read first; it picks the certificate, and what was picked stays with the connection, whatever is
//! reloaded meanwhile. Who speaks HTTP in the clear here is told so. Whatever we say last is given the time to arrive: closing
//! a socket with unread bytes would take it back.
//!
//! Not here: certificates (`certificates`), what may be agreed on (`listener`), the deadline's length (`connection`).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};

use super::{
    certificates::Names,
    listener::{Policy, State},
};

/// How long last words may take to arrive.
const LINGER: Duration = Duration::from_secs(1);
/// How much more of what a failed client sends is read.
const LINGER_BYTES: u64 = 64 * 1024;

/// The answer to HTTP in the clear.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 71\r\n\
    cache-control: no-store\r\n\
    proxy-status: cde-gateway; error=http_request_error; details=\"bad-request\"\r\n\
    connection: close\r\n\r\n\
    This port speaks https, and the request was plain http. Use https:// .\n";

/// Makes the handshakes of listeners with one policy.
pub(crate) struct Acceptor {
    pub(super) policy: Policy,
    pub(super) state: ArcSwap<State>,
}

/// A connection after its handshake.
pub(crate) struct Secured<IO> {
    /// The stream in which HTTP is spoken.
    pub(crate) stream: TlsStream<IO>,
    /// The hosts that may be asked for on it.
    pub(crate) names: Arc<Names>,
    /// Whether that is HTTP/2 (ALPN).
    pub(crate) h2: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The deadline.
    Timeout,
    /// The client closed.
    Closed,
    /// It speaks HTTP in the clear.
    PlainHttp,
    /// No version, suite, group, signature or protocol is known to both.
    NothingInCommon,
    /// It has no certificate that counts here.
    ClientCertificate,
    /// It does not want us; mostly it does not trust our certificate.
    RefusedByClient,
    /// What it sends is no TLS, or wrong.
    Broken,
}

impl Failure {
    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::PlainHttp => "plain-http",
            Self::NothingInCommon => "nothing-in-common",
            Self::ClientCertificate => "client-certificate",
            Self::RefusedByClient => "refused-by-client",
            Self::Broken => "broken",
        }
    }
}

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        use rustls::Error;
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => {
                Self::NothingInCommon
            }
            Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
                Self::ClientCertificate
            }
            Some(Error::AlertReceived(_)) => Self::RefusedByClient,
            Some(_) => Self::Broken,
            None => Self::Closed,
        }
    }
}

impl Acceptor {
    /// Makes one, until the deadline.
    pub(crate) async fn accept<IO>(&self, io: IO, deadline: Instant) -> Result<Secured<IO>, Failure>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = hello(io, deadline).await?;
        let (names, server) = {
            let hello = start.client_hello();
            // rustls gives it in lower case.
            let sni = hello.server_name().map(|name| name.trim_end_matches('.'));
            let picked = self.state.load().handshake(&hello, sni, SystemTime::now());
            let (served, server) = picked.ok_or(Failure::Broken)?;
            let names = if self.policy.strict_sni {
                Arc::new(served.names.strictly(sni))
            } else {
                Arc::clone(&served.names)
            };
            (names, server)
        };
        let handshake = start.into_stream(Arc::new(server)).into_fallible();
        match timeout_at(deadline, handshake).await {
            Ok(Ok(stream)) => {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok(Secured { stream, names, h2 })
            }
            Ok(Err((error, io))) => {
                linger(io, deadline).await;
                Err(Failure::from(&error))
            }
            Err(_) => Err(Failure::Timeout),
        }
    }
}

/// Reads the client's hello.
async fn hello<IO>(io: IO, deadline: Instant) -> Result<StartHandshake<IO>, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = LazyConfigAcceptor::new(
        rustls::server::Acceptor::default(),
        Opening {
            io,
            first: First::Unread,
        },
    );
    let error = match timeout_at(deadline, &mut acceptor).await {
        Ok(Ok(StartHandshake { accepted, io, .. })) => {
            return Ok(StartHandshake::from_parts(accepted, io.io));
        }
        Ok(Err(error)) => error,
        Err(_) => return Err(Failure::Timeout),
    };
    let Some(mut opening) = acceptor.take_io() else {
        return Err(Failure::Broken);
    };
    let failure = match opening.first {
        First::Unread => return Err(Failure::Closed),
        First::Other => Failure::from(&error),
        First::Http => {
            let until = deadline.min(Instant::now() + LINGER);
            let _ = timeout_at(until, opening.io.write_all(PLAIN.as_bytes())).await;
            Failure::PlainHttp
        }
    };
    linger(opening.io, deadline).await;
    Err(failure)
}

/// Ends our direction, and reads until the client ends its own.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO, deadline: Instant) {
    let rest = async {
        io.shutdown().await?;
        tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout_at(deadline.min(Instant::now() + LINGER), rest).await;
}

/// What the first byte of a connection tells.
#[derive(Clone, Copy)]
enum First {
    Unread,
    /// A method, or a line end in front of it.
    Http,
    /// TLS, or garbage.
    Other,
}

/// A byte stream of which HTTP in the clear is not read on.
struct Opening<IO> {
    io: IO,
    first: First,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Opening<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        if let (First::Unread, Some(first)) = (this.first, buffer.filled().get(before)) {
            let http = first.is_ascii_alphabetic() || matches!(first, b'\r' | b'\n');
            this.first = if http { First::Http } else { First::Other };
            if http {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Opening<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}
