-- Further keys of projects, beside the two that each begins with: named, and revoked by being removed.
CREATE TABLE keys (
    hash         BLOB PRIMARY KEY CHECK (length(hash) = 32),
    id           TEXT NOT NULL UNIQUE,
    project      TEXT NOT NULL REFERENCES projects (id),
    name         TEXT NOT NULL,
    scope        TEXT NOT NULL CHECK (scope IN ('inference', 'everything')),
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    -- To the hour.
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_project ON keys (project, created_at);
