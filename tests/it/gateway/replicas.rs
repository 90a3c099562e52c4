//! Equal gateways behind one balancer: one file of keys, one control plane, nothing else in common.

use std::{path::Path, sync::Arc};

use cde_gateway::{api::Secret, config::FailMode, gateway as role};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ending::closed, websocket};
use crate::{
    control_plane::support::{GATEWAY, Plane, USER},
    support::{
        Dialer, HOST, OWNER, Setup, TestGateway, Upstream, eventually, log_file, now, secret,
    },
};

/// Who the configured issuer's user is to the gateways: the control plane's own have no prefix.
const WHO: &str = "configured:alice";

/// So many gateways that follow the control plane.
async fn replicas(count: usize, plane: &Plane, upstream: &Upstream) -> Vec<TestGateway> {
    let first = first(plane, upstream);
    let keys = first.dir.path().join("gateway.keys");
    let mut all = vec![first.start()];
    for _ in 1..count {
        all.push(another(&first, &keys).start());
    }
    for gateway in &all {
        eventually("the feed", || async {
            let answered = gateway.admin(Method::GET, "/readyz", None).await;
            answered.status().is_success().then_some(())
        })
        .await;
    }
    all
}

fn first(plane: &Plane, upstream: &Upstream) -> Setup {
    let mut setup = Setup::new().route(&format!(
        "gitspace = \"app-a1b2c3\"\nupstream = \"http://{}\"\nowner = {WHO:?}",
        upstream.address
    ));
    setup.settings.config.issuer[0].prefix = "configured:".into();
    setup.settings.control_plane = Some(role::ControlPlane {
        url: plane.url(),
        token: Secret::new(secret(GATEWAY)),
        fail_mode: FailMode::Static,
    });
    setup
}

/// With the keys, the certificate and the configuration of `first`, and a state of its own.
fn another(first: &Setup, keys: &Path) -> Setup {
    let mut other = first.clone();
    other.dir = Arc::new(tempfile::tempdir().unwrap());
    let settings = &mut other.settings;
    settings.state_dir = other.dir.path().into();
    settings.config.keys.file = Some(keys.into());
    settings.config.access_log.path = log_file("access").to_str().unwrap().into();
    let dev = first.dir.path().join("dev");
    let own = other.dir.path().join("dev");
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(dev.join("ca.pem"), own.join("ca.pem")).unwrap();
    settings.config.certificate = vec![cde_gateway::config::Certificate {
        chain: dev.join("cert.pem"),
        key: dev.join("key.pem"),
    }];
    other
}

fn older(gateway: &TestGateway) -> String {
    let times = json!({ "sid": "login", "iat": now() - 60 });
    gateway.setup.issuer.token_with(OWNER, times)
}

async fn open(gateway: &TestGateway, target: &str) -> crate::support::Answer {
    let mut client = gateway.plain().await;
    client.get(target, &[("sec-fetch-mode", "navigate")]).await
}

async fn refused(gateway: &TestGateway, header: (&str, &str)) {
    eventually("the refusal", || async {
        let answer = gateway.plain().await.get("/", &[header]).await;
        (answer.status == 401 && answer.reason() == "revoked-token").then_some(())
    })
    .await;
}

#[tokio::test]
async fn sessions_tickets_and_tls_hold_at_all_of_them() {
    let upstream = Upstream::echo().await;
    let plane = Plane::start().await;
    let all = replicas(3, &plane, &upstream).await;
    let ticket = all[0].setup.issuer.ticket(OWNER, "t1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let session = open(&all[1], &target).await.session().unwrap();
    for gateway in &all {
        let answer = gateway
            .plain()
            .await
            .get("/", &[("cookie", &session)])
            .await;
        assert_eq!(answer.status, 200);
        // The exchange was at one of them, and counts at all.
        let again = open(gateway, &target).await;
        assert_eq!((again.status, again.session()), (401, None));
        assert!(again.text().contains("ticket-used"), "{}", again.text());
    }
    let dialer = Dialer::with(&all[0].authority(), &Default::default());
    dialer.visit(all[0].https, HOST).await.unwrap();
    for gateway in &all {
        let (kind, _) = dialer.visit(gateway.https, HOST).await.unwrap();
        assert_eq!(kind, rustls::HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn a_ticket_that_many_bring_to_many_is_exchanged_once() {
    let upstream = Upstream::echo().await;
    let plane = Plane::start().await;
    let all = replicas(3, &plane, &upstream).await;
    let ticket = all[0].setup.issuer.ticket(OWNER, "t1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let tries = (0..12).map(|n| open(&all[n % 3], &target));
    let answers = futures_util::future::join_all(tries).await;
    let won = answers.iter().filter(|answer| answer.session().is_some());
    assert_eq!(won.count(), 1);
}

#[tokio::test]
async fn a_revocation_at_the_control_plane_ends_streams_at_all_of_them() {
    let upstream = websocket::echo().await;
    let plane = Plane::start().await;
    let mut all = replicas(3, &plane, &upstream).await;
    let mut sockets = Vec::new();
    let token = older(&all[0]);
    for gateway in &all {
        sockets.push(websocket::open_with(gateway, &token).await.unwrap());
    }
    let revocation = json!({ "kind": "sub", "id": WHO, "reason": "left the company" });
    let taken = plane.post("/v1/revocations", USER, revocation).await;
    assert_eq!(taken.status(), 201);
    for (gateway, socket) in all.iter().zip(&mut sockets) {
        let said = "access was revoked: left the company".to_owned();
        assert_eq!(closed(socket).await, (1008, said));
        refused(gateway, ("x-gitspace-token", &token)).await;
    }
    // It is on the disk of each: one that starts while the control plane is away refuses it too.
    plane.stop().await;
    let gateway = all.pop().unwrap();
    let setup = gateway.setup.clone();
    gateway.stop().await;
    refused(&setup.start(), ("x-gitspace-token", &token)).await;
}

#[tokio::test]
async fn what_one_of_them_revokes_all_revoke_and_it_says_so() {
    let upstream = websocket::echo().await;
    let plane = Plane::start().await;
    let all = replicas(2, &plane, &upstream).await;
    let token = older(&all[0]);
    let mut socket = websocket::open_with(&all[1], &token).await.unwrap();
    let revoke = async |kind: &str, id: &str| -> Value {
        let body = json!({ "kind": kind, "id": id, "by": "root", "reason": "stolen" });
        let asked = Some(body);
        let answer = all[0].admin(Method::POST, "/v1/revocations", asked).await;
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    };
    let told = revoke("sid", "login").await;
    assert_eq!(told["reaches"], "all gateways of the control plane");
    assert_eq!(closed(&mut socket).await.0, 1008);
    refused(&all[1], ("x-gitspace-token", &token)).await;
    let kept = plane.get("/v1/revocations", USER).await;
    let kept: Value = kept.json().await.unwrap();
    assert_eq!(
        (&kept[0]["id"], &kept[0]["by"]),
        (&"login".into(), &"root".into())
    );

    plane.stop().await;
    let told = revoke("sub", WHO).await;
    assert_eq!(told["reaches"], "this gateway");
    let problem = told["problem"].as_str().unwrap();
    assert!(problem.contains("cannot be reached"), "{problem}");
}

#[tokio::test]
async fn a_logout_at_one_of_them_ends_the_session_at_all() {
    let upstream = Upstream::echo().await;
    let plane = Plane::start().await;
    let all = replicas(2, &plane, &upstream).await;
    let ticket = all[0].setup.issuer.ticket(OWNER, "t1", "ide");
    let session = open(&all[0], &format!("/?gitspace_token={ticket}")).await;
    let session = session.session().unwrap();
    let headers = [("cookie", &*session), ("origin", &format!("http://{HOST}"))];
    let mut client = all[0].plain().await;
    let answer = client
        .request("POST", "/_gitspace/logout", &headers, b"")
        .await;
    assert_eq!(answer.status, 204);
    for gateway in &all {
        refused(gateway, ("cookie", &session)).await;
    }
}
