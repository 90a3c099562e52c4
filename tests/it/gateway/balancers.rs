//! Balancers in front that announce their connections by the PROXY protocol, over every listener.
//!
//! Not here: malformed headers one by one (unit tests of `gateway::proxy_protocol`).

use std::time::Duration;

use cde_gateway::config;
use tokio::{
    io::{AsyncWriteExt, BufStream},
    net::TcpStream,
};

use crate::support::{Client, H2, HOST, Setup, TestGateway, Upstream, eventually, soon, tls_over};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const V1_IPV6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

/// 192.0.2.7, with an addition behind the addresses.
fn v2_ipv4() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
    v2(0x21, 0x11, &[&addresses[..], &[0xea, 0, 2, 1, 2]].concat())
}

fn v2_ipv6(client: &str) -> Vec<u8> {
    let client: std::net::Ipv6Addr = client.parse().unwrap();
    v2(
        0x21,
        0x21,
        &[&client.octets()[..], &[0; 16], &[1; 4]].concat(),
    )
}

/// Both listeners are behind balancers in these networks.
fn behind(upstream: &Upstream, networks: &[&str]) -> Setup {
    Setup::to(upstream).with(|config| {
        for listen in &mut config.listen {
            listen.proxy_protocol_from =
                networks.iter().map(|text| text.parse().unwrap()).collect();
        }
    })
}

/// A connection in the clear that begins with these bytes.
async fn announced(gateway: &TestGateway, header: &[u8]) -> Client {
    let mut client = gateway.plain().await;
    let _ = client.try_send(header).await;
    client
}

#[tokio::test]
async fn an_announced_client_is_the_client_for_upstream_and_log() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"]).start();
    let token = gateway.owner();
    let fields = [("x-gitspace-token", &*token)];
    let cases = [
        (V1.to_vec(), "192.0.2.7", "192.0.2.7", "443"),
        (v2_ipv4(), "192.0.2.7", "192.0.2.7", "443"),
        (V1_IPV6.to_vec(), "2001:db8::7", "\"[2001:db8::7]\"", "443"),
        (
            v2_ipv6("2001:db8::7"),
            "2001:db8::7",
            "\"[2001:db8::7]\"",
            "257",
        ),
        (v2_ipv6("::ffff:192.0.2.7"), "192.0.2.7", "192.0.2.7", "257"),
    ];
    for (count, (header, client, node, port)) in cases.iter().enumerate() {
        let answer = announced(&gateway, header).await.get("/", &fields).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-for"), Some(*client));
        let forwarded = format!("for={node};proto=http;host={HOST}");
        assert_eq!(seen.header("forwarded"), Some(&*forwarded));
        assert_eq!(seen.header("x-forwarded-port"), Some(*port));
        let lines = gateway.accounted(count + 1).await;
        assert_eq!(lines[count]["client"], *client);
    }
}

#[tokio::test]
async fn a_sender_that_speaks_for_itself_is_the_client() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.1/32"]).start();
    let token = gateway.owner();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.7 192.0.2.8 1 2\r\n".to_vec(),
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, &[1; 12]),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x31, &[0; 216]),
    ] {
        let fields = [("x-gitspace-token", &*token)];
        let answer = announced(&gateway, &header).await.get("/", &fields).await;
        assert_eq!(answer.status, 200, "{header:?}");
        assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn no_byte_behind_a_header_is_lost_however_it_arrives() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"]).start();
    let token = gateway.owner();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-length: 3\r\n\r\nabc"
    );
    for header in [V1.to_vec(), v2_ipv4(), v2(0x20, 0, &[0; 4096])] {
        // In one piece with what follows.
        let mut client = gateway.plain().await;
        client.send([&header, request.as_bytes()].concat()).await;
        assert_eq!(client.answer().await.unwrap().text(), "abc");
        // Byte by byte.
        let mut client = gateway.plain().await;
        for byte in header.iter().take(300) {
            client.send([*byte]).await;
        }
        client.send(header.get(300..).unwrap_or_default()).await;
        client.send(&request).await;
        assert_eq!(client.answer().await.unwrap().text(), "abc");
        // In one piece with the first message of TLS.
        let stream = TcpStream::connect(gateway.https).await.unwrap();
        let mut stream = BufStream::new(stream);
        stream.write_all(&header).await.unwrap();
        let stream = tls_over(stream, &gateway.authority(), HOST, &[b"h2"])
            .await
            .unwrap();
        let mut client = H2::over(stream).await;
        let url = format!("https://{HOST}/");
        let fields = [("x-gitspace-token", &*token)];
        let answer = client.request("POST", &url, &fields, b"abc").await;
        assert_eq!(&answer.body()[..], b"abc");
    }
}

#[tokio::test]
async fn a_connection_without_a_right_header_is_closed_without_a_word() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"]).start();
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let bad = [
        request.clone().into_bytes(),
        format!("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n{request}").into_bytes(),
        format!("PROXY TCP4 192.0.2.7 2001:db8::1 56324 443\r\n{request}").into_bytes(),
        [&v2(0x22, 0x11, &[1; 12]), request.as_bytes()].concat(),
        [&v2(0x21, 0x11, &[1; 11]), request.as_bytes()].concat(),
        b"P".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(),
    ];
    for (count, bytes) in bad.iter().enumerate() {
        let mut client = announced(&gateway, bytes).await;
        // The last two are not wrong yet.
        if count > 4 {
            client.shut().await;
        }
        assert!(client.closed().await.is_empty(), "{bytes:?}");
    }
    let tls = crate::support::try_tls(gateway.https, &gateway.authority(), HOST, &[b"h2"]).await;
    assert!(tls.is_err(), "TLS without a header");
    eventually("all are counted", || async {
        let closed = gateway
            .metric("cde_gateway_unannounced_connections_total", &[])
            .await;
        let open = gateway.metric("cde_gateway_connections", &[]).await;
        (closed == bad.len() as f64 + 1.0 && open == 0.0).then_some(())
    })
    .await;
    assert_eq!(
        gateway.lines().len(),
        0,
        "and nobody came as far as a request"
    );
}

#[tokio::test]
async fn a_header_has_the_deadline_of_the_head() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"])
        .with(|config| config.timeouts.head = Duration::from_millis(300))
        .start();
    for bytes in [&b""[..], b"PROXY TCP4 192.0.2.7 ", &v2_ipv4()[..20]] {
        let mut client = announced(&gateway, bytes).await;
        assert!(client.closed().await.is_empty());
    }
    // The time of the header is not given again to what follows it.
    let mut client = announced(&gateway, b"PROXY ").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send(&V1[6..]).await;
    let start = tokio::time::Instant::now();
    client.closed().await;
    assert!(
        start.elapsed() < Duration::from_millis(290),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn other_networks_are_closed_at_once_with_or_without_a_header() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["10.0.0.0/8", "::1/128"]).start();
    let token = gateway.owner();
    for header in [&b""[..], V1] {
        let mut client = announced(&gateway, header).await;
        client
            .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
            .await;
        assert!(client.closed().await.is_empty());
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_header_that_nobody_asked_for_is_a_bad_request() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    for header in [V1.to_vec(), v2_ipv4()] {
        let mut client = announced(&gateway, &header).await;
        client
            .begin("GET", "/", &[("x-gitspace-token", &gateway.owner())], b"")
            .await;
        let answer = client.closed().await;
        assert!(answer.starts_with(b"HTTP/1.1 400 ") || answer.is_empty());
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn limits_are_those_of_the_announced_network() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"])
        .with(|config| config.limits.connections_per_network = 1)
        .start();
    let token = gateway.owner();
    let fields = [("x-gitspace-token", &*token)];
    let mut first = announced(&gateway, V1).await;
    assert_eq!(first.get("/", &fields).await.status, 200);
    let mut again = announced(&gateway, &v2_ipv4()).await;
    assert!(again.closed().await.is_empty(), "one of a network");
    // An IPv6 network is a /64.
    let mut other = announced(&gateway, &v2_ipv6("2001:db8::7")).await;
    assert_eq!(
        other.get("/", &fields).await.status,
        200,
        "of another network"
    );
    let mut neighbour = announced(&gateway, &v2_ipv6("2001:db8::ffff:8")).await;
    assert!(neighbour.closed().await.is_empty(), "of the same /64");
    let mut next = announced(&gateway, &v2_ipv6("2001:db8:0:1::7")).await;
    assert_eq!(next.get("/", &fields).await.status, 200, "of the next /64");
    assert_eq!(first.get("/", &fields).await.status, 200);
}

#[tokio::test]
async fn silent_senders_take_no_more_than_places() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"])
        .with(|config| {
            // One, so that connections are accepted in order.
            config.workers = 1;
            config.limits.connections = 3;
            config.limits.connections_per_network = 1;
        })
        .start();
    let silent = [
        announced(&gateway, b"PROXY ").await,
        announced(&gateway, b"PROXY ").await,
        announced(&gateway, b"").await,
    ];
    let mut refused = announced(&gateway, V1).await;
    assert_eq!(refused.get("/", &[]).await.refusal().0, 503);
    drop(silent);
    let token = gateway.owner();
    eventually("a place is free", || async {
        let mut client = announced(&gateway, V1).await;
        client
            .begin("GET", "/", &[("x-gitspace-token", &token)], b"")
            .await;
        client.answer().await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_proxy_behind_an_announcing_balancer_is_believed_if_it_is_trusted() {
    let upstream = Upstream::echo().await;
    let gateway = behind(&upstream, &["127.0.0.0/8"])
        .with(|config: &mut config::Gateway| {
            config.listen[1].trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
        })
        .start();
    let token = gateway.owner();
    let fields = [
        ("x-gitspace-token", &*token),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    for (header, client) in [
        (V1, "203.0.113.9"),
        (V1_IPV6, "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let answer = announced(&gateway, header).await.get("/", &fields).await;
        assert_eq!(answer.status, 200);
        assert_eq!(upstream.last().header("x-forwarded-for"), Some(client));
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_headers_or_first_bytes() {
    let upstream = Upstream::echo().await;
    let setup = behind(&upstream, &["127.0.0.0/8"]).with(|config| {
        config.timeouts.head = Duration::from_secs(60);
        config.timeouts.drain = Duration::from_secs(60);
    });
    for said in [&b"PROXY "[..], V1, b""] {
        let gateway = match said {
            b"" => Setup::to(&upstream)
                .with(|config| config.timeouts = setup.settings.config.timeouts.clone())
                .start(),
            _ => setup.start(),
        };
        let mut client = announced(&gateway, said).await;
        eventually("it is accepted", || async {
            let taken = gateway.metric("cde_gateway_connections", &[]).await == 1.0;
            (taken || said == b"PROXY ").then_some(())
        })
        .await;
        soon("the stop", gateway.stop()).await;
        assert!(client.closed().await.is_empty());
    }
}
