//! What a run tells on its way to its outcome: kept beside it, one delivery for each endpoint.
//!
//! Nobody waits for these writes, and none of them may be in the way of an outcome: an endpoint that does
//! not keep up is told less, a stale attempt tells nothing, and a run that tells too much falls silent.

use queue::lease::Lease;
use queue::limits::{PROGRESS_EVENTS_PER_RUN_MAX, PROGRESS_UNDELIVERED_MAX};
use queue::progress::Progress;
use queue::{DeliveryId, RunId};
use rusqlite::{Connection, params};

use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;
use crate::secrets::Sealed;

pub(super) fn keep(batch: &mut Batch<'_>, progress: &Progress) -> Result<(), Fault> {
    let Lease { run, token, attempt } = progress.lease;
    let id = run.into_bytes();
    let mut statement =
        batch.sql("SELECT app, webhooks FROM runs WHERE id = ?1 AND state = 'running' AND token = ?2")?;
    let mut rows = statement.query(params![id, token.into_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let (app, webhooks) = (row.get::<_, i64>(0)?, row::webhooks(row, 1)?);
    drop(rows);
    drop(statement);
    let project = batch.books.projects.get(&app).cloned();
    let project = project.ok_or_else(|| Fault::Corrupt(format!("run {run} has no app")))?;
    let told: Option<u32> = batch
        .sql("SELECT max(event) FROM progress WHERE run = ?1")?
        .query_row(params![id], |row| row.get(0))?;
    let event = told.unwrap_or(0) + 1;
    if event > PROGRESS_EVENTS_PER_RUN_MAX {
        return Ok(());
    }
    let mut anybody = false;
    for (url, index) in webhooks.into_iter().zip(0..) {
        let delivery = DeliveryId { run, event, index };
        if batch.books.is_disabled(&project, &url) || is_behind(batch, delivery)? {
            metrics::counter!("postback_progress_dropped_total").increment(1);
            continue;
        }
        crate::deliveries::create(batch, delivery, &project, url, progress.due_at, false, None)?;
        anybody = true;
    }
    if anybody {
        batch
            .sql(
                "INSERT INTO progress (run, event, kind, attempt, items, dropped)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                id,
                event,
                progress.event.as_str(),
                attempt,
                progress.items.as_ref(),
                progress.dropped
            ])?;
    }
    Ok(())
}

/// Whether the last events that an endpoint was to be told still wait, all of them.
fn is_behind(batch: &Batch<'_>, id: DeliveryId) -> Result<bool, Fault> {
    let waiting: u32 = batch
        .sql(&format!(
            "SELECT count(*) FROM (
                 SELECT state FROM deliveries
                 WHERE run = ?1 AND endpoint >= 65536 AND (endpoint & 65535) = ?2
                 ORDER BY endpoint DESC LIMIT {PROGRESS_UNDELIVERED_MAX})
             WHERE state IN ('pending', 'sending')"
        ))?
        .query_row(params![id.run.into_bytes(), id.index], |row| row.get(0))?;
    Ok(waiting >= PROGRESS_UNDELIVERED_MAX)
}

/// What the body of an event is made of, and what goes with it.
pub(crate) struct Told {
    pub(crate) project: queue::ProjectId,
    pub(crate) body: bytes::Bytes,
    pub(crate) brought: Option<Sealed>,
}

/// An event as it was told to the store, to the byte.
pub(crate) fn told(conn: &Connection, run: RunId, event: u32) -> Result<Told, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT n.project, r.generation, r.metadata, r.caller_secret, p.kind, p.attempt, p.items, p.dropped
         FROM progress p JOIN runs r ON r.id = p.run JOIN app_numbers n ON n.number = r.app
         WHERE p.run = ?1 AND p.event = ?2",
    )?;
    let mut rows = statement.query(params![run.into_bytes(), event])?;
    let row = rows.next()?.ok_or_else(|| {
        Fault::Corrupt(format!("a delivery speaks of event {event} of run {run}, which is gone"))
    })?;
    let metadata = row::metadata(row, 2)?;
    let told = queue::progress::Told {
        event: row::event(row, 4)?,
        attempt: row.get(5)?,
        items: row.get_ref(6)?.as_blob()?,
        dropped: row.get(7)?,
    };
    Ok(Told {
        project: row::parsed(row, 0)?,
        body: queue::progress::body(run, row::generation(row, 1)?, &told, metadata.as_ref()),
        brought: Sealed::read(row, 3)?,
    })
}
