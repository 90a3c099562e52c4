//! What RFC 9113 allows passes, however rare it is.
//!
//! Not here: what breaks its rules (`h2_framing`).

use crate::support::{
    HOST, Outcome, RawH2, Setup, TestGateway, Upstream,
    raw_h2::{Frame, flag, frame, indexed_literal, kind, literal, reference, setting},
};

const HEAD: u8 = flag::END_HEADERS;
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

async fn gateway() -> (Upstream, TestGateway) {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    (upstream, gateway)
}

#[tokio::test]
async fn what_the_rules_allow_passes() {
    let (upstream, gateway) = gateway().await;
    let mut client = RawH2::connect(&gateway, HOST).await;
    // Unknown frames, settings and flags; a reserved bit; priorities; PING.
    let ping = frame(kind::PING, 0, 0, &[7; 8]);
    let bytes = [
        frame(0x16, 0xff, 3, b"grease"),
        frame(kind::SETTINGS, 0, 0, &setting(0x4a4a, 7)),
        frame(kind::PRIORITY, 0, 7, &[0, 0, 0, 3, 9]),
        frame(kind::PING, flag::ACK, 0, &[1; 8]),
        frame(kind::WINDOW_UPDATE, 0, 0x8000_0000, &[0x80, 0, 0, 1]),
        ping,
    ]
    .concat();
    client.raw(&bytes).await.unwrap();
    let pong = loop {
        let frame = client.next().await.unwrap();
        if frame.kind == kind::PING {
            break frame;
        }
    };
    assert_eq!((pong.flags, pong.payload), (flag::ACK, vec![7; 8]));
    // A padded head in four frames with a priority, a padded body, trailers.
    let block = client.block(
        "POST",
        "/padded",
        &[("te", "trailers"), ("content-length", "3")],
    );
    let third = block.len() / 3;
    let first = [&[2, 0, 0, 0, 0, 5], &block[..third], &[0, 0]].concat();
    let bytes = [
        frame(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, &first),
        frame(kind::CONTINUATION, 0, 1, &block[third..2 * third]),
        frame(kind::CONTINUATION, 0, 1, b""),
        frame(kind::CONTINUATION, HEAD, 1, &block[2 * third..]),
        frame(kind::DATA, flag::PADDED, 1, &[1, b'a', b'b', 0]),
        frame(kind::DATA, 0, 1, b"c"),
        frame(kind::HEADERS, WHOLE, 1, &literal("x-checksum", "1")),
    ]
    .concat();
    client.raw(&bytes).await.unwrap();
    assert_eq!(
        client.outcome(1).await,
        Outcome::Answer(200, b"abc".to_vec())
    );
    assert_eq!(upstream.last().target, "/padded");
    // The dynamic table, and a host that says the same as the authority.
    let mut block = client.block("GET", "/table", &[]);
    block.extend(indexed_literal("x-kept", "value"));
    client.send(kind::HEADERS, WHOLE, 3, &block).await;
    assert!(matches!(client.outcome(3).await, Outcome::Answer(200, _)));
    let mut block = client.block("GET", "/table", &[("host", HOST)]);
    block.push(reference(62));
    client.send(kind::HEADERS, WHOLE, 5, &block).await;
    assert!(matches!(client.outcome(5).await, Outcome::Answer(200, _)));
    assert_eq!(upstream.last().header("x-kept"), Some("value"));
    // Without an authority the host counts.
    let mut block = Vec::new();
    let token = gateway.owner();
    for (name, value) in [
        (":method", "GET"),
        (":path", "/host"),
        (":scheme", "https"),
        ("host", HOST),
        ("x-gitspace-token", &token),
    ] {
        block.extend(literal(name, value));
    }
    client.send(kind::HEADERS, WHOLE, 7, &block).await;
    assert!(matches!(client.outcome(7).await, Outcome::Answer(200, _)));
}

#[tokio::test]
async fn an_answer_waits_for_its_window() {
    let (_upstream, gateway) = gateway().await;
    let mut client = RawH2::with_settings(&gateway, HOST, &[(4, 0)]).await;
    client.request(1, "GET", &[], true).await;
    while client.next().await.unwrap().kind != kind::HEADERS {}
    // One byte more for every stream, and then all for this one.
    client.send(kind::SETTINGS, 0, 0, &setting(4, 1)).await;
    let data = async |client: &mut RawH2| loop {
        let read = client.next().await.unwrap();
        if read.kind == kind::DATA && !read.payload.is_empty() {
            return read.payload;
        }
    };
    assert_eq!(data(&mut client).await, b"h");
    // The window is one below zero now.
    client.send(kind::SETTINGS, 0, 0, &setting(4, 0)).await;
    client.send(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2]).await;
    assert_eq!(data(&mut client).await, b"e");
    client.send(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]).await;
    assert_eq!(data(&mut client).await, b"llo");
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_and_what_comes_of_it_costs_nobody_a_window() {
    let (upstream, gateway) = gateway().await;
    let mut client = RawH2::connect(&gateway, HOST).await;
    let anonymous: Vec<u8> = [
        (":method", "POST"),
        (":path", "/"),
        (":scheme", "https"),
        (":authority", HOST),
    ]
    .iter()
    .flat_map(|(name, value)| literal(name, value))
    .collect();
    // Four times the window of the connection, in all, and never more than it allows.
    const SENT: i64 = 13 * 16_384;
    let mut window = 65_535;
    for stream in (0..20).map(|number| 2 * number + 1) {
        while window < SENT {
            window += opened(&client.next().await.expect("the window opens again"));
        }
        let mut bytes = frame(kind::HEADERS, HEAD, stream, &anonymous);
        for _ in 0..13 {
            bytes.extend(frame(kind::DATA, 0, stream, &[0; 16_384]));
        }
        client.raw(&bytes).await.unwrap();
        window -= SENT;
        loop {
            let read = client.next().await.expect("the connection lives");
            window += opened(&read);
            if read.kind == kind::DATA && read.stream == stream {
                let body = String::from_utf8(read.payload).unwrap();
                assert!(body.contains("no-token"), "{body}");
                break;
            }
        }
    }
    assert!(client.lives(101).await);
    assert_eq!(upstream.seen().len(), 1);
}

/// By how much a frame opens the connection's window.
fn opened(read: &Frame) -> i64 {
    match read.payload[..] {
        [a, b, c, d] if read.kind == kind::WINDOW_UPDATE && read.stream == 0 => {
            i64::from(u32::from_be_bytes([a, b, c, d]))
        }
        _ => 0,
    }
}
