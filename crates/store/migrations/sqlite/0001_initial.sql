-- Times are milliseconds since 1970. Ids of runs are the 16 bytes of their UUIDv7, so a primary key
-- in their order is nearly the order of acceptance and inserts go to the right edge of the tree.
--
-- The hot tables (runs, inputs, results, deliveries) have no foreign keys: each costs a look-up per
-- insert, and the one writer that fills them fills them in one transaction. Their checks say `OR`: for an
-- `IN` of more than two words SQLite makes a temporary tree at each write.

-- Grows at each open: what ran under a smaller number is an orphan.
CREATE TABLE node (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation INTEGER NOT NULL
) STRICT;
INSERT INTO node (one, incarnation) VALUES (1, 0);

CREATE TABLE projects (
    id               TEXT PRIMARY KEY,
    public_key_hash  BLOB NOT NULL UNIQUE CHECK (length(public_key_hash) = 32),
    private_key_hash BLOB NOT NULL UNIQUE CHECK (length(private_key_hash) = 32),
    webhook_secret   TEXT NOT NULL,
    token_secret     BLOB NOT NULL,
    created_at       INTEGER NOT NULL
) STRICT;

CREATE TABLE apps (
    id           TEXT PRIMARY KEY,
    project      TEXT NOT NULL REFERENCES projects (id),
    live_build   TEXT REFERENCES builds (id),
    latest_build TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX apps_by_project ON apps (project);
CREATE INDEX apps_by_live_build ON apps (live_build);

CREATE TABLE builds (
    id                TEXT PRIMARY KEY,
    app               TEXT NOT NULL REFERENCES apps (id),
    status            TEXT NOT NULL CHECK (status IN ('pending', 'building', 'initializing', 'success',
                          'build_failure', 'init_failure', 'init_timeout', 'cancelled')),
    config            TEXT NOT NULL,
    prepared          TEXT,
    functions         TEXT NOT NULL DEFAULT '[]',
    upload_token_hash BLOB NOT NULL CHECK (length(upload_token_hash) = 32),
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL
) STRICT;
CREATE INDEX builds_by_app ON builds (app);
CREATE INDEX builds_unfinished ON builds (created_at)
    WHERE status IN ('pending', 'building', 'initializing');

-- A short name for every app that runs speak of. It outlives the app, as its runs do.
CREATE TABLE app_numbers (
    number     INTEGER PRIMARY KEY,
    app        TEXT NOT NULL UNIQUE,
    project    TEXT NOT NULL,
    deleted_at INTEGER
) STRICT;
CREATE INDEX app_numbers_by_project ON app_numbers (project);

-- One row per run, narrow, with its current or last attempt. Former attempts: run_attempts.
CREATE TABLE runs (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    app           INTEGER NOT NULL,
    function      TEXT NOT NULL,
    generation    TEXT NOT NULL CHECK (generation = 'legacy' OR generation = 'v3' OR generation = 'v4'),
    mode          TEXT NOT NULL CHECK (mode IN ('sync', 'async')),
    state         TEXT NOT NULL
                      CHECK (state = 'queued' OR state = 'running' OR state = 'succeeded' OR state = 'failed'
                          OR state = 'cancelled' OR state = 'expired'),
    accepted_at   INTEGER NOT NULL,
    limit_ms      INTEGER,
    webhooks      TEXT,
    warning       TEXT,
    -- The attempt, and the lease while it is current.
    attempt       INTEGER NOT NULL DEFAULT 0,
    started_at    INTEGER,
    token         BLOB CHECK (length(token) = 16),
    incarnation   INTEGER,
    with_replica  INTEGER NOT NULL DEFAULT 0,
    crashes       INTEGER NOT NULL DEFAULT 0,
    server_losses INTEGER NOT NULL DEFAULT 0,
    -- The outcome, but for the result.
    ended_at      INTEGER,
    status_code   INTEGER,
    run_time_ms   REAL,
    build         TEXT,
    error         TEXT,
    CHECK ((state = 'running') = (token IS NOT NULL)),
    CHECK ((state IN ('queued', 'running')) = (ended_at IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_app ON runs (app);
CREATE INDEX runs_queued ON runs (app, accepted_at) WHERE state = 'queued';
CREATE INDEX runs_running ON runs (incarnation) WHERE state = 'running';

-- The body of a run that has not ended; nobody reads it afterwards.
CREATE TABLE inputs (
    run  BLOB PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The result of a run that succeeded: here, or in a file of the folder `results`.
CREATE TABLE results (
    run  BLOB PRIMARY KEY,
    body BLOB,
    file TEXT,
    CHECK ((body IS NULL) <> (file IS NULL))
) STRICT, WITHOUT ROWID;

-- Attempts that ended without ending their run.
CREATE TABLE run_attempts (
    run        BLOB NOT NULL,
    number     INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    end_code   TEXT NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;

-- One row per run and endpoint, with its current or last attempt. Former attempts: delivery_attempts.
CREATE TABLE deliveries (
    run         BLOB NOT NULL,
    endpoint    INTEGER NOT NULL,
    url         TEXT NOT NULL,
    receiver    TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state = 'pending' OR state = 'sending' OR state = 'delivered'
                    OR state = 'exhausted' OR state = 'disabled'),
    next_at     INTEGER,
    -- The attempt: known here before it is sent, completed after.
    attempt     INTEGER NOT NULL DEFAULT 0,
    incarnation INTEGER,
    started_at  INTEGER,
    ended_at    INTEGER,
    status_code INTEGER,
    reason      TEXT,
    response    TEXT,
    duration_us INTEGER,
    PRIMARY KEY (run, endpoint),
    CHECK ((state = 'pending') = (next_at IS NOT NULL)),
    CHECK ((state = 'sending') = (incarnation IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_pending ON deliveries (receiver, next_at) WHERE state = 'pending';
CREATE INDEX deliveries_sending ON deliveries (incarnation) WHERE state = 'sending';

-- Attempts that were followed by another.
CREATE TABLE delivery_attempts (
    run         BLOB NOT NULL,
    endpoint    INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    status_code INTEGER,
    reason      TEXT,
    response    TEXT,
    duration_us INTEGER,
    PRIMARY KEY (run, endpoint, number)
) STRICT, WITHOUT ROWID;

-- Endpoints about which there is something to remember. Most addresses are used once, and have no row.
CREATE TABLE endpoints (
    project     TEXT NOT NULL,
    url         TEXT NOT NULL,
    receiver    TEXT NOT NULL,
    disabled_at INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (project, url)
) STRICT, WITHOUT ROWID;

CREATE TABLE inboxes (
    id         TEXT PRIMARY KEY,
    project    TEXT NOT NULL REFERENCES projects (id),
    view_token TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX inboxes_by_project ON inboxes (project, created_at);

CREATE TABLE inbox_requests (
    sequence    INTEGER PRIMARY KEY,
    inbox       TEXT NOT NULL REFERENCES inboxes (id),
    id          BLOB NOT NULL CHECK (length(id) = 16),
    method      TEXT NOT NULL,
    path        TEXT NOT NULL,
    headers     TEXT NOT NULL,
    body        BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    signature   TEXT NOT NULL
) STRICT;
CREATE INDEX inbox_requests_by_inbox ON inbox_requests (inbox);
