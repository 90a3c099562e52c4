//! Which gateway, with which token.

use std::path::PathBuf;

use crate::{
    api::Secret,
    app::{client::Client, state},
    cli::{Code, Failure},
    config::{Config, default_file},
};

/// Where the admin API is and which token it gets.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The admin API of the gateway [default: CDE_ADMIN_URL, else the address in the configuration]
    #[arg(long, global = true)]
    url: Option<String>,
    /// File with the admin token [default: CDE_ADMIN_TOKEN (the token itself), else admin.token in the state_dir of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The configuration that says where both are [default: config.toml here if there is one, else the defaults]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Target {
    /// A caller of that API.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = self.url.clone().or_else(|| variable("CDE_ADMIN_URL"));
        let given = self
            .token_file
            .is_none()
            .then(|| variable("CDE_ADMIN_TOKEN"))
            .flatten();
        // The configuration is read only where something is missing.
        let config = match (&url, &self.token_file, &given) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => None,
            _ => Some(self.config()?),
        };
        let url = match (url, &config) {
            (Some(url), _) => url,
            (None, config) => configured(config.as_ref())?,
        };
        let token = match (given, &self.token_file, config) {
            (Some(token), ..) => Secret::new(token),
            (None, Some(file), _) => token_in(file)?,
            (None, None, config) => {
                let config = config.unwrap_or_default();
                let file = config.gateway.admin.token_file;
                token_in(&file.unwrap_or_else(|| config.state_dir.join("admin.token")))?
            }
        };
        Ok(Client::admin(&url, token)?)
    }

    fn config(&self) -> Result<Config, Failure> {
        Ok(match self.config.clone().or_else(default_file) {
            Some(file) => Config::read(&file)?,
            None => Config::without_file()?,
        })
    }
}

fn configured(config: Option<&Config>) -> Result<String, Failure> {
    let address = config.and_then(|config| config.gateway.admin.address);
    let address = address.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "the configuration has no `gateway.admin.address`",
        )
        .with("say where the admin API is with --url or CDE_ADMIN_URL")
    })?;
    Ok(format!("http://{address}"))
}

fn token_in(file: &std::path::Path) -> Result<Secret, Failure> {
    state::read_token(file).map_err(|error| {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default();
        Failure::new(Code::LoginNeeded, what).with(
            "give the admin token with --token-file or CDE_ADMIN_TOKEN; `cde-gateway run` makes it in its state_dir",
        )
    })
}
