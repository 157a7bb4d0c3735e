//! Runs that had to start by a certain time. The limits stand in a table of their own, so that runs
//! without one pay nothing for those with one.

use queue::outcome::{Code, Expired, RunError};
use queue::run::RunState;
use queue::{RunId, Timestamp};
use rusqlite::{Connection, params};

use super::end::{Cause, end_without_lease};
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

/// Limits looked at in one transaction.
const LIMITS_PER_BATCH: usize = 500;

pub(super) fn remember(batch: &Batch<'_>, run: RunId, start_by: Timestamp) -> Result<(), Fault> {
    batch
        .sql("INSERT INTO start_limits (run, start_by) VALUES (?1, ?2)")?
        .execute(params![run.into_bytes(), start_by.as_millis()])?;
    Ok(())
}

/// The run has started; what comes after counts otherwise.
pub(super) fn forget(batch: &Batch<'_>, run: RunId) -> Result<(), Fault> {
    batch.sql("DELETE FROM start_limits WHERE run = ?1")?.execute(params![run.into_bytes()])?;
    Ok(())
}

/// Why a run that comes back ends, when its time to start is over.
pub(super) fn over(batch: &Batch<'_>, run: RunId) -> Result<Option<RunError>, Fault> {
    let mut statement = batch.sql("SELECT 1 FROM start_limits WHERE run = ?1 AND start_by <= ?2")?;
    let over = statement.exists(params![run.into_bytes(), batch.now().as_millis()])?;
    Ok(over.then(too_late))
}

fn too_late() -> RunError {
    RunError::new(
        Code::Expired,
        "the run did not start within its `max_queue_time`; raise that, or give the app more replicas",
    )
}

/// Whether there is a limit that has passed.
pub(super) fn is_due(conn: &Connection, now: Timestamp) -> Result<bool, Fault> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM start_limits WHERE start_by <= ?1")?;
    Ok(statement.exists(params![now.as_millis()])?)
}

/// One step; whether there may be more to do, and what was done.
pub(super) fn expire(batch: &mut Batch<'_>, now: Timestamp) -> Result<(bool, Expired), Fault> {
    let mut expired = Expired::default();
    let mut over = Vec::new();
    let mut statement = batch.sql(
        "SELECT s.run, r.state, n.app
         FROM start_limits s LEFT JOIN runs r ON r.id = s.run LEFT JOIN app_numbers n ON n.number = r.app
         WHERE s.start_by <= ?1 ORDER BY r.state = 'running', s.start_by LIMIT ?2",
    )?;
    let mut rows = statement.query(params![now.as_millis(), LIMITS_PER_BATCH as i64])?;
    while let Some(row) = rows.next()? {
        let run = row::run_id(row, 0)?;
        // A limit may outlive its run.
        let state =
            if row.get_ref(1)?.as_str_or_null()?.is_some() { Some(row::state(row, 1)?) } else { None };
        match state {
            Some(RunState::Running) => expired.leased.push((row::parsed(row, 2)?, run)),
            state => over.push((run, state)),
        }
    }
    drop(rows);
    drop(statement);
    let more = over.len() == LIMITS_PER_BATCH;
    for (run, state) in over {
        if state == Some(RunState::Queued) {
            end_without_lease(batch, run, Cause::Queued, too_late())?;
            expired.ended += 1;
        }
        forget(batch, run)?;
    }
    Ok((more, expired))
}
