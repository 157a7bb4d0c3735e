-- In which order and from when on queued runs may start. A run that is to start later is `delayed`: it
-- stands outside the index that claims walk, until its time has come.
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN not_before INTEGER;
DROP INDEX runs_queued;
CREATE INDEX runs_queued ON runs (app, priority DESC, accepted_at) WHERE state = 'queued' AND delayed = 0;
CREATE INDEX runs_delayed ON runs (not_before) WHERE state = 'queued' AND delayed = 1;
CREATE INDEX runs_delayed_by_app ON runs (app) WHERE state = 'queued' AND delayed = 1;
