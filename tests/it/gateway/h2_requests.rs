//! Requests over HTTP/2 that RFC 9113 §8 calls malformed, and what a downgrade to HTTP/1.1 would make of them: nothing of them
//! reaches an upstream.
//!
//! Not here: frames (`h2_framing`).

use crate::support::{
    HOST, Outcome, RawH2, Setup, TestGateway, Upstream,
    raw_h2::{code, flag, frame, kind, literal, reference},
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

/// The stream, or its connection, must end with an error, or an answer that says so.
#[track_caller]
fn refused(name: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Reset(reason) if *reason != code::NO_ERROR => {}
        Outcome::Answer(400..=499, _) => {}
        Outcome::Closed => {}
        Outcome::GoAway(reason) if *reason != code::NO_ERROR => {}
        other => panic!("{name}: {other:?}"),
    }
}

fn head(client: &RawH2, flags: u8) -> Vec<u8> {
    let block = client.block("POST", "/", &[]);
    frame(kind::HEADERS, flags, 1, &block)
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
