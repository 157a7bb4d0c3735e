//! The write that gives a leased run back, or ends it when it has no chances left.

use queue::lease::{Lease, Release, Released};
use queue::outcome::{Code, Outcome, RunError};
use queue::{RunId, limits};
use rusqlite::params;

use super::end::{Cause, end_without_lease};
use crate::batch::Batch;
use crate::fault::Fault;

pub(crate) fn release(batch: &mut Batch<'_>, lease: Lease, release: Release) -> Result<Released, Fault> {
    let mut statement = batch.sql("SELECT 1 FROM runs WHERE id = ?1 AND state = 'running' AND token = ?2")?;
    let current = statement.exists(params![lease.run.into_bytes(), lease.token.into_bytes()])?;
    drop(statement);
    if !current {
        return Ok(Released::Stale);
    }
    requeue(batch, lease.run, release)
}

/// Ends the attempt of a running run. What becomes of the run depends on how often this happened.
pub(crate) fn requeue(batch: &mut Batch<'_>, run: RunId, release: Release) -> Result<Released, Fault> {
    let id = run.into_bytes();
    batch
        .sql(
            "INSERT INTO run_attempts (run, number, started_at, ended_at, end_code)
             SELECT id, attempt, started_at, ?2, ?3 FROM runs WHERE id = ?1",
        )?
        .execute(params![id, batch.now().as_millis(), release.as_str()])?;
    let (app, crashes, losses, cancelled, begun): (i64, u32, u32, bool, bool) = batch
        .sql(
            "UPDATE runs SET crashes = crashes + ?2, server_losses = server_losses + (?3 AND with_replica)
             WHERE id = ?1
             RETURNING app, crashes, server_losses, cancel_asked, with_replica",
        )?
        .query_row(params![id, release == Release::WorkerCrashed, release == Release::ServerLost], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })?;
    if begun || release == Release::WorkerCrashed {
        super::expire::forget(batch, run)?;
    }
    let no_chance = if cancelled {
        Some(RunError::new(Code::Cancelled, "the run was cancelled"))
    } else if crashes >= limits::CRASHES_MAX {
        let message = format!(
            "the run took its replica down {crashes} times; the last lines of its log and the app's \
             log say more"
        );
        Some(RunError::new(Code::CrashLoop, message))
    } else if losses >= limits::SERVER_LOSSES_MAX {
        let message = format!("the server was lost {losses} times while a replica worked on the run");
        Some(RunError::new(Code::Interrupted, message))
    } else if batch.is_deleted(app) {
        Some(RunError::new(Code::Cancelled, "the app was deleted before the run could start again"))
    } else {
        super::expire::over(batch, run)?
    };
    if let Some(error) = no_chance {
        let ended = Outcome::failed(error.clone(), 0.0, batch.now()).ending.state();
        end_without_lease(batch, run, Cause::Running, error)?;
        return Ok(Released::Ended(ended));
    }
    batch
        .sql("UPDATE runs SET state = 'queued', token = NULL, incarnation = NULL WHERE id = ?1")?
        .execute(params![id])?;
    batch.books.queue_grew(app);
    Ok(Released::Queued)
}
