//! Pages of other origins in a browser that has a session here: what they can send without asking does nothing.

use serde_json::json;

use crate::support::{Answer, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, port_host};

/// Where such a page may come from.
fn origins() -> Vec<Option<String>> {
    let named = [
        "null",
        "",
        "https://evil.test",
        "http://evil.test",
        "https://evil-x9y8z7.gitspaces.localhost",
        "https://evil-x9y8z7-3000.gitspaces.localhost",
        "https://gitspaces.localhost",
        "https://www.gitspaces.localhost",
        "https://localhost",
        &format!("http://{HOST}"),
        &format!("https://{HOST}.evil.test"),
        &format!("https://{HOST}@evil.test"),
        &format!("https://evil.test/{HOST}"),
        &format!("https://evil.test#{HOST}"),
        &format!("https://evil.test, https://{HOST}"),
        &format!("https://{HOST} https://evil.test"),
        &format!("https://{HOST}/"),
        &format!("https://{HOST}/page"),
        &format!("https://x{HOST}"),
        &format!("https://x.{HOST}"),
        &format!("https://{GITSPACE}x.gitspaces.localhost"),
        &format!("https://{GITSPACE}-0.gitspaces.localhost"),
        &format!("https://{GITSPACE}-99999.gitspaces.localhost"),
        &format!("wss://{HOST}"),
        &format!("file://{HOST}"),
        &format!("chrome-extension://{HOST}"),
        &format!("//{HOST}"),
        HOST,
    ];
    let named = named.into_iter().map(|origin| Some(origin.to_owned()));
    std::iter::once(None).chain(named).collect()
}

async fn session(gateway: &TestGateway) -> String {
    let ticket = gateway.setup.issuer.ticket(OWNER, "pages", json!("ide"));
    let target = format!("/?gitspace_token={ticket}");
    let page = [("sec-fetch-mode", "navigate")];
    let answer = gateway.tls(HOST).await.get(&target, &page).await;
    answer.session().unwrap()
}

async fn send(
    gateway: &TestGateway,
    method: &str,
    cookie: &str,
    origin: Option<&String>,
    more: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut headers = vec![("cookie", cookie)];
    headers.extend(origin.map(|origin| ("origin", &**origin)));
    headers.extend(more);
    gateway
        .tls(HOST)
        .await
        .request(method, "/api/delete", &headers, body)
        .await
}

#[tokio::test]
async fn forms_and_fetches_that_need_no_preflight_change_nothing() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let cookie = session(&gateway).await;
    // What a page can send without asking first (Fetch §2.2.2 and §4.1): forms, beacons, `no-cors`.
    let kinds: [&[(&str, &str)]; 6] = [
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ],
        &[
            ("content-type", "multipart/form-data; boundary=x"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe"),
        ],
        &[
            ("content-type", "text/plain"),
            ("sec-fetch-mode", "no-cors"),
        ],
        &[
            ("content-type", "text/plain;charset=UTF-8"),
            ("sec-fetch-mode", "no-cors"),
            ("sec-fetch-dest", "empty"),
        ],
        &[
            ("content-type", "text/plain; application/json"),
            ("sec-fetch-mode", "no-cors"),
        ],
        &[
            ("sec-fetch-mode", "no-cors"),
            ("content-type", "application/json"),
            ("x-requested-with", "XMLHttpRequest"),
        ],
    ];
    for origin in origins() {
        for kind in kinds {
            let answer = send(
                &gateway,
                "POST",
                &cookie,
                origin.as_ref(),
                kind,
                b"{\"id\":1}",
            )
            .await;
            assert_eq!(
                answer.refusal(),
                (403, "origin-refused".into()),
                "{origin:?} {kind:?}"
            );
        }
    }
    // Whatever method a request claims to be, the one on its first line counts.
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get", "GETX"] {
            let answer = send(&gateway, method, &cookie, None, &[(name, "GET")], b"").await;
            assert_eq!(
                answer.refusal(),
                (403, "origin-refused".into()),
                "{method} {name}"
            );
        }
    }
    assert_eq!(upstream.connections(), 0, "an app heard of it");
    let own = format!("https://{HOST}");
    let answer = send(&gateway, "POST", &cookie, Some(&own), &[], b"x").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_field_that_overrides_the_method_needs_a_preflight_which_is_refused() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for origin in origins().into_iter().flatten() {
        let headers = [
            ("origin", &*origin),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "x-http-method-override"),
        ];
        let answer = gateway
            .tls(HOST)
            .await
            .request("OPTIONS", "/", &headers, b"")
            .await;
        assert_eq!(answer.refusal(), (401, "no-token".into()), "{origin}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
        assert_eq!(
            answer.header("access-control-allow-headers"),
            None,
            "{origin}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_websocket_opens_for_pages_of_the_gitspace_alone() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let cookie = session(&gateway).await;
    let handshake = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("sec-fetch-mode", "websocket"),
    ];
    for origin in origins() {
        let answer = send(&gateway, "GET", &cookie, origin.as_ref(), &handshake, b"").await;
        assert_eq!(
            answer.refusal(),
            (403, "origin-refused".into()),
            "{origin:?}"
        );
        // Other upgrades are no way around it.
        let raw = [("connection", "keep-alive, upgrade"), ("upgrade", "raw")];
        let answer = send(&gateway, "GET", &cookie, origin.as_ref(), &raw, b"").await;
        assert_eq!(
            answer.refusal(),
            (403, "origin-refused".into()),
            "{origin:?}"
        );
    }
    // Two Origins are none.
    let own = format!("https://{HOST}");
    let mut two = handshake.to_vec();
    two.push(("origin", "https://evil.test"));
    let answer = send(&gateway, "GET", &cookie, Some(&own), &two, b"").await;
    assert_ne!(answer.status, 101);
    assert_eq!(upstream.connections(), 0, "an app heard of it");
    // The app declines, but it was asked.
    for origin in [own, format!("https://{}", port_host(8080))] {
        let answer = send(&gateway, "GET", &cookie, Some(&origin), &handshake, b"").await;
        assert_eq!(answer.status, 200, "{origin}");
    }
}

#[tokio::test]
async fn nobody_is_logged_out_by_another_page() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let cookie = session(&gateway).await;
    for origin in origins() {
        let mut headers = vec![("cookie", &*cookie), ("content-type", "text/plain")];
        headers.extend(origin.iter().map(|origin| ("origin", &**origin)));
        let mut client = gateway.tls(HOST).await;
        let answer = client
            .request("POST", "/_gitspace/logout", &headers, b"")
            .await;
        assert_eq!(
            answer.refusal(),
            (403, "origin-refused".into()),
            "{origin:?}"
        );
        for method in ["GET", "HEAD"] {
            let mut client = gateway.tls(HOST).await;
            let answer = client
                .request(method, "/_gitspace/logout", &headers, b"")
                .await;
            assert_eq!(answer.status, 405, "{method}");
            assert!(answer.all("set-cookie").is_empty());
        }
    }
}
