//! Trusted proxies in front: whose `X-Forwarded-*` and `Forwarded` count, for what, and how far.
//!
//! Not here: every form of the lists (unit tests of `gateway::client`).

use std::num::NonZeroU32;

use crate::support::{Answer, Client, H2, HOST, Seen, Setup, TestGateway, Upstream};

/// Whoever comes over loopback is a trusted proxy, and so is 10.0.0.0/8 behind it.
fn trusting(upstream: &Upstream) -> Setup {
    Setup::to(upstream).with(|config| {
        for listen in &mut config.listen {
            let networks = ["127.0.0.0/8", "10.0.0.0/8"];
            listen.trusted_proxies = networks.map(|text| text.parse().unwrap()).into();
        }
    })
}

/// What the upstream saw of a request of the owner with these fields.
async fn seen(
    gateway: &TestGateway,
    upstream: &Upstream,
    client: &mut Client,
    fields: &[(&str, &str)],
) -> Seen {
    let token = gateway.owner();
    let mut all = vec![("x-gitspace-token", &*token)];
    all.extend(fields);
    let answer = client.get("/", &all).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    upstream.last()
}

/// What the proxy says, and what the upstream is told.
type Told = (&'static [(&'static str, &'static str)], [&'static str; 4]);

#[tokio::test]
async fn what_a_trusted_proxy_says_counts_and_is_told_once() {
    let upstream = Upstream::echo().await;
    let gateway = trusting(&upstream).start();
    // One connection of a balancer carries the requests of many.
    let mut balancer = gateway.plain().await;
    let cases: &[Told] = &[
        (
            &[
                ("x-forwarded-for", "203.0.113.9, 192.0.2.1, 10.1.1.1"),
                ("x-forwarded-proto", "https"),
            ],
            ["192.0.2.1", "https", "443", "for=192.0.2.1;proto=https"],
        ),
        (
            &[
                ("x-forwarded-for", "2001:db8::1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "8443"),
            ],
            [
                "2001:db8::1",
                "https",
                "8443",
                "for=\"[2001:db8::1]\";proto=https",
            ],
        ),
        (
            &[(
                "forwarded",
                "for=192.0.2.3;proto=https, for=10.0.0.1;proto=http",
            )],
            ["192.0.2.3", "https", "443", "for=192.0.2.3;proto=https"],
        ),
        (
            &[
                ("x-forwarded-for", "192.0.2.4, unknown"),
                ("x-forwarded-proto", "gopher"),
            ],
            ["127.0.0.1", "http", "", "for=127.0.0.1;proto=http"],
        ),
        (
            &[
                ("x-forwarded-for", "192.0.2.5"),
                ("forwarded", "for=192.0.2.6"),
            ],
            ["127.0.0.1", "http", "", "for=127.0.0.1;proto=http"],
        ),
        (&[], ["127.0.0.1", "http", "", "for=127.0.0.1;proto=http"]),
    ];
    let own_port = gateway.http.port().to_string();
    for (fields, [client, proto, port, forwarded]) in cases {
        let mut forged = vec![
            ("x-forwarded-host", "evil.test"),
            ("x-real-ip", "6.6.6.6"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-user", "root"),
        ];
        forged.extend(*fields);
        let seen = seen(&gateway, &upstream, &mut balancer, &forged).await;
        assert_eq!(seen.header("x-forwarded-for"), Some(*client), "{fields:?}");
        assert_eq!(seen.header("x-forwarded-proto"), Some(*proto), "{fields:?}");
        let port = if port.is_empty() { &own_port } else { *port };
        assert_eq!(seen.header("x-forwarded-port"), Some(port), "{fields:?}");
        assert_eq!(
            seen.header("forwarded"),
            Some(&*format!("{forwarded};host={HOST}")),
            "{fields:?}"
        );
        assert_eq!(seen.header("x-forwarded-host"), Some(HOST), "Host decides");
        let all = format!("{seen:?}");
        assert!(!all.contains("6.6.6.6") && !all.contains("root"), "{all}");
    }
    let lines = gateway.accounted(cases.len()).await;
    for (line, (_, [client, ..])) in lines.iter().zip(cases) {
        assert_eq!(line["client"], *client);
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            for listen in &mut config.listen {
                listen.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
            }
        })
        .start();
    let fields = [
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1;proto=https"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "1"),
        ("x-request-id", "mine"),
    ];
    let seen = seen(&gateway, &upstream, &mut gateway.plain().await, &fields).await;
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    let port = gateway.http.port().to_string();
    assert_eq!(seen.header("x-forwarded-port"), Some(&*port));
    assert_ne!(seen.header("x-request-id"), Some("mine"));
    assert_eq!(gateway.account().await["client"], "127.0.0.1");
}

#[tokio::test]
async fn refused_tokens_count_for_the_client_of_the_request() {
    let upstream = Upstream::echo().await;
    let gateway = trusting(&upstream)
        .with(|config| {
            config.limits.failed_logins_per_network = NonZeroU32::new(3).unwrap();
        })
        .start();
    let mut balancer = gateway.plain().await;
    let mut attempt = async |client: &str| {
        let fields = [("x-gitspace-token", "bad"), ("x-forwarded-for", client)];
        let answer: Answer = balancer.get("/", &fields).await;
        answer.status
    };
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(attempt("192.0.2.1").await);
    }
    assert_eq!((statuses[0], statuses[5]), (401, 429), "{statuses:?}");
    assert_eq!(attempt("192.0.2.2").await, 401);
    assert_eq!(attempt("2001:db8::1").await, 401);
    for n in 2..8 {
        attempt(&format!("2001:db8::{n}")).await;
    }
    assert_eq!(
        attempt("2001:db8::ffff").await,
        429,
        "an IPv6 network is a /64"
    );
    assert_eq!(attempt("2001:db8:0:1::1").await, 401);
    assert_eq!(
        attempt("203.0.113.1, 192.0.2.1").await,
        429,
        "whatever is put in front"
    );
}

#[tokio::test]
async fn an_identifier_of_a_trusted_proxy_is_kept_if_it_is_plain() {
    let upstream = Upstream::echo().await;
    let gateway = trusting(&upstream).start();
    let mut balancer = gateway.plain().await;
    let kept = [("x-request-id", "7f1c-42")];
    let id = seen(&gateway, &upstream, &mut balancer, &kept).await;
    assert_eq!(id.header("x-request-id"), Some("7f1c-42"));
    let long = "x".repeat(129);
    for bad in ["<script>", "a b", &long] {
        let fields = [("x-request-id", bad)];
        let ours = seen(&gateway, &upstream, &mut balancer, &fields).await;
        let id = ours.header("x-request-id").unwrap();
        assert!(id != bad && id.len() < 40, "{id}");
    }
    // It stands in refusals as well.
    let answer = balancer.get("/", &[("x-request-id", "7f1c-43")]).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("\"7f1c-43\""), "{}", answer.text());
    let lines = gateway.accounted(5).await;
    assert_eq!(lines[0]["id"], "7f1c-42");
    assert_eq!(lines[4]["id"], "7f1c-43");
}

#[tokio::test]
async fn https_that_ended_at_a_trusted_proxy_is_not_redirected() {
    let upstream = Upstream::echo().await;
    let gateway = trusting(&upstream)
        .with(|config| config.listen[1].redirect_to_https = true)
        .start();
    let token = gateway.owner();
    let mut balancer = gateway.plain().await;
    for (proto, status) in [
        ("https", 200),
        ("http", 308),
        ("https, http", 308),
        ("x", 308),
    ] {
        let fields = [("x-gitspace-token", &*token), ("x-forwarded-proto", proto)];
        assert_eq!(balancer.get("/", &fields).await.status, status, "{proto}");
    }
    let ticket = gateway.setup.issuer.ticket("alice", "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let fields = [
        ("x-forwarded-proto", "https"),
        ("sec-fetch-mode", "navigate"),
    ];
    let answer = balancer.get(&target, &fields).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-gitspace=") && cookie.contains("Secure"));

    let untrusted = Setup::to(&upstream)
        .with(|config| config.listen[1].redirect_to_https = true)
        .start();
    let fields = [("x-forwarded-proto", "https")];
    assert_eq!(untrusted.plain().await.get("/", &fields).await.status, 308);
}

#[tokio::test]
async fn each_stream_of_one_connection_has_its_own_client() {
    let upstream = Upstream::echo().await;
    let gateway = trusting(&upstream).start();
    let token = gateway.owner();
    let balancer = H2::connect(&gateway, HOST).await;
    let url = format!("https://{HOST}/");
    for n in 1..=20 {
        let client = format!("192.0.2.{n}");
        let fields = [("x-gitspace-token", &*token), ("x-forwarded-for", &client)];
        let answer = balancer.clone().request("GET", &url, &fields, b"").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(upstream.last().header("x-forwarded-for"), Some(&*client));
        assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
    }
}
