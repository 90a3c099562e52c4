//! Rows of the store, and how they become what the API shows.
//!
//! Reads only; what changes them is `orchestrate` and `tasks`.

use std::{collections::BTreeMap, time::Duration};

use sqlx::{FromRow, SqliteConnection};

use super::{clock::rfc3339, domain::Domain, lifecycle, refusal::Refusal};
use crate::api::{
    GitspaceId, GitspaceName,
    access::Visibility,
    gitspace::{Event, ForwardedPort, Gitspace, InstanceState, State},
};

/// How many steps of the last action are shown with a gitspace.
const SHOWN_EVENTS: i64 = 200;
/// A gitspace as it is stored.
#[derive(Debug, Clone, FromRow)]
pub(super) struct GitspaceRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) repository: String,
    pub(super) branch: Option<String>,
    pub(super) ide: String,
    pub(super) ports: String,
    pub(super) trust: bool,
    pub(super) created: i64,
    pub(super) request: String,
    pub(super) action_from: i64,
    pub(super) deleting: bool,
}

/// An instance as it is stored.
#[derive(Debug, Clone, FromRow)]
pub(super) struct InstanceRow {
    pub(super) id: String,
    pub(super) gitspace: String,
    pub(super) state: String,
    pub(super) since: i64,
    pub(super) message: Option<String>,
    pub(super) runner: Option<String>,
    pub(super) address: Option<String>,
    pub(super) ide_port: Option<u16>,
    pub(super) ide_path: Option<String>,
    pub(super) ports: String,
}

impl GitspaceRow {
    /// The gitspace with this identifier, unless it is deleted.
    pub(super) async fn find(db: &mut SqliteConnection, id: &str) -> Result<Self, Refusal> {
        sqlx::query_as("SELECT * FROM gitspace WHERE id = ? AND deleted IS NULL")
            .bind(id)
            .fetch_optional(db)
            .await?
            .ok_or(Refusal::NoSuchGitspace)
    }

    /// The owner's gitspace with this identifier; somebody else's is as good as none.
    pub(super) async fn owned(
        db: &mut SqliteConnection,
        id: &str,
        owner: &str,
    ) -> Result<Self, Refusal> {
        let row = Self::find(db, id).await?;
        if row.owner == owner {
            Ok(row)
        } else {
            Err(Refusal::NoSuchGitspace)
        }
    }

    /// The ports that were asked for.
    pub(super) fn asked_ports(&self) -> Result<Vec<ForwardedPort>, Refusal> {
        Ok(serde_json::from_str(&self.ports)?)
    }
}

impl InstanceRow {
    /// The instances of a gitspace, the latest first.
    pub(super) async fn of(
        db: &mut SqliteConnection,
        gitspace: &str,
    ) -> Result<Vec<Self>, Refusal> {
        Ok(
            sqlx::query_as("SELECT * FROM instance WHERE gitspace = ? ORDER BY seq DESC")
                .bind(gitspace)
                .fetch_all(db)
                .await?,
        )
    }

    /// The latest instance of a gitspace.
    pub(super) async fn latest(
        db: &mut SqliteConnection,
        gitspace: &str,
    ) -> Result<Option<Self>, Refusal> {
        Ok(
            sqlx::query_as("SELECT * FROM instance WHERE gitspace = ? ORDER BY seq DESC LIMIT 1")
                .bind(gitspace)
                .fetch_optional(db)
                .await?,
        )
    }

    /// The instance that a gitspace's state is read from: the latest; while it is deleted, one that is not gone yet, and
    /// rather one that cannot be deleted.
    pub(super) async fn shown(
        db: &mut SqliteConnection,
        gitspace: &str,
    ) -> Result<Option<Self>, Refusal> {
        Ok(sqlx::query_as(
            "SELECT i.* FROM instance i JOIN gitspace g ON g.id = i.gitspace WHERE g.id = ?
             ORDER BY (g.deleting AND i.state = 'error') DESC, (g.deleting AND i.state <> 'deleted') DESC, i.seq DESC
             LIMIT 1",
        )
        .bind(gitspace)
        .fetch_optional(db)
        .await?)
    }

    /// Its state.
    pub(super) fn state(&self) -> InstanceState {
        // The column is written from `lifecycle::name` only.
        lifecycle::named(&self.state).unwrap_or(InstanceState::Error)
    }

    /// How long it has been in its state.
    pub(super) fn age(&self, now: i64) -> Duration {
        Duration::from_millis(u64::try_from(now.saturating_sub(self.since)).unwrap_or(0))
    }

    /// Forwarded port → port on its address.
    pub(super) fn real_ports(&self) -> Result<BTreeMap<u16, u16>, Refusal> {
        Ok(serde_json::from_str(&self.ports)?)
    }
}

/// The state of `instance` as users see it.
pub(super) fn state_of(instance: Option<&InstanceRow>) -> InstanceState {
    instance.map_or(InstanceState::Uninitialized, InstanceRow::state)
}

/// Asked-for ports, and those that the instance forwards beside them (private).
pub(super) fn forwarded(
    row: &GitspaceRow,
    instance: Option<&InstanceRow>,
) -> Result<Vec<ForwardedPort>, Refusal> {
    let mut ports = row.asked_ports()?;
    for port in instance
        .map(InstanceRow::real_ports)
        .transpose()?
        .unwrap_or_default()
        .into_keys()
    {
        if !ports.iter().any(|asked| asked.port == port) {
            ports.push(ForwardedPort {
                port,
                visibility: Visibility::Private,
            });
        }
    }
    Ok(ports)
}

/// What the API shows of a gitspace; with the steps of its last action if `steps`.
pub(super) async fn show(
    db: &mut SqliteConnection,
    row: GitspaceRow,
    domain: &Domain,
    steps: bool,
) -> Result<Gitspace, Refusal> {
    let instance = InstanceRow::shown(db, &row.id).await?;
    let state = State::from(state_of(instance.as_ref()));
    let events = if steps {
        events(db, &row.id, row.action_from, SHOWN_EVENTS).await?
    } else {
        Vec::new()
    };
    let id: GitspaceId = stored(&row.id)?;
    let path = instance
        .as_ref()
        .and_then(|instance| instance.ide_path.as_deref());
    Ok(Gitspace {
        url: domain.url(&id, None, path),
        ports: forwarded(&row, instance.as_ref())?,
        id,
        name: stored::<GitspaceName>(&row.name)?,
        ide: stored(&row.ide)?,
        state,
        message: instance
            .filter(|_| state == State::Error)
            .and_then(|instance| instance.message),
        owner: row.owner,
        repository: row.repository,
        branch: row.branch,
        created: rfc3339(row.created),
        events,
    })
}

/// The last `limit` steps of a gitspace from the event `from` on, oldest first.
pub(super) async fn events(
    db: &mut SqliteConnection,
    gitspace: &str,
    from: i64,
    limit: i64,
) -> Result<Vec<Event>, Refusal> {
    let mut rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT time, kind, message FROM event WHERE gitspace = ? AND id >= ? ORDER BY id DESC LIMIT ?",
    )
    .bind(gitspace)
    .bind(from)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.reverse();
    Ok(rows
        .into_iter()
        .map(|(time, kind, message)| Event {
            time: rfc3339(time),
            kind,
            message,
        })
        .collect())
}

/// Reads a stored text back into its type.
pub(super) fn stored<T>(text: &str) -> Result<T, Refusal>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| {
        Refusal::Stored(serde::de::Error::custom(format_args!("{text:?} {error}")))
    })
}
