//! `gitspace create`.

use std::path::Path;

use super::{Wait, finish};
use crate::{
    api::{
        GitspaceName,
        access::Visibility,
        gitspace::{CreateGitspace, ForwardedPort, Ide, State},
    },
    app::{client::Client, name_after},
    cli::{Failure, output},
};

/// Arguments of `gitspace create`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A git repository: a URL, or a folder on the runner's machine
    repository: String,
    /// Its name; six characters are added [default: after the repository]
    #[arg(long)]
    name: Option<GitspaceName>,
    /// The branch [default: the repository's default]
    #[arg(long)]
    branch: Option<String>,
    /// terminal (built in) or code-server (if it is installed)
    #[arg(long, default_value_t)]
    ide: Ide,
    /// Forward this port, for its owner; may be repeated
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// Forward this port, for everybody; may be repeated
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    public_port: Vec<u16>,
    /// Let the repository's own start commands run
    #[arg(long)]
    trust: bool,
    /// Only make it
    #[arg(long)]
    no_start: bool,
    #[command(flatten)]
    wait: Wait,
}

pub(super) async fn run(client: &Client, arguments: Args, json: bool) -> Result<(), Failure> {
    let forward = |ports: &[u16], visibility| -> Vec<ForwardedPort> {
        let forwarded = |&port| ForwardedPort { port, visibility };
        ports.iter().map(forwarded).collect()
    };
    let mut ports = forward(&arguments.port, Visibility::Private);
    ports.extend(forward(&arguments.public_port, Visibility::Public));
    let repository = absolute(&arguments.repository);
    let asked = CreateGitspace {
        name: arguments.name.unwrap_or_else(|| name_after(&repository)),
        repository,
        branch: arguments.branch,
        ide: arguments.ide,
        ports,
        trust: arguments.trust,
        start: !arguments.no_start,
    };
    let made = client.create(&asked).await?;
    output::say(&format!("{} was made", made.id));
    let wanted = if asked.start {
        State::Running
    } else {
        made.state
    };
    finish(client, made, wanted, &arguments.wait, json).await
}

/// A folder here by its whole path, since the runner starts elsewhere; anything else as it is.
fn absolute(repository: &str) -> String {
    let path = Path::new(repository);
    match path.canonicalize() {
        Ok(whole) if path.is_dir() => whole.to_string_lossy().into_owned(),
        _ => repository.to_owned(),
    }
}
