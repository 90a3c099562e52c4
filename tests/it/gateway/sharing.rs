//! Shares: for a user, a group, an organization, or whoever has the signed link; with an end, counted, taken back.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, ControlPlane, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, eventually, now,
    port_host, route, secret,
};

const NAVIGATION: (&str, &str) = ("sec-fetch-mode", "navigate");

/// The IDE and port 3000 for their owner alone, 5000 for the organization `acme`: nothing is public, so who may use none knows of none.
fn private(upstream: &Upstream) -> Setup {
    let address = upstream.address;
    Setup::new().route(&format!(
        "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}\norg = \"acme\"\n\
         [ports.3000]\nupstream = \"http://{address}\"\n\
         [ports.5000]\nupstream = \"http://{address}\"\nvisibility = \"organization\"\n"
    ))
}

async fn make(gateway: &TestGateway, share: Value) -> (u16, Value) {
    let answer = gateway.admin(Method::POST, "/v1/shares", Some(share)).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn shared(gateway: &TestGateway, to: Value, more: Value) -> Value {
    let mut share = json!({ "gitspace": GITSPACE, "port": 3000, "to": to });
    for (name, value) in more.as_object().unwrap() {
        share[name] = value.clone();
    }
    let (status, made) = make(gateway, share).await;
    assert_eq!(status, 201, "{made}");
    made
}

/// The target of a link, without its host.
fn target(made: &Value) -> String {
    let link = made["link"].as_str().unwrap();
    let (origin, target) = link.split_at(link.find("/_gitspace").unwrap());
    assert!(
        origin.starts_with(&format!("https://{}", port_host(3000))),
        "{link}"
    );
    secret(target.split_once('=').unwrap().1);
    target.into()
}

async fn accept(gateway: &TestGateway, host: &str, target: &str) -> Answer {
    let origin = format!("https://{host}");
    let mut client = gateway.plain().await.to(host);
    client
        .request("POST", target, &[NAVIGATION, ("origin", &origin)], b"")
        .await
}

async fn asked(gateway: &TestGateway, host: &str, header: (&str, &str)) -> (u16, String) {
    let answer = gateway.plain().await.to(host).get("/", &[header]).await;
    match answer.status {
        200 => (200, String::new()),
        _ => answer.refusal(),
    }
}

async fn by_token(gateway: &TestGateway, host: &str, token: &str) -> (u16, String) {
    asked(gateway, host, ("x-gitspace-token", token)).await
}

fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.into())
}

fn good() -> (u16, String) {
    (200, String::new())
}

async fn remove(gateway: &TestGateway, made: &Value) -> u16 {
    let path = format!("/v1/shares/{}", made["id"].as_str().unwrap());
    gateway
        .admin(Method::DELETE, &path, None)
        .await
        .status()
        .as_u16()
}

#[tokio::test]
async fn whom_a_share_names_may_use_its_port_and_no_other_until_it_is_taken_back() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let issuer = &gateway.setup.issuer;
    let bob = issuer.token_with("bob", json!({ "groups": ["dev"], "org": "other" }));
    let eve = issuer.token_with("eve", json!({ "groups": ["ops"], "org": "acme2" }));
    for to in [
        json!({ "user": "bob" }),
        json!({ "group": "dev" }),
        json!({ "organization": "other" }),
    ] {
        let port = port_host(3000);
        assert_eq!(
            by_token(&gateway, &port, &bob).await,
            refused(404, "no-such-gitspace")
        );
        let made = shared(&gateway, to.clone(), json!({})).await;
        assert_eq!(by_token(&gateway, &port, &bob).await, good(), "{to}");
        assert_eq!(upstream.last().header("x-gitspace-user"), Some("bob"));
        // Who may use one port may know of the others.
        assert_eq!(
            by_token(&gateway, HOST, &bob).await,
            refused(403, "not-allowed")
        );
        assert_eq!(
            by_token(&gateway, &port_host(3999), &bob).await,
            refused(404, "port-closed")
        );
        assert_eq!(
            by_token(&gateway, &port, &eve).await,
            refused(404, "no-such-gitspace")
        );
        assert_eq!(remove(&gateway, &made).await, 204);
        assert_eq!(
            by_token(&gateway, &port, &bob).await,
            refused(404, "no-such-gitspace")
        );
        assert_eq!(remove(&gateway, &made).await, 404);
    }
}

#[tokio::test]
async fn a_restricted_token_is_not_widened_by_a_share() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    shared(&gateway, json!({ "user": "bob" }), json!({})).await;
    for claims in [
        json!({ "gitspace": "web-a1b2c3" }),
        json!({ "ports": [4000] }),
    ] {
        let bob = gateway.setup.issuer.token_with("bob", claims);
        let answer = by_token(&gateway, &port_host(3000), &bob).await;
        assert_eq!(answer, refused(404, "no-such-gitspace"));
    }
}

#[tokio::test]
async fn whoever_has_the_link_gets_a_session_for_that_port_alone() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let port = port_host(3000);
    let made = shared(&gateway, json!("link"), json!({})).await;
    let target = target(&made);
    assert_eq!(
        asked(&gateway, &port, ("x", "y")).await,
        refused(401, "no-token")
    );

    // What only looks at it gets a page and no session.
    let page = gateway
        .plain()
        .await
        .to(&port)
        .get(&target, &[NAVIGATION])
        .await;
    assert_eq!((page.status, page.session()), (200, None));
    assert!(page.text().contains(OWNER) && page.text().contains("Go on"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));

    let accepted = accept(&gateway, &port, &target).await;
    assert_eq!(accepted.status, 303, "{accepted:?}");
    assert_eq!(accepted.header("location"), Some("/"));
    let session = accepted.session().unwrap();
    assert_eq!(asked(&gateway, &port, ("cookie", &session)).await, good());
    let seen = upstream.last();
    let name = seen.header("x-gitspace-user").unwrap();
    assert!(name.starts_with("share:"), "{name}");
    assert_eq!(seen.header("cookie"), None);
    for elsewhere in [HOST.to_owned(), port_host(5000)] {
        let answer = asked(&gateway, &elsewhere, ("cookie", &session)).await;
        assert_eq!(answer, refused(401, "invalid-token"), "{elsewhere}");
    }
    // A page of a stranger cannot use it.
    let posted = gateway
        .plain()
        .await
        .to(&port)
        .request(
            "POST",
            "/",
            &[("cookie", &session), ("origin", "https://evil.test")],
            b"",
        )
        .await;
    assert_eq!(posted.refusal(), refused(403, "origin-refused"));

    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    assert_eq!(asked(&gateway, &port, ("cookie", &session)).await, good());
    assert_eq!(remove(&gateway, &made).await, 204);
    let gone = refused(401, "revoked-token");
    assert_eq!(asked(&gateway, &port, ("cookie", &session)).await, gone);
    let page = gateway.plain().await.to(&port).get(&target, &[]).await;
    assert_eq!(page.refusal(), gone);
    assert_eq!(accept(&gateway, &port, &target).await.refusal().0, 401);
}

#[tokio::test]
async fn a_link_that_was_changed_or_is_another_hosts_lets_nobody_in() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let made = shared(&gateway, json!("link"), json!({})).await;
    let target = target(&made);
    let session = accept(&gateway, &port_host(3000), &target)
        .await
        .session()
        .unwrap();
    let session = session.split_once('=').unwrap().1;
    let changed = target.replace("link1.", "link2.");
    let short = &target[..target.len() - 1];
    for (host, target) in [
        (port_host(3000), changed.as_str()),
        (port_host(3000), short),
        (port_host(3000), "/_gitspace/share?link="),
        (port_host(3000), "/_gitspace/share"),
        // Sealed by the same keys, for another purpose.
        (port_host(3000), &format!("/_gitspace/share?link={session}")),
        (port_host(5000), &target),
        (HOST.to_owned(), &target),
        ("web-a1b2c3-3000.gitspaces.localhost".to_owned(), &target),
    ] {
        let answer = accept(&gateway, &host, target).await;
        assert_eq!(answer.session(), None);
        assert_eq!(answer.status, 401, "{host} {target}");
    }
    // Nor is a link a session.
    let link = target.split_once('=').unwrap().1;
    let cookie = format!("__Host-gitspace={link}");
    let answer = asked(&gateway, &port_host(3000), ("cookie", &cookie)).await;
    assert_eq!(answer, refused(401, "invalid-token"));
    // And nobody accepts it for somebody else.
    for origin in ["https://evil.test", "null"] {
        let mut client = gateway.plain().await.to(&port_host(3000));
        let answer = client
            .request("POST", &target, &[("origin", origin)], b"")
            .await;
        assert_eq!(answer.refusal(), refused(403, "origin-refused"));
    }
}

#[tokio::test]
async fn a_counted_link_is_accepted_so_often_also_at_once_and_over_a_restart() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let port = port_host(3000);
    let made = shared(&gateway, json!("link"), json!({ "uses": 3 })).await;
    let target = target(&made);
    // Looking is no use.
    for _ in 0..5 {
        gateway.plain().await.to(&port).get(&target, &[]).await;
    }
    let first = accept(&gateway, &port, &target).await;
    assert_eq!(first.status, 303);
    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    let answers = futures_util::future::join_all((0..20).map(|_| accept(&gateway, &port, &target)));
    let answers = answers.await;
    let good = answers.iter().filter(|answer| answer.status == 303).count();
    assert_eq!(good, 2);
    for answer in answers.iter().filter(|answer| answer.status != 303) {
        assert_eq!((answer.status, answer.session()), (401, None));
    }
    // Those who came go on.
    let session = first.session().unwrap();
    assert_eq!(
        asked(&gateway, &port, ("cookie", &session)).await,
        (200, String::new())
    );
    let path = format!("/v1/shares?gitspace={GITSPACE}");
    let listed: Value = gateway
        .admin(Method::GET, &path, None)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        (&listed[0]["uses"], &listed[0]["used"]),
        (&json!(3), &json!(3))
    );
}

#[tokio::test]
async fn a_share_ends_at_its_time_and_with_it_its_visitors_sessions() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let port = port_host(3000);
    let until = now() + 2;
    let made = shared(&gateway, json!("link"), json!({ "until": until })).await;
    shared(
        &gateway,
        json!({ "user": "bob" }),
        json!({ "until": until }),
    )
    .await;
    let bob = gateway.setup.issuer.token("bob");
    let session = accept(&gateway, &port, &target(&made))
        .await
        .session()
        .unwrap();
    assert_eq!(by_token(&gateway, &port, &bob).await, good());
    eventually("the end", || async {
        let visitor = asked(&gateway, &port, ("cookie", &session)).await;
        let named = by_token(&gateway, &port, &bob).await;
        (visitor == refused(401, "expired-token") && named == refused(404, "no-such-gitspace"))
            .then_some(())
    })
    .await;
    let answer = accept(&gateway, &port, &target(&made)).await;
    assert_eq!((answer.status, answer.session()), (401, None));
}

#[tokio::test]
async fn a_revoked_share_lets_nobody_in_over_a_restart_too() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let port = port_host(3000);
    let link = shared(&gateway, json!("link"), json!({})).await;
    let named = shared(&gateway, json!({ "user": "bob" }), json!({})).await;
    let session = accept(&gateway, &port, &target(&link))
        .await
        .session()
        .unwrap();
    for made in [&link, &named] {
        let body = json!({ "kind": "share", "id": made["id"] });
        let answer = gateway
            .admin(Method::POST, "/v1/revocations", Some(body))
            .await;
        assert_eq!(answer.status(), 201);
    }
    let setup = gateway.setup.clone();
    let bob = setup.issuer.token("bob");
    assert_eq!(
        asked(&gateway, &port, ("cookie", &session)).await,
        refused(401, "revoked-token")
    );
    assert_eq!(
        by_token(&gateway, &port, &bob).await,
        refused(404, "no-such-gitspace")
    );
    assert_eq!(accept(&gateway, &port, &target(&link)).await.status, 401);
    gateway.stop().await;
    let gateway = setup.start();
    assert_eq!(
        asked(&gateway, &port, ("cookie", &session)).await,
        refused(401, "revoked-token")
    );
    assert_eq!(
        by_token(&gateway, &port, &bob).await,
        refused(404, "no-such-gitspace")
    );
}

#[tokio::test]
async fn shares_come_with_routes_too() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    let mut with = route(1, upstream.address);
    with["shares"] = json!([{ "id": "s1", "port": "ide", "to": { "user": "configured:bob" } }]);
    plane.snapshot(1, 60, &[with.clone()]);
    let gateway = Setup::new()
        .following(&plane, cde_gateway::config::FailMode::Static)
        .start();
    let bob = gateway.setup.issuer.token("bob");
    eventually("the route", || async {
        (by_token(&gateway, HOST, &bob).await == good()).then_some(())
    })
    .await;
    with["generation"] = json!(2);
    with["shares"] = json!([]);
    plane.delta(2, &[with], &[]);
    eventually("the end of the share", || async {
        (by_token(&gateway, HOST, &bob).await == refused(404, "no-such-gitspace")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn groups_and_organizations_of_two_issuers_never_meet() {
    let upstream = Upstream::echo().await;
    let mut setup = private(&upstream);
    let other = crate::support::Issuer::new("https://other.test");
    let mut configured = other.configured(setup.dir.path());
    configured.prefix = "other:".into();
    setup.settings.config.issuer.push(configured);
    let gateway = setup.start();
    shared(&gateway, json!({ "group": "dev" }), json!({})).await;
    let claims = json!({ "groups": ["dev"], "org": "acme" });
    let ours = gateway.setup.issuer.token_with("bob", claims.clone());
    let theirs = other.token_with("bob", claims);
    for (port, token, expected) in [
        (3000, &ours, good()),
        (5000, &ours, good()),
        (3000, &theirs, refused(404, "no-such-gitspace")),
        (5000, &theirs, refused(404, "no-such-gitspace")),
    ] {
        assert_eq!(by_token(&gateway, &port_host(port), token).await, expected);
    }
    shared(&gateway, json!({ "group": "other:dev" }), json!({})).await;
    assert_eq!(by_token(&gateway, &port_host(3000), &theirs).await, good());
}

#[tokio::test]
async fn nobody_gets_a_visitors_name_by_a_token() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let token = gateway.setup.issuer.token("share:s1:0");
    assert_eq!(
        by_token(&gateway, HOST, &token).await,
        refused(401, "invalid-token")
    );
}

#[tokio::test]
async fn what_cannot_be_shared_is_told() {
    let upstream = Upstream::echo().await;
    let gateway = private(&upstream).start();
    let with = |name: &str, value: Value| {
        let mut share = json!({ "gitspace": GITSPACE, "port": 3000, "to": "link" });
        share[name] = value;
        share
    };
    for (share, status, says) in [
        (with("gitspace", json!("web-a1b2c3")), 404, "web-a1b2c3"),
        (with("port", json!(3999)), 422, "3999"),
        (with("until", json!(now() - 1)), 422, "until"),
        (with("uses", json!(0)), 422, "uses"),
        (with("to", json!({ "user": "" })), 422, "to"),
        (with("to", json!("everybody")), 400, "everybody"),
        (with("for", json!("x")), 400, "for"),
        (with("by", json!("a\nb")), 422, "by"),
        (
            json!({ "gitspace": GITSPACE, "port": 3000, "to": { "user": "bob" }, "uses": 2 }),
            422,
            "link",
        ),
    ] {
        let (found, problem) = make(&gateway, share.clone()).await;
        assert_eq!(found, status, "{share} {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_link_leads_to_a_static_routes_own_host_and_path() {
    let upstream = Upstream::echo().await;
    let address = upstream.address;
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nhost = \"dev.test\"\npath = \"/alice\"\nupstream = \"http://{address}\"\nowner = {OWNER:?}"
        ))
        .route(&format!(
            "gitspace = \"web-a1b2c3\"\nhost = \"dev.test\"\nupstream = \"http://{address}\"\nowner = \"bob\""
        ))
        .start();
    let share = json!({ "gitspace": GITSPACE, "port": "ide", "to": "link" });
    let (status, made) = make(&gateway, share).await;
    assert_eq!(status, 201, "{made}");
    let link = made["link"].as_str().unwrap();
    assert!(link.starts_with("https://dev.test:"), "{link}");
    let target = &link[link.find("/_gitspace").unwrap()..];
    secret(target.split_once('=').unwrap().1);
    let accepted = accept(&gateway, "dev.test", target).await;
    assert_eq!(
        (accepted.status, accepted.header("location")),
        (303, Some("/alice/"))
    );
    let cookie = accepted.session().unwrap();
    let mut client = gateway.plain().await.to("dev.test");
    assert_eq!(
        client.get("/alice/x", &[("cookie", &cookie)]).await.status,
        200
    );
    // The other app of the host is somebody else's.
    let other = client.get("/x", &[("cookie", &cookie)]).await;
    assert_eq!(other.refusal(), refused(401, "revoked-token"));
    assert_eq!(accept(&gateway, "dev2.test", target).await.status, 401);
}
