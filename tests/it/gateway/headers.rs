//! What an upstream is told, and what an app can tell a client.

use reqwest::Method;
use serde_json::json;

use crate::support::{GITSPACE, H2, HOST, OWNER, Setup, Upstream, port_host};

/// What clients may claim about themselves, in spellings that an app may take for ours.
const CLAIMS: &[&str] = &[
    "X-Forwarded-For",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-User",
    "Forwarded",
    "X-Real-IP",
    "X_Real_IP",
    "X-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Request-Id",
    "X-Gitspace-User",
    "x_gitspace_user",
    "X-Gitspace_User",
    "X-Gitspace-Id",
    "X-Gitspace-Assertion",
    "X_Gitspace_Token",
    "X-Gitspace-Anything",
];

#[tokio::test]
async fn what_a_client_claims_about_itself_is_replaced_by_what_we_know() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut headers: Vec<(&str, &str)> = CLAIMS.iter().map(|name| (*name, "forged")).collect();
    headers.extend(CLAIMS.iter().map(|name| (*name, "forged again")));
    headers.push(("x-gitspace-token", &token));
    let host = format!("{HOST}:8443");
    headers.push(("host", &host));
    let answer = gateway.tls(HOST).await.get("/", &headers).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = upstream.last();
    assert!(!format!("{seen:?}").contains("forged"), "{seen:?}");
    for (name, expected) in [
        ("host", &*host),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", &host),
        ("x-forwarded-port", "8443"),
        ("forwarded", "for=127.0.0.1;proto=https"),
        ("x-gitspace-user", OWNER),
        ("x-gitspace-id", GITSPACE),
        ("via", "1.1 cde-gateway"),
    ] {
        assert_eq!(seen.header(name), Some(expected), "{name}");
    }
    let line = gateway.account().await;
    assert_eq!(seen.header("x-request-id"), line["id"].as_str());
    assert_eq!(
        seen.header("x-gitspace-assertion")
            .unwrap()
            .split('.')
            .count(),
        3
    );
}

#[tokio::test]
async fn nobody_becomes_a_user_by_a_header_on_a_public_port() {
    for name in [
        "X-Gitspace-User",
        "Forwarded-User",
        "Client-User",
        "Trusted-User",
        "Remote_User",
        "User",
    ] {
        let upstream = Upstream::echo().await;
        let gateway = Setup::to(&upstream)
            .with(|config| config.headers.user = name.into())
            .start();
        let host = port_host(4000);
        let dashed = name.replace('_', "-");
        let lower = name.to_lowercase().replace('-', "_");
        let forged = [
            ("host", &*host),
            (name, "alice"),
            (&dashed, "alice"),
            (&lower, "alice"),
        ];
        let answer = gateway.plain().await.get("/", &forged).await;
        assert_eq!(answer.status, 200);
        let seen = upstream.last();
        assert!(!format!("{seen:?}").contains("alice"), "{name}: {seen:?}");

        let token = gateway.owner();
        let known = [
            ("host", &*host),
            (name, "eve"),
            ("x-gitspace-token", &token),
        ];
        gateway.plain().await.get("/", &known).await;
        assert_eq!(upstream.last().header(&name.to_lowercase()), Some("alice"));
    }
}

#[tokio::test]
async fn what_is_for_one_hop_goes_no_further() {
    let upstream = Upstream::always(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop, set-cookie, content-security-policy\r\n\
         keep-alive: timeout=5\r\nx-hop: 1\r\nproxy-authenticate: Basic\r\nset-cookie: app=1\r\n\
         content-security-policy: default-src 'self'\r\nproxy-connection: x\r\nproxy-status: forged\r\n\
         via: 1.1 app\r\nx-end: 2\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let headers = [
        (
            "connection",
            "keep-alive, X-Hop, cookie, authorization, host, x-forwarded-for",
        ),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers, deflate"),
        ("upgrade", "h2c"),
        ("x-hop", "1"),
        ("cookie", "app=1"),
        ("authorization", "Basic app"),
        ("x-end", "2"),
        ("via", "1.0 other"),
        ("x-gitspace-token", &token),
    ];
    let answer = gateway.plain().await.get("/", &headers).await;
    let seen = upstream.last();
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "x-hop",
    ] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("connection"), Some("te"));
    assert_eq!(seen.header("cookie"), Some("app=1"));
    assert_eq!(seen.header("authorization"), Some("Basic app"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-end"), Some("2"));
    assert_eq!(seen.all("via"), ["1.0 other", "1.1 cde-gateway"]);

    assert_eq!(answer.status, 200);
    for name in [
        "connection",
        "keep-alive",
        "x-hop",
        "proxy-authenticate",
        "proxy-connection",
        "proxy-status",
    ] {
        assert_eq!(answer.all(name), [""; 0], "{name}");
    }
    assert_eq!(answer.header("set-cookie"), Some("app=1"));
    assert_eq!(
        answer.header("content-security-policy"),
        Some("default-src 'self'")
    );
    assert_eq!(answer.all("via"), ["1.1 app", "1.1 cde-gateway"]);
    assert_eq!(answer.header("x-end"), Some("2"));
}

#[tokio::test]
async fn app_cookies_arrive_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let cookies = "a=1;b=\"x, y\";  c==;;d; __Host-other=2 ;e=\u{e4}";
    let headers = [("cookie", cookies), ("x-gitspace-token", &token)];
    gateway.plain().await.get("/", &headers).await;
    assert_eq!(upstream.last().header("cookie"), Some(cookies));

    let with_ours = "a=1; __Host-gitspace=forged; b=\"x\"";
    let headers = [("cookie", with_ours), ("x-gitspace-token", &token)];
    let answer = gateway.plain().await.get("/", &headers).await;
    assert_eq!(
        answer.status, 200,
        "a broken session does not spoil a good token"
    );
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=\"x\""));

    // HTTP/2 may send crumbs: they arrive as one header.
    let headers = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-gitspace-token", &token),
    ];
    H2::connect(&gateway, HOST)
        .await
        .request("GET", &format!("https://{HOST}/"), &headers, b"")
        .await;
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn an_app_cannot_set_our_cookie() {
    let upstream = Upstream::always(
        "HTTP/1.1 200 OK\r\nset-cookie: first=1; Path=/\r\nset-cookie: __Host-gitspace=evil; Path=/; Secure\r\n\
         set-cookie:  __host-GITSPACE =evil\r\nset-cookie: __Host-gitspace=; Max-Age=0\r\n\
         set-cookie: =__Host-gitspace=evil; Secure\r\nset-cookie: __Host-gitspace; Secure\r\n\
         set-cookie: x=__Host-gitspace=fine\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let answer = gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await;
    assert_eq!(
        answer.all("set-cookie"),
        ["first=1; Path=/", "x=__Host-gitspace=fine"]
    );
}

#[tokio::test]
async fn a_request_that_comes_back_is_a_loop() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new().start();
    let token = gateway.owner();
    // A route that leads to the gateway itself.
    let route = json!({
        "gitspace": GITSPACE, "owner": OWNER, "address": "127.0.0.1",
        "ide": { "port": gateway.http.port(), "visibility": "public" },
    });
    let path = format!("/v1/routes/{GITSPACE}");
    let put = gateway.admin(Method::PUT, &path, Some(route)).await;
    assert_eq!(put.status(), 204);
    let answer = gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await;
    assert_eq!(answer.status, 508);
    let reasons: Vec<_> = gateway.accounted(2).await;
    assert!(reasons.iter().any(|line| line["reason"] == "loop"));
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_port_gets_the_host_that_it_wants() {
    let upstream = Upstream::echo().await;
    let address = upstream.address;
    let port = |number: u16, form: &str| {
        format!(
            "[ports.{number}]\nupstream = \"http://{address}\"\nhost_header = \"{form}\"\nvisibility = \"public\"\n"
        )
    };
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = \"{GITSPACE}\"\nupstream = \"http://{address}\"\n{}{}{}",
            port(3000, "public"),
            port(3001, "localhost"),
            port(3002, "upstream")
        ))
        .start();
    for (number, expected) in [
        (3000, port_host(3000)),
        (3001, "localhost:3001".into()),
        (3002, address.to_string()),
    ] {
        let answer = gateway
            .plain()
            .await
            .to(&port_host(number))
            .get("/", &[])
            .await;
        assert_eq!(answer.status, 200);
        let seen = upstream.last();
        assert_eq!(seen.header("host"), Some(&*expected));
        assert_eq!(seen.header("x-forwarded-host"), Some(&*port_host(number)));
    }
}

#[tokio::test]
async fn a_port_gets_the_origin_that_it_wants_from_its_own_pages_alone() {
    let upstream = Upstream::echo().await;
    let address = upstream.address;
    let port = |number: u16, more: &str| {
        format!(
            "[ports.{number}]\nupstream = \"http://{address}\"\nvisibility = \"public\"\n{more}\n"
        )
    };
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = \"{GITSPACE}\"\nupstream = \"http://{address}\"\n{}{}{}{}",
            port(3000, ""),
            port(3001, "host_header = \"localhost\""),
            port(3002, "origin = \"upstream\""),
            port(3003, "host_header = \"localhost\"\norigin = \"public\"")
        ))
        .start();
    let public = |number: u16| format!("https://{}", port_host(number));
    for (number, expected) in [
        (3000, public(3000)),
        (3001, "http://localhost:3001".into()),
        (3002, format!("http://{address}")),
        (3003, public(3003)),
    ] {
        let others = [
            "https://evil.test",
            "null",
            &public(3009),
            &format!("https://{HOST}"),
        ]
        .map(str::to_owned);
        for origin in others.into_iter().chain([public(number)]) {
            let wanted = if origin == public(number) {
                &expected
            } else {
                &origin
            };
            let socket = [("connection", "Upgrade"), ("upgrade", "websocket")];
            for more in [&[][..], &socket] {
                let headers: Vec<_> = [("origin", &*origin)]
                    .into_iter()
                    .chain(more.iter().copied())
                    .collect();
                let mut client = gateway.plain().await.to(&port_host(number));
                assert_eq!(client.get("/", &headers).await.status, 200, "{origin}");
                let seen = upstream.last();
                assert_eq!(seen.header("origin"), Some(&**wanted));
                let asked = port_host(number);
                let host = match wanted.split_once("://") {
                    Some((_, host)) if origin == public(number) => host,
                    _ => &asked,
                };
                assert_eq!(seen.header("x-forwarded-host"), Some(host));
                assert_eq!(
                    seen.header("forwarded").unwrap().contains("host="),
                    host == asked
                );
            }
        }
    }
}
