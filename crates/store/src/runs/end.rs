//! The write that ends a run: state, result and deliveries in one transaction.

use std::time::Duration;

use bytes::Bytes;
use queue::delivery::DueDelivery;
use queue::lease::Lease;
use queue::limits::KEPT_INPUT_BYTES_MAX;
use queue::outcome::{Finish, Outcome, RunError};
use queue::port::{StoreError, Stored};
use queue::run::{EndpointUrl, Generation, RunMove, RunState};
use queue::webhook::{Event, Metadata, Schedule};
use queue::{DeliveryId, ProjectId, RunId, Timestamp, retry};
use rusqlite::types::ToSql;
use rusqlite::{OptionalExtension as _, Row, params};

use super::accept::finite;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;
use crate::secrets::{Brought, Sealed};
use crate::traffic::Whose;

/// A run that ended just now.
pub(crate) struct Ended {
    pub(crate) project: ProjectId,
    pub(crate) generation: Generation,
    pub(crate) brought: Option<Sealed>,
    pub(crate) metadata: Option<Metadata>,
    /// Deliveries whose first attempt is recorded.
    pub(crate) begun: Vec<Begun>,
}

/// A delivery whose attempt is recorded, without its body.
#[derive(Clone)]
pub(crate) struct Begun {
    pub(crate) id: DeliveryId,
    pub(crate) url: EndpointUrl,
    pub(crate) attempt: u32,
    /// Which attempt of its schedule this is.
    pub(crate) step: u32,
    /// The schedule of the run's own.
    pub(crate) schedule: Option<Schedule>,
    /// The receiver is to get a link to the result instead of the result.
    pub(crate) thin: bool,
    /// So it is for bodies of more bytes than this.
    pub(crate) body_bytes_max: Option<u64>,
    /// What it takes of the room for large results.
    pub(crate) large_bytes: usize,
}

impl Begun {
    /// The waits before its attempts.
    pub(crate) fn schedule(&self) -> &[Duration] {
        retry::schedule_of(self.id, self.schedule.as_ref().map_or(&retry::SCHEDULE[..], Schedule::waits))
    }

    pub(crate) fn with_body(
        self,
        project: ProjectId,
        (body, thin): (Bytes, bool),
        brought: Brought,
    ) -> DueDelivery {
        let Self { id, url, attempt, step, schedule, large_bytes, .. } = self;
        let Brought { secret: caller_secret, headers } = brought;
        DueDelivery {
            id,
            project,
            url,
            attempt,
            step,
            schedule,
            body,
            thin,
            large_bytes,
            caller_secret,
            headers,
        }
    }
}

/// Refuses an outcome that a leased run cannot have.
pub(crate) fn check(outcome: &Outcome) -> Stored<()> {
    RunState::Running
        .after(RunMove::End(outcome.ending))
        .map(|_| ())
        .map_err(|illegal| StoreError::Unavailable(illegal.to_string()))
}

/// Ends a leased run. `None` when the lease is not current.
pub(crate) fn finish(
    batch: &mut Batch<'_>,
    finish: &Finish,
    file: Option<&str>,
) -> Result<Option<Ended>, Fault> {
    let Lease { run, token, .. } = finish.lease;
    let token = token.into_bytes();
    let outcome = &finish.outcome;
    let guard = if crate::mutant::shows("completion-without-token") {
        Guard::State("running")
    } else {
        Guard::Token(&token)
    };
    let Some(told) = set_outcome(batch, run, outcome, &guard)? else { return Ok(None) };
    if let Some(result) = &outcome.result {
        let body = file.is_none().then_some(result.as_ref());
        batch.sql("INSERT INTO results (run, body, file) VALUES (?1, ?2, ?3)")?.execute(params![
            run.into_bytes(),
            body,
            file
        ])?;
    }
    settle(batch, run, told, outcome.ended_at, &finish.first_attempts).map(Some)
}

/// Where a run stood before it was ended by somebody else than its attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It was queued.
    Queued,
    /// It was running, and its attempt is in the history already.
    Running,
}

/// Ends a run without a result. Its deliveries are due at once.
pub(crate) fn end_without_lease(
    batch: &mut Batch<'_>,
    run: RunId,
    from: Cause,
    error: RunError,
) -> Result<(), Fault> {
    let outcome = Outcome::failed(error, 0.0, batch.now());
    let guard = match from {
        Cause::Queued => Guard::State("queued"),
        Cause::Running => Guard::State("running"),
    };
    let Some(told) = set_outcome(batch, run, &outcome, &guard)? else { return Ok(()) };
    if from == Cause::Queued {
        batch.books.queue_shrank(told.app);
    }
    settle(batch, run, told, outcome.ended_at, &[]).map(|_| ())
}

/// What must hold for a run to be ended.
enum Guard<'a> {
    Token(&'a [u8; 16]),
    State(&'a str),
}

/// Whom to tell.
struct Told {
    app: i64,
    generation: Generation,
    webhooks: Vec<EndpointUrl>,
    brought: Option<Sealed>,
    metadata: Option<Metadata>,
    schedule: Option<Schedule>,
}

impl Told {
    fn read(row: &Row<'_>) -> Result<Self, Fault> {
        Ok(Self {
            app: row.get(0)?,
            generation: row::generation(row, 1)?,
            // An endpoint that is told nothing of outcomes gets no delivery of this one.
            webhooks: if row::events(row, 3)?.has(Event::Completed) {
                row::webhooks(row, 2)?
            } else {
                Vec::new()
            },
            brought: Sealed::read(row, 4)?,
            metadata: row::metadata(row, 5)?,
            schedule: row::schedule(row, 6)?,
        })
    }
}

/// The guarded move into a terminal state. `None` when the guard did not hold.
fn set_outcome(
    batch: &mut Batch<'_>,
    run: RunId,
    outcome: &Outcome,
    guard: &Guard<'_>,
) -> Result<Option<Told>, Fault> {
    // Two statements: one that returns rows gathers them in a temporary tree first, which costs more than
    // a second look at a page that is at hand.
    let (guarded, guard): (_, &dyn ToSql) = match guard {
        Guard::Token(token) => ("WHERE id = ?1 AND state = 'running' AND token = ?2", token),
        Guard::State(state) => ("WHERE id = ?1 AND state = ?2", state),
    };
    let told = batch
        .sql(&format!(
            "SELECT app, generation, webhooks, webhook_events, caller_secret, metadata, webhook_schedule
             FROM runs {guarded}"
        ))?
        .query_row(params![run.into_bytes(), guard], |row| Ok(Told::read(row)))
        .optional()?
        .transpose()?;
    if let Some(told) = &told {
        batch
            .sql(&format!(
                "UPDATE runs SET state = ?3, token = NULL, incarnation = NULL, ended_at = ?4, status_code = ?5,
                                 run_time_ms = ?6, error = ?7, build = ?8 {guarded}"
            ))?
            .execute(params![
                run.into_bytes(),
                guard,
                outcome.ending.state().as_str(),
                outcome.ended_at.as_millis(),
                outcome.status_code,
                finite(outcome.run_time_ms),
                outcome.error.as_ref().map(row::to_json),
                outcome.build.as_ref().map(AsRef::<str>::as_ref),
            ])?;
        let took = outcome.ended_at.since(run.accepted_at());
        batch.effects.tally.add(Whose::App(told.app), outcome.ending.into(), outcome.ended_at, took);
    }
    Ok(told)
}

/// All that follows from an end: a large body goes, the deliveries come, the waiters are woken.
fn settle(
    batch: &mut Batch<'_>,
    run: RunId,
    mut told: Told,
    ended_at: Timestamp,
    first_attempts: &[bool],
) -> Result<Ended, Fault> {
    batch
        .sql("DELETE FROM inputs WHERE run = ?1 AND length(body) > ?2")?
        .execute(params![run.into_bytes(), KEPT_INPUT_BYTES_MAX as i64])?;
    let project = batch.books.projects.get(&told.app).cloned();
    let project = project.ok_or_else(|| Fault::Corrupt(format!("run {run} has no app")))?;
    let (mut begun, schedule) = (Vec::new(), told.schedule.take());
    for (index, url) in std::mem::take(&mut told.webhooks).into_iter().enumerate() {
        let index = u16::try_from(index)
            .map_err(|_| Fault::Refused("a run has more endpoints than can be counted".to_owned()))?;
        let first = first_attempts.get(usize::from(index)).copied().unwrap_or(false);
        let id = DeliveryId::outcome(run, index);
        begun.extend(crate::deliveries::create(
            batch,
            id,
            &project,
            url,
            ended_at,
            first,
            schedule.as_ref(),
        )?);
    }
    batch.effects.ended.push(run);
    let Told { generation, brought, metadata, .. } = told;
    Ok(Ended { project, generation, brought, metadata, begun })
}
