//! Which control plane, as whom.

use std::path::{Path, PathBuf};

use crate::{
    api::Secret,
    app::{client::Client, state},
    cli::{Code, Failure},
    config::{Config, default_file},
};

/// Where the control plane is and which token it gets.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The control plane [default: CDE_URL, else the address in the configuration]
    #[arg(long, global = true)]
    url: Option<String>,
    /// File with the user token [default: CDE_TOKEN (the token itself), else user.token in the state_dir of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The configuration that says where both are [default: config.toml here if there is one, else the defaults]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Target {
    /// A caller of that control plane.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = self.url.clone().or_else(|| variable("CDE_URL"));
        let token = match &self.token_file {
            Some(file) => Some(token_in(file)?),
            None => variable("CDE_TOKEN").map(Secret::new),
        };
        // The configuration is read only where something is missing.
        let (url, token) = match (url, token) {
            (Some(url), Some(token)) => (url, token),
            (url, token) => {
                let config = self.config()?;
                let url = url.unwrap_or_else(|| format!("http://{}", config.control_plane.address));
                let token = match token {
                    Some(token) => token,
                    None => {
                        let file = config.control_plane.user_token_file;
                        token_in(&file.unwrap_or_else(|| config.state_dir.join("user.token")))?
                    }
                };
                (url, token)
            }
        };
        Ok(Client::new(&url, token)?)
    }

    fn config(&self) -> Result<Config, Failure> {
        Ok(match self.config.clone().or_else(default_file) {
            Some(file) => Config::read(&file)?,
            None => Config::without_file()?,
        })
    }
}

fn token_in(file: &Path) -> Result<Secret, Failure> {
    state::read_token(file).map_err(|error| {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default();
        Failure::new(Code::LoginNeeded, what).with(
            "give the user token with --token-file or CDE_TOKEN; `cde-gateway run` makes it in its state_dir",
        )
    })
}
