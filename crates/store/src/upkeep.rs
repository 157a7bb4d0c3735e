//! What is old goes, in small steps, and never while somebody waits for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use queue::port::Stored;
use queue::{RunId, Timestamp, limits};
use rusqlite::{Connection, params};

use crate::batch::Batch;
use crate::deliveries::{GIVEN_UP, KEEPS_RUN, LAST_TRIED, forget_old, remove_of_run};
use crate::fault::Fault;
use crate::results::ResultFiles;
use crate::{Store, row, secrets, traffic};

/// Runs removed in one transaction.
const REMOVED_PER_BATCH: i64 = 200;
/// Removed runs forgotten in one transaction.
const FORGOTTEN_PER_BATCH: usize = 2_000;

/// What [`Store::prune`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Finished runs, with all that belongs to them.
    pub runs: u64,
    /// Lines of log.
    pub log_lines: u64,
    /// Deliveries that came to nothing, whose results go within a day and of which nobody was told yet.
    pub going_undelivered: u64,
}

impl Store {
    /// Removes runs that ended more than [`limits::RESULT_RETENTION`] before `now`, with results, files
    /// and deliveries, and log lines of that age;
    /// webhook secrets whose overlap is over; inboxes that ended, with what they recorded. A run whose delivery is pending or under way stays, and one
    /// that was not delivered stays for [`limits::UNDELIVERED_RETENTION`] after the last attempt, be it given
    /// up or waiting for its endpoint. Logs of builds stay
    /// as long as an app points at the build.
    ///
    /// # Errors
    /// When the store is closed or its disk fails; what was removed before stays removed.
    pub async fn prune(&self, now: Timestamp) -> Stored<Pruned> {
        let before = minus(now, limits::RESULT_RETENTION);
        let undelivered = minus(now, limits::UNDELIVERED_RETENTION);
        let (mut pruned, mut cursor) = (Pruned::default(), RunId::from_bytes([0; 16]));
        loop {
            let old = self
                .inner
                .memory
                .readers()
                .read(move |conn| old_runs(conn, cursor, before, undelivered))
                .await?;
            let Some(last) = old.last() else { break };
            cursor = *last;
            let results = self.inner.results.clone();
            let remove = move |batch: &mut Batch<'_>| {
                // Somebody may have asked for a redelivery since the run was found.
                let old = still_old(batch, &old, before, undelivered)?;
                remove(batch, &results, &old, now)?;
                Ok(old.len() as u64)
            };
            pruned.runs += self.inner.committer.end(remove).await?;
        }
        self.inner.committer.end(move |batch| forget_apps(batch, before)).await?;
        let remembered = minus(now, limits::REMOVED_RUNS_REMEMBERED);
        while self.inner.committer.end(move |batch| forget_removed(batch, remembered)).await?
            == FORGOTTEN_PER_BATCH
        {}
        pruned.going_undelivered = self.going_undelivered(now).await?;
        self.inner.committer.end(move |batch| secrets::forget_expired(batch, now)).await?;
        self.inner.committer.end(move |batch| forget_old(batch, undelivered)).await?;
        self.inner.committer.end(move |batch| traffic::forget_old(batch, now)).await?;
        self.remove_ended_inboxes(now).await?;
        let keep = self.inner.memory.registry();
        let builds = keep.apps.values().flat_map(|app| {
            let live = app.live.as_ref().map(|build| build.id.as_str().to_owned());
            live.into_iter().chain([app.latest_build.as_str().to_owned()])
        });
        pruned.log_lines = self.inner.logs.prune(before, builds.collect()).await?;
        Ok(pruned)
    }
}

impl Store {
    /// Counts what is about to go although it was never delivered. Each is counted once: what was due at an
    /// earlier look is not counted again, nor after a restart.
    async fn going_undelivered(&self, now: Timestamp) -> Stored<u64> {
        let until = minus(now, limits::UNDELIVERED_RETENTION - limits::UNDELIVERED_WARNING).as_millis();
        let counted = self.inner.warned_until.swap(until, Ordering::Relaxed);
        let from = counted.max(minus(now, limits::UNDELIVERED_RETENTION).as_millis());
        let count = move |conn: &Connection| {
            let mut statement = conn.prepare_cached(&format!(
                "SELECT count(*) FROM deliveries d
                 WHERE {GIVEN_UP} AND d.endpoint < 65536 AND {LAST_TRIED} >= ?1 AND {LAST_TRIED} < ?2"
            ))?;
            Ok(statement.query_row(params![from, until], |row| row.get(0))?)
        };
        let found = self.inner.memory.readers().read(count).await?;
        if found > 0 {
            let note = move |batch: &mut Batch<'_>| {
                batch.sql("UPDATE node SET warned_until = ?1")?.execute(params![until])?;
                Ok(())
            };
            self.inner.committer.end(note).await?;
        }
        Ok(found)
    }
}

fn minus(at: Timestamp, duration: Duration) -> Timestamp {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(at.as_millis().saturating_sub(millis))
}

/// The next runs that nothing keeps. The key is in the order of acceptance, and a run that was accepted
/// after `before` cannot have ended before it, so the search ends there.
fn old_runs(
    conn: &Connection,
    after: RunId,
    before: Timestamp,
    undelivered: Timestamp,
) -> Result<Vec<RunId>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT r.id FROM runs r
         WHERE r.id > ?1 AND r.id < ?4 AND r.ended_at < ?2 AND NOT {KEEPS_RUN}
         ORDER BY r.id LIMIT ?5"
    ))?;
    let mut rows = statement.query(params![
        after.into_bytes(),
        before.as_millis(),
        undelivered.as_millis(),
        first_id_at(before),
        REMOVED_PER_BATCH
    ])?;
    let mut old = Vec::new();
    while let Some(row) = rows.next()? {
        old.push(row::run_id(row, 0)?);
    }
    Ok(old)
}

/// The smallest id of a run accepted at `at`: a UUIDv7 begins with 48 bits of milliseconds.
fn first_id_at(at: Timestamp) -> [u8; 16] {
    let mut id = [0; 16];
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    id
}

/// Those of `runs` that nothing keeps now.
fn still_old(
    batch: &Batch<'_>,
    runs: &[RunId],
    before: Timestamp,
    undelivered: Timestamp,
) -> Result<Vec<RunId>, Fault> {
    let sql = format!("SELECT 1 FROM runs r WHERE r.id = ?1 AND r.ended_at < ?2 AND NOT {KEEPS_RUN}");
    let mut statement = batch.sql(&sql)?;
    let mut old = Vec::with_capacity(runs.len());
    for run in runs {
        if statement.exists(params![run.into_bytes(), before.as_millis(), undelivered.as_millis()])? {
            old.push(*run);
        }
    }
    Ok(old)
}

fn remove(batch: &mut Batch<'_>, results: &ResultFiles, runs: &[RunId], now: Timestamp) -> Result<(), Fault> {
    for run in runs {
        let id = run.into_bytes();
        let mut statement = batch.sql("DELETE FROM results WHERE run = ?1 RETURNING file")?;
        let mut rows = statement.query(params![id])?;
        while let Some(row) = rows.next()? {
            batch.effects.files.extend(row.get_ref(0)?.as_str_or_null()?.map(|name| results.path(name)));
        }
        drop(rows);
        batch.sql("DELETE FROM inputs WHERE run = ?1")?.execute(params![id])?;
        batch.sql("DELETE FROM run_attempts WHERE run = ?1")?.execute(params![id])?;
        batch.sql("DELETE FROM idempotency_keys WHERE run = ?1")?.execute(params![id])?;
        remove_of_run(batch, *run)?;
        let mut statement = batch.sql("DELETE FROM runs WHERE id = ?1 RETURNING app")?;
        let mut rows = statement.query(params![id])?;
        let app: Option<i64> = rows.next()?.map(|row| row.get(0)).transpose()?;
        // The statement is done only when it has said so.
        while rows.next()?.is_some() {}
        drop(rows);
        if let Some(project) = app.and_then(|app| batch.books.projects.get(&app)) {
            batch
                .sql("INSERT OR REPLACE INTO removed_runs (run, project, removed_at) VALUES (?1, ?2, ?3)")?
                .execute(params![id, project.as_str(), now.as_millis()])?;
        }
    }
    Ok(())
}

/// Forgets some runs that were removed before `before`. Returns how many.
fn forget_removed(batch: &mut Batch<'_>, before: Timestamp) -> Result<usize, Fault> {
    let mut statement = batch.sql(
        "DELETE FROM removed_runs
         WHERE run IN (SELECT run FROM removed_runs WHERE removed_at < ?1 ORDER BY removed_at LIMIT ?2)",
    )?;
    Ok(statement.execute(params![before.as_millis(), FORGOTTEN_PER_BATCH as i64])?)
}

/// Forgets apps that were deleted before `before` and that no run speaks of any more. One that was deleted just now is
/// remembered as such: a call that found it a moment ago may still be on its way here, and must not wait for ever.
fn forget_apps(batch: &mut Batch<'_>, before: Timestamp) -> Result<(), Fault> {
    let mut statement = batch.sql(
        "DELETE FROM app_numbers
         WHERE NOT EXISTS (SELECT 1 FROM apps WHERE id = app_numbers.app)
           AND NOT EXISTS (SELECT 1 FROM runs WHERE app = app_numbers.number)
           AND ifnull(deleted_at < ?1, 1)
         RETURNING number, app",
    )?;
    let mut rows = statement.query([before.as_millis()])?;
    while let Some(row) = rows.next()? {
        // What follows in this transaction gets no number that nobody can read.
        batch.books.forget_app(row.get(0)?, &row::parsed(row, 1)?);
    }
    Ok(())
}
