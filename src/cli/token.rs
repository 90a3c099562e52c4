//! `token`: for issuers that are a script, and for finding out why a token is refused. Sends nothing anywhere.

mod inspect;
mod mint;

use std::time::SystemTime;

use super::{Code, Failure, output};

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a new access token or ticket
    Mint(mint::Mint),
    /// Show what a token says and whether it would be accepted
    Inspect(inspect::Inspect),
}

pub(super) fn run(arguments: Args) -> Result<(), Failure> {
    let now = SystemTime::now();
    match arguments.command {
        Command::Mint(mint) => output::data(&mint.token(now)?),
        Command::Inspect(inspect) => inspect.report(now),
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use std::{fs, path::Path, sync::Arc};

    use serde_json::Value;

    use super::{inspect::Seen, *};
    use crate::gateway::auth::keys::{Issuer, Issuers};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: Args,
    }

    fn mint(key: &Path, more: &[&str]) -> Result<String, Failure> {
        let line = [
            "x",
            "mint",
            "--key",
            key.to_str().unwrap(),
            "--issuer",
            "https://me.test",
            "--subject",
            "alice",
        ];
        match Line::try_parse_from(line.iter().chain(more))
            .map_err(|error| Failure::new(Code::Usage, error.to_string()))?
            .token
            .command
        {
            Command::Mint(mint) => mint.token(SystemTime::now()),
            Command::Inspect(_) => unreachable!("the line says mint"),
        }
    }

    fn secret() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        file
    }

    fn issuers(secret: &Path) -> Issuers {
        let issuer = format!(
            "issuer = \"https://me.test\"\n[[key]]\nalgorithm = \"HS256\"\nsecret_file = {secret:?}"
        );
        let issuer = toml::from_str(&issuer).unwrap();
        Issuers::new([Arc::new(Issuer::load(&issuer).unwrap())]).unwrap()
    }

    fn sentence(token: &str, issuers: &Issuers, after: i64) -> String {
        Seen::new(token, Some(issuers), seconds(SystemTime::now()) + after).sentence()
    }

    #[test]
    fn what_is_minted_is_accepted_until_its_time_is_over() {
        let key = secret();
        let issuers = issuers(key.path());
        let token = mint(
            key.path(),
            &[
                "--algorithm",
                "HS256",
                "--ttl",
                "5m",
                "--port",
                "3000",
                "--port",
                "ide",
            ],
        )
        .unwrap();
        assert_eq!(sentence(&token, &issuers, 0), "accepted: acts as \"alice\"");
        assert!(sentence(&token, &issuers, 400).starts_with("refused: the token expired"));
        let for_others = mint(
            key.path(),
            &["--algorithm", "HS256", "--audience", "others"],
        )
        .unwrap();
        assert!(sentence(&for_others, &issuers, 0).contains("not for \"cde-gateway\""));
    }

    #[test]
    fn a_ticket_names_one_port_of_one_gitspace() {
        let key = secret();
        let ticket = |more: &[&str]| {
            mint(
                key.path(),
                &[
                    &[
                        "--algorithm",
                        "HS256",
                        "--ticket",
                        "--gitspace",
                        "api-k3x9q2",
                    ],
                    more,
                ]
                .concat(),
            )
        };
        assert!(ticket(&[]).is_err());
        assert!(ticket(&["--port", "ide", "--ttl", "1h"]).is_err());
        let ticket = ticket(&["--port", "ide"]).unwrap();
        assert!(
            sentence(&ticket, &issuers(key.path()), 0)
                .starts_with("accepted: a ticket for \"alice\"")
        );
    }

    #[test]
    fn a_key_of_another_kind_is_named() {
        let key = secret();
        let error = mint(key.path(), &["--algorithm", "ES256"])
            .unwrap_err()
            .what()
            .to_owned();
        assert!(error.contains("holds no private key for ES256"), "{error}");
        assert!(mint(key.path(), &["--port", "0"]).is_err());
        assert!(mint(key.path(), &["--ttl", "off"]).is_err());
    }

    #[test]
    fn inspection_shows_claims_and_never_the_signature() {
        let key = secret();
        let token = mint(key.path(), &["--algorithm", "HS256", "--kid", "one"]).unwrap();
        let seen = Seen::new(&token, None, 0);
        let text = seen.text(0).unwrap();
        assert!(
            text.contains("\"sub\": \"alice\"")
                && text.contains("\"kid\": \"one\"")
                && seen.sentence().contains("not checked")
        );
        assert!(!text.contains(token.rsplit_once('.').unwrap().1));
        assert_eq!(seen.json()["accepted"], Value::Null);
        let json = Seen::new("nonsense", None, 0).json();
        assert_eq!(json["accepted"], false);
    }
}
