//! The login and back: a session only for the browser that asked for it, and only on the page that it asked for.

use serde_json::json;

use crate::support::{Answer, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, now};

const PAGE: (&str, &str) = ("sec-fetch-mode", "navigate");

fn gateway(upstream: &Upstream) -> TestGateway {
    Setup::to(upstream)
        .with(|config| config.auth.login_url = "https://login.test/start".into())
        .start()
}

/// The state that goes to the login, and the cookie that stays.
async fn begin(gateway: &TestGateway, target: &str) -> (String, String) {
    let answer = gateway.tls(HOST).await.get(target, &[PAGE]).await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let state = answer
        .header("location")
        .unwrap()
        .rsplit_once("&state=")
        .unwrap()
        .1;
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in [
        "Path=/",
        "Secure",
        "HttpOnly",
        "SameSite=Lax",
        "Max-Age=900",
    ] {
        assert!(
            cookie.split("; ").any(|found| found == attribute),
            "{cookie}"
        );
    }
    (state.into(), cookie.split(';').next().unwrap().into())
}

async fn back(
    gateway: &TestGateway,
    host: &str,
    ticket: &str,
    state: &str,
    cookie: &str,
) -> Answer {
    let target = format!("/_gitspace/login?ticket={ticket}&state={state}");
    let mut headers = vec![PAGE];
    headers.extend(Some(("cookie", cookie)).filter(|(_, cookie)| !cookie.is_empty()));
    gateway.tls(host).await.get(&target, &headers).await
}

fn refused(answer: &Answer) -> bool {
    answer.status == 401 && answer.session().is_none() && answer.header("location").is_none()
}

#[tokio::test]
async fn who_logs_in_comes_back_to_the_page_that_was_wanted() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    for (number, (wanted, page)) in [
        ("/a/b?x=1&y=%2F", "/a/b?x=1&y=%2F".to_owned()),
        ("/?gitspace_token=bad&x=1", "/?x=1".to_owned()),
        ("//evil.test/", "/evil.test/".to_owned()),
        (&format!("/{}", "x".repeat(3000)), "/".to_owned()),
        ("/_gitspace/login", "/".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let (state, cookie) = begin(&gateway, wanted).await;
        let ticket = gateway
            .setup
            .issuer
            .ticket(OWNER, &format!("t{number}"), "ide");
        let answer = back(&gateway, HOST, &ticket, &state, &cookie).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(answer.header("location"), Some(&*page));
        let ended = answer.all("set-cookie");
        assert!(
            ended
                .iter()
                .any(|cookie| cookie.starts_with("__Host-gitspace-login=; ")),
            "{ended:?}"
        );
        let session = answer.session().unwrap();
        let found = gateway
            .tls(HOST)
            .await
            .get("/", &[("cookie", &*session)])
            .await;
        assert_eq!(found.status, 200);
    }
}

#[tokio::test]
async fn a_login_that_this_browser_did_not_begin_gives_no_session() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let (state, cookie) = begin(&gateway, "/").await;
    let (other_state, other_cookie) = begin(&gateway, "/").await;
    assert_ne!(state, other_state);
    let changed = cookie.replace("login1.", "1.");
    let session = cookie.replace("__Host-gitspace-login=login1", "__Host-gitspace-login=1");
    let value = cookie.split_once('=').unwrap().1;
    let lookalike = format!("__host-gitspace-login={value}");
    for (number, (state, cookie)) in [
        (&*state, ""),
        (&*other_state, &*cookie),
        (&*state, &*other_cookie),
        ("", &*cookie),
        (&*state, &*changed),
        (&*state, &*session),
        (&*state, &cookie[..cookie.len() - 2]),
        (&*state, &*lookalike),
    ]
    .into_iter()
    .enumerate()
    {
        let ticket = gateway
            .setup
            .issuer
            .ticket(OWNER, &format!("t{number}"), "ide");
        let answer = back(&gateway, HOST, &ticket, state, cookie).await;
        assert!(refused(&answer), "{number}: {answer:?}");
    }
    // Its own does.
    let ticket = gateway.setup.issuer.ticket(OWNER, "own", "ide");
    let answer = back(&gateway, HOST, &ticket, &state, &cookie).await;
    assert!(answer.session().is_some(), "{answer:?}");
}

#[tokio::test]
async fn what_comes_back_must_be_a_ticket_for_this_host() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let (state, cookie) = begin(&gateway, "/").await;
    let issuer = &gateway.setup.issuer;
    let access = issuer.token(OWNER);
    let port = issuer.ticket(OWNER, "t1", 3000);
    let old = issuer.token_with(
        OWNER,
        json!({ "use": "ticket", "jti": "t2", "iat": now() - 160, "exp": now() - 100, "gitspace": GITSPACE, "ports": ["ide"] }),
    );
    for token in [&*access, &*port, &*old, "", "a.b.c"] {
        let answer = back(&gateway, HOST, token, &state, &cookie).await;
        assert!(refused(&answer), "{token}: {answer:?}");
    }
    let other = "web-x1y2z3.gitspaces.localhost";
    let answer = back(
        &gateway,
        other,
        &issuer.ticket(OWNER, "t3", "ide"),
        &state,
        &cookie,
    )
    .await;
    assert!(refused(&answer), "another host's login: {answer:?}");
    let used = issuer.ticket(OWNER, "t4", "ide");
    assert!(
        back(&gateway, HOST, &used, &state, &cookie)
            .await
            .session()
            .is_some()
    );
    let again = back(&gateway, HOST, &used, &state, &cookie).await;
    assert!(refused(&again), "a used ticket: {again:?}");
}

#[tokio::test]
async fn the_cookie_of_a_login_is_ours_alone() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nset-cookie: __Host-gitspace-login=x; Path=/; Secure\r\nset-cookie: own=1\r\ncontent-length: 0\r\n\r\n".to_vec()
    })
    .await;
    let gateway = gateway(&upstream);
    let (_, cookie) = begin(&gateway, "/").await;
    let cookies = format!("a=1; {cookie}; b=2");
    let token = gateway.owner();
    let headers = [("cookie", &*cookies), ("x-gitspace-token", &*token)];
    let answer = gateway.tls(HOST).await.get("/", &headers).await;
    assert_eq!(answer.all("set-cookie"), ["own=1"]);
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_login_that_is_no_navigation_begins_nothing() {
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream);
    let (state, cookie) = begin(&gateway, "/").await;
    let ticket = gateway.setup.issuer.ticket(OWNER, "t1", "ide");
    let target = format!("/_gitspace/login?ticket={ticket}&state={state}");
    for (method, mode, destination) in [
        ("GET", "cors", "empty"),
        ("GET", "no-cors", "image"),
        ("GET", "navigate", "iframe"),
        ("POST", "navigate", "document"),
    ] {
        let headers = [
            ("sec-fetch-mode", mode),
            ("sec-fetch-dest", destination),
            ("cookie", &*cookie),
        ];
        let answer = gateway
            .tls(HOST)
            .await
            .request(method, &target, &headers, b"")
            .await;
        assert!(
            answer.status >= 400 && answer.session().is_none(),
            "{method} {mode}: {answer:?}"
        );
    }
    assert!(
        back(&gateway, HOST, &ticket, &state, &cookie)
            .await
            .session()
            .is_some()
    );
}
