//! The page in front of somebody else's port: who sees it, who does not, and that it leads nowhere else.

use cde_gateway::config::Timeout;

use crate::support::{Answer, HOST, OWNER, Setup, TestGateway, Upstream, port_host};

const NAVIGATION: (&str, &str) = ("sec-fetch-mode", "navigate");

async fn open(gateway: &TestGateway, port: u16, headers: &[(&str, &str)]) -> Answer {
    let host = port_host(port);
    gateway.plain().await.to(&host).get("/a?b=1", headers).await
}

fn is_asked(answer: &Answer) -> bool {
    answer.status == 200 && answer.text().contains("somebody else")
}

async fn session(gateway: &TestGateway, subject: &str, port: u16) -> String {
    let ticket = gateway
        .setup
        .issuer
        .ticket(subject, &format!("{subject}{port}"), port);
    let mut client = gateway.plain().await.to(&port_host(port));
    let answer = client
        .get(&format!("/?gitspace_token={ticket}"), &[NAVIGATION])
        .await;
    answer.session().unwrap()
}

#[tokio::test]
async fn who_goes_to_somebody_elses_port_is_asked_once() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let page = open(&gateway, 4000, &[NAVIGATION]).await;
    assert!(is_asked(&page), "{page:?}");
    assert!(page.text().contains(OWNER));
    assert!(
        page.text()
            .contains("action=\"/_gitspace/visit?to=%2Fa%3Fb%3D1\""),
        "{}",
        page.text()
    );
    assert_eq!(upstream.connections(), 0);

    let host = port_host(4000);
    let origin = format!("https://{host}");
    let mut client = gateway.plain().await.to(&host);
    let target = "/_gitspace/visit?to=%2Fa%3Fb%3D1";
    let answer = client
        .request("POST", target, &[("origin", &origin)], b"")
        .await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/a?b=1"))
    );
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in [
        "Secure",
        "HttpOnly",
        "Path=/",
        "SameSite=Lax",
        "Max-Age=86400",
    ] {
        assert!(
            cookie.split("; ").any(|found| found == attribute),
            "{cookie}"
        );
    }
    let cookie = format!("app=1; {}", cookie.split(';').next().unwrap());
    let answer = open(&gateway, 4000, &[NAVIGATION, ("cookie", &cookie)]).await;
    assert!(answer.status == 200 && !is_asked(&answer));
    assert_eq!(
        upstream.last().header("cookie"),
        Some("app=1"),
        "the app does not see it"
    );
}

#[tokio::test]
async fn principals_who_are_not_the_owner_are_asked_too() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let colleague = gateway.setup.issuer.token_with(
        "bob",
        serde_json::json!({ "use": "ticket", "jti": "1", "exp": crate::support::now() + 60,
                            "gitspace": "app-a1b2c3", "ports": [5000], "org": "acme" }),
    );
    let mut client = gateway.plain().await.to(&port_host(5000));
    let answer = client
        .get(&format!("/?gitspace_token={colleague}"), &[NAVIGATION])
        .await;
    let cookie = answer.session().unwrap();
    assert!(is_asked(
        &open(&gateway, 5000, &[NAVIGATION, ("cookie", &cookie)]).await
    ));
    let cookie = session(&gateway, OWNER, 5000).await;
    assert!(!is_asked(
        &open(&gateway, 5000, &[NAVIGATION, ("cookie", &cookie)]).await
    ));
    // Who may not use it learns nothing by it.
    let cookie = session(&gateway, "eve", 3000).await;
    let answer = open(&gateway, 3000, &[NAVIGATION, ("cookie", &cookie)]).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn what_is_no_page_of_a_browser_is_not_asked() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.setup.issuer.token("bob");
    for headers in [
        &[("sec-fetch-mode", "cors")][..],
        &[("accept", "*/*")],
        &[NAVIGATION, ("sec-fetch-dest", "iframe")],
        &[NAVIGATION, ("x-gitspace-skip-warning", "1")],
        &[NAVIGATION, ("authorization", &format!("Bearer {token}"))],
        &[NAVIGATION, ("x-gitspace-token", &token)],
    ] {
        let answer = open(&gateway, 4000, headers).await;
        assert!(answer.status == 200 && !is_asked(&answer), "{headers:?}");
    }
    for method in ["POST", "HEAD"] {
        let mut client = gateway.plain().await.to(&port_host(4000));
        let answer = client.request(method, "/", &[NAVIGATION], b"").await;
        assert!(answer.status == 200 && !is_asked(&answer), "{method}");
    }
    // A browser that says nothing of modes, and what such a page says where it stands.
    assert!(is_asked(
        &open(&gateway, 4000, &[("accept", "text/html")]).await
    ));
    let top = [NAVIGATION, ("sec-fetch-dest", "document")];
    assert!(is_asked(&open(&gateway, 4000, &top).await));
}

#[tokio::test]
async fn a_route_without_an_owner_and_a_gateway_that_must_not_ask_do_not() {
    let upstream = Upstream::echo().await;
    let address = upstream.address;
    let gateway = Setup::new()
        .route(&format!(
            "host = \"docs.test\"\nupstream = \"http://{address}\"\nvisibility = \"public\""
        ))
        .start();
    let answer = gateway
        .plain()
        .await
        .to("docs.test")
        .get("/", &[NAVIGATION])
        .await;
    assert!(answer.status == 200 && !is_asked(&answer));
    let gateway = Setup::to(&upstream)
        .with(|config| config.sharing.first_visit = Timeout::Off)
        .start();
    let answer = open(&gateway, 4000, &[NAVIGATION]).await;
    assert!(answer.status == 200 && !is_asked(&answer));
}

#[tokio::test]
async fn the_way_on_leads_to_the_same_host_only() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let host = port_host(4000);
    let origin = format!("https://{host}");
    for (to, location) in [
        ("", Some("/")),
        ("%2F", Some("/")),
        ("%2F%2Fevil.test%2Fx", Some("/evil.test/x")),
        ("%2F%5Cevil.test", Some("/evil.test")),
        ("%5C%5Cevil.test", None),
        ("https%3A%2F%2Fevil.test%2F", None),
        ("https:evil.test", None),
        ("evil.test", None),
        ("%2Fa%0D%0Aset-cookie:x=1", None),
        ("%2F%E2%80%AE", None),
    ] {
        let target = format!("/_gitspace/visit?to={to}");
        let mut client = gateway.plain().await.to(&host);
        let answer = client
            .request("POST", &target, &[("origin", &origin)], b"")
            .await;
        assert_eq!(answer.header("location"), location, "{to}: {answer:?}");
        assert_eq!(answer.status, if location.is_some() { 303 } else { 400 });
    }
    for origin in ["https://evil.test", "null", &format!("https://{HOST}")] {
        let mut client = gateway.plain().await.to(&host);
        let answer = client
            .request(
                "POST",
                "/_gitspace/visit?to=%2F",
                &[("origin", origin)],
                b"",
            )
            .await;
        assert_eq!(answer.refusal(), (403, "origin-refused".into()));
        assert!(answer.all("set-cookie").is_empty());
    }
}
