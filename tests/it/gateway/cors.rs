//! CORS: whose pages may read a port.

use crate::support::{Answer, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, port_host};

const PARTNER: &str = "https://partner.test";
const SIBLING: &str = "https://evil-x9y8z7.gitspaces.localhost";

/// An app that allows whoever asks, with credentials.
async fn careless() -> Upstream {
    Upstream::answering(|seen| {
        let origin = seen.header("origin").unwrap_or("*");
        format!(
            "HTTP/1.1 200 OK\r\naccess-control-allow-origin: {origin}\r\naccess-control-allow-credentials: true\r\n\
             access-control-expose-headers: x-total\r\nvary: accept\r\ncontent-length: 2\r\n\r\nok"
        )
        .into_bytes()
    })
    .await
}

/// Port 3000 is private and has a partner, 4000 is public.
fn gateway(upstream: &Upstream) -> TestGateway {
    let address = upstream.address;
    Setup::new()
        .route(&format!(
            "gitspace = \"{GITSPACE}\"\nupstream = \"http://{address}\"\nowner = \"{OWNER}\"\n\
             [ports.3000]\nupstream = \"http://{address}\"\ncors = [\"{PARTNER}\"]\n\
             [ports.4000]\nupstream = \"http://{address}\"\nvisibility = \"public\""
        ))
        .start()
}

async fn preflight(gateway: &TestGateway, host: &str, origin: &str) -> Answer {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type,x-own"),
    ];
    let mut client = gateway.tls(host).await;
    client.request("OPTIONS", "/api", &headers, b"").await
}

fn allowed(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (
        answer.header("access-control-allow-origin"),
        answer.header("access-control-allow-credentials"),
    )
}

#[tokio::test]
async fn a_preflight_to_a_private_port_is_answered_by_policy_and_reaches_no_app() {
    let upstream = careless().await;
    let gateway = gateway(&upstream);
    let (ide, port) = (format!("https://{HOST}"), port_host(3000));
    for origin in [&*ide, PARTNER] {
        let answer = preflight(&gateway, &port, origin).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(allowed(&answer), (Some(origin), Some("true")));
        assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
        assert_eq!(
            answer.header("access-control-allow-headers"),
            Some("content-type,x-own")
        );
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    let in_the_clear = format!("http://{HOST}");
    for origin in [
        SIBLING,
        "https://evil.test",
        "null",
        &*in_the_clear,
        "https://partner.test.evil",
    ] {
        let answer = preflight(&gateway, &port, origin).await;
        assert_eq!(answer.refusal(), (401, "no-token".into()), "{origin}");
        assert_eq!(allowed(&answer), (None, None));
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn a_preflight_tells_nobody_what_exists() {
    let upstream = careless().await;
    let gateway = gateway(&upstream);
    let unknown = "none-a1b2c3";
    let comparable = |answer: Answer, gitspace: &str| {
        let fields = answer.headers.iter().filter(|(name, _)| name != "date");
        let body = answer.text().split("request_id").next().unwrap_or_default();
        format!("{} {:?} {body}", answer.status, fields.collect::<Vec<_>>()).replace(gitspace, "G")
    };
    for origin in [
        SIBLING,
        "https://G.gitspaces.localhost",
        "https://G-8080.gitspaces.localhost",
    ] {
        let mut answers = Vec::new();
        for gitspace in [GITSPACE, unknown] {
            for port in ["", "-3000", "-9999"] {
                let host = format!("{gitspace}{port}.gitspaces.localhost");
                let answer = preflight(&gateway, &host, &origin.replace('G', gitspace)).await;
                answers.push(comparable(answer, gitspace));
            }
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{origin}: {answers:#?}");
    }
}

#[tokio::test]
async fn an_app_on_a_private_port_opens_it_to_nobody_else() {
    let upstream = careless().await;
    let gateway = gateway(&upstream);
    let token = gateway.owner();
    let ask = async |port: u16, origin: Option<&str>| {
        let mut headers = vec![("x-gitspace-token", &*token)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        gateway.tls(&port_host(port)).await.get("/", &headers).await
    };
    let own = format!("https://{}", port_host(8080));
    for origin in [&*own, PARTNER] {
        let answer = ask(3000, Some(origin)).await;
        assert_eq!(allowed(&answer), (Some(origin), Some("true")), "{answer:?}");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            Some("x-total")
        );
        assert_eq!(answer.all("vary"), ["accept", "Origin"]);
    }
    for origin in [SIBLING, "https://evil.test", "null"] {
        let answer = ask(3000, Some(origin)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(allowed(&answer), (None, None), "{origin}");
        assert_eq!(answer.all("vary"), ["accept", "Origin"]);
    }
    let answer = ask(3000, None).await;
    assert_eq!(allowed(&answer), (None, None));
    assert_eq!(answer.all("vary"), ["accept"]);
}

#[tokio::test]
async fn on_a_public_port_cors_is_the_apps() {
    let upstream = careless().await;
    let gateway = gateway(&upstream);
    let host = port_host(4000);
    let answer = preflight(&gateway, &host, "https://anybody.test").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        allowed(&answer),
        (Some("https://anybody.test"), Some("true"))
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_page_that_came_in_the_clear_may_not_act_with_a_session_of_https() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let target = format!(
        "/?gitspace_token={}",
        gateway.setup.issuer.ticket(OWNER, "t1", "ide")
    );
    let mut client = gateway.tls(HOST).await;
    let answer = client.get(&target, &[("sec-fetch-mode", "navigate")]).await;
    let cookie = answer.session().unwrap();
    for (origin, status) in [
        (format!("http://{HOST}"), 403),
        (format!("https://{HOST}"), 200),
    ] {
        let headers = [("cookie", &*cookie), ("origin", &*origin)];
        let answer = client.request("POST", "/", &headers, b"x").await;
        assert_eq!(answer.status, status, "{origin}");
    }
}
