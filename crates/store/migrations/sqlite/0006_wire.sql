-- Where the time of an attempt went, in microseconds; nothing for a step that was not taken.
ALTER TABLE deliveries ADD COLUMN reused_connection INTEGER;
ALTER TABLE deliveries ADD COLUMN dns_us INTEGER;
ALTER TABLE deliveries ADD COLUMN connect_us INTEGER;
ALTER TABLE deliveries ADD COLUMN tls_us INTEGER;
ALTER TABLE deliveries ADD COLUMN first_byte_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN reused_connection INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN dns_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN connect_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN tls_us INTEGER;
ALTER TABLE delivery_attempts ADD COLUMN first_byte_us INTEGER;

-- Endpoints to which nothing could be delivered since their last success: how often, and since when.
-- Most endpoints work and have no row.
CREATE TABLE endpoint_failures (
    url      TEXT NOT NULL,
    project  TEXT NOT NULL,
    since    INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    PRIMARY KEY (url, project)
) STRICT, WITHOUT ROWID;
-- What waits for a disabled endpoint.
CREATE INDEX deliveries_waiting ON deliveries (receiver, url) WHERE state = 'disabled';

-- Signs links to results; made at the first start that finds none.
ALTER TABLE node ADD COLUMN link_key BLOB CHECK (length(link_key) = 32);
-- The attempt carried a link to the result instead of the result. Deliveries stay in that form.
ALTER TABLE deliveries ADD COLUMN thin INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery_attempts ADD COLUMN thin INTEGER NOT NULL DEFAULT 0;

-- What people set for an endpoint; most have no row.
CREATE TABLE endpoint_settings (
    project        TEXT NOT NULL,
    url            TEXT NOT NULL,
    body_bytes_max INTEGER NOT NULL,
    PRIMARY KEY (project, url)
) STRICT, WITHOUT ROWID;
