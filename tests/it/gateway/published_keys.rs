//! Keys that an issuer publishes at a URL: they come and go without a restart, and an issuer that is down takes nobody out.

use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Issuer, OWNER, Setup, TestGateway, Upstream, eventually};

const NAME: &str = "https://published.test";

/// What the issuer's URL answers: one HTTP/1.1 answer, as it is.
type Answer = Arc<Mutex<Vec<u8>>>;

fn keys(keys: &[Value]) -> Vec<u8> {
    with_body("200 OK", &json!({ "keys": keys }).to_string())
}

fn with_body(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

fn down() -> Vec<u8> {
    with_body("503 Service Unavailable", "")
}

/// Where an issuer publishes its keys.
async fn publisher(first: Vec<u8>) -> (Upstream, Answer) {
    let answer: Answer = Arc::new(Mutex::new(first));
    let given = Arc::clone(&answer);
    let upstream = Upstream::answering(move |_| given.lock().unwrap().clone()).await;
    (upstream, answer)
}

/// A gateway that trusts what is published there, and nobody else.
fn trusting(upstream: &Upstream, publisher: &Upstream, more: &str) -> Setup {
    let url = format!("http://{}/keys", publisher.address);
    let issuer = format!("issuer = {NAME:?}\njwks_url = {url:?}\n{more}");
    Setup::to(upstream).with(|config| config.issuer = vec![toml::from_str(&issuer).unwrap()])
}

fn named(issuer: &Issuer, kid: &str) -> String {
    issuer.token_headed(OWNER, |header| header.kid = Some(kid.into()))
}

async fn status(gateway: &TestGateway, token: &str) -> u16 {
    let headers = [("x-gitspace-token", token)];
    gateway.plain().await.get("/", &headers).await.status
}

async fn failures(gateway: &TestGateway) -> f64 {
    gateway
        .metric("cde_gateway_issuer_fetch_failures_total", &[NAME])
        .await
}

#[tokio::test]
async fn a_new_key_counts_for_the_first_token_that_names_it_and_an_old_one_no_longer() {
    let upstream = Upstream::echo().await;
    let (old, new) = (Issuer::new(NAME), Issuer::new(NAME));
    let (publisher, answer) = publisher(keys(&[old.jwk("1")])).await;
    let gateway = trusting(&upstream, &publisher, "").start();
    assert_eq!(status(&gateway, &named(&old, "1")).await, 200);
    assert_eq!(status(&gateway, &named(&new, "2")).await, 401);

    // Signed with a key that is not published, under the name of one that is.
    assert_eq!(status(&gateway, &named(&new, "1")).await, 401);

    *answer.lock().unwrap() = keys(&[new.jwk("3")]);
    assert_eq!(status(&gateway, &named(&new, "3")).await, 200);
    assert_eq!(status(&gateway, &named(&old, "1")).await, 401);
    assert!(publisher.seen().iter().all(|seen| seen.target == "/keys"));
}

#[tokio::test]
async fn unknown_keys_cost_few_fetches() {
    let upstream = Upstream::echo().await;
    let issuer = Issuer::new(NAME);
    let (publisher, _) = publisher(keys(&[issuer.jwk("1")])).await;
    let gateway = trusting(&upstream, &publisher, "").start();
    assert_eq!(status(&gateway, &named(&issuer, "1")).await, 200);
    let mut client = gateway.plain().await;
    for number in 0..100 {
        let token = named(&issuer, &format!("made-up-{number}"));
        let answer = client.get("/", &[("x-gitspace-token", &token)]).await;
        assert!([401, 429].contains(&answer.status), "{answer:?}");
    }
    // One at the start, and the allowance of three.
    let fetches = publisher.seen().len();
    assert!((2..=4).contains(&fetches), "{fetches}");
    assert_eq!(status(&gateway, &named(&issuer, "1")).await, 200);
}

#[tokio::test]
async fn what_the_issuer_does_not_have_is_asked_for_once() {
    let upstream = Upstream::echo().await;
    let issuer = Issuer::new(NAME);
    let (publisher, _) = publisher(keys(&[issuer.jwk("1")])).await;
    let gateway = trusting(&upstream, &publisher, "").start();
    assert_eq!(status(&gateway, &named(&issuer, "1")).await, 200);
    let before = publisher.seen().len();
    for _ in 0..5 {
        assert_eq!(status(&gateway, &named(&issuer, "gone")).await, 401);
    }
    assert_eq!(publisher.seen().len(), before + 1);
}

#[tokio::test]
async fn the_last_keys_count_while_the_issuer_is_down_over_a_restart_too() {
    let upstream = Upstream::echo().await;
    let issuer = Issuer::new(NAME);
    let (publisher, answer) = publisher(keys(&[issuer.jwk("1")])).await;
    let setup = trusting(
        &upstream,
        &publisher,
        "jwks_refresh = \"1s\"\njwks_stale = \"1h\"",
    );
    let gateway = setup.start();
    let token = named(&issuer, "1");
    assert_eq!(status(&gateway, &token).await, 200);
    let kept = setup.dir.path().join("issuers");
    eventually("the keys on disk", async || {
        kept.read_dir().ok()?.next().map(drop)
    })
    .await;
    *answer.lock().unwrap() = down();
    eventually("a fetch that failed", async || {
        (failures(&gateway).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, &token).await, 200);
    gateway.stop().await;

    let gateway = setup.start();
    assert_eq!(status(&gateway, &token).await, 200);
    *answer.lock().unwrap() = keys(&[issuer.jwk("2")]);
    eventually("the issuer is up again", async || {
        (status(&gateway, &named(&issuer, "2")).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_that_are_too_old_count_no_more_until_the_issuer_is_up_again() {
    let upstream = Upstream::echo().await;
    let issuer = Issuer::new(NAME);
    let (publisher, answer) = publisher(keys(&[issuer.jwk("1")])).await;
    let gateway = trusting(
        &upstream,
        &publisher,
        "jwks_refresh = \"1s\"\njwks_stale = \"2s\"",
    )
    .start();
    let token = named(&issuer, "1");
    assert_eq!(status(&gateway, &token).await, 200);
    *answer.lock().unwrap() = down();
    eventually("the keys are too old", async || {
        (status(&gateway, &token).await == 401).then_some(())
    })
    .await;
    *answer.lock().unwrap() = keys(&[issuer.jwk("1")]);
    eventually("the issuer is up again", async || {
        (status(&gateway, &token).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_changes_nothing() {
    let upstream = Upstream::echo().await;
    let issuer = Issuer::new(NAME);
    let stranger = Upstream::always("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{}/keys\r\ncontent-length: 0\r\n\r\n",
        stranger.address
    );
    let secret = json!({ "kty": "oct", "kid": "1", "alg": "HS256", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" });
    let large = format!("{{\"keys\":[],\"padding\":\"{}\"}}", "x".repeat(300 * 1024));
    let token = named(&issuer, "1");
    for bad in [
        with_body("200 OK", "<html>"),
        with_body("200 OK", &large),
        with_body("404 Not Found", ""),
        keys(&[]),
        keys(&[secret]),
        elsewhere.into_bytes(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{".to_vec(),
    ] {
        let (publisher, answer) = publisher(keys(&[issuer.jwk("1")])).await;
        let gateway = trusting(&upstream, &publisher, "").start();
        assert_eq!(status(&gateway, &token).await, 200);
        *answer.lock().unwrap() = bad.clone();
        assert_eq!(status(&gateway, &named(&issuer, "2")).await, 401);
        // One that breaks off is given up after a while.
        eventually("the failure is counted", async || {
            (failures(&gateway).await == 1.0).then_some(())
        })
        .await;
        assert_eq!(status(&gateway, &token).await, 200);
    }
    assert_eq!(stranger.connections(), 0, "no redirect is followed");
}

#[tokio::test]
async fn nothing_in_a_token_says_where_keys_are() {
    let upstream = Upstream::echo().await;
    let (issuer, forger) = (Issuer::new(NAME), Issuer::new(NAME));
    let (theirs, _) = publisher(keys(&[forger.jwk("1"), forger.jwk("2")])).await;
    let (ours, _) = publisher(keys(&[issuer.jwk("1")])).await;
    let gateway = trusting(&upstream, &ours, "").start();
    let url = format!("http://{}/keys", theirs.address);
    for kid in ["1", "2", &*url, "../../../etc/passwd", "1' OR '1'='1"] {
        let token = forger.token_headed(OWNER, |header| {
            header.kid = Some(kid.into());
            header.jku = Some(url.clone());
            header.x5u = Some(url.clone());
            header.jwk = serde_json::from_value(forger.jwk(kid)).unwrap();
        });
        assert_eq!(status(&gateway, &token).await, 401, "{kid}");
    }
    assert_eq!(theirs.connections(), 0);
}

#[tokio::test]
async fn an_issuer_that_hangs_keeps_nobody_waiting_for_long() {
    let upstream = Upstream::echo().await;
    let (silent, issuer) = (
        Upstream::scripted(|stream, _| async move {
            // Held open until the gateway gives up.
            let _ = stream.readable().await;
            std::future::pending::<()>().await;
        })
        .await,
        Issuer::new(NAME),
    );
    let other = Issuer::new("https://other.test");
    let (publisher, _) = publisher(keys(&[other.jwk("1")])).await;
    let more = format!(
        "issuer = \"https://other.test\"\nprefix = \"other:\"\njwks_url = \"http://{}/keys\"",
        publisher.address
    );
    let gateway = trusting(&upstream, &silent, "")
        .with(|config| config.issuer.push(toml::from_str(&more).unwrap()))
        .start();
    // Known, but not the owner.
    assert_eq!(status(&gateway, &named(&other, "1")).await, 403);
    assert_eq!(status(&gateway, &named(&issuer, "1")).await, 401);
}

#[tokio::test]
async fn a_reload_takes_another_url_and_keeps_what_stays() {
    let upstream = Upstream::echo().await;
    let (one, two) = (Issuer::new(NAME), Issuer::new(NAME));
    let (first, _) = publisher(keys(&[one.jwk("1")])).await;
    let (second, _) = publisher(keys(&[two.jwk("1")])).await;
    let gateway = trusting(&upstream, &first, "").start();
    assert_eq!(status(&gateway, &named(&one, "1")).await, 200);
    let fetches = first.seen().len();
    gateway.handle.reload(&gateway.setup.settings).unwrap();
    assert_eq!(status(&gateway, &named(&one, "1")).await, 200);
    assert_eq!(
        first.seen().len(),
        fetches,
        "the same URL is not fetched anew"
    );
    let other = trusting(&upstream, &second, "").settings.config.issuer;
    let setup = gateway.setup.clone().with(|config| config.issuer = other);
    gateway.handle.reload(&setup.settings).unwrap();
    assert_eq!(status(&gateway, &named(&two, "1")).await, 200);
    assert_eq!(status(&gateway, &named(&one, "1")).await, 401);
}

#[tokio::test]
async fn its_age_is_in_the_metrics() {
    let upstream = Upstream::echo().await;
    let issuer = Issuer::new(NAME);
    let (publisher, _) = publisher(keys(&[issuer.jwk("1")])).await;
    let gateway = trusting(&upstream, &publisher, "").start();
    assert_eq!(status(&gateway, &named(&issuer, "1")).await, 200);
    let name = "cde_gateway_issuer_keys_fetched_timestamp_seconds";
    let fetched = eventually("the time of the fetch", async || {
        Some(gateway.metric(name, &[NAME]).await).filter(|time| *time > 0.0)
    })
    .await;
    let now = crate::support::now() as f64;
    assert!((now - fetched).abs() < 60.0, "{fetched} is not about {now}");
    let text = gateway
        .admin(Method::GET, "/metrics", None)
        .await
        .text()
        .await
        .unwrap();
    assert!(
        !text.contains(&publisher.address.to_string()),
        "a URL may hold what is not for all"
    );
}
