//! `session list|show|end` on the command line, against a gateway's admin API.

use std::{os::unix::fs::OpenOptionsExt, process::Output};

use serde_json::{Value, json};

use super::websocket;
use crate::support::{GITSPACE, OWNER, Setup, TestGateway, now};

/// Runs the program beside the gateway.
pub(super) async fn session(gateway: &TestGateway, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admin.token");
    let mut options = std::fs::OpenOptions::new();
    let mut written = options
        .write(true)
        .create(true)
        .mode(0o600)
        .open(&file)
        .unwrap();
    let token = gateway.setup.settings.admin_token.reveal();
    std::io::Write::write_all(&mut written, token.as_bytes()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cde-gateway"));
    command
        .arg("session")
        .args(arguments)
        .args([
            "--url",
            &format!("http://{}", gateway.admin),
            "--token-file",
        ])
        .arg(&file)
        .env_remove("CDE_LOG")
        .env_remove("CDE_ADMIN_URL")
        .env_remove("CDE_ADMIN_TOKEN");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await;
    drop(folder);
    output.unwrap()
}

pub(super) fn out(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn who_is_connected_is_listed_shown_and_ended_with_a_message() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    assert_eq!(out(&session(&gateway, &["list"]).await), "");
    let mut socket = websocket::open(&gateway).await.unwrap();
    let table = out(&session(&gateway, &["list", "--principal", OWNER]).await);
    let row = table.lines().nth(1).unwrap();
    for part in [OWNER, GITSPACE, "ide", "websocket", "127.0.0.1"] {
        assert!(row.contains(part), "{table}");
    }
    let id = row.split_whitespace().last().unwrap();
    let shown = out(&session(&gateway, &["show", id]).await);
    assert!(shown.contains(&format!("principal  {OWNER}\n")), "{shown}");
    let listed = out(&session(&gateway, &["list", "--json", "--port", "ide"]).await);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &id.into()));

    let ended = session(&gateway, &["end", id, "--message", "lunch", "--by", "root"]).await;
    assert_eq!(out(&ended), "1 ended\n");
    assert_eq!(
        super::ending::closed(&mut socket).await,
        (1008, "lunch".into())
    );
    let gone = session(&gateway, &["show", id]).await;
    assert_eq!(gone.status.code(), Some(3));
}

#[tokio::test]
async fn whoever_is_revoked_is_kept_out() {
    let upstream = websocket::echo().await;
    let gateway = Setup::to(&upstream).start();
    let times = json!({ "sid": "login", "iat": now() - 60 });
    let token = gateway.setup.issuer.token_with(OWNER, times);
    let mut socket = websocket::open_with(&gateway, &token).await.unwrap();
    let ended = session(
        &gateway,
        &["end", "--login", "login", "--revoke", "--message", "stolen"],
    )
    .await;
    out(&ended);
    let (code, said) = super::ending::closed(&mut socket).await;
    assert!(code == 1008 && said.contains("stolen"), "{said}");
    let headers = [("x-gitspace-token", &*token)];
    let answer = gateway.plain().await.get("/", &headers).await;
    assert_eq!(answer.refusal(), (401, "revoked-token".into()));
}

#[tokio::test]
async fn what_is_not_meant_is_told() {
    let gateway = Setup::new().start();
    for (arguments, says) in [
        (&["end"][..], "nothing says which"),
        (
            &["end", "--port", "ide", "--revoke"],
            "cannot be revoked as a whole",
        ),
        (&["list", "--port", "0"], "is no port"),
    ] {
        let output = session(&gateway, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains(says), "{words}");
    }
}
