//! `/_gitspace/` and targets: ours is the raw prefix only, everything else is the app's byte for byte, and no redirect of ours can be
//! steered to another host.

use crate::support::{GITSPACE, H2, HOST, Setup, TestGateway, Upstream, port_host};

/// Below our prefix: never an app's, on any host.
const OURS: &[&str] = &[
    "/_gitspace/",
    "/_gitspace/nothing",
    "/_gitspace/../x",
    "/_gitspace/./whoami",
    "/_gitspace//whoami",
    "/_gitspace/%2e%2e/x",
    "/_gitspace/..%2fx",
    "/_gitspace/whoami/",
    "/_gitspace/%77hoami",
    "/_gitspace/whoami;x",
    "/_gitspace/WHOAMI",
    "/_gitspace/?x=/../y",
];

/// Like it, and not it: the app's.
const OTHERS: &[&str] = &[
    "/_gitspace",
    "/_gitspace?/",
    "/_gitspace;x/whoami",
    "/_gitspace\\whoami",
    "/_gitspace%2fwhoami",
    "/_gitspace%5cwhoami",
    "/%5fgitspace/whoami",
    "/%5Fgitspace/whoami",
    "/_GITSPACE/whoami",
    "/_Gitspace/whoami",
    "//_gitspace/whoami",
    "/\\_gitspace/whoami",
    "/./_gitspace/whoami",
    "/.//_gitspace/whoami",
    "/x/../_gitspace/whoami",
    "/%2e/_gitspace/whoami",
    "/;/_gitspace/whoami",
    "/?/_gitspace/whoami",
    "/_gitspace./whoami",
    "/_gitspace%00/whoami",
    "/_gitspace_/whoami",
];

/// Odd but legal: apps get them as they are.
const TARGETS: &[&str] = &[
    "/",
    "//",
    "///",
    "/a//b///c",
    "/./a/../b/.",
    "/..",
    "/a/%2e%2e/b",
    "/%2F%2f%5C",
    "/%00%0d%0a%ff",
    "/%",
    "/%zz%1",
    "/a;b=c;d,e:f@g",
    "/!$&'()*+,-._~",
    "/[::1]/{x}|\\^",
    "/?",
    "/??",
    "/a?",
    "/?a&&b=&=c&",
    "/?a=b?c/d:e@f",
    "/?a=%26%3d+%20",
    "/?q=[x]{y}|\\^`'",
    "/?http://evil.test/",
    "/http://evil.test/",
    "/?x=%0d%0aSet-Cookie:%20a=1",
    "/a?gitspace=1&xgitspace_token=2&gitspace_tokens=3",
    "/a?token=of-the-app",
    "/.well-known/acme-challenge/x",
    "/*",
];

async fn public(gateway: &TestGateway) -> H2 {
    H2::connect(gateway, &port_host(4000)).await
}

#[tokio::test]
async fn nothing_below_the_prefix_reaches_an_app() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .route(&format!(
            "host = \"app.example.test\"\nupstream = \"http://{}\"\nvisibility = \"public\"",
            upstream.address
        ))
        .start();
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let public_host = port_host(4000);
    for host in [
        HOST,
        &public_host,
        "app.example.test",
        "unknown.test",
        "127.0.0.1",
    ] {
        for target in OURS {
            let answer = gateway.plain().await.to(host).get(target, &headers).await;
            assert_eq!(
                answer.refusal(),
                (404, "no-such-page".into()),
                "{host} {target}"
            );
            let absolute = format!("http://{host}{target}");
            let answer = gateway
                .plain()
                .await
                .to(host)
                .get(&absolute, &headers)
                .await;
            assert_eq!(answer.refusal(), (404, "no-such-page".into()), "{absolute}");
        }
        for (method, page) in [("GET", "whoami"), ("GET", "jwks.json"), ("POST", "logout")] {
            let target = format!("/_gitspace/{page}?x=1");
            let mut client = gateway.plain().await.to(host);
            let answer = client.request(method, &target, &headers, b"").await;
            assert!(
                matches!(answer.status, 200 | 403),
                "{host} {target}: {answer:?}"
            );
        }
    }
    let mut h2 = public(&gateway).await;
    for target in OURS {
        let url = format!("https://{public_host}{target}");
        assert_eq!(
            h2.request("GET", &url, &headers, b"").await.status(),
            404,
            "{url}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn what_only_looks_like_the_prefix_is_the_apps() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let mut h2 = public(&gateway).await;
    for target in OTHERS {
        let answer = gateway.plain().await.to(&host).get(target, &[]).await;
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{target}");
        assert_eq!(upstream.last().target, *target);
        let answer = h2
            .request("GET", &format!("https://{host}{target}"), &[], b"")
            .await;
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(upstream.last().target, *target);
    }
    // Where a token is needed they say no more than any other path.
    for target in OTHERS {
        let answer = gateway.plain().await.get(target, &[]).await;
        assert_eq!(answer.refusal(), (401, "no-token".into()), "{target}");
    }
}

#[tokio::test]
async fn targets_pass_byte_for_byte() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let mut h2 = public(&gateway).await;
    let long = format!("/{}?{}", "a/".repeat(4000), "b&".repeat(4000));
    for target in TARGETS.iter().copied().chain([&*long]) {
        let mut client = gateway.plain().await.to(&host);
        assert_eq!(client.get(target, &[]).await.status, 200, "{target}");
        assert_eq!(upstream.last().target, target);
        let absolute = format!("http://{host}{target}");
        assert_eq!(client.get(&absolute, &[]).await.status, 200, "{absolute}");
        assert_eq!(upstream.last().target, target, "{absolute}");
        let answer = h2
            .request("GET", &format!("https://{host}{target}"), &[], b"")
            .await;
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(upstream.last().target, target, "over HTTP/2");
    }
    // An empty path is the root (RFC 9110 §4.2.3).
    for (absolute, expected) in [("", "/"), ("?a=b", "/?a=b")] {
        let target = format!("http://{host}{absolute}");
        gateway.plain().await.to(&host).get(&target, &[]).await;
        assert_eq!(upstream.last().target, expected, "{target}");
    }
}

#[tokio::test]
async fn a_redirect_to_https_stays_on_its_host_and_is_given_for_ours_only() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.listen[1].redirect_to_https = true)
        .start();
    for (target, expected) in [
        ("//evil.test/", "//evil.test/"),
        ("/\\evil.test/", "/\\evil.test/"),
        ("/@evil.test/", "/@evil.test/"),
        ("/.evil.test", "/.evil.test"),
        ("/%0d%0aset-cookie:%20a=1", "/%0d%0aset-cookie:%20a=1"),
        ("/?//evil.test", "/?//evil.test"),
        (
            "/_gitspace/login?return_to=https://evil.test",
            "/_gitspace/login?return_to=https://evil.test",
        ),
    ] {
        let answer = gateway.plain().await.get(target, &[]).await;
        assert_eq!(answer.status, 308, "{target}");
        assert_eq!(
            answer.header("location"),
            Some(&*format!("https://{HOST}{expected}"))
        );
        assert_eq!(answer.all("set-cookie"), [""; 0]);
    }
    let answer = gateway
        .plain()
        .await
        .request("OPTIONS", "*", &[], b"")
        .await;
    assert_eq!(answer.header("location"), Some(&*format!("https://{HOST}")));
    let absolute = format!("http://{HOST}?a=b");
    let answer = gateway.plain().await.get(&absolute, &[]).await;
    assert_eq!(
        answer.header("location"),
        Some(&*format!("https://{HOST}?a=b"))
    );
    for host in ["evil.test", "127.0.0.1", "evilgitspaces.localhost", "[::1]"] {
        let answer = gateway.plain().await.to(host).get("/", &[]).await;
        assert_eq!(answer.refusal(), (421, "misdirected".into()), "{host}");
        assert_eq!(answer.header("location"), None);
    }
}

#[tokio::test]
async fn the_way_to_the_login_and_back_cannot_be_steered() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.auth.login_url = "https://login.test/start".into())
        .start();
    let page = [("accept", "text/html")];
    for (target, expected) in [
        ("//evil.test", "%2F%2Fevil.test"),
        ("/@evil.test", "%2F%40evil.test"),
        (
            "/?a=1&return_to=https://evil.test",
            "%2F%3Fa%3D1%26return_to%3Dhttps%3A%2F%2Fevil.test",
        ),
        ("/%0d%0ax", "%2F%250d%250ax"),
    ] {
        let answer = gateway.plain().await.get(target, &page).await;
        assert_eq!(answer.status, 303, "{target}");
        let to =
            format!("https://login.test/start?return_to=https%3A%2F%2F{HOST}{expected}&state=");
        let location = answer.header("location").unwrap();
        assert!(location.starts_with(&to), "{location}");
        assert_eq!(location.matches("state=").count(), 1, "{location}");
    }
    let elsewhere = gateway
        .plain()
        .await
        .to("evil.test")
        .get("/_gitspace/login", &page)
        .await;
    assert_eq!(
        (elsewhere.status, elsewhere.header("location")),
        (401, None)
    );
}

#[tokio::test]
async fn a_tickets_redirect_stays_on_its_host() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for (n, (target, expected)) in [
        ("//evil.test/", "/evil.test/"),
        ("///evil.test", "/evil.test"),
        ("/\\evil.test", "/evil.test"),
        ("/\\/\\evil.test", "/evil.test"),
        ("/%2fevil.test", "/%2fevil.test"),
        ("/%0d%0aset-cookie:x", "/%0d%0aset-cookie:x"),
        ("/a?x=//evil.test", "/a?x=//evil.test"),
    ]
    .into_iter()
    .enumerate()
    {
        let ticket = gateway
            .setup
            .issuer
            .ticket("alice", &format!("way-{n}"), "ide");
        let separator = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{separator}gitspace_token={ticket}");
        let headers = [("accept", "text/html"), ("sec-fetch-mode", "navigate")];
        let answer = gateway.tls(HOST).await.get(&target, &headers).await;
        assert_eq!(answer.status, 303, "{target} {answer:?}");
        assert_eq!(answer.header("location"), Some(expected), "{target}");
        let cookies = answer.all("set-cookie");
        assert_eq!(cookies.len(), 1);
        assert!(
            !cookies[0].to_lowercase().contains("domain"),
            "of this host only"
        );
    }
    assert_eq!(upstream.connections(), 0);
    assert!(HOST.starts_with(GITSPACE));
}
