//! What gateways are to know of a gitspace, and the change table that the feed reads.
//!
//! A route is written when it differs from the one before: with the next revision of the feed and the next generation of
//! the gitspace, in the transaction of the change that it tells of.

use std::sync::Arc;

use super::{
    refusal::Refusal,
    rows::{GitspaceRow, InstanceRow, forwarded, state_of, stored},
    store::Write,
};
use crate::api::{
    InstanceId,
    access::Visibility,
    gitspace::InstanceState,
    route::{Auth, HostHeader, PortRoute, Prefix, Protocol, Route, RouteState},
    wake::Wakers,
};

/// Stands in a route for the IDE's port as long as there is no instance to have one: a port that is not listed is
/// answered as closed, and the gitspace is to be answered as stopped or starting.
const NO_IDE_YET: u16 = 80;

/// Tells gateways what is known of the gitspace now, if that is something else than before.
pub(super) async fn publish(w: &mut Write, row: &GitspaceRow) -> Result<(), Refusal> {
    let latest = InstanceRow::latest(w.connection(), &row.id).await?;
    let body = serde_json::to_string(&route(row, latest.as_ref())?)?;
    put_route(w, row, Some(body)).await
}

/// Tells gateways that the gitspace is gone.
pub(super) async fn withdraw(w: &mut Write, row: &GitspaceRow) -> Result<(), Refusal> {
    put_route(w, row, None).await
}

async fn put_route(w: &mut Write, row: &GitspaceRow, body: Option<String>) -> Result<(), Refusal> {
    let before: Option<(Option<String>,)> =
        sqlx::query_as("SELECT body FROM route WHERE gitspace = ?")
            .bind(&row.id)
            .fetch_optional(w.connection())
            .await?;
    if before.is_some_and(|(before,)| before == body) {
        return Ok(());
    }
    let revision = w.revision().await?;
    let generation: i64 = sqlx::query_scalar(
        "UPDATE gitspace SET generation = generation + 1 WHERE id = ? RETURNING generation",
    )
    .bind(&row.id)
    .fetch_one(w.connection())
    .await?;
    let removed = body.is_none().then_some(w.wall);
    sqlx::query(
        "INSERT OR REPLACE INTO route (gitspace, revision, generation, body, removed) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&row.id)
    .bind(revision)
    .bind(generation)
    .bind(body)
    .bind(removed)
    .execute(w.connection())
    .await?;
    Ok(())
}

/// What gateways are to know of a gitspace. The generation is set when it is sent.
fn route(row: &GitspaceRow, instance: Option<&InstanceRow>) -> Result<Route, Refusal> {
    let state = route_state(state_of(instance));
    let real = instance
        .map(InstanceRow::real_ports)
        .transpose()?
        .unwrap_or_default();
    let ports = forwarded(row, instance)?
        .into_iter()
        // A port that the running instance does not forward is closed.
        .filter(|port| state != RouteState::Running || real.contains_key(&port.port))
        .map(|port| {
            let on_instance = real.get(&port.port).copied().unwrap_or(port.port);
            (port.port, port_route(on_instance, port.visibility))
        })
        .collect();
    let ide_port = instance
        .and_then(|instance| instance.ide_port)
        .unwrap_or(NO_IDE_YET);
    let address = instance
        .filter(|_| state == RouteState::Running)
        .and_then(|instance| instance.address.as_deref())
        .map(stored)
        .transpose()?;
    Ok(Route {
        gitspace: stored(&row.id)?,
        generation: 0,
        instance: instance
            .map(|instance| stored::<InstanceId>(&instance.id))
            .transpose()?,
        state,
        owner: Some(Arc::from(row.owner.as_str())),
        org: None,
        host: None,
        path: None,
        prefix: Prefix::default(),
        auth: Auth::default(),
        address,
        ide: Some(port_route(ide_port, Visibility::Private)),
        ports,
        allow: Vec::new(),
        shares: Vec::new(),
        wake: Wakers::default(),
    })
}

fn port_route(port: u16, visibility: Visibility) -> PortRoute {
    PortRoute {
        port,
        protocol: Protocol::default(),
        visibility,
        host_header: HostHeader::default(),
        origin: None,
        cors: Vec::new(),
        upgrades: Vec::new(),
        tls: None,
        upstream: None,
    }
}

fn route_state(state: InstanceState) -> RouteState {
    use InstanceState as I;
    match state {
        I::Starting => RouteState::Starting,
        I::Running => RouteState::Running,
        I::Stopping | I::Resetting | I::Cleaning => RouteState::Stopping,
        I::Uninitialized | I::Stopped | I::Cleaned | I::PendingCleanup | I::Deleted => {
            RouteState::Stopped
        }
        I::Error => RouteState::Error,
    }
}
