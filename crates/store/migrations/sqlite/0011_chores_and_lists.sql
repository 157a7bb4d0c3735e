-- Long work that the writer does in steps, beside other writes, and how far it has come: a start that follows
-- a crash goes on with it.
CREATE TABLE chores (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL
                 CHECK (kind IN ('set_aside', 'cancel', 'redeliver_given_up', 'redeliver_pending')),
    -- An app of which everything queued is cancelled …
    app      INTEGER,
    -- … or endpoints, by project, receiver and, when it is one, address.
    project  TEXT,
    receiver TEXT,
    url      TEXT,
    -- Only what failed between these two times.
    since    INTEGER,
    until    INTEGER,
    -- The last row that was looked at, in the order of the kind.
    at       INTEGER NOT NULL,
    run      BLOB NOT NULL CHECK (length(run) = 16),
    endpoint INTEGER NOT NULL,
    -- Rows changed so far. Whoever waits for the count takes it when all is done.
    changed  INTEGER NOT NULL DEFAULT 0,
    done     INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1)),
    CHECK ((kind = 'cancel') = (app IS NOT NULL)),
    CHECK ((kind = 'cancel') = (receiver IS NULL)),
    CHECK ((kind = 'set_aside') <= (url IS NOT NULL))
) STRICT;
-- What the deletion of an app left queued when it was cut short.
INSERT INTO chores (kind, app, at, run, endpoint)
    SELECT 'cancel', number, 0, zeroblob(16), 0 FROM app_numbers
    WHERE deleted_at IS NOT NULL
      AND EXISTS (SELECT 1 FROM runs WHERE app = app_numbers.number AND state = 'queued');

-- Runs that ended without a result, for lists of them. Most runs succeed, and are not in it. (With an IN the path
-- of a run would make temporary trees.)
CREATE INDEX runs_without_result ON runs (app, state) WHERE state = 'failed' OR state = 'cancelled' OR state = 'expired';
