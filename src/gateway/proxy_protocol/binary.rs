//! Version 2: a signature, version and command, family, length, addresses, and what senders add (type, length, value).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, BODY_MAX, Error, Progress, begins_like, canonical};

/// Signature, version and command, family, length.
pub(super) const FIXED: usize = 16;
pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const CRC32C: u8 = 0x03;

pub(super) fn parse(bytes: &[u8]) -> Result<Progress, Error> {
    if !begins_like(bytes, SIGNATURE) {
        return Err(Error::NoHeader);
    }
    let Some(&[command, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Ok(Progress::Incomplete { at_least: FIXED });
    };
    let body = usize::from(u16::from_be_bytes([high, low]));
    let addresses = match command {
        // The sender speaks for itself; what the block says is to be ignored.
        0x20 => None,
        0x21 => Some(Family::of(family)?),
        _ => return Err(Error::Header("its version or command is unknown")),
    };
    if body > BODY_MAX {
        return Err(Error::Header("it is longer than 4 KiB"));
    }
    if addresses.is_some_and(|family| body < family.size()) {
        return Err(Error::Header("it is shorter than its addresses"));
    }
    let length = FIXED + body;
    let Some(header) = bytes.get(..length) else {
        return Ok(Progress::Incomplete { at_least: length });
    };
    let addresses = match addresses {
        None => None,
        Some(family) => {
            additions(header, FIXED + family.size())?;
            family.addresses(&header[FIXED..])
        }
    };
    Ok(Progress::Complete { addresses, length })
}

/// Which addresses there are.
#[derive(Clone, Copy)]
enum Family {
    /// The sender does not say.
    Unspecified,
    V4,
    V6,
    /// A Unix socket of the sender's machine.
    Unix,
}

impl Family {
    /// Streams only: nothing else comes over TCP.
    fn of(byte: u8) -> Result<Self, Error> {
        match byte {
            0x00 => Ok(Self::Unspecified),
            0x11 => Ok(Self::V4),
            0x21 => Ok(Self::V6),
            0x31 => Ok(Self::Unix),
            _ => Err(Error::Header("its family or transport is unknown")),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
        }
    }

    fn addresses(self, body: &[u8]) -> Option<Addresses> {
        let (client, local, ports): (std::net::IpAddr, std::net::IpAddr, &[u8]) = match self {
            Self::Unspecified | Self::Unix => return None,
            Self::V4 => {
                let (client, rest) = body.split_first_chunk::<4>()?;
                let (local, ports) = rest.split_first_chunk::<4>()?;
                (
                    Ipv4Addr::from(*client).into(),
                    Ipv4Addr::from(*local).into(),
                    ports,
                )
            }
            Self::V6 => {
                let (client, rest) = body.split_first_chunk::<16>()?;
                let (local, ports) = rest.split_first_chunk::<16>()?;
                (
                    Ipv6Addr::from(*client).into(),
                    Ipv6Addr::from(*local).into(),
                    ports,
                )
            }
        };
        let (of_client, rest) = ports.split_first_chunk::<2>()?;
        let (of_local, _) = rest.split_first_chunk::<2>()?;
        Some(Addresses {
            client: canonical(SocketAddr::new(client, u16::from_be_bytes(*of_client))),
            local: canonical(SocketAddr::new(local, u16::from_be_bytes(*of_local))),
        })
    }
}

/// Goes through what was added; a checksum is checked, everything else is for others.
fn additions(header: &[u8], start: usize) -> Result<(), Error> {
    let mut at = start;
    let mut checked = false;
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else {
            return Err(Error::Header("an addition is cut off"));
        };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(bytes) = header.get(value.clone()) else {
            return Err(Error::Header("an addition is cut off"));
        };
        if kind == CRC32C {
            let told = <[u8; 4]>::try_from(bytes)
                .map(u32::from_be_bytes)
                .map_err(|_| Error::Header("its checksum is not of 4 bytes"))?;
            let parts = [&header[..value.start], &[0; 4], &header[value.end..]];
            if std::mem::replace(&mut checked, true) || crc32c(&parts) != told {
                return Err(Error::Header("its checksum is wrong"));
            }
        }
        at = value.end;
    }
    Ok(())
}

/// The Castagnoli CRC of RFC 9260 appendix A, bit by bit: a header is short and comes once a connection.
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}
