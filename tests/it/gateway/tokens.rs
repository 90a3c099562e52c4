//! Who is let in: carriers, and tokens that are not good.

use serde_json::json;

use crate::support::{Answer, GITSPACE, H2, HOST, Issuer, OWNER, Setup, TestGateway, Upstream};

async fn with_token(gateway: &TestGateway, token: &str) -> Answer {
    gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", token)])
        .await
}

#[tokio::test]
async fn every_carrier_of_ours_is_accepted_and_none_reaches_the_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.auth.token_cookies = vec!["other_token".into()])
        .start();
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=1; other_token={token}; b=2");
    let ours = format!("/x?gitspace_token={token}&y=1");
    let foreign = format!("/x?y=1&token={token}");
    for (target, headers, expected) in [
        ("/x?y=1", [("x-gitspace-token", &*token)], "/x?y=1"),
        ("/x?y=1", [("authorization", &*bearer)], "/x?y=1"),
        ("/x?y=1", [("cookie", &*cookie)], "/x?y=1"),
        (&*ours, [("accept", "*/*")], "/x?y=1"),
        (&*foreign, [("accept", "*/*")], "/x?y=1"),
    ] {
        let answer = client.get(target, &headers).await;
        assert_eq!(answer.status, 200, "{target} {headers:?} {answer:?}");
        let seen = upstream.last();
        assert_eq!(seen.target, expected);
        assert!(!format!("{seen:?}").contains(&token), "{seen:?}");
        assert_eq!(seen.header("x-gitspace-user"), Some(OWNER));
    }
}

#[tokio::test]
async fn tokens_that_are_not_ours_pass_to_the_app_untouched() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let stranger = Issuer::new("https://stranger.test").token("eve");
    let bearer = format!("Bearer {stranger}");
    let target = format!("/lab?token={stranger}&x=%2F");
    let headers = [
        ("x-gitspace-token", &*token),
        ("authorization", &*bearer),
        ("cookie", "session=abc; theme=dark"),
    ];
    let answer = gateway.plain().await.get(&target, &headers).await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.target, target);
    assert_eq!(seen.header("authorization"), Some(&*bearer));
    assert_eq!(seen.header("cookie"), Some("session=abc; theme=dark"));
}

#[tokio::test]
async fn a_token_of_a_wrong_issuer_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let unknown = Issuer::new("https://stranger.test").token(OWNER);
    let answer = with_token(&gateway, &unknown).await;
    assert_eq!(answer.refusal(), (401, "invalid-token".into()));
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer")
    );
    let log = gateway.account().await;
    let detail = log["detail"].as_str().unwrap();
    assert!(detail.contains("https://stranger.test") && detail.contains("[[gateway.issuer]]"));
    assert!(
        !answer.text().contains("stranger"),
        "details stay in the log"
    );

    // Its name alone does not help.
    let forged = Issuer::new("https://issuer.test").token(OWNER);
    let answer = with_token(&gateway, &forged).await;
    assert_eq!(answer.refusal(), (401, "invalid-token".into()));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn an_expired_token_is_refused_by_its_own_reason() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway
        .setup
        .issuer
        .token_with(OWNER, json!({ "exp": 1_000_000_000 }));
    let answer = with_token(&gateway, &token).await;
    assert_eq!(answer.refusal(), (401, "expired-token".into()));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_token_for_another_gitspace_finds_nothing() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    let token = issuer.token_with(OWNER, json!({ "gitspace": "other-a1b2c3" }));
    let answer = with_token(&gateway, &token).await;
    assert_eq!(answer.refusal(), (404, "no-such-gitspace".into()));
    let token = issuer.token_with(OWNER, json!({ "gitspace": ["other-a1b2c3", GITSPACE] }));
    assert_eq!(with_token(&gateway, &token).await.status, 200);
}

#[tokio::test]
async fn a_token_signed_with_the_public_key_as_a_shared_secret_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.setup.issuer.confused(OWNER);
    let answer = with_token(&gateway, &token).await;
    assert_eq!(answer.refusal(), (401, "invalid-token".into()));
    let line = gateway.account().await;
    assert_eq!(
        line["detail"],
        "the token is signed with \"HS256\", its key is for ES256"
    );
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn other_bad_tokens_are_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    let good = gateway.owner();
    let (signed, _) = good.rsplit_once('.').unwrap();
    let audience = issuer.token_with(OWNER, json!({ "aud": "another" }));
    let misplaced = issuer.ticket(OWNER, "1", "ide");
    for bad in [
        "nonsense",
        "a.b.c",
        &format!("{signed}."),
        &format!("{signed}.AAAA"),
        &audience,
        &misplaced,
        &"x".repeat(20_000),
    ] {
        let answer = with_token(&gateway, bad).await;
        assert_eq!(answer.refusal(), (401, "invalid-token".into()), "{bad}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_page_without_a_token_is_told_what_to_do() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let navigation = [("sec-fetch-mode", "navigate"), ("accept", "text/html")];
    let answer = gateway
        .tls(HOST)
        .await
        .get("/?from-the-request", &navigation)
        .await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"));
    assert!(answer.text().contains("no-token") && !answer.text().contains("from-the-request"));
    assert!(
        answer
            .header("proxy-status")
            .unwrap()
            .ends_with("details=\"no-token\"")
    );
}

#[tokio::test]
async fn a_page_without_a_token_goes_to_the_login_and_others_do_not() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.auth.login_url = "https://login.test/start?x=1".into())
        .start();
    let mut client = gateway.plain().await;
    let host = format!("{HOST}:8443");
    let token = Issuer::new("https://stranger.test").token(OWNER);
    let target = format!("/a?b=c&gitspace_token={token}");
    let headers = [("sec-fetch-mode", "navigate"), ("host", &*host)];
    let answer = client.get(&target, &headers).await;
    assert_eq!(answer.status, 303);
    let to = format!(
        "https://login.test/start?x=1&return_to=https%3A%2F%2F{HOST}%3A8443%2Fa%3Fb%3Dc&state="
    );
    let location = answer.header("location").unwrap();
    assert!(
        location.starts_with(&to),
        "and the token went no further: {location}"
    );
    let answer = client.get("/a", &[("sec-fetch-mode", "cors")]).await;
    assert_eq!(answer.refusal(), (401, "no-token".into()));
    let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
    assert_eq!(client.get("/a", &frame).await.status, 401);
}

#[tokio::test]
async fn a_websocket_without_a_token_gets_401_before_the_upgrade() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.auth.login_url = "https://login.test/".into())
        .start();
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("accept", "text/html"),
    ];
    let answer = gateway.tls(HOST).await.get("/", &headers).await;
    assert_eq!(answer.refusal(), (401, "no-token".into()));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn grpc_gets_its_own_status() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let url = format!("https://{HOST}/a.B/C");
    let answer = H2::connect(&gateway, HOST)
        .await
        .request("POST", &url, &[("content-type", "application/grpc")], b"x")
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert_eq!(answer.headers()["grpc-message"], "a sign-in is needed");
    let status = answer.headers()["proxy-status"].to_str().unwrap();
    assert!(status.ends_with("; details=\"no-token\""), "{status}");
}
