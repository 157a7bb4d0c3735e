-- What a run tells on its way to its outcome. Its deliveries stand in `deliveries` with numbers from 65536
-- on: the column `endpoint` holds the endpoint's index in its low 16 bits and above them the number of the
-- event, which is 0 for the outcome. So the key names what is told and to whom, and the rows of outcomes
-- are as they were.
CREATE TABLE progress (
    run     BLOB NOT NULL,
    event   INTEGER NOT NULL CHECK (event > 0),
    kind    TEXT NOT NULL CHECK (kind IN ('start', 'output', 'logs')),
    attempt INTEGER NOT NULL,
    -- A JSON array of lines or values, and how many more there were.
    items   BLOB NOT NULL,
    dropped INTEGER NOT NULL,
    PRIMARY KEY (run, event)
) STRICT, WITHOUT ROWID;

-- A JSON object of the caller's, told back in views and webhooks.
ALTER TABLE runs ADD COLUMN metadata TEXT;
-- Names of the headers that deliveries carry beside ours; their values are sealed in `caller_secret`.
ALTER TABLE runs ADD COLUMN webhook_header_names TEXT;
-- What the endpoints are told, words separated by commas; NULL for the outcome alone.
ALTER TABLE runs ADD COLUMN webhook_events TEXT;

-- Headers of an app's deliveries, as its configuration names them.
ALTER TABLE builds ADD COLUMN sealed_headers BLOB;
