//! Revocation: what was issued before counts no more, at once and after a restart; what is issued later does.

use cde_gateway::config::FailMode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, GITSPACE, HOST, Issuer, OWNER, Setup, TestGateway, Upstream, eventually, now,
    port_host, route,
};

async fn revoke(gateway: &TestGateway, revocation: Value) -> (u16, Value) {
    let answer = gateway
        .admin(Method::POST, "/v1/revocations", Some(revocation))
        .await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn ask(gateway: &TestGateway, host: &str, header: (&str, &str)) -> (u16, String) {
    let answer = gateway.plain().await.to(host).get("/", &[header]).await;
    match answer.status {
        200 => (200, String::new()),
        _ => answer.refusal(),
    }
}

fn good() -> (u16, String) {
    (200, String::new())
}

fn refused() -> (u16, String) {
    (401, "revoked-token".into())
}

/// A token of a minute ago.
fn older(issuer: &Issuer, jti: &str) -> String {
    issuer.token_with(
        OWNER,
        json!({ "jti": jti, "sid": "login", "iat": now() - 60 }),
    )
}

async fn session(gateway: &TestGateway, jti: &str) -> String {
    let ticket = gateway.setup.issuer.token_with(
        OWNER,
        json!({ "use": "ticket", "jti": jti, "sid": "login", "iat": now() - 20, "exp": now() + 40,
                "gitspace": GITSPACE, "ports": ["ide"] }),
    );
    let target = format!("/?gitspace_token={ticket}");
    let mut client = gateway.plain().await;
    let answer = client.get(&target, &[("sec-fetch-mode", "navigate")]).await;
    answer.session().unwrap()
}

#[tokio::test]
async fn each_kind_refuses_what_was_issued_before_and_nothing_else() {
    let upstream = Upstream::echo().await;
    for (kind, id, elsewhere) in [
        ("jti", "t1", good()),
        ("sid", "login", refused()),
        ("sub", OWNER, refused()),
        ("gitspace", GITSPACE, refused()),
        ("port", "app-a1b2c3/ide", refused()),
    ] {
        let gateway = Setup::to(&upstream).start();
        let token = older(&gateway.setup.issuer, "t1");
        let other = older(&gateway.setup.issuer, "t2");
        let cookie = session(&gateway, "t3").await;
        let carriers = [
            ("x-gitspace-token", &*token),
            ("x-gitspace-token", &*other),
            ("cookie", &*cookie),
        ];
        for carrier in carriers {
            assert_eq!(ask(&gateway, HOST, carrier).await, good());
        }
        let (status, told) = revoke(
            &gateway,
            json!({ "kind": kind, "id": id, "by": "root", "reason": "left" }),
        )
        .await;
        assert_eq!(status, 201, "{told}");
        assert_eq!(told["reaches"], "this gateway");
        assert_eq!(ask(&gateway, HOST, carriers[0]).await, refused(), "{kind}");
        assert_eq!(ask(&gateway, HOST, carriers[1]).await, elsewhere, "{kind}");
        assert_eq!(ask(&gateway, HOST, carriers[2]).await, elsewhere, "{kind}");
        // A new login.
        let later = gateway.setup.issuer.token_with(
            OWNER,
            json!({ "jti": "t4", "sid": "login", "iat": now() + 5 }),
        );
        assert_eq!(
            ask(&gateway, HOST, ("x-gitspace-token", &later)).await,
            good(),
            "{kind}"
        );
        // Whoever needs no token needs no good one.
        let public = ask(&gateway, &port_host(4000), carriers[0]).await;
        assert_eq!(public, good(), "{kind}");
        let port = ask(&gateway, &port_host(3000), carriers[0]).await;
        let expected = if kind == "port" { good() } else { refused() };
        assert_eq!(port, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_revoked_ticket_begins_no_session() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    revoke(
        &gateway,
        json!({ "kind": "jti", "id": "t1", "issued_before": now() + 60 }),
    )
    .await;
    let target = format!(
        "/?gitspace_token={}",
        gateway.setup.issuer.ticket(OWNER, "t1", "ide")
    );
    let mut client = gateway.plain().await;
    let headers = [("sec-fetch-mode", "navigate"), ("accept", "text/html")];
    let answer = client.get(&target, &headers).await;
    assert_eq!((answer.status, answer.session()), (401, None));
    assert!(
        answer
            .header("proxy-status")
            .unwrap()
            .contains("revoked-token")
    );
}

#[tokio::test]
async fn it_outlives_a_restart_and_can_be_taken_back() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = older(&gateway.setup.issuer, "t1");
    revoke(&gateway, json!({ "kind": "sub", "id": OWNER })).await;
    let setup = gateway.setup.clone();
    gateway.stop().await;

    let gateway = setup.start();
    assert_eq!(
        ask(&gateway, HOST, ("x-gitspace-token", &token)).await,
        refused()
    );
    let listed: Value = gateway
        .admin(Method::GET, "/v1/revocations", None)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(listed["revocations"][0]["id"], OWNER);
    let path = format!("/v1/revocations/sub/{OWNER}");
    assert_eq!(
        gateway.admin(Method::DELETE, &path, None).await.status(),
        204
    );
    assert_eq!(
        gateway.admin(Method::DELETE, &path, None).await.status(),
        404
    );
    assert_eq!(
        ask(&gateway, HOST, ("x-gitspace-token", &token)).await,
        good()
    );
}

#[tokio::test]
async fn the_feed_revokes_too() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    plane.snapshot(1, 60, &[route(1, upstream.address)]);
    let gateway = Setup::new().following(&plane, FailMode::Static).start();
    let token = older(&plane.issuer, "t1");
    eventually("the route", async || {
        (ask(&gateway, HOST, ("x-gitspace-token", &token)).await == good()).then_some(())
    })
    .await;
    plane.revoke(
        2,
        &json!([
            { "kind": "gitspace", "id": "Not one" },
            { "kind": "jti", "id": "t1", "issued_before": now() },
        ]),
    );
    eventually("the revocation", async || {
        (ask(&gateway, HOST, ("x-gitspace-token", &token)).await == refused()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_revocation_is_told() {
    let gateway = Setup::new().start();
    for (body, status, said) in [
        (
            json!({ "kind": "user", "id": "a" }),
            400,
            "unknown variant `user`",
        ),
        (json!({ "kind": "sub" }), 400, "missing field `id`"),
        (
            json!({ "kind": "sub", "id": "a", "until": "soon" }),
            400,
            "until",
        ),
        (
            json!({ "kind": "sub", "id": "" }),
            422,
            "`id` must have 1 to 256 bytes",
        ),
        (
            json!({ "kind": "port", "id": "api-k3x9q2" }),
            422,
            "which is no port such as",
        ),
        (
            json!({ "kind": "sub", "id": "a", "issued_before": 5, "until": 5 }),
            422,
            "`until` must be later",
        ),
    ] {
        let (found, told) = revoke(&gateway, body.clone()).await;
        assert_eq!(found, status, "{told}");
        assert!(
            told["detail"].as_str().unwrap().contains(said),
            "{body} gave {told}"
        );
    }
    let path = "/v1/revocations/user/a";
    assert_eq!(
        gateway.admin(Method::DELETE, path, None).await.status(),
        400
    );
}

#[tokio::test]
async fn who_was_good_once_locks_nobody_out() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.failed_logins_per_network = 2.try_into().unwrap())
        .start();
    let old = gateway
        .setup
        .issuer
        .token_with(OWNER, json!({ "exp": now() - 3600, "iat": now() - 7200 }));
    for _ in 0..20 {
        let found = ask(&gateway, HOST, ("x-gitspace-token", &old)).await;
        assert_eq!(found, (401, "expired-token".into()));
    }
    let guess = Issuer::new("https://issuer.test").token(OWNER);
    let mut refusals = Vec::new();
    for _ in 0..5 {
        refusals.push(ask(&gateway, HOST, ("x-gitspace-token", &guess)).await.1);
    }
    assert_eq!(
        refusals.last().unwrap(),
        "rate-limited",
        "guesses are counted: {refusals:?}"
    );
}
