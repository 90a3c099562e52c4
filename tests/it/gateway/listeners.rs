//! Listeners: HTTP/2 in the clear, redirects to https, IPv6.

use std::{net::SocketAddr, num::NonZeroU16};

use cde_gateway::config::{Certificate, ListenProtocol};
use tokio::net::TcpStream;

use crate::support::{Client, GITSPACE, H2, HOST, OWNER, Refusing, Setup, Upstream};

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_in_the_clear() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let stream = TcpStream::connect(gateway.http).await.unwrap();
    let mut client = H2::over(stream).await;
    let url = format!("http://{HOST}/a");
    let fields = [("x-gitspace-token", &*token)];
    for body in [&b"abc"[..], b"", &[7; 100_000]] {
        let answer = client.request("POST", &url, &fields, body).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version(), http::Version::HTTP_2);
        if !body.is_empty() {
            assert!(answer.body() == body);
        }
        assert_eq!(upstream.last().header("x-forwarded-proto"), Some("http"));
    }
    assert_eq!(gateway.accounted(3).await[0]["protocol"], "h2");
}

#[tokio::test]
async fn the_protocol_is_told_however_slowly_its_first_bytes_come() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let mut client = gateway.plain().await;
    for byte in preface {
        client.send([*byte]).await;
    }
    let answer = client.read_exact(5).await.unwrap();
    assert_eq!(answer[3..], [4, 0], "a SETTINGS frame");
    // Methods that begin like it, and one that looks like nothing else.
    for method in ["PUT", "POST", "PATCH", "PROPFIND", "PRIVATE", "GET"] {
        let mut client = gateway.plain().await;
        let head = format!(
            "{method} / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 2\r\n\r\nok"
        );
        for byte in head.as_bytes() {
            client.send([*byte]).await;
        }
        assert_eq!(client.answer().await.unwrap().text(), "ok", "{method}");
        assert_eq!(upstream.last().method, method);
    }
    let mut client = gateway.plain().await;
    client.send("PR").await;
    client.shut().await;
    client.closed().await;
}

#[tokio::test]
async fn a_redirect_keeps_method_and_target() {
    let upstream = Upstream::echo().await;
    let redirecting = |port| {
        Setup::to(&upstream).with(|config| {
            config.listen[1].redirect_to_https = true;
            config.listen[1].redirect_port = NonZeroU16::new(port);
        })
    };
    for (port, written) in [(0, ""), (443, ""), (8443, ":8443")] {
        let gateway = redirecting(port).start();
        for target in [
            "/",
            "/a//b/../%2e?x=%20&y=[1]|",
            "//evil.test/",
            "/?",
            "/a?b?c",
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
                let mut client = gateway.plain().await;
                let answer = client.request(method, target, &[], b"").await;
                assert_eq!(answer.status, 308, "{method} {target}");
                let expected = format!("https://{HOST}{written}{target}");
                assert_eq!(answer.header("location"), Some(&*expected), "{method}");
            }
        }
        let answer = gateway
            .plain()
            .await
            .request("OPTIONS", "*", &[], b"")
            .await;
        let expected = format!("https://{HOST}{written}");
        assert_eq!(
            (answer.status, answer.header("location")),
            (308, Some(&*expected))
        );
    }
    let gateway = redirecting(8443).start();
    let mut client = H2::over(TcpStream::connect(gateway.http).await.unwrap()).await;
    let url = format!("http://{HOST}/a?b");
    let answer = client.request("POST", &url, &[], b"body").await;
    let expected = format!("https://{HOST}:8443/a?b");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (308, &expected.parse().unwrap())
    );
    assert_eq!(upstream.connections(), 0);
}

/// Listening on IPv6 loopback only.
fn on_ipv6(setup: Setup) -> Setup {
    setup.with(|config| {
        for listen in &mut config.listen {
            listen.address = "[::1]:0".parse().unwrap();
        }
        config.upstreams.allow.push("::1/128".parse().unwrap());
    })
}

#[tokio::test]
async fn clients_and_hosts_may_be_ipv6_addresses() {
    let upstream = Upstream::echo().await;
    let address = upstream.address;
    let setup = on_ipv6(Setup::to(&upstream)).route(&format!(
        "gitspace = \"v6-a1b2c3\"\nhost = \"[::1]\"\nupstream = \"http://{address}\"\nowner = {OWNER:?}\nvisibility = \"public\""
    ));
    let gateway = setup.start();
    let token = gateway.owner();
    let fields = [("x-gitspace-token", &*token)];
    // The development certificate covers the address; SNI cannot name one.
    let mut tls = gateway.tls("::1").await.to(HOST);
    let mut plain = gateway.plain().await;
    for host in ["[::1]:8443", "[::1]"] {
        for client in [&mut tls, &mut plain] {
            let answer = client.get("/", &[("host", host), fields[0]]).await;
            assert_eq!(answer.status, 200, "{host} {answer:?}");
            let seen = upstream.last();
            assert_eq!(seen.header("host"), Some(host));
            assert_eq!(seen.header("x-forwarded-for"), Some("::1"));
            let forwarded = seen.header("forwarded").unwrap();
            assert!(forwarded.starts_with("for=\"[::1]\";proto="), "{forwarded}");
        }
    }
    for bad in [
        "[::1",
        "::1",
        "::1:8443",
        "[::1]x",
        "[::1%25lo]",
        "[::1]:8443:1",
        "[[::1]]",
    ] {
        let answer = gateway.plain().await.get("/", &[("host", bad)]).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    let lines = gateway.accounted(4 + 7).await;
    assert_eq!(
        (&lines[0]["client"], &lines[0]["host"]),
        (&"::1".into(), &"[::1]".into())
    );
}

#[tokio::test]
async fn upstreams_may_be_ipv6_addresses() {
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio::io::BufReader::new(stream);
        let seen = crate::support::read_request(&mut stream).await.unwrap();
        use tokio::io::AsyncWriteExt;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        seen
    });
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}\nhost_header = \"upstream\""
        ))
        .start();
    let token = gateway.owner();
    let answer = gateway
        .plain()
        .await
        .get("/", &[("x-gitspace-token", &token)])
        .await;
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    assert_eq!(
        serving.await.unwrap().header("host"),
        Some(&*address.to_string())
    );
}

#[tokio::test]
async fn networks_of_ipv6_are_limited_and_announced_and_trusted_alike() {
    let upstream = Upstream::echo().await;
    let gateway = on_ipv6(Setup::to(&upstream))
        .with(|config| {
            config.limits.connections_per_network = 1;
            config.listen[0].trusted_proxies = vec!["::1/128".parse().unwrap()];
            config.listen[1].proxy_protocol_from = vec!["::1/128".parse().unwrap()];
        })
        .start();
    let token = gateway.owner();
    let fields = [
        ("x-gitspace-token", &*token),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let mut tls = gateway.tls(HOST).await;
    assert_eq!(tls.get("/", &fields).await.status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("192.0.2.1"));
    // ::1 has its one connection; an announced client is another network.
    let mut announced = gateway.plain().await;
    announced
        .send("PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n")
        .await;
    assert_eq!(announced.get("/", &fields).await.status, 200);
    assert_eq!(
        upstream.last().header("x-forwarded-for"),
        Some("2001:db8::7")
    );
    let mut again = gateway.plain().await;
    again.send("PROXY UNKNOWN\r\n").await;
    assert!(again.closed().await.is_empty(), "::1 itself is limited");
}

#[tokio::test]
async fn all_ipv6_addresses_are_ipv6_addresses_only() {
    let upstream = Upstream::echo().await;
    // Of IPv4 nobody else has this port.
    let refusing = Refusing::new();
    let port = refusing.address().port();
    let setup = Setup::to(&upstream).with(|config| {
        config.listen[1].address = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    });
    let gateway = setup.start();
    let token = gateway.owner();
    let mut client = Client::plain(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port))).await;
    let answer = client.get("/", &[("x-gitspace-token", &token)]).await;
    assert_eq!(answer.status, 200);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    // So that IPv4 can be listened on beside it.
    let beside = Setup::to(&upstream).with(|config| {
        config.listen[1].address = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port));
        config.listen[1].protocol = ListenProtocol::Http;
        config.certificate = Vec::<Certificate>::new();
    });
    let beside = beside.start();
    let mut client = Client::plain(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let token = beside.owner();
    let answer = client.get("/", &[("x-gitspace-token", &token)]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}
