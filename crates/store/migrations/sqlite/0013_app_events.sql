-- What happened to apps, and why: the newest events of each.
CREATE TABLE app_events (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    app   TEXT NOT NULL,
    at    INTEGER NOT NULL,
    kind  TEXT NOT NULL,
    text  TEXT NOT NULL,
    build TEXT
) STRICT;
CREATE INDEX app_events_of_app ON app_events (app, id);
