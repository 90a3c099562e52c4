//! The login of a page that stays as it is: how it learns where to, and the window of its own.
//!
//! Not here: the same in a browser (`tests/pages`), other logins (`login`).

use serde_json::Value;

use crate::support::{Answer, HOST, OWNER, Setup, TestGateway, Upstream, port_host};

const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");
const SIGNED_IN: &str = "/_gitspace/signed-in";

fn gateway(upstream: &Upstream) -> TestGateway {
    Setup::to(upstream)
        .with(|config| config.auth.login_url = "https://login.test/start".into())
        .start()
}

async fn open(gateway: &TestGateway, target: &str, cookie: &str) -> Answer {
    let mut headers = vec![PAGE];
    headers.extend(Some(("cookie", cookie)).filter(|(_, cookie)| !cookie.is_empty()));
    gateway.tls(HOST).await.get(target, &headers).await
}

/// The state that goes to the login, and the cookie that stays.
fn begun(answer: &Answer) -> (&str, &str) {
    assert_eq!(answer.status, 303, "{answer:?}");
    let location = answer.header("location").unwrap();
    let cookie = answer.header("set-cookie").unwrap();
    let state = location.rsplit_once("&state=").unwrap().1;
    (state, cookie.split(';').next().unwrap())
}

/// The `login` of a refusal, as a script reads it.
async fn hint(gateway: &TestGateway, host: &str, headers: &[(&str, &str)]) -> Option<String> {
    let mut headers = headers.to_vec();
    headers.push(("host", host));
    let answer = gateway.plain().await.get("/", &headers).await;
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], answer.status, "{answer:?}");
    problem["login"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn who_may_log_in_is_told_where_and_nothing_else() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let requests: [&[(&str, &str)]; 4] = [
        &[],
        &[("x-gitspace-token", "a.b.c")],
        &[("accept", "text/event-stream")],
        &[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ],
    ];
    for host in [HOST, "none-x1y2z3.gitspaces.localhost", &port_host(9999)] {
        for named in [host, &format!("{host}:8443")] {
            let expected = format!("https://{named}/_gitspace/login");
            for headers in requests {
                let found = hint(&gateway, named, headers).await;
                assert_eq!(found.as_ref(), Some(&expected));
            }
        }
    }
    // Where it would not help, and on hosts that are not ours.
    let token = gateway.owner();
    let unknown = "none-x1y2z3.gitspaces.localhost";
    let ours = [("x-gitspace-token", &*token)];
    assert_eq!(hint(&gateway, unknown, &ours).await, None);
    assert_eq!(hint(&gateway, "evil.test", &[]).await, None);
    // A page that comes from the login without one says it too.
    let page = open(&gateway, "/_gitspace/login?ticket=a.b.c&state=x", "").await;
    let link = format!("<a href=\"https://{HOST}/_gitspace/login\">Sign in</a>");
    assert!(page.text().contains(&link), "{}", page.text());

    let gateway = Setup::to(&upstream).start();
    assert_eq!(hint(&gateway, HOST, &[]).await, None, "without a login");
    let page = open(&gateway, "/", "").await;
    assert!(!page.text().contains("_gitspace/login"), "{}", page.text());
}

#[tokio::test]
async fn a_login_in_a_window_of_its_own_ends_with_a_page_that_closes_it() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    // Signed in already or not: it is a login, so a session that ends soon can be renewed.
    let ticket = gateway.setup.issuer.ticket(OWNER, "first", "ide");
    let exchanged = open(&gateway, &format!("/?gitspace_token={ticket}"), "").await;
    for (number, session) in ["", &exchanged.session().unwrap()].into_iter().enumerate() {
        let begins = open(&gateway, "/_gitspace/login?popup", session).await;
        let to = format!(
            "https://login.test/start?return_to=https%3A%2F%2F{HOST}%2F_gitspace%2Fsigned-in&state="
        );
        assert!(begins.header("location").unwrap().starts_with(&to));
        let (state, cookie) = begun(&begins);
        let ticket = gateway
            .setup
            .issuer
            .ticket(OWNER, &format!("t{number}"), "ide");
        let back = format!("/_gitspace/login?ticket={ticket}&state={state}");
        let answer = open(&gateway, &back, cookie).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(SIGNED_IN))
        );
        let page = open(&gateway, SIGNED_IN, &answer.session().unwrap()).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.header("cache-control"), Some("no-store"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("; script-src 'sha256-") && !policy.contains("unsafe"));
        assert!(page.text().contains("You can close this window"));
        assert!(!page.text().contains(OWNER), "it says nothing of anybody");
    }
    assert_eq!(upstream.connections(), 0);
}

/// A control plane may also put the ticket into the page's own URL.
#[tokio::test]
async fn a_ticket_in_the_url_of_the_closing_page_is_exchanged_like_any() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let ticket = gateway.setup.issuer.ticket(OWNER, "t1", "ide");
    let target = format!("{SIGNED_IN}?gitspace_token={ticket}");
    let answer = open(&gateway, &target, "").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some(SIGNED_IN))
    );
    let page = open(&gateway, SIGNED_IN, &answer.session().unwrap()).await;
    assert_eq!(page.status, 200);
}

#[tokio::test]
async fn only_who_is_signed_in_is_told_so() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    for cookie in ["", "__Host-gitspace=1.a.b.c"] {
        let answer = open(&gateway, SIGNED_IN, cookie).await;
        assert_eq!((answer.status, answer.header("location")), (401, None));
        assert!(!answer.text().contains("<script"), "{}", answer.text());
    }
}

#[tokio::test]
async fn the_way_back_cannot_be_steered_from_outside() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    for (target, page) in [
        ("/_gitspace/login?popup=https://evil.test/", "/"),
        (
            "/_gitspace/login?return_to=https://evil.test/&popup",
            SIGNED_IN,
        ),
        ("/_gitspace/login?popup&popup=//evil.test", SIGNED_IN),
        ("/_gitspace/login?xpopup", "/"),
        ("/a?popup", "/a?popup"),
    ] {
        let begins = open(&gateway, target, "").await;
        assert!(!begins.header("location").unwrap().contains("evil"));
        let (state, cookie) = begun(&begins);
        let number = target.len();
        let ticket = gateway
            .setup
            .issuer
            .ticket(OWNER, &format!("t{number}"), "ide");
        // What the way back says of itself counts for nothing.
        for more in [
            "&popup",
            "&target=//evil.test/&return_to=https://evil.test/",
        ] {
            let back = format!("/_gitspace/login?ticket=a.b.c&state={state}{more}");
            assert_eq!(open(&gateway, &back, cookie).await.status, 401);
        }
        let back = format!("/_gitspace/login?ticket={ticket}&state={state}&popup&return_to=/evil");
        let answer = open(&gateway, &back, cookie).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (303, Some(page))
        );
    }
}
