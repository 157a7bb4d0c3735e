//! What follows from an attempt that ended.

use queue::delivery::{AttemptEnd, DeliveryState, EndpointState, Verdict};
use queue::run::EndpointUrl;
use queue::traffic::Happened;
use queue::webhook::Schedule;
use queue::{DeliveryId, ProjectId, Timestamp};
use rusqlite::{OptionalExtension as _, params};

use super::endpoints::{REQUESTED, remember};
use super::failing;
use crate::batch::Batch;
use crate::chores::{self, Work};
use crate::fault::Fault;
use crate::row;
use crate::traffic::Whose;

pub(crate) fn complete(batch: &mut Batch<'_>, end: &AttemptEnd) -> Result<(), Fault> {
    let state = match end.verdict {
        Verdict::Delivered => DeliveryState::Delivered,
        failed => after_failure(batch, end)?.unwrap_or(failed.state()),
    };
    let again_at = end.verdict.again_at().filter(|_| state == DeliveryState::Pending);
    let next_at = again_at.map(Timestamp::as_millis);
    if let Verdict::Postponed(_) = end.verdict {
        not_counted(batch, end)?;
    }
    let report = &end.report;
    let changed = batch
        .sql(
            "UPDATE deliveries SET state = ?4, next_at = ?5, incarnation = NULL, ended_at = ?6,
                    status_code = ?7, reason = ?8, response = ?9, duration_us = ?10,
                    reused_connection = ?11, dns_us = ?12, connect_us = ?13, tls_us = ?14, first_byte_us = ?15,
                    thin = ?16
             WHERE run = ?1 AND endpoint = ?2 AND attempt = ?3 AND state = 'sending'",
        )?
        .execute(params![
            end.id.run.into_bytes(),
            row::delivery_number(end.id),
            end.attempt,
            state.as_str(),
            next_at,
            end.ended_at.as_millis(),
            report.status_code,
            report.reason,
            report.response,
            row::micros(report.duration),
            report.timings.reused_connection,
            report.timings.dns.map(row::micros),
            report.timings.connect.map(row::micros),
            report.timings.tls.map(row::micros),
            report.timings.first_byte.map(row::micros),
            report.thin,
        ])?;
    if changed == 0 {
        tracing::debug!(delivery.id = %end.id, delivery.attempt = end.attempt, "an attempt ended that is not under way");
        return Ok(());
    }
    let delivered = end.verdict == Verdict::Delivered;
    let what = if delivered { Happened::Delivered } else { Happened::NotDelivered };
    if let Some(project) = end.project.clone() {
        batch.effects.tally.add(Whose::Project(project), what, end.ended_at, report.duration);
    }
    if delivered {
        failing::note_success(batch, end)?;
    }
    Ok(())
}

/// The attempt is on record, and no step of the schedule.
fn not_counted(batch: &Batch<'_>, end: &AttemptEnd) -> Result<(), Fault> {
    batch
        .sql(
            "UPDATE deliveries SET schedule_from = schedule_from + 1
             WHERE run = ?1 AND endpoint = ?2 AND attempt = ?3 AND state = 'sending'",
        )?
        .execute(params![end.id.run.into_bytes(), row::delivery_number(end.id), end.attempt])?;
    Ok(())
}

/// What a failure means for the endpoint: it may be the last one it gets. Returns the state of the delivery
/// where that differs from what the attempt alone says.
fn after_failure(batch: &mut Batch<'_>, end: &AttemptEnd) -> Result<Option<DeliveryState>, Fault> {
    // The end of an attempt that is over says nothing about anything.
    let Some(attempt) = under_way(batch, end)? else { return Ok(None) };
    let Some((project, url)) = endpoint(batch, end.id)? else { return Ok(None) };
    // One that was under way when its endpoint was disabled waits like the others.
    if batch.books.is_disabled(&project, &url) {
        // What is told on the way is not news any more when the endpoint is back.
        let progress = end.id.is_progress();
        return Ok(Some(if progress { DeliveryState::Exhausted } else { DeliveryState::Disabled }));
    }
    let reason = if end.verdict == Verdict::Disabled {
        let status = end.report.status_code;
        status.map_or_else(|| "disabled".to_owned(), |status| format!("http_status {status}"))
    } else {
        // What is told on the way has a short schedule, and is no measure of its endpoint; nor is what this
        // server could not send.
        if end.id.is_progress() || matches!(end.verdict, Verdict::Postponed(_)) {
            return Ok(None);
        }
        let failure = failing::note_failure(batch, &project, &url, attempt.started_at, end.ended_at)?;
        let own = attempt.schedule.as_ref();
        if end.verdict != Verdict::Exhausted || !failure.is_hopeless(own, end.ended_at) {
            return Ok(None);
        }
        failure.reason(end)
    };
    disable(batch, &project, &url, end.ended_at, &reason)?;
    Ok(Some(DeliveryState::Disabled))
}

/// An attempt that has not ended.
struct UnderWay {
    started_at: Timestamp,
    schedule: Option<Schedule>,
}

/// The attempt as it was begun; `None` when it is not under way any more.
fn under_way(batch: &Batch<'_>, end: &AttemptEnd) -> Result<Option<UnderWay>, Fault> {
    let mut statement = batch.sql(
        "SELECT started_at, schedule FROM deliveries
         WHERE run = ?1 AND endpoint = ?2 AND attempt = ?3 AND state = 'sending'",
    )?;
    let values = params![end.id.run.into_bytes(), row::delivery_number(end.id), end.attempt];
    let mut rows = statement.query(values)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(UnderWay { started_at: row::time(row, 0)?, schedule: row::schedule(row, 1)? }))
}

/// The same because somebody asked for it. `false` when it is disabled already.
pub(super) fn disable_as_asked(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
) -> Result<bool, Fault> {
    if batch.books.is_disabled(project, url) {
        return Ok(false);
    }
    disable(batch, project, url, batch.now(), REQUESTED)?;
    Ok(true)
}

/// Nothing more goes to the endpoint: what waits for it goes on waiting, until somebody enables it.
fn disable(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
    at: Timestamp,
    reason: &str,
) -> Result<(), Fault> {
    let receiver = url.receiver();
    batch
        .sql(
            "INSERT INTO endpoints (project, url, receiver, disabled_at, reason) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![project.as_str(), url.as_str(), receiver.as_str(), at.as_millis(), reason])?;
    batch.books.disabled.insert((project.clone(), url.clone()));
    let setting_aside = chores::add(batch, Work::SetAside(project.clone(), url.clone()))?;
    chores::step(batch, setting_aside)?;
    failing::forget(batch, project, url)?;
    remember(batch, project, url, at, EndpointState::Disabled, reason)
}

pub(super) fn endpoint(batch: &Batch<'_>, id: DeliveryId) -> Result<Option<(ProjectId, EndpointUrl)>, Fault> {
    let mut statement = batch.sql(
        "SELECT n.project, d.url FROM deliveries d JOIN runs r ON r.id = d.run
             JOIN app_numbers n ON n.number = r.app
         WHERE d.run = ?1 AND d.endpoint = ?2",
    )?;
    statement
        .query_row(params![id.run.into_bytes(), row::delivery_number(id)], |row| {
            Ok(row::parsed(row, 0)
                .and_then(|project| Ok((project, EndpointUrl::checked(row.get_ref(1)?.as_str()?)))))
        })
        .optional()?
        .transpose()
}
