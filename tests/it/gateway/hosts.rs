//! Which hosts are served: canonical, ambiguous, unknown, not covered by the certificate.

use crate::support::{GITSPACE, H2, HOST, Setup, Upstream};

#[tokio::test]
async fn a_host_may_be_written_in_any_case_with_a_dot_and_a_port() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let host = format!("{}.Gitspaces.LOCALHOST.:8443", GITSPACE.to_uppercase());
    let answer = gateway
        .plain()
        .await
        .get("/", &[("host", &host), ("x-gitspace-token", &token)])
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.last().header("host"), Some(&*host));
}

#[tokio::test]
async fn a_request_with_two_hosts_none_or_another_than_its_target_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let bad = [
        format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nhost: {HOST}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nHost: other.test\r\n"),
        "GET / HTTP/1.1\r\n".to_owned(),
        "GET / HTTP/1.0\r\n".to_owned(),
        format!("GET http://other.test/ HTTP/1.1\r\nhost: {HOST}\r\n"),
        format!("GET http://{HOST}/ HTTP/1.1\r\nhost: other.test\r\n"),
        "GET / HTTP/1.1\r\nhost: user@other.test\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: \r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: {HOST}:http\r\n"),
    ];
    for head in &bad {
        let mut client = gateway.plain().await;
        client
            .send(format!("{head}x-gitspace-token: {token}\r\n\r\n"))
            .await;
        let answer = match client.answer().await {
            Ok(answer) => answer,
            // HTTP/1.0 is answered in kind.
            Err(error) => {
                assert!(error.to_string().contains("HTTP/1.0 400"), "{head}{error}");
                continue;
            }
        };
        assert_eq!(answer.refusal(), (400, "bad-request".into()), "{head}");
    }
    gateway.accounted(bad.len()).await;
    assert_eq!(upstream.connections(), 0, "nothing of it went on");
}

#[tokio::test]
async fn an_absolute_target_with_the_same_host_is_served_in_origin_form() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let target = format!("http://{HOST}/a?b");
    let token = gateway.owner();
    let answer = gateway
        .plain()
        .await
        .get(&target, &[("x-gitspace-token", &token)])
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.last().target, "/a?b");
}

#[tokio::test]
async fn an_unknown_host_tells_nothing_without_a_token_and_404_with_one() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    for host in [
        "other-a1b2c3.gitspaces.localhost",
        "elsewhere.test",
        "gitspaces.localhost",
        "127.0.0.1",
        "[::1]:8443",
    ] {
        let mut client = gateway.plain().await.to(host);
        let anonymous = client.get("/", &[]).await;
        assert_eq!(anonymous.refusal(), (401, "no-token".into()), "{host}");
        let known = client.get("/", &[("x-gitspace-token", &token)]).await;
        assert_eq!(known.refusal(), (404, "no-such-gitspace".into()), "{host}");
    }
    // To anonymous clients a gitspace that is there looks the same.
    let there = gateway.plain().await.get("/", &[]).await;
    assert_eq!(there.refusal(), (401, "no-token".into()));
}

#[tokio::test]
async fn a_static_route_may_claim_a_host_of_its_own() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new()
        .route(&format!(
            "host = \"App.Example.test\"\nupstream = \"http://{}\"\nvisibility = \"public\"",
            upstream.address
        ))
        .start();
    let answer = gateway
        .plain()
        .await
        .to("app.example.TEST")
        .get("/", &[])
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let headers = [("host", "app.example.test"), ("x-gitspace-token", &token)];
    let answer = gateway.tls(HOST).await.get("/", &headers).await;
    assert_eq!(answer.refusal(), (421, "misdirected".into()));

    let mut client = H2::connect(&gateway, HOST).await;
    let answer = client
        .request("GET", "https://app.example.test/", &[], b"")
        .await;
    assert_eq!(answer.status(), 421);
    // The connection goes on, and a sibling that the certificate covers is served on it.
    let own = format!("https://{HOST}/");
    let answer = client
        .request("GET", &own, &[("x-gitspace-token", &token)], b"")
        .await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_plain_listener_may_send_everything_to_https() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.listen[1].redirect_to_https = true)
        .start();
    let mut client = gateway.plain().await;
    let answer = client.request("POST", "/a//b?x=%2f&y", &[], b"").await;
    assert_eq!(answer.status, 308);
    let expected = format!("https://{HOST}/a//b?x=%2f&y");
    assert_eq!(answer.header("location"), Some(&*expected));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn trace_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let answer = gateway
        .plain()
        .await
        .request("TRACE", "/", &[("x-gitspace-token", &token)], b"")
        .await;
    assert_eq!(answer.refusal(), (405, "method-not-allowed".into()));
}
