//! The access log's file: both formats, a file that is rotated, full, or read by nobody, and a stop.
//!
//! Not here: what a line tells of a request (`account`, `reasons`).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use cde_gateway::config::{ClientAddress, LineFormat};

use crate::support::{Client, HOST, Setup, TestGateway, Upstream, eventually};

async fn get(gateway: &TestGateway, target: &str) -> u16 {
    let token = gateway.owner();
    let mut client = gateway.plain().await;
    client
        .get(target, &[("x-gitspace-token", &*token)])
        .await
        .status
}

fn path(gateway: &TestGateway) -> PathBuf {
    gateway
        .setup
        .settings
        .config
        .access_log
        .path
        .as_str()
        .into()
}

/// Many requests at once on one connection, all answered: in the clear, without a token.
async fn pipelined(client: &mut Client, count: usize) {
    let one = format!("GET /anonymous HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    for _ in 0..count / 100 {
        client.send(one.repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(client.answer().await.unwrap().status, 401);
        }
    }
}

#[tokio::test]
async fn a_text_log_has_one_line_per_request_that_no_client_can_forge() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.access_log.format = LineFormat::Text)
        .start();
    assert_eq!(get(&gateway, "/a?secret=1").await, 200);
    let forging = "/b%0d%0a\"%20200%20reason=done";
    let mut client = gateway.plain().await;
    client.get(forging, &[("x-gitspace-token", "a\\b")]).await;
    let lines = eventually("both lines", || async {
        let lines: Vec<_> = gateway.log().lines().map(str::to_owned).collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    let found = lines.iter().find(|line| line.contains("/a ")).unwrap();
    let found: Vec<_> = found.split(' ').collect();
    assert_eq!(found[..3], ["127.0.0.1", "-", "alice"]);
    assert!(found[3].starts_with('[') && found[3].ends_with("Z]"));
    assert_eq!(
        found[4..10],
        ["\"GET", "/a", "HTTP/1.1\"", "200", "5", "\"-\""]
    );
    assert_eq!(found[11], format!("host=\"{HOST}\""));
    assert_eq!(
        found[12..15],
        ["step=relay", "reason=done", "ended_by=both"]
    );
    for name in ["duration_ms=", "first_byte_ms=", "received=", "id="] {
        assert_eq!(
            found.iter().filter(|field| field.starts_with(name)).count(),
            1,
            "{name}"
        );
    }
    assert!(found.contains(&"gitspace=app-a1b2c3") && found.contains(&"port=ide"));
    let refused = lines.iter().find(|line| line.contains("/b")).unwrap();
    assert!(
        refused.contains(" reason=") && !refused.contains(" reason=done"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_truncated_client_address_is_one_in_the_log_only() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.access_log.client_address = ClientAddress::Truncated)
        .start();
    assert_eq!(get(&gateway, "/").await, 200);
    assert_eq!(gateway.account().await["client"], "127.0.0.0");
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_path_longer_than_a_line_should_be_is_cut_in_the_log_only() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let target = format!("/{}", "p".repeat(5000));
    assert_eq!(get(&gateway, &target).await, 200);
    assert_eq!(upstream.last().target, target);
    let line = gateway.account().await;
    let path = line["path"].as_str().unwrap();
    assert_eq!(path, format!("/{}...", "p".repeat(2047)));
}

#[tokio::test]
async fn a_log_that_is_rotated_under_load_loses_no_line() {
    let gateway = Setup::new().start();
    let log = path(&gateway);
    let rotated = |n: usize| log.with_extension(format!("log.{n}"));
    let load = async {
        let mut client = gateway.plain().await;
        pipelined(&mut client, 2000).await;
    };
    let rotate = async {
        for n in 1..=5 {
            eventually("lines to rotate", || async {
                fs::metadata(&log)
                    .is_ok_and(|meta| meta.len() > 0)
                    .then_some(())
            })
            .await;
            fs::rename(&log, rotated(n)).unwrap();
            gateway.handle.reload(&gateway.setup.settings).unwrap();
            assert!(log.exists(), "opened before the reload is over");
        }
    };
    tokio::join!(load, rotate);
    let lines = |path: &Path| fs::read_to_string(path).unwrap().matches('\n').count();
    let all = || (1..=5).map(|n| lines(&rotated(n))).sum::<usize>() + lines(&log);
    eventually("all lines", || async { (all() == 2000).then_some(()) }).await;

    // Later lines go to the new file alone.
    let before = lines(&rotated(5));
    let mut client = gateway.plain().await;
    pipelined(&mut client, 100).await;
    eventually("the last lines", || async { (all() == 2100).then_some(()) }).await;
    assert_eq!(lines(&rotated(5)), before);
}

#[tokio::test]
async fn a_reload_that_cannot_open_the_log_says_so_and_keeps_the_old_file() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let log = path(&gateway);
    let kept = log.with_extension("kept.log");
    fs::rename(&log, &kept).unwrap();
    fs::create_dir(&log).unwrap();
    let error = gateway.handle.reload(&gateway.setup.settings).unwrap_err();
    let log = log.to_str().unwrap();
    assert_eq!(
        error.to_string(),
        format!("cannot open the access log {log}")
    );
    assert_eq!(get(&gateway, "/").await, 200);
    eventually("the line", || async {
        fs::read_to_string(&kept)
            .unwrap()
            .ends_with('\n')
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_never_holds_a_request_up_and_what_is_lost_is_counted() {
    let setup = Setup::new();
    let pipe = setup.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let gateway = setup
        .with(|config| config.access_log.path = pipe.to_str().unwrap().into())
        .start();
    let lost = || {
        gateway.metric(
            "cde_gateway_access_log_lost_lines_total",
            &["cause=\"slow\""],
        )
    };
    assert_eq!(lost().await, 0.0);
    let (mut one, mut other) = (gateway.plain().await, gateway.plain().await);
    // More than the pipe, the writer and its queue hold.
    tokio::join!(pipelined(&mut one, 9_000), pipelined(&mut other, 9_000));
    let counted = lost().await;
    assert!((1.0..2_000.0).contains(&counted), "{counted}");
    let path = pipe.to_str().unwrap().to_owned();
    crate::support::told(&["lines of the access log were lost", &path]).await;

    // A reader that comes late gets every line that was not lost, whole.
    let reader = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        let file = fs::File::open(pipe).unwrap();
        let lines = std::io::BufReader::new(file).lines();
        let kept = lines.take(18_000 - counted as usize);
        kept.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
            .filter(|line| line["path"] == "/anonymous")
            .count()
    });
    let read = crate::support::soon("all lines", reader).await.unwrap();
    assert_eq!(read as f64, 18_000.0 - counted);
    assert_eq!(lost().await, counted);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_log_that_nobody_reads() {
    let setup = Setup::new();
    let pipe = setup.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let gateway = setup
        .with(|config| config.access_log.path = pipe.to_str().unwrap().into())
        .start();
    pipelined(&mut gateway.plain().await, 1_000).await;
    let begun = Instant::now();
    gateway.stop().await;
    assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_full_disk_ends_nothing_and_is_counted_and_told() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream)
        .with(|config| config.access_log.path = "/dev/full".into())
        .start();
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/").await, 200);
    }
    eventually("the lost lines", || async {
        let lost = ["cause=\"failed\""];
        let lost = gateway.metric("cde_gateway_access_log_lost_lines_total", &lost);
        (lost.await == 3.0).then_some(())
    })
    .await;
    crate::support::told(&[
        "the access log cannot be written",
        "/dev/full",
        "No space left",
    ])
    .await;
}

#[tokio::test]
async fn a_stop_writes_the_last_line() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(&upstream).start();
    let log = path(&gateway);
    assert_eq!(get(&gateway, "/").await, 200);
    gateway.stop().await;
    assert_eq!(fs::read_to_string(log).unwrap().matches('\n').count(), 1);
}
