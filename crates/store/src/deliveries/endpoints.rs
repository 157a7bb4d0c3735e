//! Endpoints of which there is something to say: what became of them, enabling them again, and what people
//! set for them.

use queue::delivery::{EndpointEvent, EndpointState, EndpointView};
use queue::limits::ENDPOINT_SETTINGS_MAX;
use queue::run::EndpointUrl;
use queue::{EndpointId, ProjectId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::GIVEN_UP;
use crate::batch::Batch;
use crate::chores::{self, CHANGED_PER_STEP, LOOKED_AT_PER_STEP, Position};
use crate::fault::Fault;
use crate::row;

/// Deliveries replayed in one transaction, so that a long list does not hold up everybody else.
const REPLAYED_PER_BATCH: usize = CHANGED_PER_STEP;
/// Why an endpoint became what it is: somebody asked for it.
pub(super) const REQUESTED: &str = "requested";
/// Changes remembered of one endpoint.
const EVENTS_MAX: usize = 100;

/// A project's endpoints that were disabled once, by address, each with its changes, oldest first.
pub(super) fn list(conn: &Connection, project: &ProjectId) -> Result<Vec<EndpointView>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT url, at, state, reason FROM endpoint_events WHERE project = ?1 ORDER BY url, sequence",
    )?;
    let mut rows = statement.query([project.as_str()])?;
    let mut endpoints: Vec<EndpointView> = Vec::new();
    while let Some(row) = rows.next()? {
        let url = EndpointUrl::checked(row.get_ref(0)?.as_str()?);
        let state = row::word(row, 2, EndpointState::ALL, EndpointState::as_str)?;
        let event = EndpointEvent { at: row::time(row, 1)?, state, reason: row.get(3)? };
        match endpoints.last_mut().filter(|last| last.url == url) {
            Some(last) => {
                // What was set meanwhile is no reason for the state.
                if last.state != state {
                    (last.state, last.since, last.reason) = (state, event.at, event.reason.clone());
                }
                last.events.push(event);
            }
            None => endpoints.push(EndpointView {
                id: EndpointId::of(project, &url),
                url,
                state,
                since: event.at,
                reason: event.reason.clone(),
                waiting: 0,
                body_bytes_max: None,
                events: vec![event],
            }),
        }
    }
    let mut statement = conn.prepare_cached(&format!(
        "SELECT count(*) FROM deliveries d CROSS JOIN runs r ON r.id = d.run
             CROSS JOIN app_numbers n ON n.number = r.app
         WHERE d.state = 'disabled' AND {GIVEN_UP} AND d.receiver = ?1 AND d.url = ?2 AND n.project = ?3"
    ))?;
    let mut limit =
        conn.prepare_cached("SELECT body_bytes_max FROM endpoint_settings WHERE project = ?1 AND url = ?2")?;
    for endpoint in &mut endpoints {
        let values = params![project.as_str(), endpoint.url.as_str()];
        endpoint.body_bytes_max = limit.query_row(values, |row| row.get(0)).optional()?;
        if endpoint.state == EndpointState::Disabled {
            let receiver = endpoint.url.receiver();
            let values = params![receiver.as_str(), endpoint.url.as_str(), project.as_str()];
            endpoint.waiting = statement.query_row(values, |row| row.get(0))?;
        }
    }
    Ok(endpoints)
}

/// Sets the most bytes of a body that an endpoint takes, or takes the limit away. Returns `false` when the
/// project has set as much for other endpoints as it may.
pub(super) fn set_body_limit(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
    bytes_max: Option<u64>,
) -> Result<bool, Fault> {
    let key = (project.clone(), url.clone());
    let reason = if let Some(bytes_max) = bytes_max {
        let others = batch.books.body_limits.keys().filter(|(owner, at)| owner == project && at != url);
        if others.count() >= ENDPOINT_SETTINGS_MAX {
            return Ok(false);
        }
        batch
            .sql(
                "INSERT INTO endpoint_settings (project, url, body_bytes_max) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET body_bytes_max = excluded.body_bytes_max",
            )?
            .execute(params![project.as_str(), url.as_str(), bytes_max])?;
        batch.books.body_limits.insert(key, bytes_max);
        format!("bodies of more than {bytes_max} bytes are thin")
    } else {
        batch
            .sql("DELETE FROM endpoint_settings WHERE project = ?1 AND url = ?2")?
            .execute(params![project.as_str(), url.as_str()])?;
        batch.books.body_limits.remove(&key);
        "bodies of any size are full".to_owned()
    };
    let disabled = batch.books.is_disabled(project, url);
    let state = if disabled { EndpointState::Disabled } else { EndpointState::Enabled };
    remember(batch, project, url, batch.now(), state, &reason)?;
    Ok(true)
}

/// Notes a change of an endpoint's state.
pub(super) fn remember(
    batch: &Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
    at: Timestamp,
    state: EndpointState,
    reason: &str,
) -> Result<(), Fault> {
    batch
        .sql("INSERT INTO endpoint_events (project, url, at, state, reason) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![project.as_str(), url.as_str(), at.as_millis(), state.as_str(), reason])?;
    batch
        .sql(&format!(
            "DELETE FROM endpoint_events WHERE sequence IN (
                 SELECT sequence FROM endpoint_events WHERE project = ?1 AND url = ?2
                 ORDER BY sequence DESC LIMIT -1 OFFSET {EVENTS_MAX})"
        ))?
        .execute(params![project.as_str(), url.as_str()])?;
    tracing::info!(endpoint = %url, endpoint.state = state.as_str(), reason, "a webhook endpoint changed its state");
    Ok(())
}

/// One step of an enabling.
pub(super) struct Step {
    /// Deliveries that are due now.
    pub(super) replayed: u64,
    /// Nothing is left to do.
    pub(super) done: bool,
}

/// Makes some of the deliveries due that wait for an endpoint. The last ones and the enabling are one
/// transaction: a crash before it leaves an endpoint that is disabled, and nothing that waits for one
/// that is not. `None` when it is not disabled.
pub(super) fn enable(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
) -> Result<Option<Step>, Fault> {
    let key = (project.clone(), url.clone());
    if !batch.books.disabled.contains(&key) {
        return Ok(None);
    }
    if let Some(setting_aside) = batch.books.chores.setting_aside(&key) {
        // What is not set aside yet would miss the replay.
        chores::step(batch, setting_aside)?;
        return Ok(Some(Step { replayed: 0, done: false }));
    }
    let mut statement = batch.sql(&format!(
        "SELECT d.run, d.endpoint FROM deliveries d CROSS JOIN runs r ON r.id = d.run
             CROSS JOIN app_numbers n ON n.number = r.app
         WHERE d.state = 'disabled' AND {GIVEN_UP} AND d.receiver = ?1 AND d.url = ?2 AND n.project = ?3
         LIMIT {REPLAYED_PER_BATCH}"
    ))?;
    let mut rows = statement.query(params![url.receiver().as_str(), url.as_str(), project.as_str()])?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        waiting.push(row::delivery_id(row, 0)?);
    }
    drop(rows);
    let now = batch.now();
    for id in &waiting {
        batch
            .sql(
                "UPDATE deliveries SET state = 'pending', next_at = ?3, schedule_from = attempt
                 WHERE run = ?1 AND endpoint = ?2 AND state = 'disabled'",
            )?
            .execute(params![id.run.into_bytes(), row::delivery_number(*id), now.as_millis()])?;
    }
    let done = waiting.len() < REPLAYED_PER_BATCH;
    if done {
        batch
            .sql("DELETE FROM endpoints WHERE project = ?1 AND url = ?2")?
            .execute(params![project.as_str(), url.as_str()])?;
        remember(batch, project, url, now, EndpointState::Enabled, REQUESTED)?;
        batch.books.disabled.remove(&key);
    }
    Ok(Some(Step { replayed: waiting.len() as u64, done }))
}

/// Lets some of what is pending for a disabled endpoint wait for it.
pub(crate) fn set_aside(
    batch: &Batch<'_>,
    project: &ProjectId,
    url: &EndpointUrl,
    from: Position,
) -> Result<chores::Step, Fault> {
    let mut statement = batch.sql(
        "SELECT d.run, d.endpoint, d.next_at, d.url = ?2 AND EXISTS (
                    SELECT 1 FROM runs r JOIN app_numbers n ON n.number = r.app
                    WHERE r.id = d.run AND n.project = ?3)
         FROM deliveries d
         WHERE d.state = 'pending' AND d.receiver = ?1 AND (d.next_at, d.run, d.endpoint) > (?4, ?5, ?6)
         ORDER BY d.next_at, d.run, d.endpoint LIMIT ?7",
    )?;
    let receiver = url.receiver();
    let mut rows = statement.query(params![
        receiver.as_str(),
        url.as_str(),
        project.as_str(),
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
        if row.get(3)? {
            found.push(id);
        }
    }
    drop(rows);
    // What is told on the way is not news any more when the endpoint is back.
    let mut update = batch.sql(
        "UPDATE deliveries SET next_at = NULL,
                state = CASE WHEN endpoint < 65536 THEN 'disabled' ELSE 'exhausted' END
         WHERE run = ?1 AND endpoint = ?2 AND state = 'pending'",
    )?;
    for id in &found {
        update.execute(params![id.run.into_bytes(), row::delivery_number(*id)])?;
    }
    let more = found.len() == CHANGED_PER_STEP || looked_at == LOOKED_AT_PER_STEP;
    Ok(chores::Step { changed: found.len(), next: more.then_some(last) })
}
