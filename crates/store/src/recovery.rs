//! What a former process left is put in order before anybody may ask.
//!
//! The directory was locked, so what is running or being sent under an older incarnation is an orphan:
//! there is no lease to wait for. All of it is one transaction, and a crash within it changes nothing. Long work
//! that a former process began is not waited for: see [`crate::chores`].

use queue::RunId;
use queue::lease::{Release, Released};
use rusqlite::{Connection, params};

use crate::batch::{Batch, Books, Effects, Setting};
use crate::fault::Fault;
use crate::results::ResultFiles;
use crate::runs::requeue;
use crate::{ahead, chores, deliveries, row};

pub(crate) fn run(conn: &Connection, setting: &Setting, results: &ResultFiles) -> Result<(), Fault> {
    let transaction = conn.unchecked_transaction()?;
    let mut books = Books::load(conn)?;
    let mut effects = Effects::default();
    let mut batch = Batch { conn, books: &mut books, effects: &mut effects, setting };
    let (mut queued, mut ended) = (0, 0);
    for run in orphans(&batch)? {
        match requeue(&mut batch, run, Release::ServerLost)? {
            Released::Queued => queued += 1,
            Released::Ended(_) | Released::Stale => ended += 1,
        }
    }
    let unknown = deliveries::recover(&mut batch)?;
    let brought_forward = ahead::bring_forward(&mut batch, ahead::ALL)?;
    chores::forget_done(conn)?;
    transaction.commit()?;
    let swept = results.sweep(conn)?;
    if queued + ended + unknown + brought_forward + swept > 0 {
        tracing::info!(
            runs.queued = queued,
            runs.ended = ended,
            deliveries.outcome_unknown = unknown,
            schedules.brought_forward = brought_forward,
            results.swept = swept,
            "put in order what the former process left"
        );
    }
    Ok(())
}

fn orphans(batch: &Batch<'_>) -> Result<Vec<RunId>, Fault> {
    // Sorted here: told to sort them, SQLite walks all runs in their order instead of the few in the index.
    let mut statement = batch.sql("SELECT id FROM runs WHERE state = 'running' AND incarnation < ?1")?;
    let mut rows = statement.query(params![batch.setting.incarnation])?;
    let mut orphans = Vec::new();
    while let Some(row) = rows.next()? {
        orphans.push(row::run_id(row, 0)?);
    }
    orphans.sort_unstable();
    Ok(orphans)
}
