//! Why a request or stream ended, who ended it and in which step: a row per reason, each provoked from outside, and the metrics
//! say the same as the log.
//!
//! Not here: what the client is told (the topics' own tests).

use std::{future::Future, net::SocketAddr, num::NonZeroU32, time::Duration};

use cde_gateway::config::{FailMode, Timeout};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::support::{
    Client, ControlPlane, GITSPACE, HOST, OWNER, Refusing, Setup, TestGateway, Upstream,
    eventually, port_host, read_request, route,
};

/// A reason, the status that its answer has (0: none), who ended it, and the step it was in.
type Row = (&'static str, u16, &'static str, &'static str);

const SHORT: Timeout = Timeout::After(Duration::from_millis(300));

/// Waits for the line with this reason and compares all of it, and the metric that counts it.
#[track_caller]
fn told<'a>(gateway: &'a TestGateway, row: Row) -> impl Future<Output = ()> + 'a {
    let at = std::panic::Location::caller();
    async move {
        let (reason, status, ended_by, step) = row;
        let found = eventually(&format!("{reason} ({at})"), || async {
            let lines = gateway.lines();
            lines.into_iter().find(|line| line["reason"] == reason)
        })
        .await;
        let expected = (&json!(status), &json!(ended_by), &json!(step));
        let line = (&found["status"], &found["ended_by"], &found["step"]);
        assert_eq!(line, expected, "{found:#} ({at})");
        assert!(found["total_ms"].is_f64());
        let class = match status / 100 {
            0 => "none".to_owned(),
            digit => format!("{digit}xx"),
        };
        let labels = [
            format!("reason=\"{reason}\""),
            format!("status=\"{class}\""),
        ];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        let counted = gateway.metric("cde_gateway_requests_total", &labels);
        assert!(counted.await >= 1.0, "{reason} in the metrics ({at})");
    }
}

async fn get(gateway: &TestGateway, host: &str, headers: &[(&str, &str)]) -> u16 {
    gateway
        .plain()
        .await
        .to(host)
        .get("/", headers)
        .await
        .status
}

async fn put(gateway: &TestGateway, change: &[(&str, Value)], upstream: SocketAddr) {
    let mut body = route(0, upstream);
    for (name, value) in change {
        body[*name] = value.clone();
    }
    let path = format!("/v1/routes/{GITSPACE}");
    let put = gateway.admin(Method::PUT, &path, Some(body)).await;
    assert_eq!(put.status(), 204);
}

/// A connection on which a stream or an answer has begun.
async fn begun(gateway: &TestGateway, upgrade: bool) -> Client {
    let token = gateway.owner();
    let mut headers = vec![("x-gitspace-token", &*token)];
    if upgrade {
        headers.extend([("connection", "upgrade"), ("upgrade", "raw")]);
    }
    let mut client = gateway.plain().await;
    client.begin("GET", "/", &headers, b"").await;
    client.head().await.unwrap();
    assert_eq!(client.read_exact(5).await.unwrap(), b"hello");
    client
}

/// Begins an answer or a stream and holds it; `closes`: lets go of it when the client has said a word.
async fn holding(closes: bool) -> Upstream {
    Upstream::scripted(move |stream, _| async move {
        let mut stream: BufReader<TcpStream> = BufReader::new(stream);
        let request = read_request(&mut stream).await.unwrap();
        let head = if request.header("upgrade").is_some() {
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\nhello"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello"
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut word = [0; 1];
        while stream.read(&mut word).await.is_ok_and(|count| count > 0) {
            if closes {
                // A reset, not an end.
                let _ = stream.get_ref().set_zero_linger();
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn refusals_of_the_request_itself() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            let most = toml::Value::from("1KiB");
            config.limits.body_bytes = most.try_into().unwrap();
        })
        .start();
    let token = gateway.owner();
    let ours = ("x-gitspace-token", &*token);
    get(&gateway, HOST, &[("host", "a"), ("host", "b")]).await;
    told(&gateway, ("bad-request", 400, "client", "parse")).await;
    let mut elsewhere = gateway.tls(HOST).await.to("elsewhere.test");
    assert_eq!(elsewhere.get("/", &[ours]).await.status, 421);
    told(&gateway, ("misdirected", 421, "client", "parse")).await;
    let mut client = gateway.plain().await;
    client.request("TRACE", "/", &[ours], b"").await;
    told(&gateway, ("method-not-allowed", 405, "client", "parse")).await;
    client.get("/_gitspace/nothing", &[ours]).await;
    told(&gateway, ("no-such-page", 404, "client", "route")).await;
    get(&gateway, HOST, &[ours, ("via", "1.1 cde-gateway")]).await;
    told(&gateway, ("loop", 508, "client", "forward")).await;
    let long = [b'x'; 1025];
    let mut client = gateway.plain().await;
    client.request("POST", "/", &[ours], &long).await;
    told(&gateway, ("body-too-large", 413, "client", "limit")).await;
}

#[tokio::test]
async fn heads_that_never_become_requests() {
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = Duration::from_millis(800))
        .start();
    let mut client = gateway.plain().await;
    client.send("GET / HTTP/1.1\r\nhost: a").await;
    assert_eq!(client.answer().await.unwrap().status, 408);
    told(&gateway, ("head-timeout", 408, "client", "parse")).await;
    let large = "x".repeat(100_000);
    get(&gateway, HOST, &[("x-large", &large)]).await;
    told(&gateway, ("head-too-large", 431, "client", "parse")).await;
    let mut client = gateway.plain().await;
    let smuggled =
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(smuggled).await;
    assert_eq!(client.answer().await.unwrap().status, 400);
    told(&gateway, ("bad-request", 400, "client", "parse")).await;
}

#[tokio::test]
async fn refusals_of_who_asks() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    get(&gateway, HOST, &[]).await;
    told(&gateway, ("no-token", 401, "client", "authorize")).await;
    get(&gateway, HOST, &[("x-gitspace-token", "a.b.c")]).await;
    told(&gateway, ("invalid-token", 401, "client", "authorize")).await;
    let old = issuer.token_with(OWNER, json!({ "exp": 1000 }));
    get(&gateway, HOST, &[("x-gitspace-token", &old)]).await;
    told(&gateway, ("expired-token", 401, "client", "authorize")).await;
    let target = format!("/?gitspace_token={}", issuer.ticket(OWNER, "1", "ide"));
    let navigation = [("sec-fetch-mode", "navigate")];
    let exchanged = gateway.plain().await.get(&target, &navigation).await;
    assert_eq!(exchanged.status, 303);
    gateway.plain().await.get(&target, &navigation).await;
    told(&gateway, ("ticket-used", 401, "client", "authenticate")).await;
    let session = exchanged.session().unwrap();
    let foreign = [("cookie", &*session), ("origin", "https://evil.test")];
    gateway
        .plain()
        .await
        .request("POST", "/", &foreign, b"")
        .await;
    told(&gateway, ("origin-refused", 403, "client", "authorize")).await;
    let colleague = issuer.token_with("carol", json!({ "org": "acme" }));
    get(&gateway, HOST, &[("x-gitspace-token", &colleague)]).await;
    told(&gateway, ("not-allowed", 403, "client", "authorize")).await;
    let token = gateway.owner();
    let ours = [("x-gitspace-token", &*token)];
    get(&gateway, "unknown-a1b2c3.gitspaces.localhost", &ours).await;
    told(&gateway, ("no-such-gitspace", 404, "client", "authorize")).await;
    get(&gateway, &port_host(9999), &ours).await;
    told(&gateway, ("port-closed", 404, "client", "authorize")).await;
}

#[tokio::test]
async fn limits() {
    let upstream = holding(false).await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.streams_per_principal = 1)
        .start();
    let _held = begun(&gateway, false).await;
    let token = gateway.owner();
    get(&gateway, HOST, &[("x-gitspace-token", &token)]).await;
    told(&gateway, ("too-many-streams", 429, "client", "limit")).await;

    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_principal = NonZeroU32::MIN;
            config.limits.burst_per_principal = Some(NonZeroU32::MIN);
        })
        .start();
    let token = gateway.owner();
    let ours = [("x-gitspace-token", &*token)];
    eventually("a limit", || async {
        (get(&gateway, HOST, &ours).await == 429).then_some(())
    })
    .await;
    told(&gateway, ("rate-limited", 429, "client", "limit")).await;
}

#[tokio::test]
async fn gitspaces_that_fail() {
    let silent = Upstream::scripted(|mut stream, _| async move {
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let garbage = Upstream::always("no HTTP at all\r\n\r\n").await;
    let refusing = Refusing::new();
    let nobody = refusing.address();
    for (row, upstream, state) in [
        (
            ("nothing-listens", 502, "gitspace", "forward"),
            nobody,
            "running",
        ),
        (
            ("gitspace-broke", 502, "gitspace", "forward"),
            garbage.address,
            "running",
        ),
        (
            ("gitspace-timeout", 504, "gitspace", "forward"),
            silent.address,
            "running",
        ),
        (
            ("gitspace-stopped", 503, "gitspace", "authorize"),
            silent.address,
            "stopped",
        ),
        (
            ("gitspace-starting", 503, "gitspace", "authorize"),
            silent.address,
            "starting",
        ),
    ] {
        let gateway = Setup::new()
            .with(|config| config.timeouts.response_head = SHORT)
            .start();
        put(&gateway, &[("state", state.into())], upstream).await;
        let token = gateway.owner();
        get(&gateway, HOST, &[("x-gitspace-token", &token)]).await;
        told(&gateway, row).await;
    }
}

#[tokio::test]
async fn a_control_plane_that_is_silent_too_long() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    plane.snapshot(1, 0, &[route(1, upstream.address)]);
    let gateway = Setup::new().following(&plane, FailMode::Closed).start();
    let token = plane.issuer.token(OWNER);
    eventually("the stale route", || async {
        let status = get(&gateway, HOST, &[("x-gitspace-token", &token)]).await;
        (status == 503).then_some(())
    })
    .await;
    told(
        &gateway,
        ("control-plane-stale", 503, "gateway", "authorize"),
    )
    .await;
}

#[tokio::test]
async fn an_upload_that_stalls() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.body_idle = SHORT)
        .start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 10\r\n\r\nhalf"
    );
    client.send(head).await;
    assert_eq!(client.answer().await.unwrap().status, 408);
    told(&gateway, ("body-timeout", 408, "client", "forward")).await;
}

#[tokio::test]
async fn ends_of_answers_and_streams() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    get(&gateway, HOST, &[("x-gitspace-token", &token)]).await;
    told(&gateway, ("done", 200, "both", "relay")).await;

    for (upgrade, status) in [(false, 200), (true, 101)] {
        let upstream = holding(true).await;
        let gateway = Setup::to(&upstream).start();
        drop(begun(&gateway, upgrade).await);
        // Both ends of a tunnel have ended in order; who breaks one off is in `websocket`.
        let row = match upgrade {
            true => ("done", status, "both", "relay"),
            false => ("client-gone", status, "client", "relay"),
        };
        told(&gateway, row).await;

        let mut client = begun(&gateway, true).await;
        client.send("x").await;
        client.closed().await;
        told(&gateway, ("gitspace-broke", 101, "gitspace", "relay")).await;

        let upstream = holding(false).await;
        let gateway = Setup::new().start();
        put(&gateway, &[], upstream.address).await;
        let _held = begun(&gateway, upgrade).await;
        let other = holding(false).await;
        put(&gateway, &[], other.address).await;
        told(&gateway, ("target-changed", status, "gateway", "relay")).await;

        let gateway = Setup::to(&other)
            .with(|config| config.timeouts.drain = Duration::from_millis(100))
            .start();
        let _held = begun(&gateway, upgrade).await;
        gateway.begin_stop();
        let line = eventually("the account", || async { gateway.lines().pop() }).await;
        let found = (
            &line["reason"],
            &line["status"],
            &line["ended_by"],
            &line["step"],
        );
        let expected = ("drained", status, "gateway", "relay");
        assert_eq!(json!(found), json!(expected), "{line:#}");
    }
}

#[tokio::test]
async fn ends_of_streams_by_the_clock() {
    let upstream = holding(false).await;
    for (row, idle, lifetime) in [
        (("idle", 101, "gateway", "relay"), SHORT, Timeout::Off),
        (("lifetime", 101, "gateway", "relay"), Timeout::Off, SHORT),
    ] {
        let gateway = Setup::to(&upstream)
            .with(|config| {
                config.timeouts.tunnel_idle = idle;
                config.timeouts.tunnel_lifetime = lifetime;
            })
            .start();
        let _held = begun(&gateway, true).await;
        told(&gateway, row).await;
    }
}
