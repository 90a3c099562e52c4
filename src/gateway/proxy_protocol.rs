//! PROXY protocol: whom a balancer in front of us speaks for (HAProxy's specification, versions 1 and 2).
//!
//! Part of the first step, before TLS. [`parse`] is pure; [`read`] takes exactly the header's bytes from the socket, so that
//! what follows belongs to TLS or HTTP. Nothing is repaired: a header that is not exactly one of the two forms ends the
//! connection, since whoever may send one could also name any client.
//!
//! Not here: who may send a header and until when (`accept`).

mod binary;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod text;

use std::{io, net::SocketAddr};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest body of a version 2 header that is read: addresses (at most 216 bytes) and what senders add to them.
pub const BODY_MAX: usize = 4096;
/// Enough for every version 1 line and for what usual senders write in version 2.
const USUAL: usize = 256;

/// For which connection a sender speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Who connected to the sender.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
}

/// How far a header has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is whole.
    Complete {
        /// For whom it speaks; nothing when the sender speaks for itself or cannot tell (`LOCAL`, `UNKNOWN`, `UNSPEC`, a
        /// Unix socket): then the connection's own addresses hold.
        addresses: Option<Addresses>,
        /// Its bytes.
        length: usize,
    },
    /// Right so far, and not whole with fewer than so many bytes.
    Incomplete {
        /// More than there are now.
        at_least: usize,
    },
}

/// Why a connection that must begin with a header is closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It begins with something else.
    #[error(
        "no PROXY protocol header; let the balancer send one, or take its network out of `proxy_protocol_from`"
    )]
    NoHeader,
    /// A version 1 line that is not written as specified.
    #[error("the PROXY protocol line is malformed: {0}; correct the sender")]
    Line(&'static str),
    /// A version 2 header that is not written as specified.
    #[error("the PROXY protocol header is malformed: {0}; correct the sender")]
    Header(&'static str),
    /// The connection ended or broke within the header.
    #[error("the connection ended within the PROXY protocol header")]
    Ended(#[from] io::Error),
}

/// Reads a header at the start of `bytes`.
///
/// # Errors
/// As soon as the bytes cannot become a header any more.
pub fn parse(bytes: &[u8]) -> Result<Progress, Error> {
    match bytes.first() {
        None => Ok(Progress::Incomplete {
            at_least: binary::FIXED,
        }),
        Some(b'P') => text::parse(bytes),
        Some(_) => binary::parse(bytes),
    }
}

/// Takes the header off a connection, and not a byte more.
///
/// # Errors
/// What [`parse`] says, and the end of the connection.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Option<Addresses>, Error> {
    let mut buffer = vec![0; USUAL];
    let mut taken = 0;
    loop {
        let seen = taken + stream.peek(&mut buffer[taken..]).await?;
        if seen == taken {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match parse(&buffer[..seen])? {
            Progress::Complete { addresses, length } => {
                stream.read_exact(&mut buffer[taken..length]).await?;
                return Ok(addresses);
            }
            // All that was seen is the header's: once taken, the next peek waits for more.
            Progress::Incomplete { at_least } => {
                stream.read_exact(&mut buffer[taken..seen]).await?;
                taken = seen;
                if buffer.len() < at_least {
                    buffer.resize(at_least, 0);
                }
            }
        }
    }
}

/// Whether what there is of `bytes` is how `whole` begins.
fn begins_like(bytes: &[u8], whole: &[u8]) -> bool {
    let common = bytes.len().min(whole.len());
    bytes[..common] == whole[..common]
}

/// One form per address: an IPv4 client is one also where a sender maps it into IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
