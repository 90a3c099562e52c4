//! Tokens of a megabyte in every carrier: an answer comes, no app hears of it, and the gateway serves the next one.

use crate::support::{GITSPACE, H2, HOST, Setup, Upstream};

const MEGABYTE: usize = 1 << 20;

/// A target and a field for each carrier.
fn carried(token: &str) -> [(String, (&'static str, String)); 7] {
    let field = |name, value: String| ("/".to_owned(), (name, value));
    [
        field("x-gitspace-token", token.into()),
        field("authorization", format!("Bearer {token}")),
        field("cookie", format!("__Host-gitspace={token}")),
        field("cookie", format!("__Host-gitspace-login={token}")),
        field("cookie", format!("their_token={token}")),
        (
            format!("/?gitspace_token={token}"),
            ("accept", "text/html".into()),
        ),
        (format!("/?token={token}"), ("accept", "text/html".into())),
    ]
}

#[tokio::test]
async fn a_token_of_a_megabyte_is_refused_in_every_carrier() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.auth.token_cookies = vec!["their_token".into()])
        .start();
    let claims = "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0In0";
    for token in [
        "x".repeat(MEGABYTE),
        format!("{}.{claims}.{}", "A".repeat(MEGABYTE), "A".repeat(86)),
        format!("eyJhbGciOiJFUzI1NiJ9.{claims}.{}", "A".repeat(MEGABYTE)),
        ".".repeat(MEGABYTE),
    ] {
        for (target, (name, value)) in carried(&token) {
            let answer = gateway.plain().await.get(&target, &[(name, &value)]).await;
            assert!(
                matches!(answer.status, 400 | 414 | 431),
                "{name} {}",
                answer.status
            );
        }
    }
    // As a whole connection's last words over HTTP/2, where hpack would take it apart.
    let url = format!("https://{HOST}/");
    let long = "x".repeat(60_000);
    let answer = H2::connect(&gateway, HOST)
        .await
        .request("GET", &url, &[("x-gitspace-token", &long)], b"")
        .await;
    assert!(matches!(answer.status().as_u16(), 401 | 431), "{answer:?}");
    assert_eq!(upstream.connections(), 0);
    let token = gateway.owner();
    let answer = gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_head_full_of_tokens_costs_a_few_looks_and_no_more() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    // The most that a head may hold: each within what is read of a token, and each of our issuer.
    let forged = crate::support::Issuer::new("https://issuer.test");
    let padded = forged.token_with("eve", serde_json::json!({ "x": "y".repeat(5_000) }));
    let bearer = format!("Bearer {padded}");
    let many = vec![("authorization", &*bearer); 8];
    let answer = gateway.plain().await.get("/", &many).await;
    assert_eq!(answer.refusal(), (401, "invalid-token".into()));
    let short = vec![("x-gitspace-token", "a.b.c"); 90];
    let answer = gateway.plain().await.get("/", &short).await;
    assert_eq!(answer.refusal(), (401, "invalid-token".into()));
    let query = format!("/?{}", "token=a.b.c&gitspace_token=a.b.c&".repeat(1_000));
    let answer = gateway.plain().await.get(&query, &[]).await;
    assert_eq!(answer.refusal(), (401, "invalid-token".into()));
    assert_eq!(upstream.connections(), 0);
    assert!(HOST.starts_with(GITSPACE));
}
