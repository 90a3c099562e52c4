//! A gitspace that does not run, opened: who starts it by that, what does not, and what the page and programs are told.
//!
//! Not here: what a start is (`control_plane::wake`), the pages in a browser (`tests/pages`).

use cde_gateway::config::FailMode;
use serde_json::{Value, json};

use crate::support::{
    Answer, ControlPlane, GITSPACE, HOST, Issuer, OWNER, Setup, TestGateway, Upstream, eventually,
    port_host, route,
};

const TYPED: [(&str, &str); 3] = [
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-site", "none"),
];
const PAGE: &str = "/a/b?c=1&d=%20";

struct Sleeping {
    plane: ControlPlane,
    gateway: TestGateway,
    upstream: Upstream,
    owner: String,
}

impl Sleeping {
    /// Stopped, and what else the route says.
    async fn with(more: Value) -> Self {
        let upstream = Upstream::echo().await;
        let plane = ControlPlane::start().await;
        let mut stopped = route(1, upstream.address);
        stopped["state"] = "stopped".into();
        for (name, value) in more.as_object().unwrap() {
            stopped[name] = value.clone();
        }
        plane.snapshot(1, 60, &[stopped]);
        let gateway = Setup::new().following(&plane, FailMode::Static).start();
        plane.asked_after(1).await;
        let owner = plane.issuer.token(OWNER);
        Self {
            plane,
            gateway,
            upstream,
            owner,
        }
    }

    async fn new() -> Self {
        Self::with(json!({})).await
    }

    async fn ask(&self, method: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = headers.to_vec();
        if !token.is_empty() {
            all.push(("x-gitspace-token", token));
        }
        let mut client = self.gateway.plain().await;
        client.request(method, PAGE, &all, b"").await
    }

    /// By its owner, with an address that was typed.
    async fn open(&self) -> Answer {
        self.ask("GET", &self.owner, &TYPED).await
    }

    fn starts(&self) -> usize {
        let woken = self.plane.woken();
        woken.iter().filter(|(_, start)| *start).count()
    }

    fn becomes(&self, generation: u64, state: &str) {
        let mut route = route(generation, self.upstream.address);
        route["state"] = state.into();
        self.plane.delta(generation, &[route], &[]);
    }
}

/// What every page of these says beside its text.
#[track_caller]
fn is_page(answer: &Answer, reason: &str, words: &str) {
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.header("proxy-status"),
        Some(&*format!(
            "cde-gateway; error=destination_unavailable; details=\"{reason}\""
        ))
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("retry-after").is_some());
    let text = answer.text();
    assert!(text.contains(words), "{words}: {text}");
}

#[tokio::test]
async fn its_owner_opens_it_sees_the_steps_and_then_what_was_wanted() {
    let sleeping = Sleeping::new().await;
    let usual = json!({ "vm_setup": 4000, "agent_start": 9000 });
    sleeping.plane.tell_usual(&usual);
    sleeping.plane.tell_step("gitspace_action_start", "");
    sleeping.plane.tell_step("vm_setup_queued", "");
    sleeping.plane.tell_step("vm_setup_progress", "a <line>");
    sleeping.plane.tell_state("starting", None);
    let page = sleeping.open().await;
    is_page(&page, "gitspace-starting", "Starting app-a1b2c3");
    for part in [
        "Set up the instance",
        "a &lt;line&gt;",
        "data-follows",
        ", usually 4.0 s",
        "<span>usually 9.0 s</span>",
        "A start usually takes 13 s.",
    ] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(!page.text().contains(&sleeping.owner), "no token in it");
    assert_eq!(sleeping.plane.woken(), [(OWNER.to_owned(), true)]);
    assert_eq!(sleeping.upstream.connections(), 0);

    sleeping.becomes(2, "starting");
    sleeping.plane.asked_after(2).await;
    // The page comes again, without script: it only looks.
    let page = sleeping
        .ask("GET", &sleeping.owner, &[("accept", "text/html")])
        .await;
    is_page(&page, "gitspace-starting", "Set up the instance");
    assert_eq!(sleeping.starts(), 1);

    sleeping.becomes(3, "running");
    sleeping.plane.asked_after(3).await;
    let opened = sleeping
        .ask("GET", &sleeping.owner, &[("accept", "text/html")])
        .await;
    assert_eq!(opened.status, 200);
    assert_eq!(sleeping.upstream.last().target, PAGE);
}

#[tokio::test]
async fn what_comes_by_itself_starts_nothing() {
    let sleeping = Sleeping::new().await;
    let mode = |mode| ("sec-fetch-mode", mode);
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let programs: [&[(&str, &str)]; 4] = [
        &[],
        &[mode("cors"), ("sec-fetch-dest", "empty")],
        &upgrade,
        &[mode("no-cors"), ("accept", "text/event-stream")],
    ];
    for headers in programs {
        let answer = sleeping.ask("GET", &sleeping.owner, headers).await;
        assert_eq!(answer.refusal(), (503, "gitspace-stopped".into()));
        assert_eq!(answer.header("retry-after"), Some("2"));
    }
    let ahead = |name, value| [TYPED[0], TYPED[1], TYPED[2], (name, value)];
    let by_itself = |site| vec![TYPED[0], TYPED[1], ("sec-fetch-site", site)];
    let navigations = [
        ahead("sec-purpose", "prefetch").to_vec(),
        ahead("sec-purpose", "prefetch;prerender").to_vec(),
        ahead("purpose", "prefetch").to_vec(),
        by_itself("same-origin"),
        by_itself("same-site"),
        by_itself("cross-site"),
        vec![TYPED[0], ("sec-fetch-dest", "iframe"), TYPED[2]],
        vec![("accept", "text/html")],
    ];
    for headers in navigations {
        let answer = sleeping.ask("GET", &sleeping.owner, &headers).await;
        is_page(&answer, "gitspace-stopped", "<button>Start it</button>");
    }
    let answer = sleeping.ask("HEAD", &sleeping.owner, &TYPED).await;
    assert_eq!(answer.status, 503);
    assert_eq!(sleeping.plane.woken(), []);
    // A click on another site's link is its user's.
    let click = [
        TYPED[0],
        TYPED[1],
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-user", "?1"),
    ];
    sleeping.ask("GET", &sleeping.owner, &click).await;
    assert_eq!(sleeping.starts(), 1);
}

#[tokio::test]
async fn who_wakes_it_is_the_routes_to_say_and_never_somebody_unknown() {
    let bob = |issuer: &Issuer| issuer.token("bob");
    let member = |issuer: &Issuer| issuer.token_with("carol", json!({ "org": "acme" }));
    for (policy, words, wake) in [
        (
            "owner",
            "Only its owner, alice, can start it",
            [true, false, false],
        ),
        ("shared", "those it is shared with", [true, true, false]),
        (
            "organization",
            "its organization can start it",
            [true, true, true],
        ),
        ("off", "at its control plane", [false, false, false]),
    ] {
        let sleeping = Sleeping::with(json!({
            "wake": policy, "org": "acme", "allow": ["bob"],
            "ports": { "4000": { "port": 1, "visibility": "public" }, "5000": { "port": 1, "visibility": "organization" } },
        }))
        .await;
        sleeping.plane.tell_state("starting", None);
        let issuer = &sleeping.plane.issuer;
        let tokens = [sleeping.owner.clone(), bob(issuer), member(issuer)];
        let mut expected = 0;
        for (token, wakes) in tokens.iter().zip(wake) {
            let mut client = sleeping.gateway.plain().await.to(&port_host(5000));
            let mut headers = TYPED.to_vec();
            headers.push(("x-gitspace-token", token));
            let answer = client.get(PAGE, &headers).await;
            expected += usize::from(wakes);
            match wakes {
                true => is_page(&answer, "gitspace-starting", "Starting"),
                false => is_page(&answer, "gitspace-stopped", words),
            }
            assert!(wakes || !answer.text().contains("<form"));
            assert_eq!(sleeping.starts(), expected, "{policy}");
        }
        // Anybody may see the public port.
        let mut client = sleeping.gateway.plain().await.to(&port_host(4000));
        let answer = client.get(PAGE, &TYPED).await;
        is_page(&answer, "gitspace-stopped", "Everything in it is kept.");
        // And nobody else learns more than that there is one, as while it runs.
        let answer = sleeping.ask("GET", &issuer.token("mallory"), &[]).await;
        assert_eq!(answer.refusal(), (403, "not-allowed".into()));
        assert_eq!(
            sleeping.ask("GET", "", &[]).await.refusal(),
            (401, "no-token".into())
        );
        assert_eq!(sleeping.starts(), expected, "{policy}");
    }
}

#[tokio::test]
async fn the_button_starts_it_from_its_own_page_only() {
    let sleeping = Sleeping::new().await;
    sleeping.plane.tell_state("starting", None);
    let press = async |host: &str, origin: &str, token: &str| {
        let origin = format!("https://{origin}");
        let mut client = sleeping.gateway.plain().await.to(host);
        let headers = [("origin", &*origin), ("x-gitspace-token", token)];
        let target = "/_gitspace/wake?to=%2Fa%2Fb%3Fc%3D1";
        client.request("POST", target, &headers, b"").await
    };
    let evil = press(HOST, "evil.test", &sleeping.owner).await;
    assert_eq!(evil.refusal(), (403, "origin-refused".into()));
    let sibling = press(HOST, &port_host(3000), &sleeping.owner).await;
    assert_eq!(sibling.refusal(), (403, "origin-refused".into()));
    let stranger = sleeping.plane.issuer.token("mallory");
    assert_eq!(
        press(HOST, HOST, &stranger).await.refusal(),
        (404, "no-such-gitspace".into())
    );
    assert_eq!(press(HOST, HOST, "a.b.c").await.status, 401);
    assert_eq!(sleeping.plane.woken(), []);
    let (answer, ()) = tokio::join!(press(HOST, HOST, &sleeping.owner), async {
        eventually("it is asked", || async {
            (sleeping.starts() == 1).then_some(())
        })
        .await;
        sleeping.becomes(2, "starting");
    });
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/a/b?c=1"))
    );
    // What follows is the page that shows the start, and no second one.
    let page = sleeping
        .ask("GET", &sleeping.owner, &[("accept", "text/html")])
        .await;
    is_page(&page, "gitspace-starting", "Starting");
    assert_eq!(sleeping.starts(), 1);
}

#[tokio::test]
async fn who_may_start_it_may_cancel_the_start_and_is_not_led_to_another() {
    let sleeping = Sleeping::new().await;
    sleeping.plane.tell_state("starting", None);
    let page = sleeping.open().await;
    let cancel = "action=\"/_gitspace/wake/cancel?to=%2Fa%2Fb%3Fc%3D1%26d%3D%2520\"";
    assert!(page.text().contains(cancel), "{}", page.text());
    sleeping.becomes(2, "starting");
    sleeping.plane.asked_after(2).await;
    let press = async |method: &str, origin: &str, token: &str| {
        let origin = format!("https://{origin}");
        let mut client = sleeping.gateway.plain().await;
        let headers = [("origin", &*origin), ("x-gitspace-token", token)];
        let target = "/_gitspace/wake/cancel?to=%2Fa%2Fb%3Fc%3D1";
        client.request(method, target, &headers, b"").await
    };
    let stranger = sleeping.plane.issuer.token("mallory");
    for (method, origin, token, status) in [
        ("POST", "evil.test", &*sleeping.owner, 403),
        ("POST", &port_host(3000), &sleeping.owner, 403),
        ("POST", HOST, &stranger, 404),
        ("POST", HOST, "", 401),
        ("GET", HOST, &sleeping.owner, 405),
    ] {
        let answer = press(method, origin, token).await;
        assert_eq!(answer.status, status, "{method} {origin}");
    }
    assert!(sleeping.plane.cancelled().is_empty());
    let page = press("POST", HOST, &sleeping.owner).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("location"), None, "to open it would start it");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    for part in [
        "The start of app-a1b2c3 is cancelled",
        "action=\"/_gitspace/wake?to=%2Fa%2Fb%3Fc%3D1\"",
    ] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert_eq!(sleeping.plane.cancelled(), [OWNER]);
    sleeping.plane.refuse_starts("app-a1b2c3 is running");
    let page = press("POST", HOST, &sleeping.owner).await;
    assert_eq!(page.status, 409);
    for part in [
        "was not cancelled",
        "app-a1b2c3 is running",
        "href=\"/a/b?c=1\"",
    ] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    sleeping.plane.away(true);
    let page = press("POST", HOST, &sleeping.owner).await;
    assert_eq!(page.status, 503);
    let why = "It could not be cancelled: the control plane does not answer.";
    assert!(page.text().contains(why), "{}", page.text());
    assert_eq!(sleeping.starts(), 1);
}

#[tokio::test]
async fn a_start_that_failed_is_told_and_not_tried_again_by_itself() {
    let sleeping = Sleeping::with(json!({ "state": "error" })).await;
    sleeping.plane.tell_step("gitspace_action_start", "");
    sleeping.plane.tell_step("vm_setup_queued", "");
    sleeping
        .plane
        .tell_step("vm_setup_failed", "no room on this host");
    sleeping
        .plane
        .tell_state("error", Some("no room on this host"));
    for _ in 0..2 {
        let page = sleeping.open().await;
        is_page(&page, "gitspace-stopped", "no room on this host");
        assert!(page.text().contains("<button>Try again</button>"));
        assert!(page.text().contains("failed after"));
        let (_, support) = page
            .text()
            .split_once("aria-label=\"For support\">")
            .unwrap();
        let (support, _) = support.split_once("</pre>").unwrap();
        let request = page
            .text()
            .split_once("503 · gitspace-stopped · ")
            .unwrap()
            .1;
        let request = request.split_once("</p>").unwrap().0;
        let says = format!(
            "Gitspace: app-a1b2c3\nFailed step: Set up the instance\nCode: vm_setup_failed\nSaid: no room on this host\nReason: gitspace-stopped\nRequest: {request}\nTime: "
        );
        assert!(support.starts_with(&says), "{support}");
    }
    assert_eq!(sleeping.starts(), 0);
}

#[tokio::test]
async fn a_control_plane_that_refuses_or_is_away_is_told() {
    let sleeping = Sleeping::new().await;
    sleeping.plane.refuse_starts("it is being deleted");
    is_page(
        &sleeping.open().await,
        "gitspace-stopped",
        "it is being deleted",
    );
    let Sleeping {
        plane,
        gateway,
        owner,
        ..
    } = sleeping;
    drop(plane);
    let mut headers = TYPED.to_vec();
    headers.push(("x-gitspace-token", &owner));
    let page = gateway.plain().await.get("/", &headers).await;
    is_page(
        &page,
        "gitspace-stopped",
        "the control plane does not answer",
    );
}

#[tokio::test]
async fn the_page_is_told_each_step_and_when_to_open_what_was_wanted() {
    let sleeping = Sleeping::new().await;
    sleeping.plane.tell_step("vm_setup_queued", "");
    sleeping.plane.tell_state("starting", None);
    sleeping.open().await;
    let watch = async |token: &str, site: &str| {
        let mut client = sleeping.gateway.plain().await;
        let headers = [("x-gitspace-token", token), ("sec-fetch-site", site)];
        client.begin("GET", "/_gitspace/wake", &headers, b"").await;
        let head = client.head().await.unwrap();
        (head, client)
    };
    let (head, mut stream) = watch(&sleeping.owner, "same-origin").await;
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream"))
    );
    let first = stream.chunk().await;
    assert!(
        first.contains("event: progress") && first.contains("Set up the instance"),
        "{first}"
    );
    // A second page, and both by one stream of the control plane's.
    let (_, mut other) = watch(&sleeping.owner, "same-origin").await;
    other.chunk().await;
    sleeping.plane.tell_step("vm_setup_progress", "cloning");
    let next = stream.chunk().await;
    assert!(next.contains("cloning"), "{next}");
    assert_eq!(sleeping.plane.woken().len(), 1);
    sleeping.becomes(2, "running");
    let last = loop {
        let event = stream.chunk().await;
        if !event.contains("event: progress") {
            break event;
        }
    };
    assert_eq!(last, "event: reload\ndata: now\n\n");
    assert_eq!(stream.chunk().await, "", "it ends");

    for (token, site, status) in [
        (&*sleeping.owner, "cross-site", 403),
        (&sleeping.owner, "same-site", 403),
        (&sleeping.plane.issuer.token("mallory"), "same-origin", 404),
        ("", "same-origin", 401),
    ] {
        assert_eq!(watch(token, site).await.0.status, status, "{site}");
    }
}

#[tokio::test]
async fn who_watches_hears_no_more_once_access_ends() {
    let sleeping = Sleeping::new().await;
    sleeping.plane.tell_state("starting", None);
    let mut client = sleeping.gateway.plain().await;
    let headers = [("x-gitspace-token", &*sleeping.owner)];
    client.begin("GET", "/_gitspace/wake", &headers, b"").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    client.chunk().await;
    let mut given = route(2, sleeping.upstream.address);
    given["state"] = "stopped".into();
    given["owner"] = "mallory".into();
    sleeping.plane.delta(2, &[given], &[]);
    while !client.chunk().await.is_empty() {}
}

#[tokio::test]
async fn a_route_that_no_control_plane_can_start_stays_stopped_and_says_so() {
    let gateway = Setup::new().start();
    // Without an IDE too: its state is told, not that there is no such port.
    for more in [
        json!({ "ide": { "port": 1 } }),
        json!({ "ports": { "3000": { "port": 1 } } }),
    ] {
        let mut stopped = json!({ "gitspace": GITSPACE, "owner": OWNER, "state": "stopped" });
        stopped
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let path = format!("/v1/routes/{GITSPACE}");
        let put = gateway
            .admin(reqwest::Method::PUT, &path, Some(stopped))
            .await;
        assert_eq!(put.status(), 204);
        let token = gateway.owner();
        let mut headers = TYPED.to_vec();
        headers.push(("x-gitspace-token", &token));
        let page = gateway.plain().await.get("/", &headers).await;
        is_page(&page, "gitspace-stopped", "this gateway cannot do that");
        assert!(!page.text().contains("<form"));
        let stranger = [("x-gitspace-token", &*gateway.setup.issuer.token("mallory"))];
        let answer = gateway.plain().await.get("/", &stranger).await;
        assert_eq!(answer.refusal(), (404, "no-such-gitspace".into()));
    }
}

/// A program that waits for TLS, and lets go of whoever speaks something else.
#[tokio::test]
async fn a_program_that_speaks_tls_where_http_is_expected_is_told_apart() {
    use crate::support::{Authority, Kind, Peer};
    let identity = Authority::new().identity(&["127.0.0.1"]);
    let peer = Peer::echo(Kind::tls(identity, &[b"http/1.1"])).await;
    let address = peer.address;
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nupstream = \"http://{address}\"\nowner = {OWNER:?}"
        ))
        .start();
    let token = gateway.owner();
    let headers = [("accept", "text/html"), ("x-gitspace-token", &*token)];
    let page = gateway.plain().await.get("/", &headers).await;
    assert_eq!(page.status, 502);
    assert!(
        page.text().contains("The program on this port speaks TLS"),
        "{}",
        page.text()
    );
    assert!(page.text().contains("data-reason=\"gitspace-tls\""));
    // Programs are told what is known by now.
    let answer = gateway.plain().await.get("/", &headers[1..]).await;
    assert_eq!(answer.refusal(), (502, "gitspace-tls".into()));
}
