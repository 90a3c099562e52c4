//! Version 1: one line of text, `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{Addresses, Error, Progress, begins_like, canonical};

/// The longest line, its end included.
pub(super) const MAX: usize = 107;
const START: &[u8] = b"PROXY ";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN";

pub(super) fn parse(bytes: &[u8]) -> Result<Progress, Error> {
    if !begins_like(bytes, START) {
        return Err(Error::NoHeader);
    }
    let within = &bytes[..bytes.len().min(MAX)];
    let end = within.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    match end.map(|at| (at, within[at], within.get(at + 1))) {
        Some((at, b'\r', Some(b'\n'))) => Ok(Progress::Complete {
            addresses: line(&within[..at])?,
            length: at + 2,
        }),
        Some((at, b'\r', None)) if at + 2 <= MAX => Ok(Progress::Incomplete {
            at_least: bytes.len() + 1,
        }),
        None if bytes.len() < MAX => Ok(Progress::Incomplete {
            at_least: bytes.len() + 1,
        }),
        Some((_, b'\r', None)) | None => Err(Error::Line("it is longer than 107 bytes")),
        Some(_) => Err(Error::Line("it does not end in CR LF")),
    }
}

/// The line without its end.
fn line(line: &[u8]) -> Result<Option<Addresses>, Error> {
    // Whatever follows this word is to be ignored.
    if line == UNKNOWN
        || line
            .strip_prefix(UNKNOWN)
            .is_some_and(|rest| rest[0] == b' ')
    {
        return Ok(None);
    }
    let line = std::str::from_utf8(line).map_err(|_| Error::Line("it is not text"))?;
    let mut words = line.split(' ').skip(1);
    let protocol = words.next();
    let mut word = || words.next().unwrap_or_default();
    let (client, local) = match protocol {
        Some("TCP4") => (ip::<Ipv4Addr>(word())?, ip::<Ipv4Addr>(word())?),
        Some("TCP6") => (ip::<Ipv6Addr>(word())?, ip::<Ipv6Addr>(word())?),
        _ => return Err(Error::Line("its protocol is not TCP4, TCP6 or UNKNOWN")),
    };
    let (client, local) = (
        SocketAddr::new(client, port(word())?),
        SocketAddr::new(local, port(word())?),
    );
    match words.next() {
        Some(_) => Err(Error::Line("something follows its ports")),
        None => Ok(Some(Addresses {
            client: canonical(client),
            local: canonical(local),
        })),
    }
}

/// An address of one family; zeros in front are refused, since some read them as octal.
fn ip<T: FromStr + Into<IpAddr>>(text: &str) -> Result<IpAddr, Error> {
    let parsed = text.parse::<T>().map(Into::into);
    parsed.map_err(|_| Error::Line("an address is not one of its family"))
}

fn port(text: &str) -> Result<u16, Error> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    let port = text.parse().ok().filter(|_| digits && plain);
    port.ok_or(Error::Line("a port is not a number from 0 to 65535"))
}
