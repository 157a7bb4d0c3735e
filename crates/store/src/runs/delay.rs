//! Runs that are not to start before a certain time. They stand outside the index that claims walk, so
//! that however many wait cost a claim nothing; when their time has come they are moved into it.

use std::collections::HashMap;

use queue::{AppId, Timestamp};
use rusqlite::{Connection, params};

use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

/// Runs moved in one transaction.
const MOVED_PER_BATCH: i64 = 500;

/// When the next run may start that has to wait until then.
pub(super) fn next(conn: &Connection) -> Result<Option<Timestamp>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT min(not_before) FROM runs WHERE state = 'queued' AND delayed = 1")?;
    let mut rows = statement.query([])?;
    rows.next()?.map_or(Ok(None), |row| row::optional_time(row, 0))
}

/// One step: the apps whose runs may start now, with the highest priority among these.
pub(super) fn end(batch: &mut Batch<'_>, now: Timestamp) -> Result<Vec<(AppId, i8)>, Fault> {
    // All are read before the first is changed: changing them moves them in the index that is read.
    let due = due(batch, now)?;
    let mut statement = batch.sql("UPDATE runs SET delayed = 0 WHERE id = ?1")?;
    let mut apps: HashMap<AppId, i8> = HashMap::new();
    for (id, app, priority) in due {
        statement.execute(params![id])?;
        let highest = apps.entry(app).or_insert(priority);
        *highest = priority.max(*highest);
    }
    Ok(apps.into_iter().collect())
}

fn due(batch: &Batch<'_>, now: Timestamp) -> Result<Vec<([u8; 16], AppId, i8)>, Fault> {
    let mut statement = batch.sql(
        "SELECT r.id, n.app, r.priority FROM runs r JOIN app_numbers n ON n.number = r.app
         WHERE r.state = 'queued' AND r.delayed = 1 AND r.not_before <= ?1
         ORDER BY r.not_before LIMIT ?2",
    )?;
    let mut rows = statement.query(params![now.as_millis(), MOVED_PER_BATCH])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push((row::array(row, 0)?, row::parsed(row, 1)?, row.get(2)?));
    }
    Ok(due)
}
