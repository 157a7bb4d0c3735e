//! Deliveries that are made once more because somebody asked: the same id and the same body, and a
//! schedule that begins anew.

use queue::delivery::{Endpoints, Redelivered};
use queue::run::EndpointUrl;
use queue::{DeliveryId, ProjectId, Timestamp};
use rusqlite::params;

use super::GIVEN_UP;
use super::complete::endpoint;
use crate::batch::Batch;
use crate::chores::{self, CHANGED_PER_STEP, LOOKED_AT_PER_STEP, Position, Step, Wish, Work};
use crate::fault::Fault;
use crate::row;

/// Makes one delivery due now.
pub(super) fn one(batch: &Batch<'_>, project: &ProjectId, id: DeliveryId) -> Result<Redelivered, Fault> {
    let Some((_, url)) = endpoint(batch, id)?.filter(|(owner, _)| owner == project) else {
        return Ok(Redelivered::Unknown);
    };
    if batch.books.is_disabled(project, &url) {
        return Ok(Redelivered::EndpointDisabled);
    }
    Ok(if make_due(batch, id, batch.now())? { Redelivered::Due } else { Redelivered::UnderWay })
}

/// The ways a delivery can have failed at its last attempt without waiting for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The schedule is used up.
    ForGood,
    /// The next attempt lies ahead.
    SoFar,
}

/// Writes down the wish to have delivered once more whatever failed. Returns the chores that do it.
pub(super) fn failed(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    endpoints: &Endpoints,
    since: Timestamp,
) -> Result<Vec<i64>, Fault> {
    let until = batch.now();
    let mut wish = |which| {
        let (project, endpoints) = (project.clone(), endpoints.clone());
        chores::add(batch, Work::Redeliver(Wish { project, endpoints, since, until, which }))
    };
    Ok(vec![wish(Failed::ForGood)?, wish(Failed::SoFar)?])
}

/// Makes some failed deliveries due now.
pub(crate) fn redeliver_some(batch: &Batch<'_>, wish: &Wish, from: Position) -> Result<Step, Fault> {
    let (state, place, order) = match wish.which {
        Failed::ForGood => (
            format!("d.state = 'exhausted' AND {GIVEN_UP}"),
            "?6 IS NOT NULL AND (d.run, d.endpoint) > (?7, ?8)",
            "d.run, d.endpoint",
        ),
        Failed::SoFar => (
            "d.state = 'pending' AND d.receiver = ?1".to_owned(),
            "(d.next_at, d.run, d.endpoint) > (?6, ?7, ?8)",
            "d.next_at, d.run, d.endpoint",
        ),
    };
    let mut statement = batch.sql(&format!(
        "SELECT d.run, d.endpoint, ifnull(d.next_at, 0), d.url,
                d.endpoint < 65536 AND d.receiver = ?1 AND (?2 IS NULL OR d.url = ?2)
                    AND d.attempt > 0 AND d.reason IS NOT NULL AND d.ended_at BETWEEN ?3 AND ?4
                    AND EXISTS (SELECT 1 FROM runs r JOIN app_numbers n ON n.number = r.app
                                WHERE r.id = d.run AND n.project = ?5)
         FROM deliveries d WHERE {state} AND {place} ORDER BY {order} LIMIT ?9"
    ))?;
    let receiver = wish.endpoints.receiver();
    let mut rows = statement.query(params![
        receiver.as_str(),
        wish.endpoints.url().map(EndpointUrl::as_str),
        wish.since.as_millis(),
        wish.until.as_millis(),
        wish.project.as_str(),
        from.at,
        from.run.into_bytes(),
        from.endpoint,
        LOOKED_AT_PER_STEP as i64,
    ])?;
    let (mut found, mut looked_at, mut last) = (Vec::new(), 0, from);
    while found.len() < CHANGED_PER_STEP
        && let Some(row) = rows.next()?
    {
        let id = row::delivery_id(row, 0)?;
        looked_at += 1;
        last = Position::of(row.get(2)?, id);
        // A delivery that was given up before its endpoint was disabled waits like the others.
        if row.get(4)?
            && !batch.books.is_disabled(&wish.project, &EndpointUrl::checked(row.get_ref(3)?.as_str()?))
        {
            found.push(id);
        }
    }
    drop(rows);
    let mut changed = 0;
    for id in &found {
        // Not later than the wish, or the search for those whose next attempt lies ahead of it would find them.
        changed += usize::from(make_due(batch, *id, wish.until)?);
    }
    let more = found.len() == CHANGED_PER_STEP || looked_at == LOOKED_AT_PER_STEP;
    Ok(Step { changed, next: more.then_some(last) })
}

fn make_due(batch: &Batch<'_>, id: DeliveryId, at: Timestamp) -> Result<bool, Fault> {
    let changed = batch
        .sql(
            "UPDATE deliveries SET state = 'pending', next_at = ?3, schedule_from = attempt
             WHERE run = ?1 AND endpoint = ?2 AND state IN ('pending', 'delivered', 'exhausted')",
        )?
        .execute(params![id.run.into_bytes(), row::delivery_number(id), at.as_millis()])?;
    Ok(changed > 0)
}
