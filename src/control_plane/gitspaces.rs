//! What users ask of gitspaces: create, list, show, start, stop, delete, a ticket. One transaction each.

use super::{
    State,
    clock::rfc3339,
    domain::with_ticket,
    lifecycle::Trigger,
    orchestrate,
    refusal::Refusal,
    routes,
    rows::{self, GitspaceRow, InstanceRow, state_of},
    store::Write,
    validate,
};
use crate::api::{
    GitspaceId,
    access::Port,
    gitspace::{
        CreateGitspace, Event, Gitspace, InstanceState, State as Shown, Ticket, TicketRequest,
    },
};

/// How many events a list of them holds.
const EVENTS_MAX: i64 = 1000;

/// A new gitspace, or the one that was made under the same key.
pub(super) async fn create(
    state: &State,
    asked: CreateGitspace,
    key: Option<&str>,
) -> Result<Gitspace, Refusal> {
    validate::check(&asked)?;
    key.map_or(Ok(()), validate::idempotency_key)?;
    let request = serde_json::to_string(&asked)?;
    let mut w = state.store.write().await?;
    if let Some(key) = key
        && let Some(row) = made_under(&mut w, &state.user, key).await?
    {
        if row.request != request {
            return Err(Refusal::KeyReused);
        }
        return rows::show(w.connection(), row, &state.domain, true).await;
    }
    let row = insert(&mut w, &state.user, &asked, request, key).await?;
    w.event(
        &row.id,
        "gitspace_created",
        &format!("{} created it", row.owner),
    )
    .await?;
    if asked.start {
        orchestrate::act(&mut w, &row, Trigger::Start, &state.timing).await?;
    } else {
        routes::publish(&mut w, &row).await?;
    }
    shown_after(state, w, &row.id).await
}

async fn made_under(w: &mut Write, owner: &str, key: &str) -> Result<Option<GitspaceRow>, Refusal> {
    Ok(
        sqlx::query_as("SELECT * FROM gitspace WHERE owner = ? AND idempotency_key = ?")
            .bind(owner)
            .bind(key)
            .fetch_optional(w.connection())
            .await?,
    )
}

async fn insert(
    w: &mut Write,
    owner: &str,
    asked: &CreateGitspace,
    request: String,
    key: Option<&str>,
) -> Result<GitspaceRow, Refusal> {
    let mut random = [0; 6];
    getrandom::fill(&mut random)?;
    let id = GitspaceId::new(&asked.name, random);
    let wall = w.wall;
    Ok(sqlx::query_as(
        "INSERT INTO gitspace (id, name, owner, repository, branch, ide, ports, trust, created, idempotency_key, request)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(id.as_str())
    .bind(asked.name.as_str())
    .bind(owner)
    .bind(&asked.repository)
    .bind(&asked.branch)
    .bind(asked.ide.to_string())
    .bind(serde_json::to_string(&asked.ports)?)
    .bind(asked.trust)
    .bind(wall)
    .bind(key)
    .bind(request)
    .fetch_one(w.connection())
    .await?)
}

/// The user's gitspaces, the newest first, without their events.
pub(super) async fn list(state: &State) -> Result<Vec<Gitspace>, Refusal> {
    let mut view = state.store.read().await?;
    let rows: Vec<GitspaceRow> = sqlx::query_as(
        "SELECT * FROM gitspace WHERE owner = ? AND deleted IS NULL ORDER BY created DESC, id",
    )
    .bind(&state.user)
    .fetch_all(&mut *view)
    .await?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        shown.push(rows::show(&mut view, row, &state.domain, false).await?);
    }
    Ok(shown)
}

/// One gitspace.
pub(super) async fn show(state: &State, id: &str) -> Result<Gitspace, Refusal> {
    let mut view = state.store.read().await?;
    let row = GitspaceRow::owned(&mut view, id, &state.user).await?;
    rows::show(&mut view, row, &state.domain, true).await
}

/// All that is remembered of what it went through, oldest first.
pub(super) async fn events(state: &State, id: &str) -> Result<Vec<Event>, Refusal> {
    let mut view = state.store.read().await?;
    let row = GitspaceRow::owned(&mut view, id, &state.user).await?;
    rows::events(&mut view, &row.id, 0, EVENTS_MAX).await
}

/// Starts or stops it.
pub(super) async fn act(state: &State, id: &str, trigger: Trigger) -> Result<Gitspace, Refusal> {
    let mut w = state.store.write().await?;
    let row = GitspaceRow::owned(w.connection(), id, &state.user).await?;
    orchestrate::act(&mut w, &row, trigger, &state.timing).await?;
    shown_after(state, w, id).await
}

/// Deletes it with its data. None: it is gone already.
pub(super) async fn delete(state: &State, id: &str) -> Result<Option<Gitspace>, Refusal> {
    let mut w = state.store.write().await?;
    let row = GitspaceRow::owned(w.connection(), id, &state.user).await?;
    if orchestrate::delete(&mut w, &row, &state.timing).await? {
        w.commit().await?;
        return Ok(None);
    }
    shown_after(state, w, id).await.map(Some)
}

/// A URL that opens the IDE or a port once, within a minute.
pub(super) async fn ticket(
    state: &State,
    id: &str,
    asked: &TicketRequest,
) -> Result<Ticket, Refusal> {
    let mut view = state.store.read().await?;
    let row = GitspaceRow::owned(&mut view, id, &state.user).await?;
    let instance = InstanceRow::shown(&mut view, id).await?;
    let now_is = state_of(instance.as_ref());
    let Some(instance) = instance.filter(|_| now_is == InstanceState::Running) else {
        let shown = Shown::from(now_is);
        return Err(Refusal::WrongState(format!(
            "{id} is {shown}; a ticket is made when it is running"
        )));
    };
    let gitspace: GitspaceId = rows::stored(&row.id)?;
    let (port, url) = match asked.port {
        None => (
            Port::Ide,
            state
                .domain
                .url(&gitspace, None, instance.ide_path.as_deref()),
        ),
        Some(port) if instance.real_ports()?.contains_key(&port) => (
            Port::App(port),
            state.domain.url(&gitspace, Some(port), None),
        ),
        Some(port) => return Err(Refusal::PortClosed(port)),
    };
    let now = state.store.clock.wall_seconds();
    let life = i64::try_from(state.timing.ticket.as_secs()).unwrap_or(i64::MAX);
    let exp = now.saturating_add(life);
    let ticket = state.keys.ticket(&row.owner, gitspace, port, now, exp)?;
    Ok(Ticket {
        url: with_ticket(&url, &ticket),
        expires: rfc3339(exp.saturating_mul(1000)),
    })
}

/// Commits, and shows the gitspace as it is then.
async fn shown_after(state: &State, mut w: Write, id: &str) -> Result<Gitspace, Refusal> {
    let row = GitspaceRow::find(w.connection(), id).await?;
    let shown = rows::show(w.connection(), row, &state.domain, true).await?;
    w.commit().await?;
    Ok(shown)
}
