//! `token inspect`: what a token says, whether the configured issuers' keys accept it, and if not, exactly why.
//!
//! What it says goes to standard output, the verdict to standard error. A signature is never printed.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{Code, Failure, output, seconds};
use crate::{
    config::{self, Config},
    gateway::auth::{
        self, TokenError,
        keys::{Issuer, Issuers},
        token::{self, Parts, Verified},
    },
    telemetry::Chain,
};

/// More than any token, so that a wrong pipe ends.
const INPUT_MAX: u64 = 1 << 20;

/// Arguments of `token inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    /// The token; `-` reads it from standard input, where no list of processes shows it
    #[arg(default_value = "-")]
    token: String,
    /// Whose issuers are asked [default: config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints it. A token that is refused is a failure.
    pub(super) fn report(self, now: SystemTime) -> Result<(), Failure> {
        let token = match &*self.token {
            "-" => io::read_to_string(io::stdin().take(INPUT_MAX)).map_err(Failure::system)?,
            token => token.into(),
        };
        let issuers = self.issuers()?;
        let seen = Seen::new(token.trim(), issuers.as_ref(), seconds(now));
        if self.json {
            output::json(&seen.json())?;
        } else if let Some(text) = seen.text(seconds(now)) {
            output::data(&text)?;
        }
        match &seen.verdict {
            Some(Err(_)) => Err(Failure::new(Code::LoginNeeded, seen.sentence())),
            Some(Ok(_)) | None => {
                output::say(&seen.sentence());
                Ok(())
            }
        }
    }

    /// The configured issuers. None: there is no configuration.
    fn issuers(&self) -> Result<Option<Issuers>, Failure> {
        let Some(path) = self.config.clone().or_else(config::default_file) else {
            return Ok(None);
        };
        let config = Config::read(&path)?;
        let issuers: Vec<_> = config
            .gateway
            .issuer
            .iter()
            .map(|issuer| Issuer::load(issuer).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(unusable)?;
        Issuers::new(issuers).map(Some).map_err(unusable)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given to map_err")]
fn unusable(error: auth::Error) -> Failure {
    Failure::new(Code::Usage, Chain(&error).to_string())
}

/// A token as it was found.
pub(super) struct Seen {
    /// Header and claims. None: it cannot be taken apart.
    parts: Option<(Value, Value)>,
    /// None: nobody was asked.
    verdict: Option<Result<Verified, TokenError>>,
}

impl Seen {
    pub(super) fn new(token: &str, issuers: Option<&Issuers>, now: i64) -> Self {
        match Parts::read(token.as_bytes()) {
            Ok(parts) => Self {
                parts: Some((parts.header.into(), parts.claims.into())),
                verdict: issuers.map(|issuers| token::verify(token.as_bytes(), issuers, now)),
            },
            Err(error) => Self {
                parts: None,
                verdict: Some(Err(error)),
            },
        }
    }

    pub(super) fn json(&self) -> Value {
        let (header, claims) = self.parts.clone().unwrap_or_default();
        let accepted = self.verdict.as_ref().map(Result::is_ok);
        json!({ "header": header, "claims": claims, "accepted": accepted, "verdict": self.sentence() })
    }

    /// Header, claims and moments, if it can be taken apart.
    pub(super) fn text(&self, now: i64) -> Option<String> {
        let (header, claims) = self.parts.as_ref()?;
        let mut text = format!("header: {header:#}\nclaims: {claims:#}");
        for name in ["iat", "nbf", "exp"] {
            let moment = claims[name]
                .as_i64()
                .and_then(|time| moment(name, time, now));
            text.extend(moment.map(|moment| format!("\n{moment}")));
        }
        Some(text)
    }

    /// Whether it is accepted, and if not, why and what to do.
    pub(super) fn sentence(&self) -> String {
        match &self.verdict {
            None => "not checked: there is no config.toml here; give --config FILE".into(),
            Some(Ok(Verified {
                principal,
                ticket: None,
                ..
            })) => format!("accepted: acts as {:?}", principal.name),
            Some(Ok(Verified {
                principal,
                ticket: Some(_),
                ..
            })) => {
                format!(
                    "accepted: a ticket for {:?}, good once in the URL of a page that is opened",
                    principal.name
                )
            }
            Some(Err(error @ TokenError::Issuer(_))) => {
                format!(
                    "refused: {error}; a control plane's own issuer comes by its feed and is not known here"
                )
            }
            Some(Err(error)) => format!("refused: {error}"),
        }
    }
}

fn moment(name: &str, time: i64, now: i64) -> Option<String> {
    let stamp = jiff::Timestamp::from_second(time).ok()?;
    let (distance, direction) = (
        now.abs_diff(time),
        if time > now { "from now" } else { "ago" },
    );
    Some(format!("{name}: {stamp} ({distance} s {direction})"))
}
