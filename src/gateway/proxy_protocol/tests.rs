//! Both forms by tables, and properties over whatever bytes come.

use proptest::prelude::*;

use super::{binary::SIGNATURE, *};

fn whole(bytes: &[u8]) -> Option<Addresses> {
    match parse(bytes) {
        Ok(Progress::Complete { addresses, length }) => {
            assert_eq!(length, bytes.len(), "{bytes:?}");
            addresses
        }
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(bytes)),
    }
}

fn addresses(client: &str, local: &str) -> Option<Addresses> {
    Some(Addresses {
        client: client.parse().unwrap(),
        local: local.parse().unwrap(),
    })
}

/// A version 2 header.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];

fn v6(client: &str, local: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut body = octets(client).to_vec();
    body.extend(octets(local));
    body.extend([0xdc, 0x04, 0x01, 0xbb]);
    body
}

/// A header with a right checksum behind the addresses and before another addition.
fn with_checksum() -> Vec<u8> {
    let mut body = V4.to_vec();
    body.extend([0x03, 0, 4, 0, 0, 0, 0]);
    body.extend([0x04, 0, 1, 0]);
    let mut bytes = v2(0x21, 0x11, &body);
    let crc = binary::crc32c(&[&bytes]).to_be_bytes();
    bytes[16 + 12 + 3..16 + 12 + 7].copy_from_slice(&crc);
    bytes
}

#[test]
fn lines_are_read() {
    let v4 = addresses("192.0.2.1:56324", "198.51.100.1:443");
    assert_eq!(
        whole(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"),
        v4
    );
    assert_eq!(
        whole(b"PROXY TCP6 2001:db8::1 2001:DB8::2 0 65535\r\n"),
        addresses("[2001:db8::1]:0", "[2001:db8::2]:65535")
    );
    assert_eq!(
        whole(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6401 56324 443\r\n"),
        v4,
        "mapped addresses are IPv4 addresses"
    );
    let longest = format!(
        "PROXY TCP6 {0} {0} 65535 65535\r\n",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    );
    assert_eq!(longest.len(), 104);
    assert!(whole(longest.as_bytes()).is_some());
    let unknown: [&[u8]; 2] = [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN any thing\x01\xff \r\n",
    ];
    for line in unknown {
        assert_eq!(whole(line), None);
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
    assert_eq!((longest.len(), whole(longest.as_bytes())), (107, None));
}

#[test]
fn lines_that_are_not_exactly_right_are_refused() {
    for bad in [
        "proxy TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 x\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\rx",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\r\n",
        "PROXY TCP4\t192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 0x7f.0.0.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 443\r\n",
        "PROXY TCP6 [2001:db8::1] 2001:db8::2 56324 443\r\n",
        "PROXY TCP6 1:2:3:4:5:6:7:8:9 2001:db8::2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 -1 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1  443\r\n",
        "PROXY TCP4 example.com 198.51.100.1 1 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.1 1 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN \u{e9}\n",
        "PROXY \r\n",
        "PROXY\r\n",
        "PROXY TCP4 192.0.2.1\u{e9} 198.51.100.1 1 443\r\n",
        "GET / HTTP/1.1\r\n",
        "PUT / HTTP/1.1\r\n",
        "\x16\x03\x01",
    ] {
        assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert!(parse(long.as_bytes()).is_err() && parse(&long.as_bytes()[..107]).is_err());
    assert!(parse(&long.as_bytes()[..106]).is_ok());
}

#[test]
fn headers_are_read() {
    assert_eq!(
        whole(&v2(0x21, 0x11, &V4)),
        addresses("192.0.2.1:56324", "198.51.100.1:443")
    );
    assert_eq!(
        whole(&v2(0x21, 0x21, &v6("2001:db8::1", "2001:db8::2"))),
        addresses("[2001:db8::1]:56324", "[2001:db8::2]:443")
    );
    assert_eq!(
        whole(&v2(0x21, 0x21, &v6("::ffff:192.0.2.1", "2001:db8::2"))),
        addresses("192.0.2.1:56324", "[2001:db8::2]:443")
    );
    let mut added = V4.to_vec();
    added.extend([0x01, 0, 2, b'h', b'2', 0x04, 0, 0, 0xea, 0, 1, 0xff]);
    assert!(whole(&v2(0x21, 0x11, &added)).is_some());
    for own in [
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &V4),
        v2(0x20, 0xff, b"what a LOCAL block holds is ignored"),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x00, &[0x04, 0, 0]),
        v2(0x21, 0x31, &[0; 216]),
    ] {
        assert_eq!(whole(&own), None, "{own:?}");
    }
    assert!(whole(&v2(0x20, 0x00, &[0; BODY_MAX])).is_none());
}

#[test]
fn headers_that_are_not_exactly_right_are_refused() {
    let added = |tail: &[u8]| v2(0x21, 0x11, &[&V4[..], tail].concat());
    for (bad, why) in [
        (v2(0x11, 0x11, &V4), "version 1"),
        (v2(0x31, 0x11, &V4), "version 3"),
        (v2(0x22, 0x11, &V4), "an unknown command"),
        (v2(0x21, 0x12, &V4), "datagrams"),
        (v2(0x21, 0x10, &V4), "no transport"),
        (v2(0x21, 0x01, &V4), "no family"),
        (v2(0x21, 0x41, &V4), "an unknown family"),
        (v2(0x21, 0x11, &V4[..11]), "shorter than its addresses"),
        (v2(0x21, 0x21, &V4), "IPv6 as short as IPv4"),
        (v2(0x21, 0x31, &[0; 215]), "a short Unix address"),
        (added(&[0x04]), "an addition without length"),
        (added(&[0x04, 0]), "an addition without length"),
        (added(&[0x04, 0, 2, 0]), "an addition longer than the rest"),
        (added(&[0x03, 0, 3, 0, 0, 0]), "a checksum of 3 bytes"),
        (added(&[0x03, 0, 4, 1, 2, 3, 4]), "a wrong checksum"),
        (v2(0x20, 0x00, &[0; BODY_MAX + 1]), "too long"),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "another signature"),
        (b"\r\n\r\nGET".to_vec(), "no signature"),
    ] {
        assert!(parse(&bad).is_err(), "{why}");
    }
    assert!(
        parse(&v2(0x21, 0x11, &V4)[..14]).is_ok(),
        "and the first of them was not refused for being short"
    );
}

#[test]
fn a_checksum_is_checked() {
    assert_eq!(binary::crc32c(&[b"12345", b"6789"]), 0xe306_9283);
    let good = with_checksum();
    assert!(whole(&good).is_some());
    for at in 16..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // Some changes make another addition of the checksum: all others are noticed.
        if let Ok(progress) = parse(&bad) {
            assert!(
                at == 16 + 12 || !matches!(progress, Progress::Complete { .. }),
                "{at}"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_beyond_the_bound_are_asked_for(bytes: Vec<u8>, kind in 0..4_u8) {
        let bytes = match kind {
            0 => bytes,
            1 => [b"PROXY ", &bytes[..]].concat(),
            2 => [&SIGNATURE[..], &bytes].concat(),
            _ => v2(0x21, 0x11, &[&V4, &bytes[..]].concat()),
        };
        match parse(&bytes) {
            Ok(Progress::Complete { length, .. }) => prop_assert!(length <= bytes.len()),
            Ok(Progress::Incomplete { at_least }) => {
                prop_assert!(at_least > bytes.len() && at_least <= 16 + BODY_MAX);
            }
            Err(_) => {}
        }
    }

    #[test]
    fn every_prefix_of_a_header_waits_and_what_follows_is_left(
        client: std::net::SocketAddr, local: std::net::SocketAddr, binary: bool, rest: Vec<u8>
    ) {
        let same = client.is_ipv4() == local.is_ipv4();
        prop_assume!(same);
        let header = match (binary, client.ip(), local.ip()) {
            (false, from, to) => format!(
                "PROXY TCP{} {from} {to} {} {}\r\n",
                if client.is_ipv4() { 4 } else { 6 }, client.port(), local.port()
            ).into_bytes(),
            (true, std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => v2(0x21, 0x11, &[
                &from.octets()[..], &to.octets(), &client.port().to_be_bytes(), &local.port().to_be_bytes()
            ].concat()),
            (true, std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => v2(0x21, 0x21, &[
                &from.octets()[..], &to.octets(), &client.port().to_be_bytes(), &local.port().to_be_bytes()
            ].concat()),
            _ => unreachable!(),
        };
        for cut in 0..header.len() {
            prop_assert!(matches!(parse(&header[..cut]), Ok(Progress::Incomplete { .. })), "{}", cut);
        }
        let expected = Progress::Complete {
            addresses: Some(Addresses { client: canonical(client), local: canonical(local) }),
            length: header.len(),
        };
        prop_assert_eq!(parse(&[header, rest].concat()).unwrap(), expected);
    }
}
