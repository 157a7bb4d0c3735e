-- Attempts made before the schedule began anew, by a redelivery or the enabling of the endpoint.
ALTER TABLE deliveries ADD COLUMN schedule_from INTEGER NOT NULL DEFAULT 0;
-- What people look for when a receiver comes back; rows get here rarely.
CREATE INDEX deliveries_given_up ON deliveries (state, run, endpoint) WHERE state IN ('exhausted', 'disabled');
-- What the caller brought as `X-Webhook-Secret`: signs the run's deliveries in Cerebrium's way.
ALTER TABLE runs ADD COLUMN caller_secret BLOB;
