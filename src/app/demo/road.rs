//! Goes the road that a browser goes: a ticket through the gateway, over TLS, to the IDE and back.
//!
//! So "ready" means that the URL works, and not that every part believes so.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use reqwest::{
    Certificate, Response, StatusCode, Url,
    header::{ACCEPT, COOKIE, LOCATION, SET_COOKIE},
    redirect::Policy,
};

use super::{DemoError, Steps};
use crate::{
    app::client::{Client, ClientError},
    telemetry::Chain,
};

const POLL_EVERY: Duration = Duration::from_millis(50);
/// How long the IDE may take to be reachable once its gitspace runs.
const IDE_PATIENCE: Duration = Duration::from_secs(30);
/// An app may take its time, or not be there: then the demo goes on without it.
const APP_PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the IDE answers through the gateway, and the forwarded port if there is one.
pub(super) async fn wait(
    client: &Client,
    id: &str,
    port: Option<u16>,
    ca: &Path,
    steps: &Steps,
) -> Result<(), DemoError> {
    let ide = answers(client, id, None, ca, IDE_PATIENCE).await?;
    match ide {
        Ok(()) => steps.step("ide_reached", "the IDE answers through the gateway"),
        Err(why) => return Err(DemoError::NotServed(why)),
    }
    let Some(port) = port else { return Ok(()) };
    match answers(client, id, Some(port), ca, APP_PATIENCE).await? {
        Ok(()) => steps.step(
            "port_reached",
            &format!("port {port} answers through the gateway"),
        ),
        Err(why) => steps.step(
            "port_silent",
            &format!("port {port} does not answer yet: {why}"),
        ),
    }
    Ok(())
}

/// Tries until it answers, or tells why it did not at last.
async fn answers(
    client: &Client,
    id: &str,
    port: Option<u16>,
    ca: &Path,
    patience: Duration,
) -> Result<Result<(), String>, ClientError> {
    let begun = Instant::now();
    loop {
        let url = client.ticket(id, port).await?.url;
        let why = match visit(&url, ca).await {
            Ok(()) => return Ok(Ok(())),
            Err(why) => why,
        };
        if begun.elapsed() >= patience {
            return Ok(Err(why));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// An answer of the app, and not one of the gateway in its place (RFC 9209).
fn of_the_app(answer: &Response) -> Result<(), String> {
    let by_gateway = answer
        .headers()
        .get("proxy-status")
        .and_then(|value| value.to_str().ok());
    match by_gateway {
        Some(status) => Err(format!("{} ({status})", answer.status())),
        None if answer.status().is_server_error() => Err(answer.status().to_string()),
        None => Ok(()),
    }
}

/// Exchanges the ticket and loads the page.
async fn visit(url: &str, ca: &Path) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let pem = tokio::fs::read(ca)
        .await
        .map_err(|error| error.to_string())?;
    let certificate = Certificate::from_pem(&pem).map_err(said)?;
    let host = url.host_str().unwrap_or_default();
    let here = SocketAddr::from((
        Ipv4Addr::LOCALHOST,
        url.port_or_known_default().unwrap_or(443),
    ));
    let http = reqwest::Client::builder()
        .tls_certs_only([certificate])
        // What a browser knows of .localhost, this machine's resolver may not.
        .resolve(host, here)
        .no_proxy()
        .redirect(Policy::none())
        .timeout(Duration::from_secs(5))
        .build()
        .map_err(said)?;
    let navigate = |url: Url| {
        http.get(url)
            .header(ACCEPT, "text/html")
            .header("sec-fetch-mode", "navigate")
    };
    let exchanged = navigate(url.clone()).send().await.map_err(said)?;
    if exchanged.status() != StatusCode::SEE_OTHER {
        of_the_app(&exchanged)?;
        return Err(format!(
            "the ticket was answered with {}",
            exchanged.status()
        ));
    }
    let header = |name| {
        exchanged
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let cookie = header(SET_COOKIE)
        .and_then(|cookie| cookie.split(';').next())
        .ok_or("the ticket was exchanged for no cookie")?;
    let next = header(LOCATION)
        .and_then(|location| url.join(location).ok())
        .ok_or("the ticket was exchanged for no place")?;
    let page = navigate(next).header(COOKIE, cookie).send().await;
    of_the_app(&page.map_err(said)?)
}

fn said(error: reqwest::Error) -> String {
    Chain(&error.without_url()).to_string()
}
