//! The schema: numbered steps, forward only, each in a transaction of its own.

use std::path::Path;

use rusqlite::Connection;

use crate::OpenError;

/// The steps of `postback.db`. Released steps never change; a new one is added at the end.
pub(crate) const DATABASE: &[&str] = &[
    include_str!("../migrations/sqlite/0001_initial.sql"),
    include_str!("../migrations/sqlite/0002_run_options.sql"),
    include_str!("../migrations/sqlite/0003_deliveries.sql"),
    include_str!("../migrations/sqlite/0004_runs.sql"),
    include_str!("../migrations/sqlite/0005_sealed_secrets.sql"),
    include_str!("../migrations/sqlite/0006_wire.sql"),
    include_str!("../migrations/sqlite/0007_webhook_extras.sql"),
    include_str!("../migrations/sqlite/0008_schedules.sql"),
    include_str!("../migrations/sqlite/0009_undelivered.sql"),
    include_str!("../migrations/sqlite/0010_max_attempts.sql"),
    include_str!("../migrations/sqlite/0011_chores_and_lists.sql"),
    include_str!("../migrations/sqlite/0012_app_secrets.sql"),
    include_str!("../migrations/sqlite/0013_app_events.sql"),
    include_str!("../migrations/sqlite/0014_traffic.sql"),
    include_str!("../migrations/sqlite/0015_inbox_settings.sql"),
    include_str!("../migrations/sqlite/0016_keys.sql"),
];
/// The steps of `logs.db`.
pub(crate) const LOGS: &[&str] = &[include_str!("../migrations/sqlite-logs/0001_lines.sql")];

/// Brings the file to the newest schema that this binary knows, and refuses a newer one.
pub(crate) fn run(conn: &Connection, path: &Path, steps: &[&str]) -> Result<(), OpenError> {
    let sql = |source| OpenError::Database { path: path.to_owned(), source };
    let known = steps.len();
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(sql)?;
    let done =
        usize::try_from(found).ok().filter(|done| *done <= known).ok_or_else(|| OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            known: i64::try_from(known).unwrap_or(i64::MAX),
        })?;
    if done == known {
        return Ok(());
    }
    // What a step replaces may have been secret: it is overwritten, in the file and in its log.
    conn.pragma_update(None, "secure_delete", true).map_err(sql)?;
    for (number, step) in steps.iter().enumerate().skip(done).map(|(index, step)| (index + 1, step)) {
        let script = format!("BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;");
        conn.execute_batch(&script).map_err(|source| {
            // The failed step leaves its transaction open; there may also be none.
            let _ = conn.execute_batch("ROLLBACK");
            sql(source)
        })?;
        tracing::info!(store.file = %path.display(), store.schema = number, "brought the schema forward");
    }
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sql)?;
    conn.pragma_update(None, "secure_delete", false).map_err(sql)
}
