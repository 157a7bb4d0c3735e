-- Keys that callers gave to their calls. They live as long as the runs they stand for.
CREATE TABLE idempotency_keys (
    app         INTEGER NOT NULL,
    function    TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    run         BLOB NOT NULL,
    PRIMARY KEY (app, function, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_run ON idempotency_keys (run);

-- Somebody wants the end of a run that is executed: it is not executed again.
ALTER TABLE runs ADD COLUMN cancel_asked INTEGER NOT NULL DEFAULT 0;

-- Runs that end as expired when they do not start in time. Rows outlive the start of their runs, and go
-- when their time comes.
CREATE TABLE start_limits (
    run      BLOB PRIMARY KEY,
    start_by INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX start_limits_by_time ON start_limits (start_by);
