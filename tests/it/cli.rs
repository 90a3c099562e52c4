//! The command line: what goes to standard output, what to standard error, exit codes.
//!
//! Not here: the demo's own output (`demo`).

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::process::{Command, Output};

use serde_json::Value;

use crate::{demo::Demo, support::Refusing};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cde-gateway"))
        .args(arguments)
        .env_remove("CDE_LOG")
        .env_remove("CDE_URL")
        .env_remove("CDE_TOKEN")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn data(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn check_names_file_key_and_line() {
    let file = "tests/config/invalid/unknown-key.toml";
    let output = program(&["check", "--config", file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let words = words(&output);
    for part in [
        "error: tests/config/invalid/unknown-key.toml:5: `gateway.admin.adress`",
        "accepted: address, token_file",
        "did you mean `address`?",
    ] {
        assert!(words.contains(part), "{words}");
    }

    let output = program(&["check", "--json", "--config", file]);
    assert_eq!(output.status.code(), Some(2));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["line"], 5);
    assert_eq!(json["problems"][0]["key"], "gateway.admin.adress");
}

#[test]
fn check_accepts_the_config_file_of_the_repository() {
    let output = program(&["check", "--json", "--config", "config.toml"]);
    let json: Value = serde_json::from_str(&data(&output)).unwrap();
    assert_eq!(json, serde_json::json!({"ok": true, "problems": []}));
}

#[test]
fn check_refuses_a_certificate_whose_key_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = "roles = [\"gateway\"]\n[[gateway.certificate]]\n".to_owned();
    let made = || rcgen::generate_simple_self_signed(["gitspaces.localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("cert.pem", made().cert.pem());
    write("key.pem", made().signing_key.serialize_pem());
    config.push_str("chain = \"cert.pem\"\nkey = \"key.pem\"\n");
    write("config.toml", config);
    let file = folder.path().join("config.toml");
    let output = program(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(words(&output).contains("key.pem"), "{}", words(&output));
}

#[test]
fn a_command_that_does_not_exist_is_wrong_usage() {
    let output = program(&["chekc"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(words(&output).contains("'check'"), "{}", words(&output));
}

#[test]
fn a_control_plane_that_is_not_there_is_unreachable() {
    let refusing = Refusing::new();
    let address = refusing.address();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "t\n").unwrap();
    let token = token.to_str().unwrap();
    let output = program(&[
        "gitspace",
        "--url",
        &format!("http://{address}"),
        "--token-file",
        token,
        "list",
    ]);
    assert_eq!(output.status.code(), Some(8), "{}", words(&output));
    let words = words(&output);
    let lines: Vec<_> = words.lines().collect();
    assert_eq!(lines.len(), 2, "what, then what to do: {words}");
    assert!(lines[0].contains(&address.to_string()), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gitspace_commands_print_data_on_stdout() {
    let demo = Demo::start(&[]).await;
    let (url, token) = (
        demo.text("control_plane").to_owned(),
        demo.text("user_token_file").to_owned(),
    );
    let repository = std::path::Path::new(demo.text("state_dir")).with_file_name("sample");
    let repository = repository.to_str().unwrap().to_owned();
    let commands = tokio::task::spawn_blocking(move || {
        let gitspace = |arguments: &[&str]| {
            let target = ["gitspace", "--url", &url, "--token-file", &token];
            program(&[&target, arguments].concat())
        };
        let id = data(&gitspace(&["create", &repository, "--name", "second"]));
        let id = id.trim();
        assert!(
            id.starts_with("second-") && !id.contains(char::is_whitespace),
            "{id}"
        );

        let list = data(&gitspace(&["list"]));
        assert!(list.starts_with("ID ") && list.contains(id), "{list}");
        let json: Value = serde_json::from_str(&data(&gitspace(&["list", "--json"]))).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 2, "{json}");
        let shown = data(&gitspace(&["show", id]));
        assert!(shown.contains("state       running"), "{shown}");

        assert_eq!(data(&gitspace(&["stop", id])).trim(), id);
        let json: Value = serde_json::from_str(&data(&gitspace(&["show", id, "--json"]))).unwrap();
        assert_eq!(json["state"], "stopped", "{json}");
        let refused = gitspace(&["open", id, "--print"]);
        assert_eq!(refused.status.code(), Some(6), "{}", words(&refused));
        assert!(refused.stdout.is_empty());

        let json: Value = serde_json::from_str(&data(&gitspace(&["start", id, "--json"]))).unwrap();
        assert_eq!(json["state"], "running", "{json}");
        let opened = data(&gitspace(&["open", id, "--print"]));
        assert!(opened.starts_with(&format!("https://{id}.")), "{opened}");

        assert_eq!(data(&gitspace(&["delete", id])).trim(), id);
        let gone = gitspace(&["show", id]);
        assert_eq!(gone.status.code(), Some(3), "{}", words(&gone));
        let missing = program(&[
            "gitspace",
            "--url",
            &url,
            "--token-file",
            "/no/such/token",
            "list",
        ]);
        assert_eq!(missing.status.code(), Some(4), "{}", words(&missing));
    });
    commands.await.unwrap();
    assert!(demo.stop().await.status.success());
}
