//! Runs as people see them.

use bytes::Bytes;
use queue::lease::AttemptView;
use queue::outcome::{Ending, Outcome};
use queue::run::{Generation, RunState, RunView};
use queue::webhook::Metadata;
use queue::{AppId, ProjectId, RunId, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::fault::Fault;
use crate::results::ResultFiles;
use crate::row;
use crate::secrets::Sealed;

pub(super) const COLUMNS: &str =
    "r.id, n.app, r.function, r.generation, r.mode, r.state, r.error, r.status_code,
    r.run_time_ms, r.accepted_at, r.started_at, r.ended_at, r.build, r.webhooks, r.warning, r.attempt,
    r.priority, r.not_before, r.retries, r.retry_on,
    r.webhook_events, r.webhook_header_names, r.metadata, r.webhook_schedule, r.max_attempts";

pub(super) fn read(row: &Row<'_>) -> Result<RunView, Fault> {
    Ok(RunView {
        id: row::run_id(row, 0)?,
        app: row::parsed(row, 1)?,
        function: row.get(2)?,
        generation: row::generation(row, 3)?,
        mode: row::mode(row, 4)?,
        state: row::state(row, 5)?,
        error: row::optional_json(row, 6)?,
        status_code: row.get(7)?,
        run_time_ms: row.get(8)?,
        accepted_at: row::time(row, 9)?,
        priority: row.get(16)?,
        not_before: row::optional_time(row, 17)?,
        retry: row::retry(row, 18)?,
        max_attempts: row.get(24)?,
        started_at: row::optional_time(row, 10)?,
        ended_at: row::optional_time(row, 11)?,
        build: row::optional_parsed(row, 12)?,
        webhooks: row::webhooks(row, 13)?,
        events: row::events(row, 20)?,
        schedule: row::schedule(row, 23)?,
        webhook_headers: row::header_names(row, 21)?,
        metadata: row::metadata(row, 22)?,
        warning: row.get(14)?,
        attempts: Vec::new(),
        deliveries: Vec::new(),
        result: None,
    })
}

pub(super) fn one(
    conn: &Connection,
    results: &ResultFiles,
    project: &ProjectId,
    run: RunId,
) -> Result<Option<RunView>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM runs r JOIN app_numbers n ON n.number = r.app
         WHERE r.id = ?1 AND n.project = ?2"
    ))?;
    let mut rows = statement.query(params![run.into_bytes(), project.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut view = read(row)?;
    let attempt: u32 = row.get(15)?;
    view.attempts = attempts(conn, &view, attempt)?;
    view.deliveries = crate::deliveries::of_run(conn, run)?;
    if view.state == RunState::Succeeded {
        view.result = results.load(conn, run)?;
    }
    Ok(Some(view))
}

pub(super) fn input(conn: &Connection, project: &ProjectId, run: RunId) -> Result<Option<Bytes>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT i.body FROM inputs i JOIN runs r ON r.id = i.run JOIN app_numbers n ON n.number = r.app
         WHERE i.run = ?1 AND n.project = ?2",
    )?;
    let mut rows = statement.query(params![run.into_bytes(), project.as_str()])?;
    rows.next()?.map(|row| row::bytes(row, 0)).transpose()
}

/// The attempts of the history, and the current or last one, which is part of the run until a next one
/// takes its place there.
fn attempts(conn: &Connection, view: &RunView, current: u32) -> Result<Vec<AttemptView>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT number, started_at, ended_at, end_code, error FROM run_attempts WHERE run = ?1 ORDER BY number",
    )?;
    let mut rows = statement.query(params![view.id.into_bytes()])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(AttemptView {
            number: row.get(0)?,
            started_at: row::time(row, 1)?,
            ended_at: row::optional_time(row, 2)?,
            end: Some(row.get(3)?),
            error: row::optional_json(row, 4)?,
        });
    }
    let noted = attempts.last().map_or(0, |last| last.number);
    if current > noted
        && let Some(started_at) = view.started_at
    {
        let end = view.state.is_terminal().then(|| {
            let code = view.error.as_ref().map_or(view.state.as_str(), |error| error.code.as_str());
            code.to_owned()
        });
        attempts.push(AttemptView { number: current, started_at, ended_at: view.ended_at, end, error: None });
    }
    Ok(attempts)
}

/// When a run of a project was removed, as long as that is remembered.
pub(super) fn removed(
    conn: &Connection,
    project: &ProjectId,
    run: RunId,
) -> Result<Option<Timestamp>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT removed_at FROM removed_runs WHERE run = ?1 AND project = ?2")?;
    let mut rows = statement.query(params![run.into_bytes(), project.as_str()])?;
    rows.next()?.map(|row| row::time(row, 0)).transpose()
}

/// Whether a run has ended, or nobody knows it.
pub(super) fn has_ended(conn: &Connection, run: RunId) -> Result<bool, Fault> {
    let open = conn
        .prepare_cached("SELECT 1 FROM runs WHERE id = ?1 AND state IN ('queued', 'running')")?
        .exists(params![run.into_bytes()])?;
    Ok(!open)
}

pub(super) fn backlog(conn: &Connection) -> Result<Vec<(AppId, u64)>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT n.app, count(*) FROM runs r JOIN app_numbers n ON n.number = r.app
         WHERE r.state = 'queued' AND r.delayed = 0 GROUP BY r.app",
    )?;
    let mut rows = statement.query([])?;
    let mut backlog = Vec::new();
    while let Some(row) = rows.next()? {
        backlog.push((row::parsed(row, 0)?, row.get(1)?));
    }
    Ok(backlog)
}

/// What a webhook's body is made of.
pub(crate) struct Story {
    pub(crate) project: ProjectId,
    pub(crate) generation: Generation,
    pub(crate) outcome: Outcome,
    pub(crate) brought: Option<Sealed>,
    pub(crate) metadata: Option<Metadata>,
}

/// The end of a run as it was told to the store, to the byte.
pub(crate) fn story(conn: &Connection, results: &ResultFiles, run: RunId) -> Result<Story, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT n.project, r.generation, r.state, r.error, r.status_code, r.run_time_ms, r.ended_at, r.build,
                r.caller_secret, r.metadata
         FROM runs r JOIN app_numbers n ON n.number = r.app WHERE r.id = ?1",
    )?;
    let mut rows = statement.query(params![run.into_bytes()])?;
    let row = rows
        .next()?
        .ok_or_else(|| Fault::Corrupt(format!("a delivery speaks of run {run}, which is gone")))?;
    let state = row::state(row, 2)?;
    let ending = match state {
        RunState::Succeeded => Ending::Succeeded,
        RunState::Failed => Ending::Failed,
        RunState::Cancelled => Ending::Cancelled,
        RunState::Expired => Ending::Expired,
        RunState::Queued | RunState::Running => {
            return Err(Fault::Corrupt(format!("a delivery speaks of run {run}, which has not ended")));
        }
    };
    let outcome = Outcome {
        ending,
        result: results.load(conn, run)?,
        error: row::optional_json(row, 3)?,
        status_code: row.get(4)?,
        run_time_ms: row.get(5)?,
        ended_at: row::time(row, 6)?,
        build: row::optional_parsed(row, 7)?,
    };
    Ok(Story {
        project: row::parsed(row, 0)?,
        generation: row::generation(row, 1)?,
        outcome,
        brought: Sealed::read(row, 8)?,
        metadata: row::metadata(row, 9)?,
    })
}
