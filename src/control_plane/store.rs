//! The store: one SQLite file in WAL mode, one connection that writes and a few that read.
//!
//! A [`Write`] is one transaction. Its commit runs in a task of its own and wakes the long polls afterwards, so that a
//! client that goes away between commit and answer costs nobody a wake-up. What is in the tables is in `migrations/`.

use std::{
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    Sqlite, SqliteConnection, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::watch;

use super::{clock::Clock, refusal::Refusal};

/// How many connections read.
const READERS: u32 = 4;
/// How long a connection waits for a lock of another process, and a request for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest text of an event or a message.
const TEXT_MAX: usize = 1000;
/// How many events of a gitspace are kept.
const EVENTS_MAX: i64 = 1000;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or opened.
    #[error("cannot open the database {path}; it must be a file that this user may read and write")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no database, or it is locked.
    #[error("cannot use the database {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: sqlx::Error,
    },
    /// Its format is another than this program's.
    #[error(
        "cannot bring the database {path} to this program's format (is it of a newer version?)"
    )]
    Migrate {
        /// Which.
        path: PathBuf,
        /// What was found.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// The open store.
#[derive(Debug)]
pub(super) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    /// The clock that leases and deadlines are kept by.
    pub(super) clock: Clock,
    routes: watch::Sender<()>,
    tasks: watch::Sender<()>,
    events: watch::Sender<()>,
}

impl Store {
    /// Opens `path`, makes it (mode 0600) if it is absent, and brings it to the current format.
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        make_file(path).map_err(|source| StoreError::File {
            path: path.into(),
            source,
        })?;
        let open = |source| StoreError::Open {
            path: path.into(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.clone())
            .await
            .map_err(open)?;
        sqlx::migrate!()
            .run(&writer)
            .await
            .map_err(|source| StoreError::Migrate {
                path: path.into(),
                source,
            })?;
        sqlx::query("INSERT OR IGNORE INTO meta (one, epoch, revision) VALUES (1, lower(hex(randomblob(8))), 0)")
            .execute(&writer)
            .await
            .map_err(open)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.pragma("query_only", "on"))
            .await
            .map_err(open)?;
        Ok(Self {
            writer,
            readers,
            clock: Clock::start(),
            routes: watch::Sender::new(()),
            tasks: watch::Sender::new(()),
            events: watch::Sender::new(()),
        })
    }

    /// A view of one moment.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Sqlite>, Refusal> {
        Ok(self.readers.begin().await?)
    }

    /// The one transaction that may write; others wait for it.
    pub(super) async fn write(&self) -> Result<Write, Refusal> {
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write {
            tx,
            now: self.clock.now(),
            wall: self.clock.wall(),
            routes: Wake::new(&self.routes),
            tasks: Wake::new(&self.tasks),
            events: Wake::new(&self.events),
        })
    }

    /// Tells of every commit from now on that the feed tells of.
    pub(super) fn feed_changes(&self) -> watch::Receiver<()> {
        self.routes.subscribe()
    }

    /// Tells of every commit from now on after which a task may be free.
    pub(super) fn task_changes(&self) -> watch::Receiver<()> {
        self.tasks.subscribe()
    }

    /// Tells of every commit from now on that adds to what a gitspace went through.
    pub(super) fn event_changes(&self) -> watch::Receiver<()> {
        self.events.subscribe()
    }

    /// Closes the file: everything is in it, and the WAL is gone.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn make_file(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// A transaction that writes. Dropped without [`Write::commit`], it changes nothing.
#[derive(Debug)]
pub(super) struct Write {
    tx: Transaction<'static, Sqlite>,
    /// The moment of the transaction, by the monotonic clock.
    pub(super) now: i64,
    /// The same by the wall clock.
    pub(super) wall: i64,
    routes: Wake,
    tasks: Wake,
    events: Wake,
}

impl Write {
    /// The connection to run statements on.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Makes it durable, then wakes who waits for changes.
    pub(super) async fn commit(self) -> Result<(), Refusal> {
        let Self {
            tx,
            routes,
            tasks,
            events,
            ..
        } = self;
        let commit = async move {
            tx.commit().await?;
            routes.send();
            tasks.send();
            events.send();
            Ok(())
        };
        tokio::spawn(commit).await?
    }

    /// Adds a step to what a gitspace went through. The oldest are forgotten.
    pub(super) async fn event(
        &mut self,
        gitspace: &str,
        kind: &str,
        message: &str,
    ) -> Result<i64, Refusal> {
        self.events.due = true;
        let id: i64 = sqlx::query_scalar(
            "INSERT INTO event (gitspace, time, kind, message) VALUES (?, ?, ?, ?) RETURNING id",
        )
        .bind(gitspace)
        .bind(self.wall)
        .bind(kind)
        .bind(shortened(message))
        .fetch_one(self.connection())
        .await?;
        sqlx::query(
            "DELETE FROM event WHERE gitspace = ?1 AND id <=
             (SELECT id FROM event WHERE gitspace = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(gitspace)
        .bind(EVENTS_MAX)
        .execute(self.connection())
        .await?;
        Ok(id)
    }

    /// Says that a task may be free after this.
    pub(super) fn frees_tasks(&mut self) {
        self.tasks.due = true;
    }

    /// Says that gateways are to be told of something after this.
    pub(super) fn tells_gateways(&mut self) {
        self.routes.due = true;
    }

    /// The number of this change: revisions follow the order of commits, since there is one writer.
    pub(super) async fn revision(&mut self) -> Result<i64, Refusal> {
        self.tells_gateways();
        Ok(
            sqlx::query_scalar("UPDATE meta SET revision = revision + 1 RETURNING revision")
                .fetch_one(self.connection())
                .await?,
        )
    }
}

/// Wakes long polls after a commit, if there is something for them.
#[derive(Debug)]
struct Wake {
    sender: watch::Sender<()>,
    due: bool,
}

impl Wake {
    fn new(sender: &watch::Sender<()>) -> Self {
        Self {
            sender: sender.clone(),
            due: false,
        }
    }

    fn send(self) {
        if self.due {
            self.sender.send_replace(());
        }
    }
}

/// At most [`TEXT_MAX`] bytes of `text`, without control characters.
pub(super) fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_MAX);
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Twelve bytes of randomness as hexadecimal digits: names that nobody guesses.
pub(super) fn random_name() -> Result<String, Refusal> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
