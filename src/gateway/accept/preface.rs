//! HTTP/2 with prior knowledge on a listener in the clear (RFC 9113 §3.3): told from HTTP/1.1 by its first bytes.
//!
//! Balancers speak it for gRPC. The bytes are only looked at; whoever reads them next finds them all.

use std::io;

use tokio::{io::Interest, net::TcpStream};

/// RFC 9113 §3.4. A request that only begins like it is one of HTTP/1.1, and a bad one.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits for the first bytes and says whether they are those of HTTP/2. A connection that ended or broke before is left to
/// whoever reads it next. Bounded by its caller.
pub(crate) async fn speaks_h2(stream: &TcpStream) -> bool {
    loop {
        let Ok(ready) = stream.ready(Interest::READABLE).await else {
            return false;
        };
        // "Would block" makes the next turn wait until there is more than what was seen now.
        let seen = stream.try_io(Interest::READABLE, || match peek(stream)? {
            None if !ready.is_read_closed() => Err(io::ErrorKind::WouldBlock.into()),
            decided => Ok(decided.unwrap_or(false)),
        });
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            seen => return seen.unwrap_or(false),
        }
    }
}

/// Whether what has come is the preface; nothing while it could still become it.
fn peek(stream: &TcpStream) -> io::Result<Option<bool>> {
    let mut bytes = [0; PREFACE.len()];
    let (count, _) = rustix::net::recv(stream, &mut bytes[..], rustix::net::RecvFlags::PEEK)?;
    let begins = PREFACE.starts_with(&bytes[..count]);
    Ok(match (begins, count) {
        (true, count) if count == PREFACE.len() => Some(true),
        (true, 1..) => None,
        _ => Some(false),
    })
}
