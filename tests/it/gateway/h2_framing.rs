//! HTTP/2 that breaks the rules of RFC 9113: every case ends its stream or its connection, and nothing of it reaches an upstream.
//!
//! Not here: frames that are each in order and too many (`h2_abuse`).

use crate::support::{
    HOST, Outcome, RawH2, Setup, TestGateway, Upstream,
    raw_h2::{PREFACE, code, flag, frame, kind, literal, reference, setting},
};

const HEAD: u8 = flag::END_HEADERS;
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

async fn gateway() -> (Upstream, TestGateway) {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    (upstream, gateway)
}

/// How stream 1 ends after these bytes on a connection of their own.
async fn outcome(gateway: &TestGateway, bytes: impl FnOnce(&RawH2) -> Vec<u8>) -> Outcome {
    let mut client = RawH2::connect(gateway, HOST).await;
    let bytes = bytes(&client);
    let _ = client.raw(&bytes).await;
    client.outcome(1).await
}

/// The connection must end with an error.
#[track_caller]
fn ends(name: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Closed => {}
        Outcome::GoAway(reason) if *reason != code::NO_ERROR => {}
        other => panic!("{name}: {other:?}"),
    }
}

/// The stream, or its connection, must end with an error, or an answer that says so.
#[track_caller]
fn refused(name: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Reset(reason) if *reason != code::NO_ERROR => {}
        Outcome::Answer(400..=499, _) => {}
        other => ends(name, other),
    }
}

fn head(client: &RawH2, flags: u8) -> Vec<u8> {
    let block = client.block("POST", "/", &[]);
    frame(kind::HEADERS, flags, 1, &block)
}

fn reset() -> Vec<u8> {
    frame(kind::RST_STREAM, 0, 1, &code::CANCEL.to_be_bytes())
}

/// What must end the connection, before or beside any request.
fn connection_errors(client: &RawH2) -> Vec<(&'static str, Vec<u8>)> {
    let whole = client.block("GET", "/", &[]);
    let open = head(client, HEAD);
    let after = |bytes: Vec<u8>| [open.clone(), bytes].concat();
    let update = |increment: u32| increment.to_be_bytes();
    vec![
        (
            "a frame larger than was allowed",
            frame(kind::DATA, 0, 1, &[0; 16_385]),
        ),
        (
            "a head larger than a frame may be",
            frame(kind::HEADERS, WHOLE, 1, &[0x82; 16_385]),
        ),
        (
            "HEADERS on stream 0",
            frame(kind::HEADERS, WHOLE, 0, &whole),
        ),
        (
            "HEADERS on an even stream",
            frame(kind::HEADERS, WHOLE, 2, &whole),
        ),
        (
            "HEADERS on an older stream",
            [
                frame(kind::HEADERS, WHOLE, 5, &whole),
                frame(kind::HEADERS, WHOLE, 3, &whole),
            ]
            .concat(),
        ),
        ("DATA on stream 0", frame(kind::DATA, 0, 0, b"x")),
        ("DATA on an idle stream", frame(kind::DATA, 0, 1, b"x")),
        (
            "RST_STREAM on an idle stream",
            frame(kind::RST_STREAM, 0, 1, &update(8)),
        ),
        (
            "RST_STREAM on stream 0",
            frame(kind::RST_STREAM, 0, 0, &update(8)),
        ),
        (
            "RST_STREAM of 3 bytes",
            after(frame(kind::RST_STREAM, 0, 1, &[0; 3])),
        ),
        (
            "WINDOW_UPDATE on an idle stream",
            frame(kind::WINDOW_UPDATE, 0, 1, &update(1)),
        ),
        (
            "WINDOW_UPDATE by 0",
            frame(kind::WINDOW_UPDATE, 0, 0, &update(0)),
        ),
        (
            "WINDOW_UPDATE of 3 bytes",
            frame(kind::WINDOW_UPDATE, 0, 0, &[1; 3]),
        ),
        (
            "a window that overflows",
            frame(kind::WINDOW_UPDATE, 0, 0, &update(0x7fff_ffff)),
        ),
        (
            "SETTINGS on a stream",
            after(frame(kind::SETTINGS, 0, 1, b"")),
        ),
        ("SETTINGS of 5 bytes", frame(kind::SETTINGS, 0, 0, &[0; 5])),
        (
            "an ACK of SETTINGS with payload",
            frame(kind::SETTINGS, flag::ACK, 0, &setting(3, 1)),
        ),
        (
            "push that is neither on nor off",
            frame(kind::SETTINGS, 0, 0, &setting(2, 2)),
        ),
        (
            "a window beyond 2^31-1",
            frame(kind::SETTINGS, 0, 0, &setting(4, 0x8000_0000)),
        ),
        (
            "a frame size below 2^14",
            frame(kind::SETTINGS, 0, 0, &setting(5, 16_383)),
        ),
        (
            "a frame size above 2^24-1",
            frame(kind::SETTINGS, 0, 0, &setting(5, 1 << 24)),
        ),
        ("PING on a stream", after(frame(kind::PING, 0, 1, &[0; 8]))),
        ("PING of 7 bytes", frame(kind::PING, 0, 0, &[0; 7])),
        (
            "GOAWAY on a stream",
            after(frame(kind::GOAWAY, 0, 1, &[0; 8])),
        ),
        ("GOAWAY of 7 bytes", frame(kind::GOAWAY, 0, 0, &[0; 7])),
        (
            "PUSH_PROMISE from a client",
            after(frame(kind::PUSH_PROMISE, HEAD, 1, &[0, 0, 0, 2, 0x82])),
        ),
        (
            "PRIORITY on stream 0",
            frame(kind::PRIORITY, 0, 0, &[0, 0, 0, 1, 0]),
        ),
        (
            "CONTINUATION without a head",
            frame(kind::CONTINUATION, HEAD, 1, &whole),
        ),
        (
            "CONTINUATION after a whole head",
            after(frame(kind::CONTINUATION, HEAD, 1, b"")),
        ),
        (
            "CONTINUATION of another stream",
            [
                frame(kind::HEADERS, 0, 1, &whole),
                frame(kind::CONTINUATION, HEAD, 3, b""),
            ]
            .concat(),
        ),
        (
            "DATA within a head",
            [
                frame(kind::HEADERS, 0, 1, &whole),
                frame(kind::DATA, 0, 1, b"x"),
            ]
            .concat(),
        ),
        (
            "a head within a head",
            [
                frame(kind::HEADERS, 0, 1, &whole),
                frame(kind::HEADERS, WHOLE, 3, &whole),
            ]
            .concat(),
        ),
        (
            "an unknown frame within a head",
            [frame(kind::HEADERS, 0, 1, &whole), frame(0x16, 0, 0, b"x")].concat(),
        ),
        (
            "padding longer than the DATA",
            after(frame(kind::DATA, flag::PADDED, 1, &[9, 1])),
        ),
        (
            "padding longer than the head",
            frame(kind::HEADERS, WHOLE | flag::PADDED, 1, &[9, 0x82]),
        ),
        (
            "padding without its length",
            after(frame(kind::DATA, flag::PADDED, 1, b"")),
        ),
        (
            "a priority without its bytes",
            frame(kind::HEADERS, WHOLE | flag::PRIORITY, 1, &[0; 3]),
        ),
        ("an index of 0", frame(kind::HEADERS, WHOLE, 1, &[0x80])),
        (
            "an index beyond the tables",
            frame(kind::HEADERS, WHOLE, 1, &[reference(70)]),
        ),
        (
            "an integer without end",
            frame(kind::HEADERS, WHOLE, 1, &[0xff; 12]),
        ),
        (
            "a string beyond the block",
            frame(kind::HEADERS, WHOLE, 1, &[0, 10, b'x']),
        ),
        (
            "a Huffman code without end",
            frame(
                kind::HEADERS,
                WHOLE,
                1,
                &[0x04, 0x84, 0xff, 0xff, 0xff, 0xff],
            ),
        ),
        (
            "a Huffman code that is filled with zeroes",
            frame(kind::HEADERS, WHOLE, 1, &[0x04, 0x81, 0x18]),
        ),
        (
            "a Huffman code that is filled with a whole byte",
            frame(kind::HEADERS, WHOLE, 1, &[0x04, 0x82, 0x1f, 0xff]),
        ),
        (
            "CONTINUATION of stream 0",
            [
                frame(kind::HEADERS, 0, 1, &whole),
                frame(kind::CONTINUATION, HEAD, 0, b""),
            ]
            .concat(),
        ),
        (
            "PRIORITY within a head",
            [
                frame(kind::HEADERS, 0, 1, &whole),
                frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 0]),
            ]
            .concat(),
        ),
        (
            "a table larger than was allowed",
            frame(kind::HEADERS, WHOLE, 1, &[0x3f, 0xe2, 0x1f]),
        ),
        (
            "a table's size behind fields",
            frame(kind::HEADERS, WHOLE, 1, &[0x82, 0x20]),
        ),
    ]
}

#[tokio::test]
async fn what_breaks_a_connection_ends_it() {
    let (upstream, gateway) = gateway().await;
    let client = RawH2::bare(&gateway, HOST).await;
    for (name, bytes) in connection_errors(&client) {
        let mut client = RawH2::connect(&gateway, HOST).await;
        let _ = client.raw(&bytes).await;
        ends(name, &client.ended().await);
    }
    assert!(RawH2::connect(&gateway, HOST).await.lives(1).await);
    let bodies = upstream.seen();
    assert!(bodies.iter().all(|seen| seen.body.is_empty()), "{bodies:?}");
}

#[tokio::test]
async fn what_is_no_http2_preface_ends_the_connection() {
    let (upstream, gateway) = gateway().await;
    let cases: [(&str, &[u8]); 4] = [
        ("another method", b"GET / HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (
            "HTTP/1.1",
            b"GET / HTTP/1.1\r\nhost: app-a1b2c3.gitspaces.localhost\r\n\r\n",
        ),
        ("a wrong ending", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
        ("nothing but zeroes", &[0; 64]),
    ];
    for (name, bytes) in cases {
        let mut client = RawH2::bare(&gateway, HOST).await;
        let _ = client.raw(bytes).await;
        ends(name, &client.ended().await);
    }
    // Something else than SETTINGS behind the preface.
    let mut client = RawH2::bare(&gateway, HOST).await;
    let bytes = [PREFACE, &frame(kind::PING, 0, 0, &[0; 8])].concat();
    let _ = client.raw(&bytes).await;
    ends("PING first", &client.ended().await);
    assert!(upstream.seen().is_empty());
}

/// The frames of one case.
type Frames = fn(&RawH2) -> Vec<u8>;

#[tokio::test]
async fn what_breaks_a_stream_ends_it() {
    let (upstream, gateway) = gateway().await;
    let cases: [(&str, Frames); 8] = [
        ("HEADERS after END_STREAM", |client| {
            [head(client, WHOLE), head(client, WHOLE)].concat()
        }),
        ("DATA after END_STREAM", |client| {
            [head(client, WHOLE), frame(kind::DATA, 0, 1, b"x")].concat()
        }),
        ("trailers that do not end the stream", |client| {
            let trailers = literal("x-checksum", "1");
            [head(client, HEAD), frame(kind::HEADERS, HEAD, 1, &trailers)].concat()
        }),
        ("a stream that depends on itself", |client| {
            let block = [&[0, 0, 0, 1, 0][..], &client.block("GET", "/", &[])].concat();
            frame(kind::HEADERS, WHOLE | flag::PRIORITY, 1, &block)
        }),
        ("PRIORITY of a stream on itself", |client| {
            [
                head(client, HEAD),
                frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0]),
            ]
            .concat()
        }),
        ("DATA after its reset", |client| {
            [head(client, HEAD), reset(), frame(kind::DATA, 0, 1, b"x")].concat()
        }),
        ("HEADERS after its reset", |client| {
            [head(client, HEAD), reset(), head(client, WHOLE)].concat()
        }),
        ("a stream's window that overflows", |client| {
            let increment = 0x7fff_ffff_u32.to_be_bytes();
            [
                head(client, HEAD),
                frame(kind::WINDOW_UPDATE, 0, 1, &increment),
            ]
            .concat()
        }),
    ];
    for (name, bytes) in cases {
        refused(name, &outcome(&gateway, bytes).await);
    }
    let mut client = RawH2::connect(&gateway, HOST).await;
    let bytes = [head(&client, HEAD), reset()].concat();
    client.raw(&bytes).await.unwrap();
    assert!(client.lives(3).await, "a reset is no error");
    assert!(upstream.seen().iter().all(|seen| seen.body.is_empty()));
}
