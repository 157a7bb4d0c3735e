-- How much happened, by steps of three sizes: what the overview is drawn from.
CREATE TABLE traffic (
    -- Seconds of a step.
    step    INTEGER NOT NULL,
    -- Which step since 1970.
    slice   INTEGER NOT NULL,
    -- The app's number; 0 for deliveries, which are counted by project.
    app     INTEGER NOT NULL,
    project TEXT NOT NULL,
    what    INTEGER NOT NULL,
    times   INTEGER NOT NULL,
    millis  INTEGER NOT NULL,
    PRIMARY KEY (project, step, slice, app, what)
) STRICT, WITHOUT ROWID;
