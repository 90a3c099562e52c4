-- The store of the control plane. Times are milliseconds: `since`, `deadline`, `leased_at` and `lease_until` by the
-- process's monotonic clock, `created`, `time`, `finished`, `received` and `deleted` by the wall clock.

CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    revision INTEGER NOT NULL
) STRICT;

CREATE TABLE gitspace (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    repository TEXT NOT NULL,
    branch TEXT,
    ide TEXT NOT NULL,
    ports TEXT NOT NULL,
    trust INTEGER NOT NULL,
    created INTEGER NOT NULL,
    -- The Idempotency-Key it was created under, and the request, to tell a repetition from a reuse.
    idempotency_key TEXT,
    request TEXT NOT NULL,
    -- Of its route; grows with every change.
    generation INTEGER NOT NULL DEFAULT 0,
    -- The first event of the last action.
    action_from INTEGER NOT NULL DEFAULT 0,
    deleting INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER
) STRICT;
CREATE UNIQUE INDEX gitspace_key ON gitspace (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX gitspace_owner ON gitspace (owner, created) WHERE deleted IS NULL;

CREATE TABLE instance (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    gitspace TEXT NOT NULL REFERENCES gitspace (id),
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    -- When the action under way counts as failed.
    deadline INTEGER,
    message TEXT,
    -- The runner that has it: its tasks go there only.
    runner TEXT,
    address TEXT,
    ide_port INTEGER,
    ide_path TEXT,
    ports TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX instance_gitspace ON instance (gitspace, seq);
CREATE INDEX instance_deadline ON instance (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE task (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    gitspace TEXT NOT NULL REFERENCES gitspace (id),
    instance TEXT NOT NULL REFERENCES instance (id),
    work TEXT NOT NULL,
    runner TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'done', 'cancelled')),
    attempt INTEGER NOT NULL DEFAULT 0,
    delegate TEXT,
    lease TEXT,
    leased_at INTEGER,
    lease_until INTEGER,
    -- The number of the last progress report under this lease.
    progress INTEGER,
    outcome TEXT,
    finished INTEGER
) STRICT;
CREATE INDEX task_open ON task (state, seq) WHERE state IN ('queued', 'leased');
CREATE INDEX task_gitspace ON task (gitspace, seq);
CREATE INDEX task_instance ON task (instance);

CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gitspace TEXT NOT NULL REFERENCES gitspace (id),
    time INTEGER NOT NULL,
    kind TEXT NOT NULL,
    message TEXT NOT NULL
) STRICT;
CREATE INDEX event_gitspace ON event (gitspace, id);

-- The change table of the feed. `body` is the route without its generation; NULL: removed.
CREATE TABLE route (
    gitspace TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    body TEXT
) STRICT;
CREATE UNIQUE INDEX route_revision ON route (revision);

CREATE TABLE delegate (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    runner TEXT NOT NULL,
    tags TEXT NOT NULL,
    capacity INTEGER NOT NULL,
    seen INTEGER NOT NULL
) STRICT;

CREATE TABLE redeemed (
    jti TEXT PRIMARY KEY,
    exp INTEGER NOT NULL
) STRICT;
CREATE INDEX redeemed_exp ON redeemed (exp);

CREATE TABLE report (
    gateway TEXT PRIMARY KEY,
    received INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
