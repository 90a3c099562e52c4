//! The control plane: gitspaces, their lifecycle, work for delegates, routes for gateways.
//!
//! | file | what it is |
//! |---|---|
//! | `rest` | the HTTP API: who may ask, what was asked, how it is answered |
//! | `gitspaces` | what users ask of gitspaces |
//! | `validate` | whether a new gitspace may be asked for like this |
//! | `lifecycle` | the machine: state + trigger → state + step; pure |
//! | `orchestrate` | commits what the lifecycle says |
//! | `tasks` | the queue that delegates work on |
//! | `overdue` | what time brings: lost leases, late actions, forgetting |
//! | `routes` | what gateways are to know of a gitspace |
//! | `poll` | the feed: what gateways learn, in a long poll |
//! | `history` | the feed's epoch and revisions, and what a restored database does to them |
//! | `wake` | starts what somebody opens, and tells how that goes |
//! | `feed` | what gateways redeem and report |
//! | `typed` | what agents saw of typing in terminals, for gateways |
//! | `revocations` | what counts no more at any gateway |
//! | `keys` | the signing key and tickets |
//! | `store`, `rows`, `clock` | SQLite, and what is in it |
//!
//! It never calls anybody: delegates and gateways dial in, and wait in long polls that a commit wakes.

mod clock;
mod domain;
mod feed;
mod gitspaces;
mod history;
mod keys;
mod lifecycle;
mod orchestrate;
mod overdue;
mod poll;
mod refusal;
mod rest;
mod revocations;
mod routes;
mod rows;
mod store;
mod tasks;
mod typed;
mod validate;
mod wake;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{domain::Domain, keys::Keys, store::Store};
pub use self::{domain::DomainError, keys::KeyError, rest::openapi, store::StoreError};
use crate::api::Secret;

/// What a control plane needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name as an issuer of tokens.
    pub public_url: String,
    /// How users reach gitspaces, e.g. `https://gitspaces.localhost:8443`; the identifier is put before the host.
    pub gateway_url: String,
    /// The database file; made if absent.
    pub database: PathBuf,
    /// The signing key (PEM); made if absent.
    pub signing_key: PathBuf,
    /// Who the holder of `user_token` is.
    pub user: String,
    /// Bearer token of the user.
    pub user_token: Secret,
    /// Bearer token of gateways.
    pub gateway_token: Secret,
    /// Bearer token of delegates.
    pub delegate_token: Secret,
}

/// How long things take. The default is meant for everything but tests.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How long a delegate has a task without a heartbeat.
    pub lease: Duration,
    /// How many times a task is handed out before it counts as failed.
    pub attempts: u32,
    /// How long a start, stop or delete may take as a whole.
    pub orchestration: Duration,
    /// How long a ticket can be redeemed.
    pub ticket: Duration,
    /// How long a gateway may use routes without another answer.
    pub feed_lease: Duration,
    /// How long it is remembered that a route was removed. A gateway that was away for longer gets everything.
    pub removed_kept: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(60),
            attempts: 5,
            orchestration: Duration::from_secs(60 * 60),
            ticket: Duration::from_secs(60),
            feed_lease: Duration::from_secs(300),
            removed_kept: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// Why the control plane does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The gateway's URL.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// What is in the store could not be taken up.
    #[error("cannot take up the work that the database holds")]
    TakeUp(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What every handler needs.
#[derive(Debug)]
struct State {
    store: Store,
    keys: Keys,
    domain: Domain,
    timing: Timing,
    user: String,
    user_token: Secret,
    gateway_token: Secret,
    delegate_token: Secret,
    watchers: wake::Watchers,
    typed: typed::Typed,
    stop: CancellationToken,
    /// What this run of the process is called in the feed.
    run: String,
    prepared: poll::Prepared,
}

/// Runs the control plane on `listener` until `stop`.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    stop: CancellationToken,
) -> Result<(), Error> {
    serve_with(listener, settings, Timing::default(), stop).await
}

/// [`serve`] with other times.
pub async fn serve_with(
    listener: TcpListener,
    settings: Settings,
    timing: Timing,
    stop: CancellationToken,
) -> Result<(), Error> {
    let taken_up = |error| Error::TakeUp(Box::new(error));
    let store = Store::open(&settings.database).await?;
    overdue::renew_all(&store, &timing)
        .await
        .map_err(taken_up)?;
    let run = history::begin_run(&store).await.map_err(taken_up)?;
    let state = Arc::new(State {
        domain: settings.gateway_url.parse()?,
        keys: Keys::open(&settings.signing_key, &settings.public_url)?,
        store,
        timing,
        user: settings.user,
        user_token: settings.user_token,
        gateway_token: settings.gateway_token,
        delegate_token: settings.delegate_token,
        watchers: wake::Watchers::default(),
        typed: typed::Typed::default(),
        stop: stop.clone(),
        run,
        prepared: poll::Prepared::default(),
    });
    tokio::select! {
        () = rest::serve(listener, state.clone()) => {}
        () = overdue::keep_time(&state) => {}
    }
    state.store.close().await;
    Ok(())
}
