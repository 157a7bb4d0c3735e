//! Deliveries that are made once more because somebody asked: the same id and the same body, and a
//! schedule that begins anew.

use queue::delivery::{Endpoints, Redelivered};
use queue::{DeliveryId, ProjectId, Timestamp};
use rusqlite::params;

use super::GIVEN_UP;
use super::complete::endpoint;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

/// Deliveries made due in one transaction, so that a long list does not hold up everybody else.
const REDELIVERED_PER_BATCH: usize = 1_000;

/// Makes one delivery due now.
pub(super) fn one(batch: &Batch<'_>, project: &ProjectId, id: DeliveryId) -> Result<Redelivered, Fault> {
    let Some((_, url)) = endpoint(batch, id)?.filter(|(owner, _)| owner == project) else {
        return Ok(Redelivered::Unknown);
    };
    if batch.books.is_disabled(project, &url) {
        return Ok(Redelivered::EndpointDisabled);
    }
    Ok(if make_due(batch, id)? { Redelivered::Due } else { Redelivered::UnderWay })
}

/// The ways a delivery can have failed at its last attempt without waiting for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The schedule is used up.
    ForGood,
    /// The next attempt lies ahead.
    SoFar,
}

/// Some failed deliveries, seen to.
pub(super) struct Page {
    /// How many of them are due now.
    pub(super) due: u64,
    /// The last of them; `None` when there are no more.
    pub(super) last: Option<DeliveryId>,
}

/// Makes some failed deliveries due now, in the order of their ids from `after` on.
pub(super) fn failed(
    batch: &Batch<'_>,
    project: &ProjectId,
    endpoints: &Endpoints,
    since: Timestamp,
    which: Failed,
    after: Option<DeliveryId>,
) -> Result<Page, Fault> {
    let which = match which {
        Failed::ForGood => &format!("d.state = 'exhausted' AND {GIVEN_UP}"),
        // What is due already needs no help.
        Failed::SoFar => "d.state = 'pending' AND d.next_at > ?7 AND d.attempt > 0 AND d.reason IS NOT NULL",
    };
    let mut statement = batch.sql(&format!(
        "SELECT d.run, d.endpoint FROM deliveries d CROSS JOIN runs r ON r.id = d.run
             CROSS JOIN app_numbers n ON n.number = r.app
         WHERE {which} AND d.endpoint < 65536 AND d.receiver = ?1 AND (?2 IS NULL OR d.url = ?2) AND d.ended_at >= ?3
             AND n.project = ?4 AND (d.run, d.endpoint) > (?5, ?6) AND ?7 IS NOT NULL
         ORDER BY d.run, d.endpoint LIMIT {REDELIVERED_PER_BATCH}"
    ))?;
    let (run, index) = after.map_or(([0; 16], -1), |id| (id.run.into_bytes(), row::delivery_number(id)));
    let receiver = endpoints.receiver();
    let mut rows = statement.query(params![
        receiver.as_str(),
        endpoints.url().map(queue::run::EndpointUrl::as_str),
        since.as_millis(),
        project.as_str(),
        run,
        index,
        batch.now().as_millis(),
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(row::delivery_id(row, 0)?);
    }
    drop(rows);
    let mut due = 0;
    for id in &found {
        // A delivery that was given up before its endpoint was disabled waits like the others.
        let waits = !batch.books.disabled.is_empty()
            && endpoint(batch, *id)?.is_some_and(|(project, url)| batch.books.is_disabled(&project, &url));
        due += u64::from(!waits && make_due(batch, *id)?);
    }
    Ok(Page { due, last: found.last().copied().filter(|_| found.len() == REDELIVERED_PER_BATCH) })
}

fn make_due(batch: &Batch<'_>, id: DeliveryId) -> Result<bool, Fault> {
    let changed = batch
        .sql(
            "UPDATE deliveries SET state = 'pending', next_at = ?3, schedule_from = attempt
             WHERE run = ?1 AND endpoint = ?2 AND state IN ('pending', 'delivered', 'exhausted')",
        )?
        .execute(params![id.run.into_bytes(), row::delivery_number(id), batch.now().as_millis()])?;
    Ok(changed > 0)
}
