//! Sessions: they end unused, hold longer while they are used, and a logout ends them for every copy.

use std::time::Duration;

use crate::support::{Answer, HOST, OWNER, Setup, TestGateway, Upstream, eventually};

const NAVIGATION: (&str, &str) = ("sec-fetch-mode", "navigate");

async fn begin(gateway: &TestGateway) -> String {
    let ticket = gateway.setup.issuer.ticket(OWNER, "1", "ide");
    let target = format!("/?gitspace_token={ticket}");
    let answer = gateway.plain().await.get(&target, &[NAVIGATION]).await;
    answer.session().unwrap()
}

async fn ask(gateway: &TestGateway, cookie: &str) -> Answer {
    gateway.plain().await.get("/", &[("cookie", cookie)]).await
}

/// A gateway whose sessions end soon unless they are used.
fn short(upstream: &Upstream, idle: u64, max: u64) -> Setup {
    Setup::to(upstream).with(|config| {
        config.timeouts.session_idle = Duration::from_secs(idle);
        config.timeouts.session = Duration::from_secs(max);
    })
}

#[tokio::test]
async fn a_session_holds_longer_while_it_is_used_and_ends_unused() {
    let upstream = Upstream::echo().await;
    let gateway = short(&upstream, 2, 3600).start();
    let first = begin(&gateway).await;
    let renewed = eventually("a longer session", || async {
        let answer = ask(&gateway, &first).await;
        assert_eq!(answer.status, 200, "before it has ended");
        answer.session()
    })
    .await;
    assert_ne!(renewed, first);
    eventually("the end of the first one", || async {
        let answer = ask(&gateway, &first).await;
        (answer.status == 401).then(|| assert_eq!(answer.reason(), "expired-token"))
    })
    .await;
    assert!(upstream.last().header("cookie").is_none());
    eventually("the end of the one that nobody uses", || async {
        (ask(&gateway, &renewed).await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_use_makes_it_outlive_its_maximum() {
    let upstream = Upstream::echo().await;
    let gateway = short(&upstream, 2, 3).start();
    let mut cookie = begin(&gateway).await;
    let mut seen = 0;
    loop {
        let answer = ask(&gateway, &cookie).await;
        if answer.status == 401 {
            break;
        }
        if let Some(renewed) = answer.session() {
            (cookie, seen) = (renewed, seen + 1);
        }
        assert!(seen < 10, "it goes on for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen > 0);
}

#[tokio::test]
async fn an_answer_that_others_may_keep_carries_no_session() {
    let upstream = Upstream::always(
        "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let gateway = short(&upstream, 2, 3600).start();
    let cookie = begin(&gateway).await;
    eventually("its end", || async {
        let answer = ask(&gateway, &cookie).await;
        assert_eq!(answer.session(), None);
        (answer.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_logout_ends_the_session_for_whoever_has_a_copy_over_a_restart_too() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let cookie = begin(&gateway).await;
    let copy = cookie.clone();
    let other = {
        let ticket = gateway.setup.issuer.ticket(OWNER, "2", "ide");
        let target = format!("/?gitspace_token={ticket}");
        let answer = gateway.plain().await.get(&target, &[NAVIGATION]).await;
        answer.session().unwrap()
    };
    let origin = format!("https://{HOST}");
    let headers = [("cookie", &*cookie), ("origin", &*origin)];
    let mut client = gateway.plain().await;
    let answer = client
        .request("POST", "/_gitspace/logout", &headers, b"")
        .await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    let gone = (401, "revoked-token".to_owned());
    assert_eq!(ask(&gateway, &copy).await.refusal(), gone);
    assert_eq!(
        ask(&gateway, &other).await.status,
        200,
        "another browser goes on"
    );
    let setup = gateway.setup.clone();
    gateway.stop().await;
    assert_eq!(ask(&setup.start(), &copy).await.refusal(), gone);
}

#[tokio::test]
async fn a_logout_by_a_strangers_page_ends_nothing() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let cookie = begin(&gateway).await;
    for origin in [
        "https://evil.test",
        "null",
        "https://web-a1b2c3.gitspaces.localhost",
    ] {
        let headers = [("cookie", &*cookie), ("origin", origin)];
        let mut client = gateway.plain().await;
        let answer = client
            .request("POST", "/_gitspace/logout", &headers, b"")
            .await;
        assert_eq!(answer.refusal(), (403, "origin-refused".into()));
    }
    assert_eq!(ask(&gateway, &cookie).await.status, 200);
}

#[tokio::test]
async fn keys_are_rotated_by_a_command_and_a_reload_without_a_logout() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let state = gateway.setup.dir.path().to_owned();
    let before = begin(&gateway).await;
    let config = state.join("config.toml");
    std::fs::write(&config, format!("state_dir = {state:?}\n")).unwrap();
    let rotate = async || {
        let program = env!("CARGO_BIN_EXE_cde-gateway");
        let output = std::process::Command::new(program)
            .args(["keys", "rotate", "--config"])
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("reload"), "{said}");
        gateway.handle.reload(&gateway.setup.settings).unwrap();
        gateway.setup.note_keys();
    };
    rotate().await;
    let after = {
        let ticket = gateway.setup.issuer.ticket(OWNER, "2", "ide");
        let target = format!("/?gitspace_token={ticket}");
        let answer = gateway.plain().await.get(&target, &[NAVIGATION]).await;
        answer.session().unwrap()
    };
    let key = |cookie: &str| cookie.split('.').nth(1).unwrap().to_owned();
    assert_ne!(key(&before), key(&after), "the new key seals");
    for cookie in [&before, &after] {
        assert_eq!(ask(&gateway, cookie).await.status, 200);
    }
    rotate().await;
    let refused = ask(&gateway, &before).await.refusal();
    assert_eq!(refused, (401, "invalid-token".into()));
    assert_eq!(ask(&gateway, &after).await.status, 200);
}
