//! `gitspace …`: what a user does, over the control plane's REST API.

mod create;
mod show;
mod target;

use std::time::Duration;

use clap::Subcommand;

use super::{Code, Failure, output};
use crate::{
    api::gitspace::{Event, Gitspace, State},
    app::{self, client::Client},
};
use target::Target;

/// Arguments of `gitspace`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Print JSON, as the API answers it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a gitspace from a repository, and start it
    Create(create::Args),
    /// List your gitspaces
    List,
    /// Show one, with the steps of its last action
    Show(One),
    /// Start one
    Start(Act),
    /// Stop one; everything is kept
    Stop(Act),
    /// Delete one with its data
    Delete(Act),
    /// Open the IDE, or a port, in the browser
    Open(Open),
}

#[derive(Debug, clap::Args)]
struct One {
    /// Its identifier, such as api-k3x9q2
    id: String,
}

#[derive(Debug, clap::Args)]
struct Act {
    /// Its identifier, such as api-k3x9q2
    id: String,
    #[command(flatten)]
    wait: Wait,
}

/// Whether to wait, and how long.
#[derive(Debug, clap::Args)]
struct Wait {
    /// Return when it was asked for, not when it is done
    #[arg(long)]
    no_wait: bool,
    /// How many seconds to wait at most (exit code 9)
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Wait {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

#[derive(Debug, clap::Args)]
struct Open {
    /// Its identifier, such as api-k3x9q2
    id: String,
    /// This forwarded port instead of the IDE
    #[arg(long, short, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Print the URL, which lets one browser in, once, within a minute
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(arguments: Args) -> Result<(), Failure> {
    let client = arguments.target.client()?;
    let json = arguments.json;
    match arguments.command {
        Command::Create(create) => create::run(&client, create, json).await,
        Command::List => show::list(&client.list().await?, json),
        Command::Show(One { id }) => show::one(&client.show(&id).await?, json),
        Command::Start(act) => {
            let asked = client.start(&act.id).await?;
            finish(&client, asked, State::Running, &act.wait, json).await
        }
        Command::Stop(act) => {
            let asked = client.stop(&act.id).await?;
            finish(&client, asked, State::Stopped, &act.wait, json).await
        }
        Command::Delete(act) => delete(&client, &act, json).await,
        Command::Open(open) => self::open(&client, &open, json).await,
    }
}

/// Waits for the state if that is wanted, and prints what came out.
async fn finish(
    client: &Client,
    asked: Gitspace,
    wanted: State,
    wait: &Wait,
    json: bool,
) -> Result<(), Failure> {
    let id = asked.id.to_string();
    let gitspace = match wait.no_wait {
        true => asked,
        false => client.wait_for(&id, wanted, wait.patience(), step).await?,
    };
    match json {
        true => output::json(&gitspace),
        false => output::data(&id),
    }
}

fn step(event: &Event) {
    output::say(&format!("{}  {}", event.time, event.message));
}

async fn delete(client: &Client, act: &Act, json: bool) -> Result<(), Failure> {
    client.delete(&act.id).await?;
    if !act.wait.no_wait {
        client.wait_gone(&act.id, act.wait.patience()).await?;
    }
    match json {
        true => output::json(&serde_json::json!({"id": act.id})),
        false => output::data(&act.id),
    }
}

async fn open(client: &Client, open: &Open, json: bool) -> Result<(), Failure> {
    let ticket = client.ticket(&open.id, open.port).await?;
    if json {
        return output::json(&ticket);
    }
    if open.print {
        return output::data(&ticket.url);
    }
    app::open_browser(&ticket.url).map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("no browser could be started: {error}"),
        )
        .with("print the URL with --print, or name a browser in BROWSER")
    })
}
