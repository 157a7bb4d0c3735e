-- Secrets are kept sealed: blobs that only the key file opens, each bound to its place. `seal` is a function
-- of the store's own; it takes table, row, column and what is to be sealed.
CREATE TABLE vault (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    -- Opens with the right key file, and shows a wrong one before anything is changed.
    proof BLOB NOT NULL
) STRICT;
INSERT INTO vault (one, proof) VALUES (1, seal('vault', '1', 'proof', 'postback'));

-- What a project signs with. Those that were replaced go on signing beside their successors until they expire.
CREATE TABLE project_secrets (
    project    TEXT NOT NULL REFERENCES projects (id),
    kind       TEXT NOT NULL CHECK (kind IN ('webhook', 'ed25519', 'token')),
    number     INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (project, kind, number)
) STRICT, WITHOUT ROWID;
INSERT INTO project_secrets (project, kind, number, sealed, created_at)
    SELECT id, 'webhook', 1, seal('project_secrets', id || '/webhook/1', 'sealed', webhook_secret), created_at
    FROM projects;
INSERT INTO project_secrets (project, kind, number, sealed, created_at)
    SELECT id, 'token', 1, seal('project_secrets', id || '/token/1', 'sealed', token_secret), created_at
    FROM projects;
ALTER TABLE projects DROP COLUMN webhook_secret;
ALTER TABLE projects DROP COLUMN token_secret;
-- Whether deliveries carry an Ed25519 signature (`v1a`) beside the symmetric one.
ALTER TABLE projects ADD COLUMN sign_v1a INTEGER NOT NULL DEFAULT 0 CHECK (sign_v1a IN (0, 1));

ALTER TABLE inboxes ADD COLUMN sealed_token BLOB;
UPDATE inboxes SET sealed_token = seal('inboxes', id, 'sealed_token', view_token);
ALTER TABLE inboxes DROP COLUMN view_token;

UPDATE runs SET caller_secret = seal('runs', id, 'caller_secret', caller_secret) WHERE caller_secret IS NOT NULL;
-- Sealed values begin with the version of their key: which ones are needed, and what is sealed by which.
CREATE INDEX runs_sealed ON runs (substr(caller_secret, 1, 4), id) WHERE caller_secret IS NOT NULL;
