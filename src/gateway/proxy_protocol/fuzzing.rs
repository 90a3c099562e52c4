//! The fuzz target of the PROXY protocol: what is taken says what a second reading of the same bytes says, however it comes.

use std::net::{IpAddr, SocketAddr};

use super::{Addresses, BODY_MAX, Progress, parse};

/// What a balancer sends first.
pub(in crate::gateway) fn proxy_protocol(data: &[u8]) {
    match parse(data) {
        Ok(Progress::Complete { addresses, length }) => {
            assert!(length <= data.len() && length <= 16 + BODY_MAX);
            let header = &data[..length];
            for cut in (0..length).rev().take(120) {
                let early = matches!(parse(&header[..cut]), Ok(Progress::Incomplete { .. }));
                assert!(early, "a part of {cut} bytes is decided otherwise");
            }
            let whole = Progress::Complete { addresses, length };
            assert!(parse(header).is_ok_and(|again| again == whole));
            assert_eq!(addresses, read_again(header));
        }
        Ok(Progress::Incomplete { at_least }) => {
            assert!(at_least > data.len() && at_least <= 16 + BODY_MAX);
        }
        Err(_) => {
            for more in [&b"\r\n"[..], b"\0\0\0\0", b" 1"] {
                assert!(parse(&[data, more].concat()).is_err(), "refused, then not");
            }
        }
    }
}

/// Taken apart in another way.
fn read_again(header: &[u8]) -> Option<Addresses> {
    let found = if header.starts_with(b"PROXY ") {
        text(header)
    } else {
        binary(header)
    };
    found.map(|(client, local)| Addresses {
        client: SocketAddr::new(client.ip().to_canonical(), client.port()),
        local: SocketAddr::new(local.ip().to_canonical(), local.port()),
    })
}

fn text(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    assert!(header.len() <= 107 && header.ends_with(b"\r\n"));
    let line = &header[..header.len() - 2];
    assert!(!line.contains(&b'\r') && !line.contains(&b'\n'));
    if line.starts_with(b"PROXY UNKNOWN") {
        return None;
    }
    let words: Vec<&str> = line
        .split(|byte| *byte == b' ')
        .filter_map(|word| std::str::from_utf8(word).ok())
        .collect();
    let [_, family, from, to, from_port, to_port] = words[..] else {
        panic!("{} words were taken", words.len());
    };
    let address = |text: &str, port: &str| {
        let (Ok(ip), Ok(number)) = (text.parse::<IpAddr>(), port.parse::<u16>()) else {
            panic!("{text} and {port} were taken");
        };
        assert_eq!(number.to_string(), port, "two spellings of a port");
        assert_eq!(family, if ip.is_ipv4() { "TCP4" } else { "TCP6" });
        SocketAddr::new(ip, number)
    };
    Some((address(from, from_port), address(to, to_port)))
}

fn binary(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    assert_eq!(header.len(), 16 + usize::from(number(14)));
    let octets = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).unwrap_or_default();
    match (header[12], header[13]) {
        (0x21, 0x11) => {
            let v4 = |at: usize| {
                IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            Some((
                SocketAddr::new(v4(16), number(24)),
                SocketAddr::new(v4(20), number(26)),
            ))
        }
        (0x21, 0x21) => Some((
            SocketAddr::new(octets(16).into(), number(48)),
            SocketAddr::new(octets(32).into(), number(50)),
        )),
        (0x20, _) | (0x21, 0x00 | 0x31) => None,
        (command, family) => panic!("{command:#x} {family:#x} was taken"),
    }
}
