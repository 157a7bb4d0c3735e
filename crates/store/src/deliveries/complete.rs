//! What follows from an attempt that ended.

use queue::delivery::{AttemptEnd, DeliveryState, EndpointState, Verdict};
use queue::run::EndpointUrl;
use queue::{DeliveryId, ProjectId};
use rusqlite::{OptionalExtension as _, params};

use super::endpoints::remember;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

pub(crate) fn complete(batch: &mut Batch<'_>, end: &AttemptEnd) -> Result<(), Fault> {
    let mut state = end.verdict.state();
    if end.verdict == Verdict::Disabled {
        disable_endpoint(batch, end)?;
    } else if state == DeliveryState::Pending && !batch.books.disabled.is_empty() {
        let endpoint = endpoint(batch, end.id)?;
        if endpoint.is_some_and(|(project, url)| batch.books.is_disabled(&project, &url)) {
            state = DeliveryState::Disabled;
        }
    }
    let next_at = match end.verdict {
        Verdict::Retry(at) if state == DeliveryState::Pending => Some(at.as_millis()),
        _ => None,
    };
    let report = &end.report;
    let changed = batch
        .sql(
            "UPDATE deliveries SET state = ?4, next_at = ?5, incarnation = NULL, ended_at = ?6,
                    status_code = ?7, reason = ?8, response = ?9, duration_us = ?10,
                    reused_connection = ?11, dns_us = ?12, connect_us = ?13, tls_us = ?14, first_byte_us = ?15
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
        ])?;
    if changed == 0 {
        tracing::debug!(delivery.id = %end.id, delivery.attempt = end.attempt, "an attempt ended that is not under way");
    }
    Ok(())
}

/// The receiver said that nothing more is welcome here: what waits for this endpoint goes on waiting,
/// until somebody enables it.
fn disable_endpoint(batch: &mut Batch<'_>, end: &AttemptEnd) -> Result<(), Fault> {
    let Some((project, url)) = endpoint(batch, end.id)? else { return Ok(()) };
    let receiver = url.receiver();
    let reason = end
        .report
        .status_code
        .map_or_else(|| "disabled".to_owned(), |status| format!("http_status {status}"));
    batch
        .sql(
            "INSERT INTO endpoints (project, url, receiver, disabled_at, reason) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            project.as_str(),
            url.as_str(),
            receiver.as_str(),
            end.ended_at.as_millis(),
            reason
        ])?;
    batch
        .sql(
            "UPDATE deliveries SET state = 'disabled', next_at = NULL
             WHERE state = 'pending' AND receiver = ?1 AND url = ?2 AND EXISTS (
                 SELECT 1 FROM runs r JOIN app_numbers n ON n.number = r.app
                 WHERE r.id = deliveries.run AND n.project = ?3)",
        )?
        .execute(params![receiver.as_str(), url.as_str(), project.as_str()])?;
    if batch.books.disabled.insert((project.clone(), url.clone())) {
        remember(batch, &project, &url, end.ended_at, EndpointState::Disabled, &reason)?;
    }
    Ok(())
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
