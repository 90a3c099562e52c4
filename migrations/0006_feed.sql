-- What the feed needs beside the change table.

-- Changes up to this revision may have been forgotten: who has less gets everything.
ALTER TABLE meta ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;

-- When a route was removed, by the wall clock; NULL: it is there.
ALTER TABLE route ADD COLUMN removed INTEGER;
UPDATE route SET removed = 0 WHERE body IS NULL;
CREATE INDEX route_removed ON route (removed) WHERE removed IS NOT NULL;

-- The runs of this process on this database, with the revision at which each began. Who was told more than is here by a run
-- that ended, or anything by one that is not here, knows a database of which this is an older copy.
CREATE TABLE run (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    began INTEGER NOT NULL
) STRICT;

-- What counts no more. `body` is the revocation; `until` is in seconds since 1970.
CREATE TABLE revocation (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    until INTEGER,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
CREATE INDEX revocation_revision ON revocation (revision);
CREATE INDEX revocation_until ON revocation (until) WHERE until IS NOT NULL;
