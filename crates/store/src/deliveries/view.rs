//! Deliveries as people see them.

use queue::delivery::{
    AttemptReport, DeliveryAttemptView, DeliveryFilter, DeliveryState, DeliveryView, Endpoints, Timings,
};
use queue::run::EndpointUrl;
use queue::{DeliveryId, ProjectId, RunId};
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row, params};

use super::GIVEN_UP;
use crate::fault::Fault;
use crate::row;
use crate::runs::FEW;

/// What [`attempt`] reads after the attempt's number.
pub(super) const ATTEMPT: &str =
    "d.started_at, d.ended_at, d.status_code, d.reason, d.response, d.duration_us,
    d.reused_connection, d.dns_us, d.connect_us, d.tls_us, d.first_byte_us, d.thin";
/// What [`read`] reads after that.
const DELIVERY: &str = "d.run, d.endpoint, d.url, d.state, d.next_at,
    ifnull((SELECT p.kind FROM progress p WHERE p.run = d.run AND p.event = d.endpoint >> 16), 'completed')";
/// Deliveries of events that are shown with a run: its last ones.
const EVENTS_SHOWN: usize = 100;

/// The deliveries of a run: of its outcome, in the order of its endpoints, then of its last events.
pub(crate) fn of_run(conn: &Connection, run: RunId) -> Result<Vec<DeliveryView>, Fault> {
    let read = |which: &str| {
        let mut statement = conn.prepare_cached(&format!(
            "SELECT d.attempt, {ATTEMPT}, {DELIVERY} FROM deliveries d WHERE d.run = ?1 AND {which}"
        ))?;
        let mut rows = statement.query(params![run.into_bytes()])?;
        let mut deliveries = Vec::new();
        while let Some(row) = rows.next()? {
            deliveries.push(in_full(conn, row)?);
        }
        Ok::<_, Fault>(deliveries)
    };
    let mut deliveries = read("d.endpoint < 65536 ORDER BY d.endpoint")?;
    let events = read(&format!("d.endpoint >= 65536 ORDER BY d.endpoint DESC LIMIT {EVENTS_SHOWN}"))?;
    deliveries.extend(events.into_iter().rev());
    Ok(deliveries)
}

/// One delivery of a project.
pub(super) fn one(
    conn: &Connection,
    project: &ProjectId,
    id: DeliveryId,
) -> Result<Option<DeliveryView>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT d.attempt, {ATTEMPT}, {DELIVERY} FROM deliveries d JOIN runs r ON r.id = d.run JOIN app_numbers n ON n.number = r.app
         WHERE d.run = ?1 AND d.endpoint = ?2 AND n.project = ?3"
    ))?;
    let mut rows =
        statement.query(params![id.run.into_bytes(), row::delivery_number(id), project.as_str()])?;
    rows.next()?.map(|row| in_full(conn, row)).transpose()
}

/// Deliveries of a project with their last attempts, newest run first.
pub(super) fn many(conn: &Connection, filter: &DeliveryFilter) -> Result<Vec<DeliveryView>, Fault> {
    let index = match filter.state {
        Some(DeliveryState::Pending) => "deliveries_pending",
        Some(DeliveryState::Sending) => "deliveries_sending",
        _ => return from(conn, filter, "deliveries d"),
    };
    let indexed = format!("deliveries d INDEXED BY {index}");
    if has_few(conn, index, filter.state)? {
        return from(conn, filter, &indexed);
    }
    // Of many the newest fill the list; unless they are another project's.
    let newest = format!(
        "(SELECT run, endpoint FROM deliveries WHERE (run, endpoint) < (?3, ?4)
          ORDER BY run DESC, endpoint DESC LIMIT {FEW}) w
         CROSS JOIN deliveries d ON d.run = w.run AND d.endpoint = w.endpoint"
    );
    let found = from(conn, filter, &newest)?;
    if found.len() >= filter.limit { Ok(found) } else { from(conn, filter, &indexed) }
}

/// Looks for them in `place`.
fn from(conn: &Connection, filter: &DeliveryFilter, place: &str) -> Result<Vec<DeliveryView>, Fault> {
    // The order of the joins keeps the order of the list: what is found first is shown first.
    let mut text = format!(
        "SELECT d.attempt, {ATTEMPT}, {DELIVERY} FROM {place} CROSS JOIN runs r ON r.id = d.run
             CROSS JOIN app_numbers n ON n.number = r.app
         WHERE n.project = ?1 AND (d.run, d.endpoint) < (?3, ?4)"
    );
    let project = filter.project.as_str();
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let receiver = filter.endpoints.as_ref().map(Endpoints::receiver);
    let receiver = receiver.as_ref().map(queue::run::Receiver::as_str);
    let url = filter.endpoints.as_ref().and_then(Endpoints::url).map(EndpointUrl::as_str);
    let after = filter.after.map(|id| (id.run.into_bytes(), row::delivery_number(id)));
    let (run, index) = after.unwrap_or(([0xff; 16], i64::MAX));
    let mut values: Vec<&dyn ToSql> = vec![&project, &limit, &run, &index];
    if let Some(state) = filter.state {
        // A literal: the planner sees which index holds such rows.
        text += &format!(" AND d.state = '{state}'");
        if matches!(state, DeliveryState::Exhausted | DeliveryState::Disabled) {
            text += &format!(" AND {GIVEN_UP}");
        }
    }
    if let Some(receiver) = &receiver {
        values.push(receiver);
        text += &format!(" AND d.receiver = ?{}", values.len());
    }
    if let Some(url) = &url {
        values.push(url);
        text += &format!(" AND d.url = ?{}", values.len());
    }
    text += " ORDER BY d.run DESC, d.endpoint DESC LIMIT ?2";
    let mut statement = conn.prepare_cached(&text)?;
    let mut rows = statement.query(values.as_slice())?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        deliveries.push(read(row)?);
    }
    Ok(deliveries)
}

/// Whether an index has few rows, of all projects.
fn has_few(conn: &Connection, index: &str, state: Option<DeliveryState>) -> Result<bool, Fault> {
    let state = state.map_or("", DeliveryState::as_str);
    let mut statement = conn.prepare_cached(&format!(
        "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY {index} WHERE state = '{state}' LIMIT ?1)"
    ))?;
    let found: i64 = statement.query_row(params![FEW], |row| row.get(0))?;
    Ok(found < FEW)
}

fn in_full(conn: &Connection, row: &Row<'_>) -> Result<DeliveryView, Fault> {
    let mut view = read(row)?;
    let mut attempts = history(conn, row::delivery_id(row, 13)?)?;
    attempts.append(&mut view.attempts);
    Ok(DeliveryView { attempts, ..view })
}

/// The row, with the current or last attempt that is part of it.
fn read(row: &Row<'_>) -> Result<DeliveryView, Fault> {
    let id = row::delivery_id(row, 13)?;
    let attempts = if row.get::<_, u32>(0)? > 0 { vec![attempt(row)?] } else { Vec::new() };
    Ok(DeliveryView {
        id: id.webhook_id(),
        run_id: id.run,
        event: row::event(row, 18)?,
        url: EndpointUrl::checked(row.get_ref(15)?.as_str()?),
        state: row::word(row, 16, DeliveryState::ALL, DeliveryState::as_str)?,
        next_attempt_at: row::optional_time(row, 17)?,
        attempts,
    })
}

/// The attempts that were followed by another.
pub(super) fn history(conn: &Connection, id: DeliveryId) -> Result<Vec<DeliveryAttemptView>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT d.number, {ATTEMPT} FROM delivery_attempts d
         WHERE d.run = ?1 AND d.endpoint = ?2 ORDER BY d.number"
    ))?;
    let mut rows = statement.query(params![id.run.into_bytes(), row::delivery_number(id)])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(attempt(row)?);
    }
    Ok(attempts)
}

pub(super) fn attempt(row: &Row<'_>) -> Result<DeliveryAttemptView, Fault> {
    let ended_at = row::optional_time(row, 2)?;
    let report = match ended_at {
        None => None,
        Some(_) => Some(AttemptReport {
            status_code: row.get(3)?,
            reason: row.get(4)?,
            response: row.get(5)?,
            duration: row::optional_micros(row, 6)?.unwrap_or_default(),
            timings: Timings {
                reused_connection: row.get::<_, Option<bool>>(7)?.unwrap_or(false),
                dns: row::optional_micros(row, 8)?,
                connect: row::optional_micros(row, 9)?,
                tls: row::optional_micros(row, 10)?,
                first_byte: row::optional_micros(row, 11)?,
            },
            thin: row.get(12)?,
        }),
    };
    Ok(DeliveryAttemptView { number: row.get(0)?, started_at: row::time(row, 1)?, ended_at, report })
}
