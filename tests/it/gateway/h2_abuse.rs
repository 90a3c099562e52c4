//! HTTP/2 requests that are broken off: by their client, or by an error of ours that it provokes. Few reach the upstream.
//!
//! Not here: frames that break the rules (`h2_framing`), floods (`h2_floods`).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::io::{AsyncWriteExt, BufReader};

use crate::support::{
    HOST, Outcome, RawH2, Setup, Upstream, eventually,
    raw_h2::{code, flag, frame, kind, literal},
    read_request,
};

const HEAD: u8 = flag::END_HEADERS;
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;
/// At most so many requests of one connection may reach an upstream without being answered.
const REACH: usize = 100;

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

#[tokio::test]
async fn rapid_resets_end_the_connection_and_few_requests_reach_the_upstream() {
    let (upstream, count) = silent().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    for batch in streams(2_000).collect::<Vec<_>>().chunks(10) {
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|stream| [get(&client, *stream), reset(*stream)].concat())
            .collect();
        if client.raw(&bytes).await.is_err() {
            break;
        }
    }
    ended(&client.ended().await);
    assert!(count.load(Ordering::SeqCst) <= REACH, "{count:?}");
}

#[tokio::test]
async fn resets_after_the_upstream_has_seen_each_request_are_counted_as_well() {
    let (upstream, count) = silent().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    for (number, stream) in streams(REACH as u32).enumerate() {
        let bytes = get(&client, stream);
        client.raw(&bytes).await.unwrap();
        eventually("the upstream sees it", || async {
            (count.load(Ordering::SeqCst) > number).then_some(())
        })
        .await;
        client.raw(&reset(stream)).await.unwrap();
    }
    ended(&client.ended().await);
    assert_eq!(count.load(Ordering::SeqCst), REACH);
    let abusive = gateway.metric("cde_gateway_abusive_connections_total", &[]);
    assert_eq!(abusive.await, 1.0);
}

#[tokio::test]
async fn resets_in_batches_as_large_as_streams_at_once_reach_no_further() {
    let (upstream, count) = silent().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    // 90 at once are open and waiting; 50 of them go, and 50 others come.
    let first: Vec<u8> = streams(90)
        .flat_map(|stream| get(&client, stream))
        .collect();
    client.raw(&first).await.unwrap();
    eventually("all are at the upstream", || async {
        (count.load(Ordering::SeqCst) == 90).then_some(())
    })
    .await;
    let resets: Vec<u8> = streams(50).flat_map(reset).collect();
    let second: Vec<u8> = (90..140)
        .flat_map(|number| get(&client, 2 * number + 1))
        .collect();
    client.raw(&[resets, second].concat()).await.unwrap();
    eventually("ten more are at the upstream", || async {
        (count.load(Ordering::SeqCst) == REACH).then_some(())
    })
    .await;
    let resets: Vec<u8> = (50..140)
        .map(|number| reset(2 * number + 1))
        .collect::<Vec<_>>()
        .concat();
    client.raw(&resets).await.unwrap();
    ended(&client.ended().await);
    assert_eq!(count.load(Ordering::SeqCst), REACH);
}

/// The frames of one provocation on a stream.
type Provocation = fn(&RawH2, u32) -> Vec<u8>;

/// Errors that make us reset a stream, each behind a request whose body is still open (MadeYouReset).
fn provocations() -> Vec<(&'static str, Provocation)> {
    fn open(client: &RawH2, stream: u32) -> Vec<u8> {
        frame(
            kind::HEADERS,
            HEAD,
            stream,
            &client.block("POST", "/", &[("content-length", "5")]),
        )
    }
    vec![
        ("WINDOW_UPDATE by 0", |client, stream| {
            [
                open(client, stream),
                frame(kind::WINDOW_UPDATE, 0, stream, &[0; 4]),
            ]
            .concat()
        }),
        ("a window that overflows", |client, stream| {
            let increment = 0x7fff_ffff_u32.to_be_bytes();
            [
                open(client, stream),
                frame(kind::WINDOW_UPDATE, 0, stream, &increment),
            ]
            .concat()
        }),
        ("HEADERS on a half-closed stream", |client, stream| {
            [get(client, stream), get(client, stream)].concat()
        }),
        ("DATA on a half-closed stream", |client, stream| {
            [get(client, stream), frame(kind::DATA, 0, stream, b"x")].concat()
        }),
        ("PRIORITY of 4 bytes", |client, stream| {
            [
                open(client, stream),
                frame(kind::PRIORITY, 0, stream, &[0; 4]),
            ]
            .concat()
        }),
        ("PRIORITY of a stream on itself", |client, stream| {
            let payload = [&stream.to_be_bytes()[..], &[0]].concat();
            [
                open(client, stream),
                frame(kind::PRIORITY, 0, stream, &payload),
            ]
            .concat()
        }),
        ("a body that is too long", |client, stream| {
            [
                open(client, stream),
                frame(kind::DATA, 0, stream, b"123456"),
            ]
            .concat()
        }),
        ("a body that is too short", |client, stream| {
            [
                open(client, stream),
                frame(kind::DATA, flag::END_STREAM, stream, b"1"),
            ]
            .concat()
        }),
        ("trailers that do not end the stream", |client, stream| {
            [
                open(client, stream),
                frame(kind::HEADERS, HEAD, stream, &literal("x-a", "1")),
            ]
            .concat()
        }),
        ("a frame larger than its window", |client, stream| {
            let large = frame(kind::DATA, 0, stream, &[0; 16_384]).repeat(17);
            let head = frame(kind::HEADERS, HEAD, stream, &client.block("POST", "/", &[]));
            [head, large].concat()
        }),
    ]
}

#[tokio::test]
async fn resets_that_a_client_provokes_end_the_connection_and_few_requests_reach_the_upstream() {
    for answering in [false, true] {
        for (name, provoke) in provocations() {
            let (silent, count) = silent().await;
            let echo = Upstream::echo().await;
            let upstream = if answering { &echo } else { &silent };
            let gateway = Setup::to(upstream).start();
            let mut client = RawH2::connect(&gateway, HOST).await;
            for stream in streams(400) {
                let bytes = provoke(&client, stream);
                if client.raw(&bytes).await.is_err() {
                    break;
                }
            }
            let outcome = client.ended().await;
            assert!(
                !matches!(outcome, Outcome::GoAway(code::NO_ERROR)),
                "{name}: {outcome:?}"
            );
            let reached = count.load(Ordering::SeqCst).max(echo.seen().len());
            assert!(reached <= REACH, "{name}: {reached}");
        }
    }
}

#[tokio::test]
async fn a_browser_that_leaves_pages_keeps_its_connection() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let upstream = Upstream::scripted(move |stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let mut stream = BufReader::new(stream);
            while let Ok(request) = read_request(&mut stream).await {
                if request.target == "/slow" {
                    counter.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    let mut next = streams(100_000);
    for page in 1..=5 {
        // 60 requests are on the way when the user goes on; the next page's 60 are answered.
        let mut leave = |count: usize| next.by_ref().take(count).collect::<Vec<_>>();
        let waiting = leave(60);
        let answered = leave(60);
        for stream in &waiting {
            let block = client.block("GET", "/slow", &[]);
            client.send(kind::HEADERS, WHOLE, *stream, &block).await;
        }
        eventually("all are at the upstream", || async {
            (count.load(Ordering::SeqCst) == 60 * page).then_some(())
        })
        .await;
        let resets: Vec<u8> = waiting.iter().flat_map(|stream| reset(*stream)).collect();
        client.raw(&resets).await.unwrap();
        for stream in &answered {
            client.request(*stream, "GET", &[], true).await;
        }
        // Answers come in any order: the last of all is enough to have them all.
        let mut left = answered.len();
        while left > 0 {
            let frame = client.next().await.expect("the connection lives");
            left -= usize::from(frame.kind == kind::DATA && frame.flags & flag::END_STREAM != 0);
        }
    }
}

#[tokio::test]
async fn the_limits_are_told_and_more_streams_than_these_are_refused() {
    let (upstream, count) = silent().await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    let settings = client.next().await.unwrap();
    assert_eq!((settings.kind, settings.flags), (kind::SETTINGS, 0));
    let told: Vec<(u16, u32)> = settings
        .payload
        .chunks(6)
        .map(|pair| {
            let (id, value) = pair.split_at(2);
            (
                u16::from_be_bytes(id.try_into().unwrap()),
                u32::from_be_bytes(value.try_into().unwrap()),
            )
        })
        .collect();
    let told = |id: u16| {
        told.iter()
            .find(|(known, _)| *known == id)
            .map(|(_, value)| *value)
    };
    assert_eq!(told(3), Some(100), "streams at once");
    assert_eq!(told(4), Some(256 * 1024), "a stream's window");
    assert_eq!(told(5), Some(16 * 1024), "a frame");
    assert_eq!(told(6), Some(64 * 1024 + 200 * 32), "a head");
    assert_eq!(told(8), Some(1), "extended CONNECT");
    let bytes: Vec<u8> = streams(101)
        .flat_map(|stream| get(&client, stream))
        .collect();
    client.raw(&bytes).await.unwrap();
    assert_eq!(
        client.outcome(201).await,
        Outcome::Reset(7),
        "refused, to be tried again"
    );
    eventually("the others are at the upstream", || async {
        (count.load(Ordering::SeqCst) == 100).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reset_ends_the_upstreams_work_and_no_other() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ended);
    let upstream = Upstream::scripted(move |stream, _| {
        let counter = Arc::clone(&counter);
        async move {
            let mut stream = BufReader::new(stream);
            let _ = read_request(&mut stream).await;
            // The next that comes is the end.
            let _ = read_request(&mut stream).await;
            counter.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let mut client = RawH2::connect(&gateway, HOST).await;
    client.request(1, "GET", &[], true).await;
    client.request(3, "GET", &[], true).await;
    eventually("both are at the upstream", || async {
        (upstream.connections() == 2).then_some(())
    })
    .await;
    client.raw(&reset(1)).await.unwrap();
    eventually("the first is ended", || async {
        (ended.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("cde_gateway_streams", &[]).await, 1.0);
}
