//! Metrics: names and labels are a closed set whatever clients send, and the text is OpenMetrics to the letter.
//!
//! Not here: that they agree with the log (`account`, `reasons`).

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::json;

use crate::support::{H2, HOST, Setup, TestGateway, Upstream, eventually};

async fn scrape(gateway: &TestGateway) -> String {
    let answer = gateway.admin(Method::GET, "/metrics", None).await;
    answer.text().await.unwrap()
}

/// Name and labels of every sample.
fn series(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect()
}

/// Sends the same kinds of requests with other users, gitspaces, hosts, ports, paths, queries, methods and tokens.
async fn drive(gateway: &TestGateway, round: usize) {
    let issuer = &gateway.setup.issuer;
    for n in 0..10 {
        let word = format!("marker-{round}-{n}");
        let token = issuer.token_with("alice", json!({ "jti": word }));
        let stranger = issuer.token(&word);
        let target = format!("/{word}?{word}");
        let mut client = gateway.plain().await;
        let headers = [("x-gitspace-token", &*token), ("x-marker", &word)];
        assert_eq!(client.get(&target, &headers).await.status, 200);
        let answer = client
            .request(&format!("MARKER-{round}-{n}"), &target, &headers, b"")
            .await;
        assert_eq!(answer.status, 200);
        let stranger = [("x-gitspace-token", &*stranger)];
        assert_eq!(client.get(&target, &stranger).await.status, 403);
        let forged = [("x-gitspace-token", &*word)];
        assert_eq!(client.get(&target, &forged).await.status, 401);
        let mut other = gateway
            .plain()
            .await
            .to(&format!("{word}.gitspaces.localhost"));
        assert_eq!(other.get(&target, &headers).await.status, 404);
        let mut other = gateway.plain().await.to(&format!("{word}.example"));
        assert_eq!(other.get(&target, &headers).await.status, 404);
        let mut h2 = H2::connect(gateway, HOST).await;
        let url = format!("https://{HOST}{target}");
        assert_eq!(h2.request("GET", &url, &headers, b"").await.status(), 200);
    }
}

#[tokio::test]
async fn no_user_gitspace_host_path_or_method_makes_a_series_or_is_in_one() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    drive(&gateway, 0).await;
    let before = scrape(&gateway).await;
    drive(&gateway, 1).await;
    drive(&gateway, 2).await;
    let after = scrape(&gateway).await;
    assert_eq!(series(&before), series(&after));
    assert!(series(&after).len() > 30, "{after}");
    let lower = after.to_ascii_lowercase();
    for word in [
        "marker",
        "alice",
        "app-a1b2c3",
        "gitspaces.localhost",
        "127.0.0.1",
    ] {
        assert!(!lower.contains(word), "{word} in {after}");
    }
}

/// One family of the text.
#[derive(Debug)]
struct Family {
    kind: String,
    help: bool,
    samples: Vec<(String, String, f64)>,
}

/// Reads OpenMetrics text as strictly as its grammar is: order, names, escapes, one family at a time, the end.
fn families(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it ends with # EOF");
    assert!(!body.contains("# EOF"));
    let (mut families, mut current) = (BTreeMap::<String, Family>::new(), String::new());
    for line in body.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (what, name, rest) = (
                words.next().unwrap(),
                words.next().unwrap(),
                words.next().unwrap(),
            );
            if name != current {
                current = name.to_owned();
                let empty = Family {
                    kind: String::new(),
                    help: false,
                    samples: Vec::new(),
                };
                assert!(
                    families.insert(current.clone(), empty).is_none(),
                    "{name} comes twice"
                );
            }
            let family = families.get_mut(&current).unwrap();
            assert!(family.samples.is_empty(), "{line} after its samples");
            match what {
                "HELP" => {
                    assert!(!family.help && rest.ends_with('.'), "{line}");
                    family.help = true;
                }
                "TYPE" => {
                    assert!(family.kind.is_empty(), "{line}");
                    assert!(
                        ["counter", "gauge", "histogram", "info"].contains(&rest),
                        "{line}"
                    );
                    family.kind = rest.into();
                }
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (key, ""),
        };
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(letter), "{line}");
        let family = families.get_mut(&current).unwrap();
        let suffix = name
            .strip_prefix(&*current)
            .unwrap_or_else(|| panic!("{line} in {current}"));
        let suffixes: &[&str] = match &*family.kind {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line} of a {}", family.kind);
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        family.samples.push((suffix.into(), labels.into(), value));
    }
    families
}

#[tokio::test]
async fn the_text_is_openmetrics_and_every_family_is_described_and_sane() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    drive(&gateway, 0).await;
    eventually("rest", || async {
        (gateway.metric("cde_gateway_streams", &[]).await == 0.0).then_some(())
    })
    .await;
    let text = scrape(&gateway).await;
    let families = families(&text);
    for (name, family) in &families {
        assert!(family.help && !family.kind.is_empty(), "{name}: {family:?}");
        assert!(
            name.starts_with("cde_gateway_") || name == "process_start_time_seconds",
            "{name}"
        );
        if family.kind == "histogram" {
            let of = |suffix: &'static str| {
                family
                    .samples
                    .iter()
                    .filter(move |sample| sample.0 == suffix)
            };
            let buckets: Vec<_> = of("_bucket").map(|sample| sample.2).collect();
            assert!(buckets.is_sorted(), "{name}");
            let last = of("_bucket").next_back().unwrap();
            assert_eq!(last.1, "le=\"+Inf\"");
            assert_eq!(last.2, of("_count").next().unwrap().2, "{name}");
            // A refusal has no time of its first byte.
            let expected = if name.contains("first_byte") {
                30.0
            } else {
                70.0
            };
            assert_eq!(last.2, expected, "{name}");
        }
    }
    let value = |name: &str, label: &str| {
        let samples = families[name].samples.iter();
        samples
            .filter(|sample| sample.1.contains(label))
            .map(|sample| sample.2)
            .sum::<f64>()
    };
    assert_eq!(value("cde_gateway_requests", "protocol=\"h2\""), 10.0);
    assert_eq!(value("cde_gateway_requests", "protocol=\"http/1.1\""), 60.0);
    assert_eq!(
        value(
            "cde_gateway_build",
            concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")
        ),
        1.0
    );
    assert_eq!(value("cde_gateway_access_log_lost_lines", ""), 0.0);
    let now = crate::support::now() as f64;
    let started = value("process_start_time_seconds", "");
    // `now` has whole seconds.
    assert!(started < now + 1.0 && started > now - 3600.0, "{started}");
}

#[tokio::test]
async fn connections_are_counted_by_what_they_are_at() {
    let upstream = Upstream::scripted(|stream, _| async {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(_)) = futures_util::StreamExt::next(&mut socket).await {}
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let silent = tokio::net::TcpStream::connect(gateway.https).await.unwrap();
    let mut plain = gateway.plain().await;
    // In the clear the first bytes tell the protocol.
    plain.send("GET / HTTP/1.1\r\n").await;
    let tls = gateway.tls(HOST).await;
    let h2 = H2::connect(&gateway, HOST).await;
    let token = gateway.owner();
    let mut tunnel = gateway.plain().await;
    let headers = [
        ("x-gitspace-token", &*token),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    tunnel.begin("GET", "/", &headers, b"").await;
    assert_eq!(tunnel.head().await.unwrap().status, 101);
    let are = |expected: [f64; 4]| {
        let gateway = &gateway;
        eventually("the connections", move || async move {
            let mut found = [0.0; 4];
            for (found, state) in found
                .iter_mut()
                .zip(["opening", "http/1.1", "h2", "tunnel"])
            {
                let label = format!("state=\"{state}\"");
                *found = gateway.metric("cde_gateway_connections", &[&label]).await;
            }
            (found == expected).then_some(())
        })
    };
    are([1.0, 2.0, 1.0, 1.0]).await;
    drop((silent, plain, tls, h2, tunnel));
    are([0.0; 4]).await;
}
