//! The header policy as tables: what a client may say to an app, an app to a browser, and what the gateway says itself.

use std::time::Duration;

use http::header;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use crate::support::{Answer, H2, HOST, OWNER, Setup, TestGateway, Upstream, port_host, soon};

/// A gateway whose port 4000 is public and leads to an app that answers so.
async fn app(answer: &'static str) -> (Upstream, TestGateway) {
    let upstream = Upstream::always(answer).await;
    let gateway = Setup::to(&upstream).start();
    (upstream, gateway)
}

async fn get_public(gateway: &TestGateway, headers: &[(&str, &str)]) -> Answer {
    let host = port_host(4000);
    gateway.plain().await.to(&host).get("/", headers).await
}

/// What clients may claim, beside what `headers` has.
const CLAIMS: &[&str] = &[
    "X-Forwarded",
    "X-Forwarded-By",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded-Client-Cert",
    "X.Forwarded.For",
    "X~Forwarded~For",
    "X-Forward-For",
    "Forwarded-For",
    "X-Cluster-Client-IP",
    "X-Original-Host",
    "X-Original-Forwarded-For",
    "X-Original-Method",
    "X-Originating-IP",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Remote-IP",
    "X-Remote-User",
    "Remote-User",
    "Remote_User",
    "Remote-Addr",
    "X-Auth-Request-Email",
    "X-Authenticated-User",
    "X-Webauth-User",
    "X-Envoy-External-Address",
    "X-Envoy-Internal",
    "X-Envoy-Original-Path",
    "X-Azure-ClientIP",
    "X-Azure-SocketIP",
    "X-AppEngine-User-IP",
    "X-Client-Cert",
    "X-SSL-Client-Verify",
    "SSL-Client-Cert",
    "Client-Cert",
    "Client-Cert-Chain",
    "Client-IP",
    "CF-Connecting-IPv6",
    "CF_Connecting_IP",
    "Fastly-Client-IP",
    "Proxy",
    "Proxy-Anything",
    "X-ProxyUser-Ip",
    "WL-Proxy-Client-IP",
    "Front-End-Https",
    "X-Url-Scheme",
    "HTTP2-Settings",
];

/// What is the app's business.
const KEPT: &[&str] = &[
    "accept-language",
    "x-api-key",
    "x-csrf-token",
    "x-http-method-override",
    "x-requested-with",
    "x-amzn-trace-id",
    "x-custom_name",
    "cf-ray",
    "baggage",
];

#[tokio::test]
async fn no_claim_of_a_client_reaches_an_app_in_any_spelling_or_number() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let mut over_tls = H2::connect(&gateway, HOST).await;
    for claims in CLAIMS.chunks(20) {
        let mut headers = vec![("x-gitspace-token", &*token)];
        headers.extend(claims.iter().map(|name| (*name, "forged")));
        headers.extend(claims.iter().map(|name| (*name, "forged again")));
        headers.extend(KEPT.iter().map(|name| (*name, "kept")));
        assert_eq!(gateway.plain().await.get("/", &headers).await.status, 200);
        let lower: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_lowercase(), *value))
            .collect();
        let lower: Vec<_> = lower
            .iter()
            .map(|(name, value)| (&**name, *value))
            .collect();
        let url = format!("https://{HOST}/");
        assert_eq!(
            over_tls.request("GET", &url, &lower, b"").await.status(),
            200
        );
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2 * CLAIMS.len().div_ceil(20));
    for seen in seen {
        assert!(!format!("{seen:?}").contains("forged"), "{seen:?}");
        for name in KEPT {
            assert_eq!(seen.header(name), Some("kept"), "{name}");
        }
    }
}

#[tokio::test]
async fn the_operator_names_what_apps_get_and_what_they_do_not() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            let headers = &mut config.headers;
            headers.user = "Remote-Login".into();
            headers.gitspace = "X-Space".into();
            headers.assertion = String::new();
            headers.request_id = "X-Trace".into();
            headers.remove = vec!["X-Internal-Role".into()];
        })
        .start();
    let token = gateway.owner();
    let headers = [
        ("x-gitspace-token", &*token),
        ("remote_login", "eve"),
        ("x-space", "eve"),
        ("x-trace", "eve"),
        ("x_internal_role", "eve"),
        ("x-gitspace-user", "eve"),
        ("x-request-id", "the app's"),
    ];
    gateway.plain().await.get("/", &headers).await;
    let seen = upstream.last();
    assert!(!format!("{seen:?}").contains("eve"), "{seen:?}");
    assert_eq!(seen.header("remote-login"), Some(OWNER));
    assert_eq!(seen.header("x-space"), Some(crate::support::GITSPACE));
    assert_eq!(seen.header("x-request-id"), Some("the app's"));
    assert_eq!(
        seen.header("x-trace"),
        gateway.account().await["id"].as_str()
    );
    assert_eq!(seen.header("x-gitspace-assertion"), None);
    assert_eq!(seen.header("x-gitspace-user"), None);
}

#[tokio::test]
async fn what_frames_identifies_or_secures_cannot_be_nominated_away() {
    let (upstream, gateway) = app(
        "HTTP/1.1 200 OK\r\nconnection: set-cookie, cache-control, x-frame-options, location, date, x-hop\r\n\
         set-cookie: a=1\r\ncache-control: no-store\r\nx-frame-options: DENY\r\nlocation: /a\r\n\
         access-control-allow-origin: *\r\nstrict-transport-security: max-age=1\r\nx-hop: 1\r\n\
         connection: access-control-allow-origin, strict-transport-security\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let kept = [
        ("cookie", "a=1"),
        ("authorization", "Basic x"),
        ("origin", "https://a.test"),
        ("referer", "https://a.test/"),
        ("content-type", "text/plain"),
        ("sec-fetch-site", "same-origin"),
        ("range", "bytes=0-1"),
    ];
    let names: Vec<_> = kept.iter().map(|(name, _)| *name).collect();
    let nominated = format!(
        "close, {}, host, via, x-forwarded-for, forwarded, x-hop",
        names.join(" ,\t")
    );
    let mut headers = vec![("connection", &*nominated), ("x-hop", "1")];
    headers.extend(kept);
    let answer = get_public(&gateway, &headers).await;
    let seen = upstream.last();
    for (name, value) in kept {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    for name in ["host", "via", "x-forwarded-for", "forwarded"] {
        assert!(seen.header(name).is_some(), "{name}");
    }
    assert_eq!(seen.header("x-hop"), None);
    for name in [
        "set-cookie",
        "cache-control",
        "x-frame-options",
        "location",
        "access-control-allow-origin",
        "strict-transport-security",
        "date",
    ] {
        assert!(answer.header(name).is_some(), "{name}");
    }
    assert_eq!(answer.header("x-hop"), None);
}

#[tokio::test]
async fn te_is_sent_with_the_connection_option_that_it_needs() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for (te, expected) in [
        ("trailers", Some("trailers")),
        ("gzip, TRAILERS;q=0.5", None),
        ("deflate , Trailers", Some("trailers")),
        ("gzip", None),
    ] {
        get_public(&gateway, &[("te", te), ("connection", "TE")]).await;
        let seen = upstream.last();
        assert_eq!(seen.header("te"), expected, "{te}");
        assert_eq!(seen.header("connection"), expected.map(|_| "te"), "{te}");
    }
}

#[tokio::test]
async fn trailers_of_a_client_hold_nothing_that_belongs_into_a_head() {
    let (sender, mut arrived) = mpsc::unbounded_channel();
    let upstream = Upstream::scripted(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
            while !(bytes.ends_with(b"\r\n\r\n") && bytes.windows(5).any(|w| w == b"\r\n0\r\n")) {
                match stream.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => bytes.extend_from_slice(&piece[..count]),
                }
            }
            let _ = sender.send(String::from_utf8(bytes).unwrap());
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let mut client = gateway.plain().await;
    let names = "X-Checksum, X-Forwarded-For, X_Gitspace_User, Authorization, Cookie, Host, Content-Length, Transfer-Encoding, Remote-User";
    let fields = names.split(", ").map(|name| format!("{name}: 7\r\n"));
    let fields: String = fields.collect();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\ntrailer: {names}\r\n\r\n2\r\nhi\r\n0\r\n{fields}\r\n"
        ))
        .await;
    assert_eq!(client.answer().await.unwrap().status, 204);
    let request = soon("the request", arrived.recv()).await.unwrap();
    let (_, trailers) = request.split_once("\r\n0\r\n").unwrap();
    assert_eq!(trailers.to_lowercase(), "x-checksum: 7\r\n\r\n");
}

#[tokio::test]
async fn trailers_of_an_app_set_no_cookie_and_say_nothing_for_us() {
    let (_upstream, gateway) = app(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum, set-cookie, x-gitspace-user, proxy-status\r\n\r\n\
         2\r\nhi\r\n0\r\nx-checksum: 7\r\nset-cookie: __Host-gitspace=evil\r\nx-gitspace-user: eve\r\nproxy-status: x\r\n\r\n",
    )
    .await;
    let host = port_host(4000);
    let mut client = gateway.plain().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nhost: {host}\r\nte: trailers\r\nconnection: te, close\r\n\r\n"
        ))
        .await;
    let all = String::from_utf8(client.closed().await)
        .unwrap()
        .to_lowercase();
    let (_, trailers) = all.split_once("\r\n0\r\n").unwrap();
    assert_eq!(trailers, "x-checksum: 7\r\n\r\n");
}

#[tokio::test]
async fn via_tells_the_version_in_which_a_message_came() {
    let (upstream, gateway) =
        app("HTTP/1.0 200 OK\r\nvia: 1.1 app\r\ncontent-length: 0\r\n\r\n").await;
    let answer = get_public(&gateway, &[("via", "1.0 first, 1.1 second")]).await;
    assert_eq!(
        upstream.last().all("via"),
        ["1.0 first, 1.1 second", "1.1 cde-gateway"]
    );
    assert_eq!(answer.all("via"), ["1.1 app", "1.0 cde-gateway"]);

    let host = port_host(4000);
    let mut client = gateway.plain().await;
    client
        .send(format!("GET / HTTP/1.0\r\nhost: {host}\r\n\r\n"))
        .await;
    client.closed().await;
    assert_eq!(upstream.last().all("via"), ["1.0 cde-gateway"]);

    let mut client = H2::connect(&gateway, &host).await;
    client
        .request("GET", &format!("https://{host}/"), &[], b"")
        .await;
    assert_eq!(upstream.last().all("via"), ["2.0 cde-gateway"]);
}

#[tokio::test]
async fn options_that_has_no_hops_left_is_answered_here() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let mut client = gateway.plain().await.to(&host);
    for target in ["/", "*"] {
        let answer = client
            .request("OPTIONS", target, &[("max-forwards", "0")], b"")
            .await;
        assert_eq!(answer.status, 204);
        assert!(answer.header("allow").unwrap().contains("OPTIONS"));
    }
    assert_eq!(upstream.connections(), 0);
    client
        .request("OPTIONS", "/a", &[("max-forwards", "5")], b"")
        .await;
    assert_eq!(upstream.last().header("max-forwards"), Some("4"));
    client.get("/a", &[("max-forwards", "0")]).await;
    assert_eq!(
        upstream.last().header("max-forwards"),
        Some("0"),
        "it is for OPTIONS and TRACE only"
    );
    client.request("OPTIONS", "*", &[], b"").await;
    assert_eq!(
        (&*upstream.last().method, &*upstream.last().target),
        ("OPTIONS", "*")
    );
    // Who may not pass gets no answer of this kind either.
    let private = gateway
        .plain()
        .await
        .request("OPTIONS", "/", &[("max-forwards", "0")], b"")
        .await;
    assert_eq!(private.status, 401);
}

#[tokio::test]
async fn an_expectation_that_is_not_known_fails() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for expect in ["x", "100-continue, x", "100-continued", "\"100-continue\""] {
        let answer = get_public(&gateway, &[("expect", expect)]).await;
        assert_eq!(
            answer.refusal(),
            (417, "expectation-failed".into()),
            "{expect}"
        );
    }
    let answer = get_public(&gateway, &[("expect", "100-continue"), ("expect", "x")]).await;
    assert_eq!(answer.status, 417);
    assert_eq!(upstream.connections(), 0);
    let host = port_host(4000);
    let url = format!("https://{host}/");
    let mut client = H2::connect(&gateway, &host).await;
    let answer = client.request("GET", &url, &[("expect", "x")], b"").await;
    assert_eq!(answer.status(), 417);
}

#[tokio::test]
async fn a_valid_trace_is_continued_and_an_invalid_one_dropped() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    get_public(
        &gateway,
        &[
            ("traceparent", good),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ],
    )
    .await;
    let seen = upstream.last();
    assert_eq!(seen.header("traceparent"), Some(good));
    assert_eq!(seen.all("tracestate"), ["a=1", "b=2"]);
    for bad in [
        "00-zz-00-01",
        "",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    ] {
        get_public(&gateway, &[("traceparent", bad), ("tracestate", "a=1")]).await;
        let seen = upstream.last();
        assert_eq!(seen.header("traceparent"), None, "{bad}");
        assert_eq!(seen.header("tracestate"), None, "{bad}");
    }
}

#[tokio::test]
async fn an_upgrade_to_another_version_of_http_is_not_asked_for() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for protocol in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.2"] {
        let headers = [
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", protocol),
            ("http2-settings", "AAMAAABkAAQAAP__"),
        ];
        let answer = get_public(&gateway, &headers).await;
        assert_eq!(answer.status, 200, "{protocol}");
        let seen = upstream.last();
        for name in ["connection", "upgrade", "http2-settings"] {
            assert_eq!(seen.header(name), None, "{protocol}: {name}");
        }
    }
}

#[tokio::test]
async fn cookies_of_apps_pass_byte_for_byte_and_ours_leaves_from_any_place() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let long = format!("a={}; b=2", "x".repeat(50_000));
    let cases: &[(&str, Option<&str>)] = &[
        ("a=1", Some("a=1")),
        ("a=1;b=2;  c = 3 ;d", Some("a=1;b=2;  c = 3 ;d")),
        ("a=\"x; y\"; b=\"\\\"\"", Some("a=\"x; y\"; b=\"\\\"\"")),
        ("=x; =; ;;a==b=c", Some("=x; =; ;;a==b=c")),
        ("\u{e4}=\u{f6}\u{20ac}", Some("\u{e4}=\u{f6}\u{20ac}")),
        ("$Version=1; a=1; $Path=/", Some("$Version=1; a=1; $Path=/")),
        (
            "__Host-gitspace2=1; x__Host-gitspace=2",
            Some("__Host-gitspace2=1; x__Host-gitspace=2"),
        ),
        ("a=__Host-gitspace=1", Some("a=__Host-gitspace=1")),
        ("__Host-gitspace=s", None),
        ("__Host-gitspace", None),
        ("__Host-gitspace=s;a=1", Some("a=1")),
        ("a=1; __Host-gitspace=s", Some("a=1")),
        ("a=1;__Host-gitspace=s;b=2", Some("a=1;b=2")),
        ("a=1; \t__Host-gitspace \t= s ; b=2", Some("a=1; b=2")),
        (
            "a=1; __host-gitspace=s; __Host-gitspace=s; b=2",
            Some("a=1; __host-gitspace=s; b=2"),
        ),
        (
            "__Host-gitspace=s; a=1; __Host-gitspace=t; b=2; __Host-gitspace=u",
            Some("a=1; b=2"),
        ),
        // The "cookie sandwich": an app that reads quotes as one value would show ours.
        (
            "$Version=1; a=\"; __Host-gitspace=s; b=\"",
            Some("$Version=1; a=\"; b=\""),
        ),
        (&long, Some(&long)),
    ];
    let host = port_host(4000);
    let url = format!("https://{host}/");
    let mut h2 = H2::connect(&gateway, &host).await;
    for (sent, expected) in cases {
        get_public(&gateway, &[("cookie", sent)]).await;
        assert_eq!(upstream.last().header("cookie"), *expected, "{sent}");
        if sent.len() < 8000 {
            h2.request("GET", &url, &[("cookie", sent)], b"").await;
            assert_eq!(
                upstream.last().header("cookie"),
                *expected,
                "over HTTP/2: {sent}"
            );
        }
    }
    let crumbs: &[(&[&str], Option<&str>)] = &[
        (&["a=1", "b=2", "c=3"], Some("a=1; b=2; c=3")),
        (&["__Host-gitspace=s", "a=1"], Some("a=1")),
        (&["a=1", "__Host-gitspace=s", "b=2"], Some("a=1; b=2")),
        (&["a=1", "", "b=2"], Some("a=1; b=2")),
        (&["__Host-gitspace=s", "__Host-gitspace=t"], None),
        (&["a=1; b=2", "c=3"], Some("a=1; b=2; c=3")),
    ];
    for (sent, expected) in crumbs {
        let headers: Vec<_> = sent.iter().map(|crumb| ("cookie", *crumb)).collect();
        h2.request("GET", &url, &headers, b"").await;
        assert_eq!(upstream.last().header("cookie"), *expected, "{sent:?}");
        get_public(&gateway, &headers).await;
        assert_eq!(upstream.last().header("cookie"), *expected, "{sent:?}");
    }
}

#[tokio::test]
async fn an_app_clears_neither_our_session_nor_speaks_for_us() {
    let (_upstream, gateway) = app(
        "HTTP/1.1 200 OK\r\nclear-site-data: \"cache\", \"cookies\"\r\nclear-site-data: \"storage\"\r\n\
         set-cookie: =__Host-gitspace=x; Path=/\r\nset-cookie:\t__HOST-gitspace\t=x\r\nset-cookie: app=1\r\n\
         alt-svc: h3=\":443\"\r\npublic-key-pins: max-age=1\r\nproxy-status: cde-gateway\r\nx-gitspace-id: x\r\n\
         refresh: 5\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let answer = get_public(&gateway, &[]).await;
    assert_eq!(answer.all("set-cookie"), ["app=1"]);
    assert_eq!(answer.all("clear-site-data"), ["\"cache\", \"storage\""]);
    assert_eq!(answer.header("refresh"), Some("5"));
    for name in [
        "alt-svc",
        "public-key-pins",
        "proxy-status",
        "x-gitspace-id",
    ] {
        assert_eq!(answer.all(name), [""; 0], "{name}");
    }
    let (_upstream, gateway) =
        app("HTTP/1.1 200 OK\r\nclear-site-data: \"*\"\r\ncontent-length: 0\r\n\r\n").await;
    let answer = get_public(&gateway, &[]).await;
    let cleared = answer.header("clear-site-data").unwrap();
    assert!(
        cleared.contains("\"storage\"") && !cleared.contains("cookies") && !cleared.contains('*'),
        "{cleared}"
    );
}

#[tokio::test]
async fn transport_security_is_the_operators_over_tls_and_nobodys_in_the_clear() {
    let upstream = Upstream::always(
        "HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    const POLICY: &str = "max-age=31536000; includeSubDomains";
    let gateway = Setup::to(&upstream)
        .with(|config| config.headers.hsts = POLICY.into())
        .start();
    let host = port_host(4000);
    let mut client = gateway.tls(&host).await;
    let theirs = client.get("/", &[]).await;
    assert_eq!(theirs.header("strict-transport-security"), Some(POLICY));
    let ours = client.get("/_gitspace/nothing", &[]).await;
    assert_eq!(
        (ours.status, ours.header("strict-transport-security")),
        (404, Some(POLICY))
    );
    let refused = gateway.tls(HOST).await.get("/", &[]).await;
    assert_eq!(
        (refused.status, refused.header("strict-transport-security")),
        (401, Some(POLICY))
    );
    let plain = gateway.plain().await.get("/", &[]).await;
    assert_eq!(
        (plain.status, plain.header("strict-transport-security")),
        (401, None)
    );
    let plain = get_public(&gateway, &[]).await;
    assert_eq!(
        plain.header("strict-transport-security"),
        Some("max-age=1"),
        "the app's own, for what it is worth"
    );
}

#[tokio::test]
async fn every_answer_has_a_date() {
    let (_upstream, gateway) = app("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for (answer, status) in [
        (get_public(&gateway, &[]).await, 200),
        (gateway.plain().await.get("/", &[]).await, 401),
        (
            gateway.plain().await.get("/_gitspace/jwks.json", &[]).await,
            200,
        ),
    ] {
        assert_eq!(answer.status, status);
        let date = answer.header(header::DATE.as_str()).unwrap();
        let date = httpdate::parse_http_date(date).unwrap();
        assert!(date.elapsed().unwrap_or_default() < Duration::from_secs(30));
    }
}
