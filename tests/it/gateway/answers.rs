//! Answers of our own: each reason that a client can cause, in every form in which it can be asked for.
//!
//! Not here: what the log says of them (`reasons`), all their texts (`rejection::tests`).

use std::{num::NonZeroU32, time::Duration};

use cde_gateway::config::{FailMode, Timeout};
use reqwest::Method;
use serde_json::json;

use crate::support::{
    Answer, Client, ControlPlane, GITSPACE, HOST, OWNER, Refusing, Setup, TestGateway, Upstream,
    eventually, port_host, route,
};

/// What a request has in it that no answer may repeat.
const MARK: &str = "of-the-request";

/// How a request asks for a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Page,
    Problem,
    Grpc,
}

const ALL: &[Form] = &[Form::Page, Form::Problem, Form::Grpc];
/// What is no GET is never a page.
const NO_PAGE: &[Form] = &[Form::Problem, Form::Grpc];

/// A request that is refused.
#[derive(Clone)]
struct Ask<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Ask<'a> {
    fn get(target: &'a str, headers: &[(&'a str, &'a str)]) -> Self {
        Self {
            method: "GET",
            host: HOST,
            target,
            headers: headers.to_vec(),
        }
    }

    fn with(token: &'a str) -> Self {
        Self::get("/", &[("x-gitspace-token", token)])
    }

    fn at(self, host: &'a str) -> Self {
        Self { host, ..self }
    }

    fn method(self, method: &'a str) -> Self {
        Self { method, ..self }
    }

    async fn begin(&self, mut client: Client, form: Form) -> Client {
        let joint = if self.target.contains('?') { '&' } else { '?' };
        let target = format!("{}{joint}x={MARK}", self.target);
        let mut headers = self.headers.clone();
        headers.extend([("host", self.host), ("x-mark", MARK), ("referer", MARK)]);
        match form {
            Form::Page => headers.push(("sec-fetch-mode", "navigate")),
            Form::Problem => {}
            Form::Grpc => headers.push(("content-type", "application/grpc")),
        }
        client.begin(self.method, &target, &headers, b"").await;
        client
    }

    async fn send(&self, gateway: &TestGateway, form: Form) -> Answer {
        let mut client = self.begin(gateway.plain().await, form).await;
        client.answer().await.unwrap()
    }
}

/// Sends it in each of these forms and looks at the answers.
async fn refused(gateway: &TestGateway, ask: &Ask<'_>, forms: &[Form], status: u16, reason: &str) {
    for form in forms {
        let answer = ask.send(gateway, *form).await;
        check(&answer, *form, status, reason);
    }
}

#[track_caller]
fn check(answer: &Answer, form: Form, status: u16, reason: &str) {
    let told = answer.header("proxy-status").unwrap();
    assert!(
        told.starts_with("cde-gateway; error=")
            && told.ends_with(&format!("; details=\"{reason}\"")),
        "{form:?} {reason}: {told}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let text = answer.text();
    assert!(!text.contains(MARK), "{form:?} {reason}: {text}");
    let kind = answer.header("content-type").unwrap();
    match form {
        Form::Page => {
            assert_eq!((answer.status, kind), (status, "text/html; charset=utf-8"));
            assert!(text.contains("<h1>") && text.contains(&format!("{status} · {reason} · ")));
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
        }
        Form::Problem => assert_eq!(answer.refusal(), (status, reason.into())),
        Form::Grpc => {
            assert_eq!((answer.status, kind, text), (200, "application/grpc", ""));
            let code: u8 = answer.header("grpc-status").unwrap().parse().unwrap();
            assert!((1..=16).contains(&code), "{reason}: {code}");
            let message = answer.header("grpc-message").unwrap();
            assert!(message.contains(' ') && message != reason, "{message}");
        }
    }
}

#[tokio::test]
async fn of_the_request_itself() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let token = gateway.owner();
    let absolute = format!("https://{HOST}/");
    let fine = Ask::with(&token);
    let unclear = Ask::get(&absolute, &[]);
    refused(&gateway, &unclear, ALL, 400, "bad-request").await;
    let page = Ask::get("/_gitspace/nothing", &[]);
    refused(&gateway, &page, ALL, 404, "no-such-page").await;
    let get = Ask::get("/_gitspace/logout", &[]);
    refused(&gateway, &get, ALL, 405, "method-not-allowed").await;
    let mut expects = fine.clone();
    expects.headers.push(("expect", "more"));
    refused(&gateway, &expects, ALL, 417, "expectation-failed").await;
    let mut circling = fine.clone();
    circling.headers.push(("via", "1.1 cde-gateway"));
    refused(&gateway, &circling, ALL, 508, "loop").await;
    for form in ALL {
        let elsewhere = fine.clone().at("elsewhere.test");
        let mut client = elsewhere.begin(gateway.tls(HOST).await, *form).await;
        check(&client.answer().await.unwrap(), *form, 421, "misdirected");
    }
}

/// What the guard in front of the parser refuses was not understood, so nobody knows what it asks for.
#[tokio::test]
async fn of_heads_that_were_not_understood() {
    let gateway = Setup::new()
        .with(|config| config.timeouts.head = Duration::from_millis(800))
        .start();
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    for (head, status, reason) in [
        ("GET / HTTP/1.1\r\nhost: a", 408, "head-timeout"),
        (&*large, 431, "head-too-large"),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            501,
            "not-implemented",
        ),
        (
            "GET / HTTP/3.0\r\nhost: a\r\n\r\n",
            505,
            "version-not-supported",
        ),
    ] {
        let mut client = gateway.plain().await;
        let _ = client.try_send(head).await;
        check(
            &client.answer().await.unwrap(),
            Form::Problem,
            status,
            reason,
        );
    }
}

#[tokio::test]
async fn of_who_asks() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let issuer = &gateway.setup.issuer;
    refused(&gateway, &Ask::get("/", &[]), ALL, 401, "no-token").await;
    refused(&gateway, &Ask::with("a.b.c"), ALL, 401, "invalid-token").await;
    let old = issuer.token_with(OWNER, json!({ "exp": 1000 }));
    refused(&gateway, &Ask::with(&old), ALL, 401, "expired-token").await;

    let ticket = issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let opens = Ask::get(&target, &[("sec-fetch-mode", "navigate")]);
    let session = opens.send(&gateway, Form::Problem).await.session().unwrap();
    // Tickets count for navigations only.
    let again = Ask::get(&target, &[]);
    refused(&gateway, &again, &[Form::Page], 401, "ticket-used").await;
    refused(&gateway, &opens, &[Form::Grpc], 401, "ticket-used").await;

    let foreign = [("cookie", &*session), ("origin", "https://evil.test")];
    let post = Ask::get("/", &foreign).method("POST");
    refused(&gateway, &post, NO_PAGE, 403, "origin-refused").await;
    let colleague = issuer.token_with("carol", json!({ "org": "acme" }));
    refused(&gateway, &Ask::with(&colleague), ALL, 403, "not-allowed").await;
    let token = gateway.owner();
    let unknown = Ask::with(&token).at("none-x1y2z3.gitspaces.localhost");
    refused(&gateway, &unknown, ALL, 404, "no-such-gitspace").await;
    let closed = port_host(9999);
    let closed = Ask::with(&token).at(&closed);
    refused(&gateway, &closed, ALL, 404, "port-closed").await;

    let revocation = json!({ "kind": "sub", "id": OWNER });
    let revoked = gateway.admin(Method::POST, "/v1/revocations", Some(revocation));
    assert_eq!(revoked.await.status(), 201);
    refused(&gateway, &Ask::with(&token), ALL, 401, "revoked-token").await;
}

/// Who may not know reads the same of what is there and what is not.
#[tokio::test]
async fn no_text_tells_what_exists() {
    let upstream = Upstream::echo().await;
    // All private: who may use any port of it may know of it.
    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nowner = {OWNER:?}\nupstream = \"http://{}\"",
            upstream.address
        ))
        .start();
    let stranger = gateway.setup.issuer.token("mallory");
    let closed = port_host(9999);
    for form in ALL {
        for ask in [Ask::get("/", &[]), Ask::with(&stranger)] {
            let mut texts = Vec::new();
            for host in [HOST, &closed, "none-x1y2z3.gitspaces.localhost"] {
                let answer = ask.clone().at(host).send(&gateway, *form).await;
                let id = match form {
                    Form::Page => answer.text().split(" · ").last().unwrap().split('<').next(),
                    Form::Problem => answer.text().split("request_id\":\"").last(),
                    Form::Grpc => None,
                };
                let text = answer.text().replace(id.unwrap_or("-"), "");
                let mut headers = answer.headers.clone();
                // A request's number has one digit or two.
                headers.retain(|(name, _)| name != "date" && name != "content-length");
                texts.push((answer.status, headers, text));
            }
            assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
        }
    }
}

#[tokio::test]
async fn of_limits() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| {
            config.limits.requests_per_principal = NonZeroU32::MIN;
            config.limits.burst_per_principal = Some(NonZeroU32::MIN);
        })
        .start();
    let token = gateway.owner();
    for form in ALL {
        let limited = eventually("a limit", || async {
            let answer = Ask::with(&token).send(&gateway, *form).await;
            answer.header("proxy-status").is_some().then_some(answer)
        })
        .await;
        check(&limited, *form, 429, "rate-limited");
        assert_eq!(limited.header("retry-after"), Some("1"));
    }

    let silent = silent().await;
    let gateway = Setup::to(&silent)
        .with(|config| config.limits.streams_per_principal = 1)
        .start();
    let token = gateway.owner();
    let _held = Ask::with(&token)
        .begin(gateway.plain().await, Form::Problem)
        .await;
    eventually("it waits", || async {
        (silent.connections() > 0).then_some(())
    })
    .await;
    refused(&gateway, &Ask::with(&token), ALL, 429, "too-many-streams").await;

    let gateway = Setup::to(&upstream)
        .with(|config| config.limits.connections = 1)
        .start();
    let token = gateway.owner();
    let mut only = gateway.plain().await;
    let headers = [("x-gitspace-token", &*token)];
    assert_eq!(only.get("/", &headers).await.status, 200);
    refused(&gateway, &Ask::with(&token), ALL, 503, "overloaded").await;
}

/// Takes requests and never answers.
async fn silent() -> Upstream {
    Upstream::scripted(|mut stream, _| async move {
        let mut bytes = [0; 4096];
        while tokio::io::AsyncReadExt::read(&mut stream, &mut bytes)
            .await
            .is_ok_and(|count| count > 0)
        {}
    })
    .await
}

async fn put(gateway: &TestGateway, address: std::net::SocketAddr, state: &str) {
    let mut body = route(0, address);
    body["state"] = state.into();
    let path = format!("/v1/routes/{GITSPACE}");
    let put = gateway.admin(Method::PUT, &path, Some(body)).await;
    assert_eq!(put.status(), 204);
}

#[tokio::test]
async fn of_gitspaces_that_fail() {
    let silent = silent().await;
    let garbage = Upstream::always("no HTTP at all\r\n\r\n").await;
    let refusing = Refusing::new();
    let nobody = refusing.address();
    for (status, reason, address, state) in [
        (502, "nothing-listens", nobody, "running"),
        (502, "gitspace-broke", garbage.address, "running"),
        (504, "gitspace-timeout", silent.address, "running"),
        (503, "gitspace-stopped", nobody, "stopped"),
        (503, "gitspace-starting", nobody, "starting"),
    ] {
        let gateway = Setup::new()
            .with(|config| {
                config.timeouts.response_head = Timeout::After(Duration::from_millis(300))
            })
            .start();
        put(&gateway, address, state).await;
        let token = gateway.owner();
        refused(&gateway, &Ask::with(&token), ALL, status, reason).await;
    }

    let gateway = Setup::new()
        .route(&format!(
            "gitspace = {GITSPACE:?}\nowner = {OWNER:?}\nupstream = \"https://{}\"",
            garbage.address
        ))
        .start();
    let token = gateway.owner();
    refused(&gateway, &Ask::with(&token), ALL, 502, "gitspace-tls").await;

    for form in ALL {
        let gateway = Setup::new().start();
        put(&gateway, silent.address, "running").await;
        let before = silent.connections();
        let token = gateway.owner();
        let mut waiting = Ask::with(&token).begin(gateway.plain().await, *form).await;
        eventually("it waits", || async {
            (silent.connections() > before).then_some(())
        })
        .await;
        put(&gateway, garbage.address, "running").await;
        check(
            &waiting.answer().await.unwrap(),
            *form,
            503,
            "target-changed",
        );
    }
}

#[tokio::test]
async fn of_a_control_plane_that_is_silent_and_an_upload_that_stalls() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    plane.snapshot(1, 0, &[route(1, upstream.address)]);
    let gateway = Setup::new().following(&plane, FailMode::Closed).start();
    let token = plane.issuer.token(OWNER);
    let ask = Ask::with(&token);
    eventually("the stale route", || async {
        (ask.send(&gateway, Form::Problem).await.status == 503).then_some(())
    })
    .await;
    refused(&gateway, &ask, ALL, 503, "control-plane-stale").await;

    let gateway = Setup::to(&upstream)
        .with(|config| config.timeouts.body_idle = Timeout::After(Duration::from_millis(300)))
        .start();
    let token = gateway.owner();
    for (form, kind) in [
        (Form::Problem, "text/plain"),
        (Form::Grpc, "application/grpc"),
    ] {
        let mut client = gateway.plain().await;
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {HOST}\r\nx-gitspace-token: {token}\r\ncontent-type: {kind}\r\ncontent-length: 10\r\n\r\nhalf"
        );
        client.send(head).await;
        check(&client.answer().await.unwrap(), form, 408, "body-timeout");
    }
}
