//! The write that leases queued runs to this node.

use std::time::Duration;

use queue::lease::Lease;
use queue::run::LeasedRun;
use queue::{AppId, LeaseToken};
use rusqlite::params;

use super::expire;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

/// A walk of the index `runs_queued`, as far as there is room.
const NEXT: &str = "SELECT r.id, r.function, r.generation, r.webhooks, r.limit_ms, r.accepted_at, r.attempt,
        r.crashes, length(i.body), i.body, r.priority, r.retries, r.retry_on, r.failures, r.webhook_events,
        r.max_attempts, r.executions
     FROM runs r JOIN inputs i ON i.run = r.id
     WHERE r.app = ?1 AND r.state = 'queued' AND r.delayed = 0
     ORDER BY r.priority DESC, r.accepted_at, r.id
     LIMIT ?2";

pub(crate) fn claim(
    batch: &mut Batch<'_>,
    app: &AppId,
    max: usize,
    bytes_max: usize,
) -> Result<Vec<LeasedRun>, Fault> {
    let Some(known) = batch.books.apps.get(app).copied().filter(|known| !known.deleted) else {
        return Ok(Vec::new());
    };
    // All are read before the first is changed: changing them moves them in the index that is read.
    let runs = next(batch, app, known.number, max, bytes_max)?;
    let now = batch.now().as_millis();
    let mut update = batch.sql(
        "UPDATE runs SET state = 'running', attempt = ?2, token = ?3, incarnation = ?4, started_at = ?5,
                         with_replica = 0
         WHERE id = ?1 AND state = 'queued'",
    )?;
    for run in &runs {
        let Lease { run, token, attempt } = run.lease;
        let incarnation = batch.setting.incarnation;
        update.execute(params![run.into_bytes(), attempt, token.into_bytes(), incarnation, now])?;
    }
    drop(update);
    for _ in &runs {
        batch.books.queue_shrank(known.number);
    }
    Ok(runs)
}

fn next(
    batch: &Batch<'_>,
    app: &AppId,
    number: i64,
    max: usize,
    bytes_max: usize,
) -> Result<Vec<LeasedRun>, Fault> {
    let mut statement = batch.sql(NEXT)?;
    let mut rows = statement.query(params![number, i64::try_from(max).unwrap_or(i64::MAX)])?;
    let (mut runs, mut bytes) = (Vec::new(), 0usize);
    while let Some(row) = rows.next()? {
        let length: usize = row.get(8)?;
        if !runs.is_empty() {
            bytes = bytes.saturating_add(length);
            if bytes > bytes_max {
                break;
            }
        }
        let token = LeaseToken::generate(batch.setting.entropy.as_ref());
        let attempt: u32 = row.get(6)?;
        runs.push(LeasedRun {
            lease: Lease { run: row::run_id(row, 0)?, token, attempt: attempt + 1 },
            app: app.clone(),
            function: row::text(row, 1)?,
            generation: row::generation(row, 2)?,
            input: row::bytes(row, 9)?,
            webhooks: row::webhooks(row, 3)?,
            events: row::events(row, 14)?,
            limit: Duration::from_millis(row.get(4)?),
            accepted_at: row::time(row, 5)?,
            crashes: row.get(7)?,
            priority: row.get(10)?,
            retry: row::retry(row, 11)?,
            failures: row.get(13)?,
            last_attempt: is_last(row.get(15)?, row.get(16)?),
        });
    }
    Ok(runs)
}

/// Whether a run with so many executions behind it may not be executed again after the next.
fn is_last(max_attempts: Option<u32>, executions: u32) -> bool {
    max_attempts.is_some_and(|max| executions + 1 >= max)
}

/// From now on the loss of the server counts.
pub(crate) fn started(batch: &mut Batch<'_>, leases: &[Lease]) -> Result<(), Fault> {
    let mut statement = batch.sql("UPDATE runs SET with_replica = 1 WHERE id = ?1 AND token = ?2")?;
    for lease in leases {
        if statement.execute(params![lease.run.into_bytes(), lease.token.into_bytes()])? > 0 {
            // Else the limits of long runs would stand in the way of those that still wait.
            expire::forget(batch, lease.run)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many wait, a claim sorts nothing and looks at no run that it does not take.
    #[test]
    fn a_claim_is_a_walk_of_the_index() {
        let conn = crate::vault::newest_schema();
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {NEXT}")).unwrap();
        let steps = statement.query_map(params![1, 256], |row| row.get::<_, String>(3)).unwrap();
        let steps: Vec<_> = steps.map(Result::unwrap).collect();
        assert_eq!(steps, ["SEARCH r USING INDEX runs_queued (app=?)", "SEARCH i USING PRIMARY KEY (run=?)"]);
    }
}
