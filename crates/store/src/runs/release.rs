//! The write that gives a leased run back, or ends it when it has no chances left.

use queue::lease::{Lease, Release, Released};
use queue::outcome::{Code, RunError};
use queue::{RunId, limits, rerun};
use rusqlite::params;

use super::end::{Cause, end_without_lease};
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

pub(crate) fn release(batch: &mut Batch<'_>, lease: Lease, release: Release) -> Result<Released, Fault> {
    if is_current(batch, lease)? { requeue(batch, lease.run, release) } else { Ok(Released::Stale) }
}

fn is_current(batch: &Batch<'_>, lease: Lease) -> Result<bool, Fault> {
    let mut statement = batch.sql("SELECT 1 FROM runs WHERE id = ?1 AND state = 'running' AND token = ?2")?;
    Ok(statement.exists(params![lease.run.into_bytes(), lease.token.into_bytes()])?)
}

/// The attempt goes into the history.
fn note_attempt(batch: &Batch<'_>, run: RunId, end: &str, error: Option<&RunError>) -> Result<(), Fault> {
    batch
        .sql(
            "INSERT INTO run_attempts (run, number, started_at, ended_at, end_code, error)
             SELECT id, attempt, started_at, ?2, ?3, ?4 FROM runs WHERE id = ?1",
        )?
        .execute(params![run.into_bytes(), batch.now().as_millis(), end, error.map(row::to_json)])?;
    Ok(())
}

/// Ends an attempt that failed, of a run that is to be executed again.
pub(crate) fn retry(batch: &mut Batch<'_>, lease: Lease, error: &RunError) -> Result<Released, Fault> {
    if !is_current(batch, lease)? {
        return Ok(Released::Stale);
    }
    let id = lease.run.into_bytes();
    note_attempt(batch, lease.run, error.code.as_str(), Some(error))?;
    let (app, failures, cancelled, used_up): (i64, u32, bool, bool) = batch
        .sql(
            "UPDATE runs SET failures = failures + 1, executions = executions + ?2 WHERE id = ?1
             RETURNING app, failures, cancel_asked, ifnull(executions >= max_attempts, 0)",
        )?
        .query_row(params![id, rerun::is_execution(error.code)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    super::expire::forget(batch, lease.run)?;
    if let Some(error) = given_up(batch, app, cancelled) {
        return end(batch, lease.run, error);
    }
    if used_up {
        return end(batch, lease.run, error.clone());
    }
    let not_before = batch.now().plus(rerun::pause(failures, batch.setting.entropy.fraction()));
    batch
        .sql(
            "UPDATE runs SET state = 'queued', token = NULL, incarnation = NULL, delayed = 1, not_before = ?2
             WHERE id = ?1",
        )?
        .execute(params![id, not_before.as_millis()])?;
    batch.books.queue_grew(app);
    Ok(Released::Queued)
}

/// Why a run is not executed again that has chances left.
fn given_up(batch: &Batch<'_>, app: i64, cancelled: bool) -> Option<RunError> {
    let why = if cancelled {
        "the run was cancelled"
    } else if batch.is_deleted(app) {
        "the app was deleted before the run could start again"
    } else {
        return None;
    };
    Some(RunError::new(Code::Cancelled, why))
}

/// Ends a run whose attempt is in the history.
fn end(batch: &mut Batch<'_>, run: RunId, error: RunError) -> Result<Released, Fault> {
    let code = error.code;
    end_without_lease(batch, run, Cause::Running, error)?;
    Ok(Released::Ended(code))
}

/// What a run has been through: its app, crashes, losses, whether it is to be cancelled and whether a replica is
/// known to have had it, executions, and how many there may be.
type Chances = (i64, u32, u32, bool, bool, u32, Option<u32>);

/// Why a run ends whose last attempt ended so.
fn used_up(release: Release, executions: u32) -> RunError {
    let what = match release {
        Release::WorkerCrashed => "its replica was ended by a signal",
        Release::WorkerExited => "its replica exited",
        Release::OutOfMemory => "its replica held more memory than it may",
        Release::ProtocolError => "its replica broke the protocol",
        Release::ServerLost => "the server died while it had the run, which may have been executed in part",
        Release::CutShort | Release::Drained => "its replica was stopped before the run had ended",
    };
    let message =
        format!("{what}, and `max_attempts` of the run allows no attempt after number {executions}");
    RunError::new(release.code(), message)
}

/// Ends the attempt of a running run. What becomes of the run depends on how often this happened.
pub(crate) fn requeue(batch: &mut Batch<'_>, run: RunId, release: Release) -> Result<Released, Fault> {
    let id = run.into_bytes();
    note_attempt(batch, run, release.as_str(), None)?;
    let lost = release == Release::ServerLost;
    let (app, crashes, losses, cancelled, begun, executions, max_attempts): Chances = batch
        .sql(
            "UPDATE runs SET crashes = crashes + ?2, server_losses = server_losses + (?3 AND with_replica),
                             executions = executions + ?4
             WHERE id = ?1
             RETURNING app, crashes, server_losses, cancel_asked, with_replica, executions, max_attempts",
        )?
        .query_row(params![id, release.is_death(), lost, release.is_execution()], |row| {
            Chances::try_from(row)
        })?;
    if begun || release.is_death() || release == Release::CutShort {
        super::expire::forget(batch, run)?;
    }
    let no_chance = if cancelled {
        given_up(batch, app, cancelled)
    } else if crashes >= limits::CRASHES_MAX {
        let message = format!(
            "the run took its replica down {crashes} times; the last lines of its log and the app's \
             log say more"
        );
        Some(RunError::new(Code::CrashLoop, message))
    } else if losses >= limits::SERVER_LOSSES_MAX {
        let message = format!("the server was lost {losses} times while a replica worked on the run");
        Some(RunError::new(Code::Interrupted, message))
    } else if let Some(error) = given_up(batch, app, cancelled) {
        Some(error)
    } else if max_attempts.is_some_and(|max| executions >= max) {
        Some(used_up(release, executions))
    } else {
        super::expire::over(batch, run)?
    };
    if let Some(error) = no_chance {
        return end(batch, run, error);
    }
    batch
        .sql("UPDATE runs SET state = 'queued', token = NULL, incarnation = NULL WHERE id = ?1")?
        .execute(params![id])?;
    batch.books.queue_grew(app);
    Ok(Released::Queued)
}
