//! HTTP/2 floods and bombs: frames and fields in order, and far too many. The connection ends; others are served.
//!
//! Not here: requests that are broken off (`h2_abuse`), slow peers (`slow`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::support::{
    HOST, Outcome, RawH2, Setup, TestGateway, Upstream, eventually,
    raw_h2::{code, flag, frame, indexed_literal, kind, literal, reference, setting},
    read_request, soon,
};

const HEAD: u8 = flag::END_HEADERS;
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

/// An upstream that answers nothing, and counts.
async fn silent() -> (Upstream, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let upstream = Upstream::scripted(move |stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let mut stream = BufReader::new(stream);
            while read_request(&mut stream).await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    (upstream, count)
}

/// Others are served as if nothing had happened.
async fn others_are_served(gateway: &TestGateway) {
    let client = RawH2::connect(gateway, HOST).await;
    let mut client = soon("a new connection", async { client }).await;
    client.request(1, "GET", &[("x-victim", "1")], true).await;
    assert!(matches!(
        client.outcome(1).await,
        Outcome::Answer(401..=599 | 200, _)
    ));
}

#[track_caller]
fn ended(outcome: &Outcome) {
    let calm = Outcome::GoAway(code::ENHANCE_YOUR_CALM);
    assert!(
        *outcome == calm || *outcome == Outcome::Closed,
        "{outcome:?}"
    );
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code::CANCEL.to_be_bytes())
}

fn get(client: &RawH2, stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, WHOLE, stream, &client.block("GET", "/", &[]))
}

fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// More than the buffers of both sockets can hold, so that only an end of the connection stops it sooner.
const MOST: usize = 4_000_000;

/// Writes `unit` again and again until the connection ends, and tells how often that went. Somebody reads meanwhile.
async fn flood(client: RawH2, first: &[u8], unit: &[u8]) -> usize {
    let (mut reader, mut writer) = client.split();
    let drain = tokio::spawn(async move { reader.read_to_end(&mut Vec::new()).await });
    writer.write_all(first).await.unwrap();
    let many = unit.repeat(100);
    let mut written = 0;
    while written < MOST && !drain.is_finished() && writer.write_all(&many).await.is_ok() {
        written += 100;
    }
    let _ = soon("the connection's end", drain).await;
    written
}

#[tokio::test]
async fn floods_of_frames_that_carry_nothing_end_the_connection() {
    let (upstream, _) = silent().await;
    let gateway = Setup::to(&upstream).start();
    let floods = [
        ("PING", frame(kind::PING, 0, 0, &[1; 8])),
        ("answers to PING", frame(kind::PING, flag::ACK, 0, &[1; 8])),
        ("SETTINGS", frame(kind::SETTINGS, 0, 0, &setting(4, 65_535))),
        ("empty SETTINGS", frame(kind::SETTINGS, 0, 0, b"")),
        (
            "WINDOW_UPDATE of the connection",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        (
            "WINDOW_UPDATE of a stream",
            frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ),
        ("PRIORITY", frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 7])),
        ("PRIORITY_UPDATE", frame(0x10, 0, 0, &[0, 0, 0, 1, b'u'])),
        ("unknown frames", frame(0x77, 0xff, 9, &[0; 100])),
        ("empty DATA", frame(kind::DATA, 0, 1, b"")),
        (
            "DATA that is all padding",
            frame(kind::DATA, flag::PADDED, 1, &[3, 0, 0, 0]),
        ),
        ("CONTINUATION", frame(kind::CONTINUATION, 0, 3, b"")),
        ("RST_STREAM of a stream that is gone", reset(1)),
        ("GOAWAY", frame(kind::GOAWAY, 0, 0, &[0; 8])),
    ];
    for (name, unit) in floods {
        let client = RawH2::connect(&gateway, HOST).await;
        let mut first = frame(kind::HEADERS, HEAD, 1, &client.block("POST", "/", &[]));
        if name == "CONTINUATION" {
            first = frame(kind::HEADERS, 0, 3, &[]);
        }
        let written = flood(client, &first, &unit).await;
        assert!(written < MOST, "{name}: {written} were taken");
    }
    let metric = gateway
        .metric("cde_gateway_abusive_connections_total", &[])
        .await;
    assert!(metric >= 8.0, "{metric}");
    // All the requests that went with them are over.
    eventually("nothing is under way", || async {
        (gateway.metric("cde_gateway_streams", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_answers_every_frame_with_two_windows_gets_its_download() {
    const SIZE: usize = 24 * 1024 * 1024;
    let upstream = Upstream::answering(|_| {
        let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + SIZE, b'x');
        answer
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    client.request(1, "GET", &[], true).await;
    let mut left = SIZE;
    while left > 0 {
        let read = client.next().await.expect("the download goes on");
        if read.kind != kind::DATA || read.payload.is_empty() {
            continue;
        }
        left -= read.payload.len();
        let increment = (read.payload.len() as u32).to_be_bytes();
        let bytes = [
            frame(kind::WINDOW_UPDATE, 0, 0, &increment),
            frame(kind::WINDOW_UPDATE, 0, 1, &increment),
        ];
        let _ = client.raw(&bytes.concat()).await;
    }
}

#[tokio::test]
async fn heads_with_too_many_fields_are_answered_431_or_end_the_connection() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let many = |count: usize, unit: &dyn Fn(usize) -> Vec<u8>| -> Vec<u8> {
        (0..count).flat_map(unit).collect()
    };
    let crumbs = |count| many(count, &|number| literal("cookie", format!("a{number}=1")));
    let distinct = |count| many(count, &|number| literal(format!("x-{number}"), "1"));
    // An entry of the dynamic table, and references to it of one byte each.
    let references = |count: usize| {
        let mut block = indexed_literal("x-bomb", "value");
        block.resize(block.len() + count, reference(62));
        block
    };
    for (name, block) in [
        ("crumbs", crumbs(300)),
        ("distinct fields", distinct(300)),
        ("references", references(300)),
    ] {
        let mut client = RawH2::connect(&gateway, HOST).await;
        let head = [client.block("GET", "/", &[]), block].concat();
        client.send(kind::HEADERS, WHOLE, 1, &head).await;
        let Outcome::Answer(431, body) = client.outcome(1).await else {
            panic!("{name}");
        };
        assert!(String::from_utf8(body).unwrap().contains("head-too-large"));
        assert!(client.lives(3).await, "the connection goes on: {name}");
    }
    for (name, block) in [
        ("crumbs", crumbs(1_000)),
        ("distinct fields", distinct(1_000)),
        ("references", references(10_000)),
    ] {
        let mut client = RawH2::connect(&gateway, HOST).await;
        let head = [client.block("GET", "/", &[]), block].concat();
        client.send(kind::HEADERS, WHOLE, 1, &head).await;
        let outcome = client.outcome(1).await;
        assert_eq!(outcome, Outcome::GoAway(code::ENHANCE_YOUR_CALM), "{name}");
    }
    // Tens of thousands of distinct fields, in frames without end.
    let mut client = RawH2::connect(&gateway, HOST).await;
    let block = [client.block("GET", "/", &[]), distinct(40_000)].concat();
    let mut chunks = block.chunks(16_000);
    let mut bytes = frame(kind::HEADERS, 0, 1, chunks.next().unwrap());
    bytes.extend(chunks.flat_map(|chunk| frame(kind::CONTINUATION, 0, 1, chunk)));
    let _ = client.raw(&bytes).await;
    ended(&client.ended().await);
    let seen = upstream.seen().len();
    assert_eq!(seen, 3, "only those that asked whether it lives");
    // With the token these are 200; method, path, scheme and authority are no fields.
    let mut client = RawH2::connect(&gateway, HOST).await;
    let head = [client.block("GET", "/", &[]), distinct(199)].concat();
    client.send(kind::HEADERS, WHOLE, 1, &head).await;
    assert!(matches!(client.outcome(1).await, Outcome::Answer(200, _)));
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    let large = "x".repeat(80_000);
    let block = [client.block("GET", "/", &[]), literal("x-large", &large)].concat();
    let mut chunks = block.chunks(16_000).peekable();
    let mut bytes = frame(kind::HEADERS, flag::END_STREAM, 1, chunks.next().unwrap());
    while let Some(chunk) = chunks.next() {
        let last = if chunks.peek().is_none() { HEAD } else { 0 };
        bytes.extend(frame(kind::CONTINUATION, last, 1, chunk));
    }
    client.raw(&bytes).await.unwrap();
    assert!(matches!(client.outcome(1).await, Outcome::Answer(431, _)));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection_though_others_are_under_way() {
    let (upstream, count) = silent().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.head = Duration::from_millis(400))
        .start();
    for (name, slow) in [
        (
            "without its end",
            frame(kind::HEADERS, flag::END_STREAM, 3, &[0x82]),
        ),
        (
            "cut within a frame",
            frame(kind::HEADERS, WHOLE, 3, &[0x82; 9])[..12].to_vec(),
        ),
        ("cut within a frame's header", vec![0, 0, 9]),
    ] {
        let mut client = RawH2::connect(&gateway, HOST).await;
        let before = count.load(Ordering::SeqCst);
        client.request(1, "GET", &[], true).await;
        eventually("the first is at the upstream", || async {
            (count.load(Ordering::SeqCst) > before).then_some(())
        })
        .await;
        client.raw(&slow).await.unwrap();
        let outcome = client.ended().await;
        assert_eq!(outcome, Outcome::GoAway(code::ENHANCE_YOUR_CALM), "{name}");
    }
}

#[tokio::test]
async fn an_attack_on_one_connection_leaves_others_alone() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let mut victim = RawH2::connect(&gateway, HOST).await;
    let attacker = RawH2::connect(&gateway, HOST).await;
    let attack: Vec<u8> = streams(300)
        .flat_map(|stream| [get(&attacker, stream), reset(stream)].concat())
        .collect();
    flood(attacker, &attack, &frame(kind::PING, 0, 0, &[0; 8])).await;
    assert!(victim.lives(1).await);
    others_are_served(&gateway).await;
}
