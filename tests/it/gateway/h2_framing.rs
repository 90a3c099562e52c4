//! HTTP/2 that breaks the rules of RFC 9113: every case ends its stream or its connection, and nothing of it reaches an upstream.
//!
//! Not here: frames that are each in order and too many (`h2_abuse`).

use crate::support::{
    HOST, Outcome, RawH2, Setup, TestGateway, Upstream,
    raw_h2::{PREFACE, code, flag, frame, indexed_literal, kind, literal, reference, setting},
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

#[tokio::test]
async fn what_breaks_a_stream_ends_it() {
    let (upstream, gateway) = gateway().await;
    let cases: [(&str, fn(&RawH2) -> Vec<u8>); 6] = [
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
    let after_reset = |client: &RawH2| {
        [
            head(client, HEAD),
            frame(kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let mut client = RawH2::connect(&gateway, HOST).await;
    let bytes = after_reset(&client);
    client.raw(&bytes).await.unwrap();
    assert!(client.lives(3).await, "a reset is no error");
    assert!(upstream.seen().iter().all(|seen| seen.body.is_empty()));
}

/// A block that is the usual request but for what `change` makes of its parts.
fn malformed(client: &RawH2) -> Vec<(String, Vec<u8>)> {
    let usual = |fields: &[(&str, &str)]| client.block("GET", "/", fields);
    let without = |name: &str| -> Vec<u8> {
        let all = [
            (":method", "GET"),
            (":path", "/"),
            (":scheme", "https"),
            (":authority", HOST),
        ];
        all.iter()
            .filter(|(known, _)| *known != name)
            .flat_map(|(name, value)| literal(name, value))
            .collect()
    };
    let pseudo = |name: &str, value: &str| [without(name), literal(name, value)].concat();
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut case = |name: &str, block: Vec<u8>| cases.push((name.to_owned(), block));
    case("an upper-case name", usual(&[("X-Test", "1")]));
    case("a name with a space", usual(&[("x test", "1")]));
    case("a name with a colon", usual(&[("x:test", "1")]));
    case("an empty name", usual(&[("", "1")]));
    case(
        "a name with a line break",
        usual(&[("x\r\ntransfer-encoding: chunked\r\ny", "1")]),
    );
    case("a name with NUL", usual(&[("x\0", "1")]));
    for value in [
        "a\r\nTransfer-Encoding: chunked",
        "a\nb",
        "a\rb",
        "a\0b",
        " a",
        "a ",
        "\ta",
        "a\t",
    ] {
        case(&format!("the value {value:?}"), usual(&[("x-test", value)]));
        case(
            &format!("the cookie {value:?}"),
            usual(&[("cookie", value)]),
        );
    }
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-test"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        (":path", "/other"),
        (":unknown", "x"),
        (":status", "200"),
        ("content-length", "5"),
        ("content-length", ""),
        ("content-length", "+0"),
        ("content-length", "0x0"),
        ("content-length", "-1"),
        ("content-length", "99999999999999999999"),
        ("content-length", "0, 0"),
        ("host", "other.gitspaces.localhost"),
    ] {
        case(&format!("{name}: {value}"), usual(&[(name, value)]));
    }
    case(
        "two lengths",
        usual(&[("content-length", "0"), ("content-length", "0")]),
    );
    case("two hosts", usual(&[("host", HOST), ("host", HOST)]));
    for name in [":method", ":path", ":scheme"] {
        case(&format!("no {name}"), without(name));
        case(
            &format!("two {name}"),
            [without(""), literal(name, "GET")].concat(),
        );
    }
    case("no authority at all", without(":authority"));
    case(
        "a pseudo-header behind fields",
        [literal("x-test", "1"), without("")].concat(),
    );
    case(
        "the protocol of an extended CONNECT",
        [without(""), literal(":protocol", "websocket")].concat(),
    );
    for path in [
        "",
        "x",
        "*",
        "?x",
        "#x",
        "/a b",
        "/a\tb",
        "/a\r\nx-evil: 1",
        "/a\0",
        "/a HTTP/1.1\r\nhost: x\r\n\r\n",
        "http://other.test/",
        "/a#b",
        "/a?b#c",
        "//\u{7f}",
    ] {
        case(&format!("the path {path:?}"), pseudo(":path", path));
    }
    for method in [
        "",
        "GET ",
        "G T",
        "GET\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\r\nGET",
        "G\0T",
        "G:T",
        "G(T",
    ] {
        case(&format!("the method {method:?}"), pseudo(":method", method));
    }
    for scheme in [
        "",
        "https://other.test/?",
        "ht tp",
        "ftp",
        "javascript",
        "https\r\n",
    ] {
        case(&format!("the scheme {scheme:?}"), pseudo(":scheme", scheme));
    }
    for authority in [
        "",
        "a b",
        "user@app-a1b2c3.gitspaces.localhost",
        "app-a1b2c3.gitspaces.localhost/x",
        "app-a1b2c3.gitspaces.localhost\r\nx-evil: 1",
        "app-a1b2c3.gitspaces.localhost:x",
        "#",
    ] {
        case(
            &format!("the authority {authority:?}"),
            pseudo(":authority", authority),
        );
    }
    case(
        "CONNECT",
        [literal(":method", "CONNECT"), literal(":authority", HOST)].concat(),
    );
    case("TRACE", pseudo(":method", "TRACE"));
    cases
}

#[tokio::test]
async fn malformed_requests_are_refused_and_nothing_of_them_reaches_the_upstream() {
    let (upstream, gateway) = gateway().await;
    let client = RawH2::bare(&gateway, HOST).await;
    let mut passed = Vec::new();
    for (name, mut block) in malformed(&client) {
        // Each with a token: who asks is not what it is refused for.
        block.extend(literal("x-gitspace-token", gateway.owner()));
        let mut client = RawH2::connect(&gateway, HOST).await;
        client.send(kind::HEADERS, WHOLE, 1, &block).await;
        match client.outcome(1).await {
            Outcome::Answer(401 | 429, _) => passed.push(format!("{name}: not refused for it")),
            Outcome::Answer(400..=499, _) | Outcome::Closed => {}
            Outcome::Reset(reason) | Outcome::GoAway(reason) if reason != code::NO_ERROR => {}
            other => passed.push(format!("{name}: {other:?}")),
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
    assert_eq!(upstream.seen().len(), 0, "{:#?}", upstream.seen());
    assert!(RawH2::connect(&gateway, HOST).await.lives(1).await);
}

#[tokio::test]
async fn bodies_that_lie_about_their_length_are_reset() {
    let (upstream, gateway) = gateway().await;
    for (name, sent) in [("short", &b"123"[..]), ("long", b"1234567"), ("none", b"")] {
        let outcome = outcome(&gateway, |client| {
            let block = client.block("POST", "/", &[("content-length", "5")]);
            [
                frame(kind::HEADERS, HEAD, 1, &block),
                frame(kind::DATA, flag::END_STREAM, 1, sent),
            ]
            .concat()
        })
        .await;
        refused(name, &outcome);
    }
    // Trailers end a body as well.
    let short = outcome(&gateway, |client| {
        let block = client.block("POST", "/", &[("content-length", "5")]);
        [
            frame(kind::HEADERS, HEAD, 1, &block),
            frame(kind::DATA, 0, 1, b"123"),
            frame(kind::HEADERS, WHOLE, 1, &literal("x-checksum", "1")),
        ]
        .concat()
    })
    .await;
    refused("trailers after a short body", &short);
    assert!(
        upstream.seen().is_empty(),
        "no whole request came: {:?}",
        upstream.seen()
    );
}

#[tokio::test]
async fn trailers_hold_no_pseudo_header_and_nothing_of_a_connection() {
    let (upstream, gateway) = gateway().await;
    for (name, trailers) in [
        ("an indexed pseudo-header", vec![reference(2)]),
        ("a literal pseudo-header", literal(":path", "/admin")),
        (
            "a pseudo-header's name from the table",
            vec![0x04, 2, b'/', b'x'],
        ),
        ("an unknown pseudo-header", literal(":x", "1")),
        ("a framing field", literal("transfer-encoding", "chunked")),
        ("an upper-case name", literal("X-Test", "1")),
        ("a line break", literal("x-test", "1\r\nx-evil: 1")),
    ] {
        let outcome = outcome(&gateway, |client| {
            [
                head(client, HEAD),
                frame(kind::DATA, 0, 1, b"123"),
                frame(kind::HEADERS, WHOLE, 1, &trailers),
            ]
            .concat()
        })
        .await;
        refused(name, &outcome);
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
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
