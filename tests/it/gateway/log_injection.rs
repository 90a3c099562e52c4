//! What clients control and logs hold: every line of the access log stays one line of JSON, in ASCII where it can hide something,
//! of bounded length.

use serde_json::{Value, json};

use crate::support::{H2, HOST, Setup, TestGateway, Upstream, port_host};

/// Every line is one record, and nothing in them moves a cursor.
async fn lines(gateway: &TestGateway, count: usize) -> Vec<Value> {
    let lines = gateway.accounted(count).await;
    let log = gateway.log();
    assert_eq!(log.lines().count(), count);
    for line in log.lines() {
        assert!(
            line.is_ascii() && !line.bytes().any(|byte| byte.is_ascii_control()),
            "{line:?}"
        );
        assert!(line.len() < 4096, "{} bytes", line.len());
    }
    lines
}

#[tokio::test]
async fn a_path_cannot_forge_a_line() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let long = format!("/{}", "long/".repeat(3000));
    let wide = format!("/{}", "\u{e4}".repeat(3000));
    let ascii = [
        "/\"}{\"status\":200,\"path\":\"/",
        "/\\\"\\n\\u000a",
        "/%0a{\"status\":200}",
        "/%0d%0a%1b[31m",
        "/%00",
        &long,
    ];
    let others = [
        "/\u{9b}31m",
        "/\u{2028}\u{2029}\u{202e}\u{feff}",
        "/\u{e4}",
        &wide,
    ];
    let mut h2 = H2::connect(&gateway, &host).await;
    for (paths, status) in [(&ascii[..], 200), (&others[..], 400)] {
        for path in paths {
            let answer = gateway.plain().await.to(&host).get(path, &[]).await;
            assert_eq!(answer.status, status, "{path}");
            let url = format!("https://{host}{path}");
            let answer = h2.request("GET", &url, &[], b"").await;
            assert_eq!(answer.status(), status, "{path}");
        }
    }
    let lines = lines(&gateway, 2 * (ascii.len() + others.len())).await;
    let logged = |path: &str| lines.iter().any(|line| line["path"] == path);
    assert!(
        logged("/\"}{\"status\":200,\"path\":\"/"),
        "as it was, in quotes"
    );
    assert!(logged("/%C2%9B31m") && logged("/%C3%A4") && logged("/%0d%0a%1b[31m"));
    let cut = |line: &Value| line["path"].as_str().unwrap().ends_with("...");
    assert!(lines.iter().filter(|line| cut(line)).count() >= 3);
}

#[tokio::test]
async fn a_method_or_host_cannot_forge_a_line() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let long = "M".repeat(64);
    for method in ["'`|~^", "get", &long] {
        let mut client = gateway.plain().await;
        client
            .send(format!("{method} / HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.unwrap().status, 200, "{method}");
    }
    let long = format!("{}.test", "h".repeat(5000));
    for host in [
        "a\"b",
        "a\tb",
        "\u{e4}.test",
        "a\u{2028}b",
        &long,
        "a.test:\"",
        "[::1\"]",
    ] {
        let answer = gateway.plain().await.get("/", &[("host", host)]).await;
        assert_eq!(answer.refusal(), (400, "bad-request".into()), "{host}");
    }
    for host in [
        format!("{}.test", "h".repeat(63)),
        "[2001:db8::1]:80".into(),
    ] {
        assert_eq!(
            gateway.plain().await.to(&host).get("/", &[]).await.status,
            401,
            "{host}"
        );
    }
    let lines = lines(&gateway, 12).await;
    assert!(lines.iter().any(|line| line["method"] == "M".repeat(32)));
}

#[tokio::test]
async fn the_name_in_a_token_cannot_forge_a_line() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    let hidden = [
        "alice\n{\"status\":200}",
        "alice\r",
        "\u{1b}[31malice",
        "alice\u{9b}",
        "alice\u{2028}",
        "\u{202e}ecila",
        "ali\u{200b}ce",
        "alice\u{0}",
        &"a".repeat(256),
    ];
    for name in hidden {
        let token = issuer.token(name);
        let answer = gateway
            .plain()
            .await
            .get("/", &[("x-gitspace-token", &*token)])
            .await;
        assert_eq!(answer.refusal(), (401, "invalid-token".into()), "{name:?}");
    }
    for name in ["\"},{\"", "\\", &"a".repeat(255)] {
        let token = issuer.token(name);
        let answer = gateway
            .plain()
            .await
            .get("/", &[("x-gitspace-token", &*token)])
            .await;
        assert_eq!(answer.status, 403, "{name:?}");
    }
    // What a token says of itself reaches a line only in pieces.
    for more in [
        json!({ "iss": "\n\u{1b}".repeat(900) }),
        json!({ "aud": "\n\u{1b}".repeat(900) }),
        json!({ "gitspace": "\n".repeat(900) }),
    ] {
        let token = issuer.token_with("alice", more);
        let answer = gateway
            .plain()
            .await
            .get("/", &[("x-gitspace-token", &*token)])
            .await;
        assert_eq!(answer.status, 401);
    }
    let lines = lines(&gateway, 15).await;
    assert!(lines.iter().any(|line| line["principal"] == "\"},{\""));
}

#[tokio::test]
async fn a_name_outside_ascii_reaches_its_app_and_is_logged() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .route(&format!(
            "gitspace = \"other-a1b2c3\"\nupstream = \"http://{}\"\nowner = \"j\u{fc}rgen\"",
            upstream.address
        ))
        .start();
    let token = gateway.setup.issuer.token("j\u{fc}rgen");
    let mut client = gateway.plain().await.to("other-a1b2c3.gitspaces.localhost");
    let answer = client.get("/", &[("x-gitspace-token", &*token)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        upstream.last().header("x-gitspace-user"),
        Some("j\u{fc}rgen")
    );
    assert_eq!(gateway.account().await["principal"], "j\u{fc}rgen");
}

#[tokio::test]
async fn no_query_reaches_a_line() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let absolute = format!("http://{HOST}/a?secret=1");
    for target in [
        "/a?secret=1",
        "/?secret=1",
        "/_gitspace/whoami?secret=1",
        "/a??secret=1",
        "/a%3fb?secret",
        &absolute,
    ] {
        gateway
            .plain()
            .await
            .get(target, &[("referer", "https://a.test/?secret=1")])
            .await;
    }
    lines(&gateway, 6).await;
    assert!(!gateway.log().contains("secret"));
}
