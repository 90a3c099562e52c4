//! What users ask: the whole lifecycle, validation, tokens, tickets, the description.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cde_gateway::{
    api::{
        access::{Claims, OneOrMany, Port, Use},
        gitspace::{Event, Gitspace, State, Ticket},
        task::Work,
    },
    control_plane::openapi,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::*;

#[tokio::test]
async fn a_gitspace_is_created_started_stopped_started_again_and_deleted() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let created = plane.create().await;
    assert_eq!(created.state, State::Starting);
    let setup = delegate.perform(&plane, "vm.setup").await;
    assert_eq!(plane.show(&created).await.state, State::Starting);
    delegate.perform(&plane, "agent.start").await;
    let running = plane.show(&created).await;
    assert_eq!(running.state, State::Running);
    assert_eq!(
        running.url,
        format!(
            "https://{}.gitspaces.localhost:8443/?folder=/work",
            created.id
        )
    );

    let stopping: Gitspace = plane.act(&created, "stop").await.json().await.unwrap();
    assert_eq!(stopping.state, State::Stopping);
    delegate.perform(&plane, "agent.stop").await;
    delegate.perform(&plane, "vm.suspend").await;
    assert_eq!(plane.show(&created).await.state, State::Stopped);

    assert_eq!(
        plane.act(&created, "start").await.status(),
        StatusCode::ACCEPTED
    );
    let again = delegate.perform(&plane, "vm.setup").await;
    assert_eq!(again.work, setup.work, "the same instance comes back");
    delegate.perform(&plane, "agent.start").await;

    let deleting = plane.delete(&created).await;
    assert_eq!(deleting.status(), StatusCode::ACCEPTED);
    assert_eq!(
        deleting.json::<Gitspace>().await.unwrap().state,
        State::Cleaning
    );
    let destroy = delegate.perform(&plane, "vm.destroy").await;
    assert!(matches!(&destroy.work, Work::VmDestroy(destroy) if destroy.delete_data));
    let path = format!("/v1/gitspaces/{}", created.id);
    let (status, reason, _) = refusal(plane.get(&path, USER).await).await;
    assert_eq!((status, reason.as_str()), (404, "no-such-gitspace"));
    let list: Vec<Gitspace> = plane.get("/v1/gitspaces", USER).await.json().await.unwrap();
    assert!(list.is_empty());
    plane.stop().await;
}

#[tokio::test]
async fn a_failed_step_is_told_and_a_new_instance_replaces_the_failed_one() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let first = delegate.perform(&plane, "vm.setup").await;
    let start = delegate.expect(&plane, "agent.start").await;
    result(
        &plane,
        &start,
        failed("repository not found; check its URL"),
    )
    .await;
    let shown = plane.show(&gitspace).await;
    assert_eq!(shown.state, State::Error);
    assert_eq!(
        shown.message.as_deref(),
        Some("repository not found; check its URL")
    );
    let last = shown.events.last().unwrap();
    assert_eq!(last.kind, "agent_start_failed");

    assert_eq!(
        plane.act(&gitspace, "start").await.status(),
        StatusCode::ACCEPTED
    );
    let destroy = delegate.perform(&plane, "vm.destroy").await;
    let Work::VmDestroy(destroyed) = destroy.work else {
        unreachable!()
    };
    assert!(!destroyed.delete_data, "what was not pushed yet is kept");
    assert_eq!(Work::VmSetup(destroyed.of), first.work);
    let second = delegate.perform(&plane, "vm.setup").await;
    assert_ne!(second.work, first.work);
    delegate.perform(&plane, "agent.start").await;
    let shown = plane.show(&gitspace).await;
    assert_eq!((shown.state, shown.message), (State::Running, None));

    plane.delete(&gitspace).await;
    for _ in 0..2 {
        let destroy = delegate.perform(&plane, "vm.destroy").await;
        assert!(matches!(&destroy.work, Work::VmDestroy(destroy) if destroy.delete_data));
    }
    assert_eq!(
        plane.delete(&gitspace).await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn an_action_that_contradicts_the_step_under_way_is_refused_and_a_repeated_one_is_not() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let (status, reason, detail) = refusal(plane.act(&gitspace, "stop").await).await;
    assert_eq!((status, reason.as_str()), (409, "wrong-state"));
    assert!(
        detail.contains("is starting") && detail.contains("wait"),
        "{detail}"
    );
    assert_eq!(refusal(plane.delete(&gitspace).await).await.0, 409);
    assert_eq!(
        plane.act(&gitspace, "start").await.status(),
        StatusCode::ACCEPTED
    );
    delegate.bring_up(&plane).await;
    assert!(
        delegate.acquire(&plane, 0).await.is_none(),
        "nothing was done twice"
    );
    plane.act(&gitspace, "stop").await;
    assert_eq!(
        plane.act(&gitspace, "stop").await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(refusal(plane.act(&gitspace, "start").await).await.0, 409);
}

#[tokio::test]
async fn a_delete_that_fails_is_told_and_can_be_asked_for_again() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.running(&delegate).await;
    plane.delete(&gitspace).await;
    assert_eq!(plane.delete(&gitspace).await.status(), StatusCode::ACCEPTED);
    let destroy = delegate.expect(&plane, "vm.destroy").await;
    result(&plane, &destroy, failed("the disk is in use; try again")).await;
    let shown = plane.show(&gitspace).await;
    assert_eq!(
        (shown.state, shown.message.as_deref()),
        (State::Error, Some("the disk is in use; try again"))
    );
    let (status, _, detail) = refusal(plane.act(&gitspace, "start").await).await;
    assert!(
        status == 409 && detail.contains("is being deleted"),
        "{detail}"
    );
    plane.delete(&gitspace).await;
    delegate.perform(&plane, "vm.destroy").await;
    assert_eq!(
        plane.delete(&gitspace).await.status(),
        StatusCode::NOT_FOUND
    );
    assert!(delegate.acquire(&plane, 0).await.is_none());
}

#[tokio::test]
async fn a_gitspace_that_was_never_started_is_deleted_at_once() {
    let plane = Plane::start().await;
    let mut asked = new_gitspace();
    asked["start"] = false.into();
    let gitspace: Gitspace = plane
        .post("/v1/gitspaces", USER, asked)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(gitspace.state, State::Uninitialized);
    assert_eq!(refusal(plane.act(&gitspace, "stop").await).await.0, 409);
    assert_eq!(
        plane.delete(&gitspace).await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        plane.delete(&gitspace).await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_gitspace() {
    let plane = Plane::start().await;
    let send = |key: &'static str, body: Value| {
        let request = plane.raw(Method::POST, "/v1/gitspaces").bearer_auth(USER);
        request.header("idempotency-key", key).json(&body).send()
    };
    let first = send("k1", new_gitspace()).await.unwrap();
    assert_eq!(first.status(), StatusCode::CREATED);
    let first: Gitspace = first.json().await.unwrap();
    let second: Gitspace = send("k1", new_gitspace())
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(first.id, second.id);
    let other: Gitspace = send("k2", new_gitspace())
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_ne!(first.id, other.id);
    let mut changed = new_gitspace();
    changed["branch"] = "dev".into();
    let (status, reason, _) = refusal(send("k1", changed).await.unwrap()).await;
    assert_eq!((status, reason.as_str()), (409, "idempotency-key-reused"));
}

#[tokio::test]
async fn a_bad_request_is_refused_with_what_was_found_and_what_is_accepted() {
    let plane = Plane::start().await;
    for (field, value, expected) in [
        ("name", json!("Api"), "name: contains 'A'; only a-z"),
        ("name", json!("-api"), "starts or ends with a dash"),
        (
            "repository",
            json!("ext::sh%20-c%20id"),
            "\"ext::sh%20-c%20id\" is not accepted; an https://",
        ),
        ("repository", json!("--upload-pack=id"), "is not accepted"),
        ("repository", json!("https://me:pw@git.test/a"), "remove it"),
        ("branch", json!("-x"), "branch: \"-x\" is no name"),
        ("ports", json!([{"port": 0}]), "ports[0].port: 0 is no port"),
        (
            "ports",
            json!([{"port": 70000}]),
            "ports[0].port: invalid value: integer `70000`, expected a number from 1 to 65535",
        ),
        (
            "ports",
            json!([{"port": 80}, {"port": 80}]),
            "80 is there twice",
        ),
        (
            "ide",
            json!("vim"),
            "unknown variant `vim`, expected `terminal` or `code-server`",
        ),
        (
            "colour",
            json!("red"),
            "unknown field `colour`, expected one of",
        ),
    ] {
        let mut body = new_gitspace();
        body[field] = value;
        let (status, reason, detail) = refusal(plane.post("/v1/gitspaces", USER, body).await).await;
        assert_eq!((status, reason.as_str()), (400, "bad-request"), "{field}");
        assert!(detail.contains(expected), "{field}: {detail}");
    }
    let huge = json!({"name": "api", "repository": "a".repeat(100_000)});
    assert_eq!(
        refusal(plane.post("/v1/gitspaces", USER, huge).await)
            .await
            .0,
        413
    );
    let plain = plane
        .raw(Method::POST, "/v1/gitspaces")
        .bearer_auth(USER)
        .body("{}");
    assert_eq!(refusal(plain.send().await.unwrap()).await.0, 415);
}

#[tokio::test]
async fn each_part_of_the_api_takes_its_own_token_only() {
    let plane = Plane::start().await;
    for (method, path, own) in [
        (Method::GET, "/v1/gitspaces", USER),
        (Method::POST, "/v1/gitspaces", USER),
        (Method::GET, "/v1/gitspaces/a-aaaaaa", USER),
        (Method::DELETE, "/v1/gitspaces/a-aaaaaa", USER),
        (Method::POST, "/v1/gitspaces/a-aaaaaa/ticket", USER),
        (Method::POST, "/v1/delegates", DELEGATE),
        (Method::POST, "/v1/delegates/x/acquire", DELEGATE),
        (Method::POST, "/v1/tasks/x/result", DELEGATE),
        (Method::GET, "/v1/feed", GATEWAY),
        (Method::POST, "/v1/feed/redeem", GATEWAY),
        (Method::POST, "/v1/feed/report", GATEWAY),
    ] {
        let none = plane.raw(method.clone(), path).send().await.unwrap();
        assert_eq!(none.headers()["www-authenticate"], "Bearer");
        assert_eq!(refusal(none).await.1, "no-token", "{path}");
        for other in [USER, DELEGATE, GATEWAY, "", "user-toke"] {
            let response = plane.send(method.clone(), path, other, None).await;
            let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
            assert_eq!(unauthorized, other != own, "{method} {path} with {other:?}");
        }
    }
    let open = plane.raw(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(open.status(), StatusCode::OK);
    let bare = plane
        .send(Method::POST, "/v1/gitspaces/a-aaaaaa/ticket", USER, None)
        .await;
    assert_eq!(
        refusal(bare).await.1,
        "no-such-gitspace",
        "no body is a ticket for the IDE"
    );
    for odd in ["/v1/gitspaces/%ff", "/v1/gitspaces/a%00b"] {
        assert_eq!(refusal(plane.get(odd, USER).await).await.0, 404);
    }
    let (status, reason, _) = refusal(plane.get("/v2", USER).await).await;
    assert_eq!((status, reason.as_str()), (404, "no-such-page"));
    let (status, reason, _) =
        refusal(plane.send(Method::PUT, "/v1/gitspaces", USER, None).await).await;
    assert_eq!((status, reason.as_str()), (405, "method-not-allowed"));
}

#[tokio::test]
async fn a_ticket_names_one_gitspace_and_one_port_for_a_minute() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.create().await;
    let path = format!("/v1/gitspaces/{}/ticket", gitspace.id);
    let (status, reason, detail) = refusal(plane.post(&path, USER, json!({})).await).await;
    assert_eq!((status, reason.as_str()), (409, "wrong-state"));
    assert!(detail.contains("starting"), "{detail}");
    delegate.bring_up(&plane).await;

    let ide: Ticket = plane
        .post(&path, USER, json!({}))
        .await
        .json()
        .await
        .unwrap();
    let expected = format!(
        "https://{}.gitspaces.localhost:8443/?folder=/work&gitspace_token=",
        gitspace.id
    );
    let token = ide.url.strip_prefix(&expected).expect("the IDE's URL");
    let claims = verified(&plane, token).await;
    assert_eq!(
        (claims.iss.as_str(), claims.sub.as_str()),
        ("http://cp.test", "alice")
    );
    assert_eq!(claims.gitspace, Some(OneOrMany::One(gitspace.id.clone())));
    assert_eq!(claims.ports, Some(vec![Port::Ide]));
    assert_eq!(
        (claims.usage, claims.exp - claims.iat.unwrap()),
        (Use::Ticket, 60)
    );

    let app: Ticket = plane
        .post(&path, USER, json!({"port": 8080}))
        .await
        .json()
        .await
        .unwrap();
    let expected = format!(
        "https://{}-8080.gitspaces.localhost:8443/?gitspace_token=",
        gitspace.id
    );
    let second = verified(&plane, app.url.strip_prefix(&expected).unwrap()).await;
    assert_eq!(second.ports, Some(vec![Port::App(8080)]));
    assert_ne!(second.jti, claims.jti);
    let (status, reason, _) = refusal(plane.post(&path, USER, json!({"port": 9})).await).await;
    assert_eq!((status, reason.as_str()), (404, "port-closed"));
}

/// The claims of a ticket that verifies with the key that the feed tells.
async fn verified(plane: &Plane, token: &str) -> Claims {
    let keys = plane.feed("", 0, 0).await.keys;
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys.jwks).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let jwk = jwks.find(&header.kid.unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[keys.audience]);
    validation.set_issuer(&[keys.issuer]);
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
    let payload = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn events_tell_every_step_in_order() {
    let plane = Plane::start().await;
    let delegate = Delegate::register(&plane, "d", "r").await;
    let gitspace = plane.running(&delegate).await;
    let kinds: Vec<_> = gitspace
        .events
        .iter()
        .map(|event| event.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "gitspace_action_start",
            "vm_setup_queued",
            "vm_setup_started",
            "vm_setup_completed",
            "agent_start_queued",
            "agent_start_started",
            "agent_start_completed",
            "gitspace_action_start_completed"
        ]
    );
    let path = format!("/v1/gitspaces/{}/events", gitspace.id);
    let all: Vec<Event> = plane.get(&path, USER).await.json().await.unwrap();
    assert_eq!(all[0].kind, "gitspace_created");
    assert_eq!(all[1..], gitspace.events);
}

#[tokio::test]
async fn the_committed_description_is_the_one_of_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let made = openapi::description().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == made,
        "docs/openapi.json is stale; run this test with UPDATE_OPENAPI=1"
    );
    let plane = Plane::start().await;
    let served: Value = plane
        .raw(Method::GET, "/v1/openapi.json")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(served, serde_json::from_str::<Value>(&made).unwrap());
}
