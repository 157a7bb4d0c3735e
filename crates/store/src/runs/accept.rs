//! The write that keeps a run, and the one that keeps the record of a synchronous call.

use queue::lease::Lease;
use queue::outcome::{Code, RunError};
use queue::port::{Accepted, Claim};
use queue::run::{CallRecord, Idempotency, NewRun};
use queue::webhook::Metadata;
use rusqlite::params;

use super::end::{Cause, end_without_lease};
use crate::batch::Batch;
use crate::fault::Fault;
use crate::traffic::Whose;
use crate::{row, secrets};

pub(crate) fn accept(batch: &mut Batch<'_>, run: &NewRun, claim: Claim) -> Result<Accepted, Fault> {
    let app = batch.app(&run.app)?;
    if let Some(wanted) = &run.options.idempotency
        && let Some(known) = known_by(batch, app.number, run, wanted)?
    {
        return Ok(known);
    }
    let token = match claim {
        Claim::Now(token) if !app.deleted && run.options.not_before.is_none() => Some(token),
        _ => None,
    };
    let queued = batch.books.queued.get(&app.number).copied().unwrap_or(0);
    if token.is_none() && queued >= batch.setting.bounds.queued_runs_per_app {
        return Ok(Accepted::QueueFull);
    }
    let sealed = secrets::seal_callers(&batch.setting.vault, run.id, &run.options);
    batch
        .sql(
            "INSERT INTO runs (id, app, function, generation, mode, state, accepted_at, limit_ms, webhooks,
                               warning, attempt, started_at, token, incarnation, caller_secret,
                               priority, delayed, not_before, retries, retry_on, webhook_header_names,
                               webhook_events, metadata, webhook_schedule, max_attempts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                     ?21, ?22, ?23, ?24, ?25)",
        )?
        .execute(params![
            run.id.into_bytes(),
            app.number,
            run.function,
            row::generation_word(run.generation),
            row::mode_word(run.mode),
            if token.is_some() { "running" } else { "queued" },
            run.accepted_at.as_millis(),
            i64::try_from(run.limit.as_millis()).unwrap_or(i64::MAX),
            row::to_webhooks(&run.webhooks),
            run.warning,
            u32::from(token.is_some()),
            token.map(|_| batch.now().as_millis()),
            token.map(queue::LeaseToken::into_bytes),
            token.map(|_| batch.setting.incarnation),
            sealed,
            run.options.priority,
            run.options.not_before.is_some(),
            run.options.not_before.map(queue::Timestamp::as_millis),
            run.options.retry.as_ref().map(|policy| policy.retries),
            run.options.retry.as_ref().map(|policy| policy.on.to_string()),
            run.options.webhook_headers.as_ref().map(row::to_header_names),
            row::to_events(run.options.events),
            run.options.metadata.as_ref().map(Metadata::as_str),
            run.options.schedule.as_ref().map(ToString::to_string),
            run.options.max_attempts,
        ])?;
    batch
        .sql("INSERT INTO inputs (run, body) VALUES (?1, ?2)")?
        .execute(params![run.id.into_bytes(), run.input.as_ref()])?;
    if let Some(Idempotency { key, fingerprint }) = &run.options.idempotency {
        batch
            .sql(
                "INSERT INTO idempotency_keys (app, function, key, fingerprint, run)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![app.number, run.function, key, fingerprint, run.id.into_bytes()])?;
    }
    if let Some(start_by) = run.options.start_by {
        super::expire::remember(batch, run.id, start_by)?;
    }
    let Some(token) = token else {
        batch.books.queue_grew(app.number);
        if app.deleted {
            // The app went away between the caller's look and this write.
            let error = RunError::new(Code::Cancelled, "the app was deleted before the run could start");
            end_without_lease(batch, run.id, Cause::Queued, error)?;
        }
        return Ok(Accepted::Queued);
    };
    Ok(Accepted::Leased(Lease { run: run.id, token, attempt: 1 }))
}

/// The run that the key stands for already. All runs are accepted by one writer, one after the other, so
/// of two that race the second one finds the first.
fn known_by(
    batch: &Batch<'_>,
    app: i64,
    run: &NewRun,
    wanted: &Idempotency,
) -> Result<Option<Accepted>, Fault> {
    let mut statement = batch
        .sql("SELECT run, fingerprint FROM idempotency_keys WHERE app = ?1 AND function = ?2 AND key = ?3")?;
    let mut rows = statement.query(params![app, run.function, wanted.key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let first = row::run_id(row, 0)?;
    let same = row::array::<32>(row, 1)? == wanted.fingerprint;
    Ok(Some(if same { Accepted::Replayed(first) } else { Accepted::KeyTaken(first) }))
}

pub(crate) fn record_call(batch: &mut Batch<'_>, call: &CallRecord) -> Result<(), Fault> {
    let app = batch.app(&call.app)?;
    batch
        .sql(
            "INSERT INTO runs (id, app, function, generation, mode, state, accepted_at, attempt, started_at,
                               ended_at, status_code, run_time_ms, build, error, metadata)
             VALUES (?1, ?2, ?3, ?4, 'sync', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            call.id.into_bytes(),
            app.number,
            call.function,
            row::generation_word(call.generation),
            call.ending.state().as_str(),
            call.accepted_at.as_millis(),
            u32::from(call.started_at.is_some()),
            call.started_at.map(queue::Timestamp::as_millis),
            call.ended_at.as_millis(),
            call.status_code,
            finite(call.run_time_ms),
            call.build.as_ref().map(AsRef::<str>::as_ref),
            call.error.as_ref().map(row::to_json),
            call.metadata.as_ref().map(Metadata::as_str),
        ])?;
    let took = call.ended_at.since(call.accepted_at);
    batch.effects.tally.add(Whose::App(app.number), call.ending.into(), call.ended_at, took);
    Ok(())
}

/// SQLite has no word for what is not a number.
pub(super) fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}
