//! `session …`: who is connected to a gateway right now, the end of it, and why a gitspace is awake, over its admin API.

mod show;
mod target;

use clap::Subcommand;
use serde_json::json;

use super::{Code, Failure, output};
use crate::{
    api::{
        GitspaceId,
        access::Port,
        revocation::{Reach, Revocation, RevocationKind, Revoked, port_id},
        stream::{EndStreams, Stream, Which},
    },
    app::client::Client,
};
use target::Target;

/// Arguments of `session`.
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
    /// List who is connected, with what, since when, and for how long nothing came
    List(Filter),
    /// Show one connection
    Show(One),
    /// Say why gitspaces are awake: what somebody did last, or since when nobody did anything
    Why(Why),
    /// End connections; whoever may still come can come again, unless --revoke is given
    End(End),
}

/// Which connections; all that is given must fit.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Of this user, as `session list` shows it
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// Of this login (the token's `sid`)
    #[arg(long, value_name = "SID")]
    login: Option<String>,
    /// By this share
    #[arg(long, value_name = "ID")]
    share: Option<String>,
    /// To this gitspace
    #[arg(long, value_name = "ID")]
    gitspace: Option<GitspaceId>,
    /// To this port: ide, ssh, or a number
    #[arg(long, short)]
    port: Option<Port>,
}

#[derive(Debug, clap::Args)]
struct One {
    /// Its identifier, as `session list` shows it
    id: String,
}

#[derive(Debug, clap::Args)]
struct Why {
    /// This one alone
    gitspace: Option<GitspaceId>,
}

#[derive(Debug, clap::Args)]
struct End {
    /// Their identifiers, as `session list` shows them
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// What the person is told, where the connection can say it (WebSockets)
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// Who ends it, for the gateway's log [default: USER]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Refuse what came with the same user, login, share, port or gitspace from now on too, until a new sign-in
    #[arg(long)]
    revoke: bool,
}

impl Filter {
    fn which(self) -> Which {
        Which {
            id: None,
            principal: self.principal,
            login: self.login,
            share: self.share,
            gitspace: self.gitspace,
            port: self.port,
        }
    }
}

pub(super) async fn run(arguments: Args) -> Result<(), Failure> {
    let client = arguments.target.client()?;
    let json = arguments.json;
    match arguments.command {
        Command::List(filter) => show::list(&client.streams(&filter.which()).await?, json),
        Command::Show(One { id }) => show::one(&one(&client, id).await?, json),
        Command::Why(Why { gitspace }) => {
            show::why(&client.activity(gitspace.as_ref()).await?, json)
        }
        Command::End(asked) => end(&client, asked, json).await,
    }
}

async fn one(client: &Client, id: String) -> Result<Stream, Failure> {
    let gone = Failure::new(Code::NotFound, format!("there is no connection {id}"))
        .with("see `cde-gateway session list` for what there is; short requests are gone before they can be named");
    let which = Which {
        id: Some(id),
        ..Which::default()
    };
    client.streams(&which).await?.into_iter().next().ok_or(gone)
}

async fn end(client: &Client, asked: End, json: bool) -> Result<(), Failure> {
    let which = asked.filter.which();
    if asked.ids.is_empty() && which.is_all() {
        return Err(
            Failure::new(Code::Usage, "nothing says which connections are meant")
                .with("give identifiers, or --principal, --login, --share, --gitspace or --port"),
        );
    }
    let by = asked
        .by
        .or_else(|| std::env::var("USER").ok().filter(|name| !name.is_empty()));
    let mut all: Vec<Which> = asked
        .ids
        .into_iter()
        .map(|id| Which {
            id: Some(id),
            ..which.clone()
        })
        .collect();
    if all.is_empty() {
        all.push(which.clone());
    }
    let revoked = match asked.revoke {
        true => {
            let revocation = revocation(&which, by.clone(), asked.message.clone())?;
            Some(client.revoke(&revocation).await?)
        }
        false => None,
    };
    let mut ended = 0;
    for which in all {
        let end = EndStreams {
            which,
            by: by.clone(),
            message: asked.message.clone(),
        };
        ended += client.end_streams(&end).await?.ended;
    }
    if json {
        return output::json(&json!({
            "ended": ended, "revoked": revoked.is_some(),
            "reaches": revoked.as_ref().map(|revoked| revoked.reaches),
            "problem": revoked.as_ref().and_then(|revoked| revoked.problem.as_ref()),
        }));
    }
    output::say(&reach(revoked.as_ref()));
    output::data(&format!("{ended} ended"))
}

/// Who else ends it and keeps it out.
fn reach(revoked: Option<&Revoked>) -> String {
    let (reaches, problem) = match revoked {
        None => return "at this gateway; others have to be asked themselves".into(),
        Some(revoked) => (revoked.reaches, &revoked.problem),
    };
    match (reaches, problem) {
        (Reach::All, _) => {
            "revoked at all gateways of the control plane, which end what is left".into()
        }
        (Reach::One, None) => "revoked at this gateway; others have to be asked themselves".into(),
        (Reach::One, Some(problem)) => {
            format!("revoked at this gateway alone: {problem}; revoke it again when that is over")
        }
    }
}

/// What keeps those who are meant from coming again.
fn revocation(
    which: &Which,
    by: Option<String>,
    reason: Option<String>,
) -> Result<Revocation, Failure> {
    let of = |kind, id: &str| Some((kind, id.to_owned()));
    let meant = match which {
        Which {
            principal: Some(name),
            login: None,
            share: None,
            gitspace: None,
            port: None,
            ..
        } => of(RevocationKind::Sub, name),
        Which {
            principal: None,
            login: Some(sid),
            share: None,
            gitspace: None,
            port: None,
            ..
        } => of(RevocationKind::Sid, sid),
        Which {
            principal: None,
            login: None,
            share: Some(id),
            gitspace: None,
            port: None,
            ..
        } => of(RevocationKind::Share, id),
        Which {
            principal: None,
            login: None,
            share: None,
            gitspace: Some(id),
            port: None,
            ..
        } => of(RevocationKind::Gitspace, id.as_str()),
        Which {
            principal: None,
            login: None,
            share: None,
            gitspace: Some(id),
            port: Some(port),
            ..
        } => of(RevocationKind::Port, &port_id(id, *port)),
        _ => None,
    };
    let (kind, id) = meant.ok_or_else(|| {
        Failure::new(Code::Usage, "what is meant cannot be revoked as a whole")
            .with("with --revoke give one of --principal, --login, --share, --gitspace, or --gitspace with --port")
    })?;
    Ok(Revocation {
        kind,
        id,
        issued_before: None,
        until: None,
        by,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_can_be_revoked_and_no_mixture() {
        let which = |text: &str| -> Which { serde_json::from_str(text).unwrap() };
        for (text, kind, id) in [
            (r#"{"principal":"ada"}"#, RevocationKind::Sub, "ada"),
            (r#"{"login":"l1"}"#, RevocationKind::Sid, "l1"),
            (r#"{"share":"s1"}"#, RevocationKind::Share, "s1"),
            (
                r#"{"gitspace":"api-k3x9q2"}"#,
                RevocationKind::Gitspace,
                "api-k3x9q2",
            ),
            (
                r#"{"gitspace":"api-k3x9q2","port":3000}"#,
                RevocationKind::Port,
                "api-k3x9q2/3000",
            ),
        ] {
            let made = revocation(&which(text), None, None).unwrap();
            assert_eq!((made.kind, &*made.id), (kind, id));
        }
        for text in [
            "{}",
            r#"{"port":3000}"#,
            r#"{"principal":"ada","gitspace":"api-k3x9q2"}"#,
        ] {
            assert!(revocation(&which(text), None, None).is_err(), "{text}");
        }
    }
}
