//! Where routes of the admin API and of a control plane may lead: not to what is local to the gateway, however it is written.

use cde_gateway::config::FailMode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ControlPlane, GITSPACE, OWNER, Setup, Upstream, eventually};

/// Loopback, metadata services, link-local and others, also inside addresses that a translator would take apart.
const LOCAL: &[&str] = &[
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "0.0.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::1",
    "2001::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
];

fn to(address: &str, port: u16) -> Value {
    json!({ "gitspace": GITSPACE, "owner": OWNER, "address": address, "ide": { "port": port } })
}

#[tokio::test]
async fn a_route_of_the_api_leads_nowhere_local() {
    let gateway = Setup::new()
        .with(|config| config.upstreams.allow.clear())
        .start();
    let path = format!("/v1/routes/{GITSPACE}");
    for address in LOCAL {
        let answer = gateway
            .admin(Method::PUT, &path, Some(to(address, gateway.admin.port())))
            .await;
        assert!(
            answer.status().is_client_error(),
            "{address}: {}",
            answer.status()
        );
    }
    for machine in ["10.0.0.5", "100.64.0.1", "2001:db8::5", "64:ff9b::10.0.0.5"] {
        let answer = gateway
            .admin(Method::PUT, &path, Some(to(machine, 8080)))
            .await;
        assert_eq!(answer.status(), 204, "{machine}");
    }
}

#[tokio::test]
async fn a_route_of_the_api_names_addresses_only() {
    let gateway = Setup::new()
        .with(|config| config.upstreams.allow.clear())
        .start();
    let path = format!("/v1/routes/{GITSPACE}");
    for address in [
        "localhost",
        "localtest.me",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1:80",
        "unix:/run/x.sock",
        "[::1]",
        "::1%lo",
        "10.0.0.5 ",
    ] {
        let answer = gateway
            .admin(Method::PUT, &path, Some(to(address, 80)))
            .await;
        assert!(
            answer.status().is_client_error(),
            "{address}: {}",
            answer.status()
        );
    }
    for upstream in [
        json!({ "host": "localhost" }),
        json!({ "host": "10.0.0.5" }),
        json!({ "unix": "/run/docker.sock" }),
    ] {
        let mut route = to("10.0.0.5", 80);
        route["ide"]["upstream"] = upstream.clone();
        let answer = gateway.admin(Method::PUT, &path, Some(route)).await;
        assert!(
            answer.status().is_client_error(),
            "{upstream}: {}",
            answer.status()
        );
    }
}

#[tokio::test]
async fn a_control_plane_that_was_taken_over_leads_nowhere_local() {
    let upstream = Upstream::echo().await;
    let plane = ControlPlane::start().await;
    let gateway = Setup::new()
        .with(|config| config.upstreams.allow.clear())
        .following(&plane, FailMode::Static)
        .start();
    let token = plane.issuer.token(OWNER);
    let id = |number: usize| format!("vm{number}-a1b2c3");
    let mut routes: Vec<_> = LOCAL
        .iter()
        .enumerate()
        .map(|(number, address)| {
            let mut route = to(address, upstream.address.port());
            route["gitspace"] = id(number).into();
            route["generation"] = 1.into();
            route
        })
        .collect();
    // One that may be used shows that the answer was taken.
    let mut stopped = to("10.0.0.5", 80);
    stopped["generation"] = 1.into();
    stopped["state"] = "stopped".into();
    routes.push(stopped);
    plane.snapshot(1, 60, &routes);
    let headers = [("x-gitspace-token", &*token)];
    eventually("the feed", || async {
        (gateway.plain().await.get("/", &headers).await.status == 503).then_some(())
    })
    .await;
    for (number, address) in LOCAL.iter().enumerate() {
        let host = format!("{}.gitspaces.localhost", id(number));
        let answer = gateway.plain().await.to(&host).get("/", &headers).await;
        assert_eq!(
            answer.refusal(),
            (404, "no-such-gitspace".into()),
            "{address}"
        );
    }
    assert_eq!(upstream.connections(), 0);
}
