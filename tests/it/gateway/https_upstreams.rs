//! Upstreams over TLS: who is accepted at the other end, and who is not.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Answer, Authority, GITSPACE, Identity, Kind, OWNER, Peer, Setup, TestGateway, Upstream,
};

const HTTP1: &[&[u8]] = &[b"http/1.1"];
const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

async fn get(gateway: &TestGateway) -> Answer {
    let token = gateway.owner();
    gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await
}

/// A gateway whose route leads to `https://{host}:{port}`, with these keys beside it.
fn gateway(peer: &Peer, host: &str, keys: &str) -> TestGateway {
    setup(peer, host, keys).start()
}

fn setup(peer: &Peer, host: &str, keys: &str) -> Setup {
    Setup::new().route(&format!(
        "gitspace = {GITSPACE:?}\nupstream = \"https://{host}:{}\"\nowner = {OWNER:?}\nupgrades = [\"echo\"]\n{keys}",
        peer.address.port()
    ))
}

/// A folder with the authority's certificate, and the key that names it.
fn ca(authority: &Authority) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let key = format!("tls_ca = {path:?}\n");
    (dir, key)
}

async fn refused(gateway: &TestGateway, error: &str, detail: &str) {
    let answer = get(gateway).await;
    assert_eq!(answer.refusal(), (502, "gitspace-tls".into()));
    let status = answer.header("proxy-status").unwrap();
    assert!(status.contains(&format!("error={error};")), "{status}");
    let line = gateway.account().await;
    assert_eq!(line["ended_by"], "gitspace");
    let told = line["detail"].as_str().unwrap();
    assert!(told.contains(detail), "{told}");
    assert!(!answer.text().contains(detail), "{}", answer.text());
}

#[tokio::test]
async fn a_certificate_of_an_authority_that_the_route_names_is_accepted() {
    let authority = Authority::new();
    let peer = Peer::echo(Kind::tls(authority.identity(&["localhost"]), HTTP1)).await;
    let (_dir, ca) = ca(&authority);
    let gateway = gateway(&peer, "localhost", &ca);
    assert_eq!(get(&gateway).await.text(), "hello");
    assert_eq!(get(&gateway).await.text(), "hello");
    let seen = peer.last();
    assert_eq!(seen.version, http::Version::HTTP_11);
    assert!(peer.connections() <= 2, "connections rest in the pool");
}

#[tokio::test]
async fn an_address_may_be_the_name_of_a_certificate() {
    let authority = Authority::new();
    let peer = Peer::echo(Kind::tls(authority.identity(&["127.0.0.1"]), HTTP1)).await;
    let (_dir, ca) = ca(&authority);
    let gateway = gateway(&peer, "127.0.0.1", &ca);
    assert_eq!(get(&gateway).await.text(), "hello");
}

#[tokio::test]
async fn an_authority_that_this_machine_does_not_trust_is_refused() {
    let authority = Authority::new();
    let peer = Peer::echo(Kind::tls(authority.identity(&["localhost"]), HTTP1)).await;
    let gateway = gateway(&peer, "localhost", "");
    refused(&gateway, "tls_certificate_error", "UnknownIssuer").await;
    assert!(peer.seen().is_empty(), "no byte of the request was sent");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_the_route_names_it() {
    let authority = Authority::new();
    let peer = Peer::echo(Kind::tls(authority.identity(&["app.internal"]), HTTP1)).await;
    let (_dir, ca) = ca(&authority);
    refused(
        &gateway(&peer, "localhost", &ca),
        "tls_certificate_error",
        "app.internal",
    )
    .await;
    let named = gateway(
        &peer,
        "localhost",
        &format!("{ca}tls_name = \"app.internal\""),
    );
    assert_eq!(get(&named).await.text(), "hello");
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_is_refused() {
    let authority = Authority::new();
    let identity = authority.identity_with(&["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let peer = Peer::echo(Kind::tls(identity, HTTP1)).await;
    let (_dir, ca) = ca(&authority);
    refused(
        &gateway(&peer, "localhost", &ca),
        "tls_certificate_error",
        "expired",
    )
    .await;
}

#[tokio::test]
async fn a_pinned_key_is_accepted_without_an_authority_and_any_other_is_refused() {
    let authority = Authority::new();
    let identity = authority.identity(&["whatever.test"]);
    let pin = format!("tls_pin = {:?}", identity.pin);
    let peer = Peer::echo(Kind::tls(identity, HTTP1)).await;
    assert_eq!(
        get(&gateway(&peer, "127.0.0.1", &pin)).await.text(),
        "hello"
    );

    let other = format!("tls_pin = {:?}", authority.identity(&["x.test"]).pin);
    refused(
        &gateway(&peer, "127.0.0.1", &other),
        "tls_certificate_error",
        "invalid peer certificate",
    )
    .await;
}

#[tokio::test]
async fn a_pin_beside_an_authority_adds_to_it() {
    let authority = Authority::new();
    let identity = authority.identity(&["localhost"]);
    let (right, wrong) = (identity.pin.clone(), authority.identity(&["x.test"]).pin);
    let peer = Peer::echo(Kind::tls(identity, HTTP1)).await;
    let (_dir, ca) = ca(&authority);
    let with = |pin: &str| gateway(&peer, "localhost", &format!("{ca}tls_pin = {pin:?}"));
    assert_eq!(get(&with(&right)).await.text(), "hello");
    refused(&with(&wrong), "tls_certificate_error", "invalid peer").await;
    let stranger = Authority::new().identity(&["localhost"]);
    let pin = stranger.pin.clone();
    let peer = Peer::echo(Kind::tls(stranger, HTTP1)).await;
    let gateway = gateway(&peer, "localhost", &format!("{ca}tls_pin = {pin:?}"));
    refused(&gateway, "tls_certificate_error", "invalid peer").await;
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_is_refused() {
    let upstream = Upstream::scripted(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 64]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"https://{}\"\nowner = {OWNER:?}",
            upstream.address
        ))
        .start();
    refused(&gateway, "tls_protocol_error", "corrupt message").await;
}

#[tokio::test]
async fn a_handshake_that_hangs_runs_into_the_connect_deadline() {
    let upstream = Upstream::scripted(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let gateway = Setup::new()
        .with(|config| config.timeouts.connect = std::time::Duration::from_millis(200))
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"https://{}\"\nowner = {OWNER:?}",
            upstream.address
        ))
        .start();
    assert_eq!(
        get(&gateway).await.refusal(),
        (504, "gitspace-timeout".into())
    );
}

#[tokio::test]
async fn http2_is_spoken_where_the_upstream_picks_it() {
    let authority = Authority::new();
    let peer = Peer::echo(Kind::tls(authority.identity(&["localhost"]), BOTH)).await;
    let (_dir, ca) = ca(&authority);
    let gateway = setup(&peer, "localhost", &ca)
        .with(|config| config.workers = 1)
        .start();
    for _ in 0..3 {
        assert_eq!(get(&gateway).await.text(), "hello");
    }
    let seen = peer.last();
    assert_eq!(seen.version, http::Version::HTTP_2);
    assert_eq!(seen.uri.scheme_str(), Some("https"));
    assert_eq!(
        seen.uri.host(),
        Some("app-a1b2c3.gitspaces.localhost"),
        "the host that the client asked for"
    );
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn an_upgrade_goes_over_http1_where_the_upstream_would_pick_http2() {
    let authority = Authority::new();
    let peer = Peer::serving(
        Kind::tls(authority.identity(&["localhost"]), BOTH),
        |mut request| async move {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(stream) = upgrade.await else { return };
                let mut stream = hyper_util::rt::TokioIo::new(stream);
                let mut bytes = [0; 4];
                stream.read_exact(&mut bytes).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            http::Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "echo")
                .body(http_body_util::combinators::BoxBody::default())
                .unwrap()
        },
    )
    .await;
    let (_dir, ca) = ca(&authority);
    let gateway = gateway(&peer, "localhost", &ca);
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let headers = [
        ("x-gitspace-token", token.as_str()),
        ("connection", "upgrade"),
        ("upgrade", "echo"),
    ];
    client.begin("GET", "/", &headers, b"").await;
    assert_eq!(client.head().await.unwrap().status, 101);
    client.send(b"ping").await;
    assert_eq!(client.closed().await, b"ping");
    assert_eq!(peer.last().version, http::Version::HTTP_11);
}

/// A route of the admin API to a VM whose key is pinned.
fn pinned(peer: &Peer, pin: &str, generation: u64) -> Value {
    json!({
        "gitspace": GITSPACE, "generation": generation, "state": "running", "owner": OWNER,
        "address": peer.address.ip(),
        "ide": { "port": peer.address.port(), "protocol": "https", "tls": { "pin": pin } },
    })
}

#[tokio::test]
async fn another_pin_is_another_target() {
    let authority = Authority::new();
    let identity: Identity = authority.identity(&["vm.test"]);
    let (right, wrong) = (identity.pin.clone(), authority.identity(&["x.test"]).pin);
    let peer = Peer::echo(Kind::tls(identity, HTTP1)).await;
    let gateway = Setup::new().with(|config| config.workers = 1).start();
    let put = async |pin: &str| {
        let path = format!("/v1/routes/{GITSPACE}");
        let answer = gateway
            .admin(Method::PUT, &path, Some(pinned(&peer, pin, 1)))
            .await;
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap()
        );
    };
    put(&right).await;
    assert_eq!(get(&gateway).await.text(), "hello");
    put(&right).await;
    assert_eq!(get(&gateway).await.text(), "hello");
    assert_eq!(
        peer.connections(),
        1,
        "the same target keeps its connection"
    );
    put(&wrong).await;
    assert_eq!(get(&gateway).await.refusal(), (502, "gitspace-tls".into()));
    assert_eq!(peer.connections(), 2, "no connection of the old target");
}

#[tokio::test]
async fn a_pin_that_is_none_and_one_of_a_plain_port_are_refused_by_the_admin_api() {
    let peer = Peer::echo(Kind::h2c()).await;
    let gateway = Setup::new().start();
    let path = format!("/v1/routes/{GITSPACE}");
    let bad = pinned(&peer, "sha256/short", 1);
    let answer = gateway.admin(Method::PUT, &path, Some(bad)).await;
    assert!(answer.status().is_client_error());
    let mut plain = pinned(
        &peer,
        "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        1,
    );
    plain["ide"]["protocol"] = "http".into();
    let answer = gateway.admin(Method::PUT, &path, Some(plain)).await;
    assert!(answer.status().is_client_error());
    assert!(answer.text().await.unwrap().contains("not https"));
}
