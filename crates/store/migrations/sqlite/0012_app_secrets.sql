-- Environment variables of replicas: of a project, or of one of its apps.
CREATE TABLE secrets (
    -- The id of the project or of the app.
    owner      TEXT NOT NULL,
    name       TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;
