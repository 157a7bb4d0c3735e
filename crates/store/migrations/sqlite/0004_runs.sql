-- In which order and from when on queued runs may start. A run that is to start later is `delayed`: it
-- stands outside the index that claims walk, until its time has come.
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN not_before INTEGER;
DROP INDEX runs_queued;
CREATE INDEX runs_queued ON runs (app, priority DESC, accepted_at) WHERE state = 'queued' AND delayed = 0;
CREATE INDEX runs_delayed ON runs (not_before) WHERE state = 'queued' AND delayed = 1;
CREATE INDEX runs_delayed_by_app ON runs (app) WHERE state = 'queued' AND delayed = 1;

-- Runs that are executed again after certain failures: how often, on which end codes, and what became
-- of it so far. NULL for those that are not.
ALTER TABLE runs ADD COLUMN retries INTEGER;
ALTER TABLE runs ADD COLUMN retry_on TEXT;
ALTER TABLE runs ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
-- Why an attempt failed that was followed by another.
ALTER TABLE run_attempts ADD COLUMN error TEXT;

-- Runs that were removed with age, so that whoever asks for one is told. Forgotten themselves in time.
CREATE TABLE removed_runs (
    run        BLOB PRIMARY KEY CHECK (length(run) = 16),
    project    TEXT NOT NULL,
    removed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX removed_runs_by_time ON removed_runs (removed_at);
