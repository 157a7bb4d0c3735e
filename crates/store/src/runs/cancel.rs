//! The write that cancels a run that waits, and remembers the wish for one that is executed.

use queue::outcome::{Cancellation, Code, RunError};
use queue::run::RunState;
use queue::{ProjectId, RunId};
use rusqlite::params;

use super::end::{Cause, end_without_lease};
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

pub(super) fn cancel(batch: &mut Batch<'_>, project: &ProjectId, run: RunId) -> Result<Cancellation, Fault> {
    let mut statement = batch.sql("SELECT state, app FROM runs WHERE id = ?1")?;
    let mut rows = statement.query(params![run.into_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(Cancellation::Unknown) };
    let (state, app) = (row::state(row, 0)?, row.get::<_, i64>(1)?);
    drop(rows);
    drop(statement);
    if batch.books.projects.get(&app) != Some(project) {
        return Ok(Cancellation::Unknown);
    }
    match state {
        RunState::Queued => {
            let error = RunError::new(Code::Cancelled, "the run was cancelled before it started");
            end_without_lease(batch, run, Cause::Queued, error)?;
            Ok(Cancellation::Done)
        }
        RunState::Running => {
            batch
                .sql("UPDATE runs SET cancel_asked = 1 WHERE id = ?1")?
                .execute(params![run.into_bytes()])?;
            Ok(Cancellation::Asked)
        }
        ended => Ok(Cancellation::TooLate(ended)),
    }
}
