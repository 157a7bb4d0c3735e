-- What user code and builds print. A file of its own, so that printing never waits for a run's commit
-- nor a run's commit for printing.
CREATE TABLE lines (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    app     TEXT NOT NULL,
    build   TEXT,
    run     BLOB CHECK (length(run) = 16),
    replica TEXT,
    stream  TEXT NOT NULL CHECK (stream IN ('stdout', 'stderr', 'system')),
    text    TEXT NOT NULL
) STRICT;
CREATE INDEX lines_by_run ON lines (run) WHERE run IS NOT NULL;
CREATE INDEX lines_by_build ON lines (build) WHERE build IS NOT NULL;
CREATE INDEX lines_by_app ON lines (app) WHERE build IS NULL;
