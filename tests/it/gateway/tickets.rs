//! Tickets and sessions, and what the gateway answers below `/_gitspace/`.

use serde_json::{Value, json};

use crate::support::{
    Answer, ControlPlane, GITSPACE, H2, HOST, OWNER, Setup, TestGateway, Upstream, port_host,
};

const NAVIGATION: (&str, &str) = ("sec-fetch-mode", "navigate");

async fn open(gateway: &TestGateway, host: &str, target: &str) -> Answer {
    gateway.tls(host).await.get(target, &[NAVIGATION]).await
}

#[tokio::test]
async fn a_ticket_becomes_a_session_that_works() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let answer = open(&gateway, HOST, &format!("/a?x=1&gitspace_token={ticket}&y")).await;
    assert_eq!(answer.status, 303);
    assert_eq!(answer.header("location"), Some("/a?x=1&y"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["Secure", "HttpOnly", "Path=/", "SameSite=Lax"] {
        assert!(
            cookie.split("; ").any(|found| found == attribute),
            "{cookie}"
        );
    }
    assert!(!cookie.contains("Domain"));
    assert_eq!(
        upstream.connections(),
        0,
        "the exchange is the gateway's alone"
    );

    let session = answer.session().unwrap();
    let jar = format!("app=1; {session}; theme=dark");
    let answer = gateway.tls(HOST).await.get("/a", &[("cookie", &jar)]).await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("cookie"), Some("app=1; theme=dark"));
    assert_eq!(seen.header("x-gitspace-user"), Some(OWNER));
    let url = format!("https://{HOST}/");
    let answer = H2::connect(&gateway, HOST)
        .await
        .request("GET", &url, &[("cookie", &session)], b"")
        .await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_ticket_counts_once_also_over_a_restart() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let first = open(&gateway, HOST, &target).await;
    assert_eq!(first.status, 303);
    let again = open(&gateway, HOST, &target).await;
    assert_eq!(again.status, 401);
    assert!(again.text().contains("ticket-used") && again.session().is_none());
    // A page that is reloaded has its session.
    let session = first.session().unwrap();
    let reloaded = gateway
        .tls(HOST)
        .await
        .get(&target, &[NAVIGATION, ("cookie", &session)])
        .await;
    assert_eq!(reloaded.status, 303);

    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    assert_eq!(open(&gateway, HOST, &target).await.status, 401);
    let answer = gateway
        .tls(HOST)
        .await
        .get("/", &[("cookie", &session)])
        .await;
    assert_eq!(answer.status, 200, "the session outlives a restart");
}

#[tokio::test]
async fn of_many_who_bring_the_same_ticket_one_wins() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let all = (0..20).map(|_| open(&gateway, HOST, &target));
    let answers = futures_util::future::join_all(all).await;
    let won = answers.iter().filter(|answer| answer.session().is_some());
    assert_eq!(won.count(), 1);
}

#[tokio::test]
async fn a_ticket_counts_only_on_its_host_and_in_the_url_of_a_page() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    for host in [&*port_host(3000), "other-a1b2c3.gitspaces.localhost"] {
        let answer = open(&gateway, host, &target).await;
        assert_eq!(answer.status, 401, "{host}");
        assert!(answer.text().contains("invalid-token") && answer.session().is_none());
    }
    let mut client = gateway.plain().await;
    let cors = client.get(&target, &[("sec-fetch-mode", "cors")]).await;
    assert_eq!(cors.refusal(), (401, "invalid-token".into()));
    let post = client.request("POST", &target, &[NAVIGATION], b"").await;
    assert_eq!(post.refusal(), (401, "invalid-token".into()));
    let header = client
        .get("/", &[NAVIGATION, ("x-gitspace-token", &ticket)])
        .await;
    assert_eq!(header.status, 401);
    // None of that used it up.
    assert_eq!(open(&gateway, HOST, &target).await.status, 303);
}

#[tokio::test]
async fn a_session_is_for_its_host_alone() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", 3000);
    let host = port_host(3000);
    let answer = open(&gateway, &host, &format!("/?gitspace_token={ticket}")).await;
    let session = answer.session().unwrap();
    let mut client = gateway.plain().await;
    let headers = [("cookie", &*session), ("host", &host)];
    assert_eq!(client.get("/", &headers).await.status, 200);
    let elsewhere = client.get("/", &[("cookie", &session)]).await;
    assert_eq!(elsewhere.refusal(), (401, "invalid-token".into()));
    let changed = session.replace("=1.", "=1.A");
    let headers = [("cookie", &*changed), ("host", &host)];
    assert_eq!(client.get("/", &headers).await.status, 401);
}

#[tokio::test]
async fn a_ticket_leads_nowhere_else() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for (jti, path) in [
        "//evil.test/",
        "///evil.test",
        "/\\evil.test",
        "/%2f/evil.test",
    ]
    .into_iter()
    .enumerate()
    {
        let ticket = gateway.setup.issuer.ticket(OWNER, &jti.to_string(), "ide");
        let answer = open(&gateway, HOST, &format!("{path}?gitspace_token={ticket}")).await;
        if answer.status == 400 {
            continue;
        }
        assert_eq!(answer.status, 303, "{path}");
        let location = answer.header("location").unwrap();
        let second = location.as_bytes().get(1);
        assert!(
            location.starts_with('/') && !matches!(second, Some(b'/' | b'\\')),
            "{location}"
        );
    }
}

#[tokio::test]
async fn a_new_ticket_replaces_the_session() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.issuer[0].grants = true)
        .start();
    let issuer = &gateway.setup.issuer;
    let target = |sub: &str| format!("/?gitspace_token={}", issuer.ticket(sub, sub, "ide"));
    let first = open(&gateway, HOST, &target(OWNER))
        .await
        .session()
        .unwrap();
    let answer = gateway
        .tls(HOST)
        .await
        .get(&target("guest"), &[NAVIGATION, ("cookie", &first)])
        .await;
    assert_eq!(answer.status, 303);
    let second = answer.session().unwrap();
    let mut client = gateway.tls(HOST).await;
    client.get("/", &[("cookie", &second)]).await;
    assert_eq!(upstream.last().header("x-gitspace-user"), Some("guest"));
}

#[tokio::test]
async fn the_control_plane_decides_which_exchange_was_first() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    plane.snapshot(1, 60, &[]);
    let of = |plane: &ControlPlane| Setup::to(&upstream).following(plane, Default::default());
    let (one, other) = (of(&plane).start(), of(&plane).start());
    for gateway in [&one, &other] {
        crate::support::eventually("the feed", || async {
            (gateway.metric("cde_gateway_feed_revision", &[]).await == 1.0).then_some(())
        })
        .await;
    }
    let ticket = plane.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    assert_eq!(open(&one, HOST, &target).await.status, 303);
    let answer = open(&other, HOST, &target).await;
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("ticket-used"));
}

#[tokio::test]
async fn the_gateway_tells_who_is_asking_and_ends_the_session() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let answer = open(&gateway, HOST, &format!("/?gitspace_token={ticket}")).await;
    let session = answer.session().unwrap();
    let mut client = gateway.tls(HOST).await;

    let answer = client
        .get("/_gitspace/whoami", &[("cookie", &session)])
        .await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told["principal"], OWNER);
    let answer = client
        .get("/_gitspace/status", &[("cookie", &session)])
        .await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told, json!({ "gitspace": GITSPACE, "state": "running" }));

    let elsewhere = [("cookie", &*session), ("origin", "https://evil.test")];
    let answer = client
        .request("POST", "/_gitspace/logout", &elsewhere, b"")
        .await;
    assert_eq!(answer.refusal(), (403, "origin-refused".into()));
    let own = format!("https://{HOST}");
    let here = [("cookie", &*session), ("origin", &*own)];
    let answer = client
        .request("POST", "/_gitspace/logout", &here, b"")
        .await;
    assert_eq!(answer.status, 204);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-gitspace=;") && cookie.contains("Max-Age=0"),
        "{cookie}"
    );

    for (method, path, expected) in [
        ("GET", "/_gitspace/nothing", (404, "no-such-page")),
        ("GET", "/_gitspace/logout", (405, "method-not-allowed")),
        ("GET", "/_gitspace/whoami", (401, "no-token")),
        ("GET", "/_gitspace/status", (401, "no-token")),
        ("POST", "/_gitspace/whoami", (405, "method-not-allowed")),
    ] {
        let answer = client.request(method, path, &[], b"").await;
        assert_eq!(answer.refusal(), (expected.0, expected.1.into()), "{path}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_app_can_verify_who_is_asking() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client.get("/", &[("x-gitspace-token", &token)]).await;
    let assertion = upstream
        .last()
        .header("x-gitspace-assertion")
        .unwrap()
        .to_owned();
    let answer = client.get("/_gitspace/jwks.json", &[]).await;
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_slice(&answer.body).unwrap();
    let kid = jsonwebtoken::decode_header(&assertion)
        .unwrap()
        .kid
        .unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut check = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    check.set_audience(&[HOST]);
    let told = jsonwebtoken::decode::<Value>(&assertion, &key, &check).unwrap();
    assert_eq!(told.claims["sub"], OWNER);
    assert_eq!(told.claims["gitspace"], GITSPACE);
}
