//! Deliveries as people see them.

use std::time::Duration;

use queue::delivery::{AttemptReport, DeliveryAttemptView, DeliveryState, DeliveryView};
use queue::run::EndpointUrl;
use queue::{DeliveryId, RunId};
use rusqlite::{Connection, Row, params};

use crate::fault::Fault;
use crate::row;

/// The deliveries of a run, in the order of its endpoints.
pub(crate) fn of_run(conn: &Connection, run: RunId) -> Result<Vec<DeliveryView>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT attempt, started_at, ended_at, status_code, reason, response, duration_us,
                endpoint, url, state, next_at
         FROM deliveries WHERE run = ?1 ORDER BY endpoint",
    )?;
    let mut rows = statement.query(params![run.into_bytes()])?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        let id = DeliveryId { run, index: row.get(7)? };
        let mut attempts = history(conn, id)?;
        if row.get::<_, u32>(0)? > 0 {
            attempts.push(attempt(row)?);
        }
        deliveries.push(DeliveryView {
            id: id.webhook_id(),
            url: EndpointUrl::checked(row.get_ref(8)?.as_str()?),
            state: row::word(row, 9, DeliveryState::ALL, DeliveryState::as_str)?,
            next_attempt_at: row::optional_time(row, 10)?,
            attempts,
        });
    }
    Ok(deliveries)
}

/// The attempts that were followed by another.
fn history(conn: &Connection, id: DeliveryId) -> Result<Vec<DeliveryAttemptView>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT number, started_at, ended_at, status_code, reason, response, duration_us
         FROM delivery_attempts WHERE run = ?1 AND endpoint = ?2 ORDER BY number",
    )?;
    let mut rows = statement.query(params![id.run.into_bytes(), id.index])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(attempt(row)?);
    }
    Ok(attempts)
}

fn attempt(row: &Row<'_>) -> Result<DeliveryAttemptView, Fault> {
    let ended_at = row::optional_time(row, 2)?;
    let report = match ended_at {
        None => None,
        Some(_) => Some(AttemptReport {
            status_code: row.get(3)?,
            reason: row.get(4)?,
            response: row.get(5)?,
            duration: Duration::from_micros(row.get::<_, Option<u64>>(6)?.unwrap_or(0)),
        }),
    };
    Ok(DeliveryAttemptView { number: row.get(0)?, started_at: row::time(row, 1)?, ended_at, report })
}
