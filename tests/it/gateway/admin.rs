//! The admin API: who may use it, routes, reload.

use std::fs;

use cde_gateway::config::Certificate;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Client, GITSPACE, HOST, OWNER, Setup, TestGateway, Upstream, eventually, route,
};

fn path() -> String {
    format!("/v1/routes/{GITSPACE}")
}

async fn get(gateway: &TestGateway) -> u16 {
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    gateway.plain().await.get("/", &headers).await.status
}

async fn reason(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    (status, problem["reason"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn everything_but_health_needs_the_token() {
    let gateway = Setup::new().start();
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", gateway.admin);
    let health = client.get(url("/healthz")).send().await.unwrap();
    assert_eq!(health.text().await.unwrap(), "ok\n");
    eventually("readiness without a token", || async {
        let ready = client.get(url("/readyz")).send().await.unwrap();
        (ready.status() == 200).then_some(())
    })
    .await;
    for path in [
        "/metrics",
        "/v1/routes",
        "/v1/routes/a",
        "/v1/reload",
        "/v1/revocations",
        "/v1/revocations/sub/a",
    ] {
        let none = client.get(url(path)).send().await.unwrap();
        assert_eq!(reason(none).await, (401, "no-token".into()), "{path}");
        let wrong = client.get(url(path)).bearer_auth("guess").send();
        let found = reason(wrong.await.unwrap()).await;
        assert_eq!(found, (401, "invalid-token".into()), "{path}");
    }
}

#[tokio::test]
async fn routes_are_put_listed_deleted_and_kept_over_a_restart() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new().start();
    assert_eq!(get(&gateway).await, 404);
    let put = gateway
        .admin(Method::PUT, &path(), Some(route(1, upstream.address)))
        .await;
    assert_eq!(put.status(), 204);
    assert_eq!(get(&gateway).await, 200);

    let setup = gateway.setup.clone();
    gateway.stop().await;
    let gateway = setup.start();
    assert_eq!(get(&gateway).await, 200, "kept");
    let listed = gateway.admin(Method::GET, "/v1/routes", None).await;
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(
        listed,
        json!([{
            "gitspace": GITSPACE, "source": "api", "generation": 1, "state": "running", "owner": OWNER, "host": null,
            "ports": [{ "port": "ide", "upstream": upstream.address.to_string(), "visibility": "private" }],
        }])
    );
    let deleted = gateway.admin(Method::DELETE, &path(), None).await;
    assert_eq!(deleted.status(), 204);
    assert_eq!(get(&gateway).await, 404);
    let again = gateway.admin(Method::DELETE, &path(), None).await;
    assert_eq!(reason(again).await, (404, "no-such-route".into()));

    let setup = gateway.setup.clone();
    gateway.stop().await;
    assert_eq!(
        get(&setup.start()).await,
        404,
        "the deletion is kept as well"
    );
}

#[tokio::test]
async fn a_route_of_another_source_is_not_touched() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let put = gateway
        .admin(Method::PUT, &path(), Some(route(1, upstream.address)))
        .await;
    assert_eq!(reason(put).await, (409, "conflict".into()));
    let deleted = gateway.admin(Method::DELETE, &path(), None).await;
    assert_eq!(reason(deleted).await, (409, "conflict".into()));
    assert_eq!(get(&gateway).await, 200);
}

#[tokio::test]
async fn routes_that_cannot_be_used_are_refused_with_the_reason() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::new()
        .with(|config| config.upstreams.allow = Vec::new())
        .start();
    let metadata =
        json!({ "gitspace": GITSPACE, "address": "169.254.169.254", "ide": { "port": 80 } });
    let socket = json!({
        "gitspace": GITSPACE, "address": "10.0.0.1",
        "ide": { "port": 80, "upstream": { "unix": "/run/docker.sock" } },
    });
    let other = json!({ "gitspace": "other-a1b2c3", "address": "10.0.0.1", "ide": { "port": 80 } });
    for (body, expected) in [
        (route(1, upstream.address), (422, "bad-route")),
        (metadata, (422, "bad-route")),
        (socket, (422, "bad-route")),
        (other, (400, "bad-request")),
        (
            json!({ "gitspace": GITSPACE, "ide": { "port": "x" } }),
            (400, "bad-request"),
        ),
        (json!([]), (400, "bad-request")),
    ] {
        let put = gateway
            .admin(Method::PUT, &path(), Some(body.clone()))
            .await;
        let found = reason(put).await;
        assert_eq!(found, (expected.0, expected.1.into()), "{body}");
    }
    assert_eq!(get(&gateway).await, 404);
}

#[tokio::test]
async fn a_reload_takes_routes_of_the_file_and_keeps_the_old_ones_when_it_is_bad() {
    let upstream = Upstream::echo().await;
    let (setup, mut requests) = Setup::new().reloading();
    let file = setup.dir.path().join("routes.json");
    fs::write(&file, "[]").unwrap();
    let gateway = setup
        .with(|config| config.routes_file = Some(file.clone()))
        .start();
    let (handle, settings) = (gateway.handle.clone(), gateway.setup.settings.clone());
    tokio::spawn(async move {
        while let Some(answer) = requests.recv().await {
            let reloaded = handle.reload(&settings);
            let _ = answer.send(reloaded.map_err(|error| error.to_string()));
        }
    });
    assert_eq!(get(&gateway).await, 404);
    fs::write(&file, json!([route(0, upstream.address)]).to_string()).unwrap();
    let reload = gateway.admin(Method::POST, "/v1/reload", None).await;
    assert_eq!(reload.status(), 204);
    assert_eq!(get(&gateway).await, 200);

    for bad in ["[", "{}", "[{\"gitspace\": \"UPPER\"}]"] {
        fs::write(&file, bad).unwrap();
        let reload = gateway.admin(Method::POST, "/v1/reload", None).await;
        assert_eq!(reason(reload).await, (422, "bad-configuration".into()));
        assert_eq!(get(&gateway).await, 200, "{bad}");
    }
    fs::write(&file, "[]").unwrap();
    let reload = gateway.admin(Method::POST, "/v1/reload", None).await;
    assert_eq!(reload.status(), 204);
    assert_eq!(get(&gateway).await, 404);
}

#[tokio::test]
async fn a_reload_without_a_configuration_says_so() {
    let gateway = Setup::new().start();
    let reload = gateway.admin(Method::POST, "/v1/reload", None).await;
    assert_eq!(reason(reload).await, (501, "no-configuration".into()));
}

/// Another gateway's development certificate, and its CA.
fn certificate() -> (Setup, Certificate) {
    let setup = Setup::new();
    drop(setup.start());
    let dev = setup.dir.path().join("dev");
    let certificate = Certificate {
        chain: dev.join("cert.pem"),
        key: dev.join("key.pem"),
    };
    (setup, certificate)
}

#[tokio::test]
async fn a_reload_takes_another_certificate_and_keeps_the_old_one_when_it_is_bad() {
    let upstream = Upstream::echo().await;
    let (first, old) = certificate();
    let (second, new) = certificate();
    let gateway = Setup::to(&upstream)
        .with(|config| config.certificate = vec![old.clone()])
        .start();
    let authority = |setup: &Setup| setup.dir.path().join("dev/ca.pem");
    let token = gateway.owner();
    let headers = [("x-gitspace-token", &*token)];
    let mut standing = Client::tls(gateway.https, &authority(&first), HOST).await;
    assert_eq!(standing.get("/", &headers).await.status, 200);

    let broken = Certificate {
        chain: new.chain.clone(),
        key: old.key.clone(),
    };
    let reload = |certificate: Certificate| {
        let setup = gateway
            .setup
            .clone()
            .with(|config| config.certificate = vec![certificate]);
        gateway.handle.reload(&setup.settings)
    };
    let error = reload(broken).unwrap_err().to_string();
    assert!(
        error.contains("does not belong to the certificate"),
        "{error}"
    );
    Client::tls(gateway.https, &authority(&first), HOST).await;

    reload(new).unwrap();
    let mut fresh = Client::tls(gateway.https, &authority(&second), HOST).await;
    assert_eq!(fresh.get("/", &headers).await.status, 200);
    // Connections that stand keep theirs.
    assert_eq!(standing.get("/", &headers).await.status, 200);
}

#[tokio::test]
async fn a_reload_that_fails_late_has_changed_nothing() {
    let upstream = Upstream::echo().await;
    let (_kept, old) = certificate();
    let (other, new) = certificate();
    let gateway = Setup::to(&upstream)
        .with(|config| config.certificate = vec![old])
        .start();
    let setup = gateway.setup.clone().with(|config| {
        config.certificate = vec![new];
        config.issuer.clear();
        config.routes_file = Some("/missing.json".into());
    });
    gateway.handle.reload(&setup.settings).unwrap_err();
    assert_eq!(get(&gateway).await, 200, "the issuer is known still");
    let authority = other.dir.path().join("dev/ca.pem");
    let handshake = crate::support::try_tls(gateway.https, &authority, HOST, &[]).await;
    assert!(handshake.is_err(), "and the certificate is the old one");
}
