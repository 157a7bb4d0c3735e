//! The port `AppEvents`: what happened to apps. Written beside other changes, and dropped before it is in their way.

use async_trait::async_trait;
use queue::AppId;
use queue::event::{AppEvent, EventKind, StoredEvent};
use queue::limits::{APP_EVENTS_MAX, EVENT_TEXT_BYTES_MAX};
use queue::port::{AppEvents, Stored};
use rusqlite::{Connection, params};

use crate::batch::Batch;
use crate::fault::Fault;
use crate::{Store, row};

#[async_trait]
impl AppEvents for Store {
    fn note(&self, mut event: AppEvent) {
        queue::text::truncate(&mut event.text, EVENT_TEXT_BYTES_MAX);
        if !self.inner.committer.record(move |batch| insert(batch, &event)) {
            metrics::counter!("postback_store_events_dropped_total").increment(1);
        }
    }

    async fn events(&self, app: &AppId, after: Option<i64>, limit: usize) -> Stored<Vec<StoredEvent>> {
        // What was noted before is there to be read. Reading goes on when nothing can be written.
        let _ = self.inner.committer.barrier().await;
        let app = app.clone();
        self.inner.memory.readers().read(move |conn| select(conn, &app, after, limit)).await
    }
}

/// Of an app that is there; the oldest make room.
fn insert(batch: &Batch<'_>, event: &AppEvent) -> Result<(), Fault> {
    let app = event.app.as_str();
    let kept = batch
        .sql(
            "INSERT INTO app_events (app, at, kind, text, build)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM apps WHERE id = ?1)",
        )?
        .execute(params![
            app,
            event.at.as_millis(),
            event.kind.as_str(),
            event.text,
            event.build.as_ref().map(AsRef::<str>::as_ref)
        ])?;
    if kept > 0 {
        batch
            .sql(
                "DELETE FROM app_events WHERE app = ?1 AND id <= (
                     SELECT id FROM app_events WHERE app = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![app, APP_EVENTS_MAX as i64])?;
    }
    Ok(())
}

/// Forgets those of an app that is deleted.
pub(crate) fn forget(batch: &Batch<'_>, app: &AppId) -> Result<(), Fault> {
    batch.sql("DELETE FROM app_events WHERE app = ?1")?.execute([app.as_str()])?;
    Ok(())
}

/// Oldest first: those after a cursor, or the newest.
fn select(
    conn: &Connection,
    app: &AppId,
    after: Option<i64>,
    limit: usize,
) -> Result<Vec<StoredEvent>, Fault> {
    let order = if after.is_some() { "ASC" } else { "DESC" };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT id, at, app, kind, text, build FROM app_events
         WHERE app = ?1 AND id > ?2 ORDER BY id {order} LIMIT ?3"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![app.as_str(), after.unwrap_or(i64::MIN), limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let event = AppEvent {
            at: row::time(row, 1)?,
            app: row::parsed(row, 2)?,
            kind: row::word(row, 3, EventKind::ALL, EventKind::as_str)?,
            text: row.get(4)?,
            build: row::optional_parsed(row, 5)?,
        };
        events.push(StoredEvent { id: row.get(0)?, event });
    }
    if after.is_none() {
        events.reverse();
    }
    Ok(events)
}
