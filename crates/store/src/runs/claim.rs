//! The write that leases queued runs to this node.

use std::time::Duration;

use queue::lease::Lease;
use queue::run::LeasedRun;
use queue::{AppId, LeaseToken};
use rusqlite::params;

use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

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
    let runs = oldest(batch, app, known.number, max, bytes_max)?;
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

fn oldest(
    batch: &Batch<'_>,
    app: &AppId,
    number: i64,
    max: usize,
    bytes_max: usize,
) -> Result<Vec<LeasedRun>, Fault> {
    let mut statement = batch.sql(
        "SELECT r.id, r.function, r.generation, r.webhooks, r.limit_ms, r.accepted_at, r.attempt, r.crashes,
                length(i.body), i.body
         FROM runs r JOIN inputs i ON i.run = r.id
         WHERE r.app = ?1 AND r.state = 'queued'
         ORDER BY r.accepted_at, r.id
         LIMIT ?2",
    )?;
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
            limit: Duration::from_millis(row.get(4)?),
            accepted_at: row::time(row, 5)?,
            crashes: row.get(7)?,
        });
    }
    Ok(runs)
}

/// From now on the loss of the server counts.
pub(crate) fn started(batch: &mut Batch<'_>, leases: &[Lease]) -> Result<(), Fault> {
    let mut statement = batch.sql("UPDATE runs SET with_replica = 1 WHERE id = ?1 AND token = ?2")?;
    for lease in leases {
        statement.execute(params![lease.run.into_bytes(), lease.token.into_bytes()])?;
    }
    Ok(())
}
