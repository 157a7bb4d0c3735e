-- Attempts made before the schedule began anew, by a redelivery or the enabling of the endpoint.
ALTER TABLE deliveries ADD COLUMN schedule_from INTEGER NOT NULL DEFAULT 0;
-- What people look for when a receiver comes back; rows get here rarely.
CREATE INDEX deliveries_given_up ON deliveries (state, run, endpoint) WHERE state IN ('exhausted', 'disabled');
-- What the caller brought as `X-Webhook-Secret`: signs the run's deliveries in Cerebrium's way.
ALTER TABLE runs ADD COLUMN caller_secret BLOB;
-- What became of endpoints. An endpoint is disabled while `endpoints` has its row.
CREATE TABLE endpoint_events (
    sequence INTEGER PRIMARY KEY,
    project  TEXT NOT NULL,
    url      TEXT NOT NULL,
    at       INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('enabled', 'disabled')),
    reason   TEXT NOT NULL
) STRICT;
CREATE INDEX endpoint_events_by_endpoint ON endpoint_events (project, url);
INSERT INTO endpoint_events (project, url, at, state, reason)
    SELECT project, url, disabled_at, 'disabled', reason FROM endpoints;
