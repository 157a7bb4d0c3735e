//! Runs: listed and shown, in our own words under `/runs`, in those of Cerebrium's clients under an app.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use queue::delivery::DeliveryView;
use queue::lease::AttemptView;
use queue::outcome::{Cancellation, RunError};
use queue::rerun::RetryPolicy;
use queue::run::{EndpointUrl, Generation, Mode, RunFilter, RunState, RunView};
use queue::search::Search;
use queue::webhook::{EventFilter, Metadata, Schedule};
use queue::{AppId, BuildId, ProjectId, RunId, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use super::request::{Params, unread};
use super::scope::{AnyKeysRun, OwnApp, OwnRun, find_app, unknown_run};
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, JSON, Problem};

/// Runs of a page, when the caller says nothing.
const PAGE_RUNS: usize = 100;
/// How long the end of a run is waited for that was cancelled while it was executed.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

/// A page of a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunPage<T> {
    items: Vec<T>,
    next_token: Option<RunId>,
}

/// A run in our words.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunRow {
    id: RunId,
    app_id: AppId,
    function_name: String,
    state: RunState,
    mode: Mode,
    api: Generation,
    status_code: Option<u16>,
    error: Option<RunError>,
    accepted_at: Timestamp,
    priority: i8,
    /// Before which it does not start.
    not_before: Option<Timestamp>,
    /// How often it is executed again after a failure, and on which end codes.
    retry: Option<Arc<RetryPolicy>>,
    /// How often it may be executed, whatever the reason; null without a bound of its own.
    max_attempts: Option<u32>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// From its acceptance to its first attempt.
    queue_time_ms: Option<u64>,
    run_time_ms: Option<f64>,
    build_id: Option<BuildId>,
    webhooks: Vec<EndpointUrl>,
    webhook_events_filter: EventFilter,
    /// Null when its deliveries are tried again as usual.
    webhook_schedule: Option<Schedule>,
    /// Their names; the values are the caller's secret.
    webhook_headers: Vec<String>,
    metadata: Option<Metadata>,
    warning: Option<String>,
}

/// A run in our words, in full.
#[derive(Serialize)]
struct RunDetail<'a> {
    #[serde(flatten)]
    row: RunRow,
    /// Until when it is kept at least; null while it has not ended or a delivery waits.
    #[serde(rename = "keptUntil")]
    kept_until: Option<Timestamp>,
    attempts: &'a [AttemptView],
    deliveries: &'a [DeliveryView],
    /// The model's own JSON, byte for byte.
    result: Option<&'a RawValue>,
}

impl RunRow {
    fn of(run: &RunView) -> Self {
        let first_start = run.attempts.first().map(|attempt| attempt.started_at).or(run.started_at);
        Self {
            id: run.id,
            app_id: run.app.clone(),
            function_name: run.function.clone(),
            state: run.state,
            mode: run.mode,
            api: run.generation,
            status_code: run.status_code,
            error: run.error.clone(),
            accepted_at: run.accepted_at,
            priority: run.priority,
            not_before: run.not_before,
            retry: run.retry.clone(),
            max_attempts: run.max_attempts,
            started_at: run.started_at,
            ended_at: run.ended_at,
            queue_time_ms: first_start.map(|at| millis(at.since(run.accepted_at))),
            run_time_ms: run.run_time_ms,
            build_id: run.build.clone(),
            webhooks: run.webhooks.clone(),
            webhook_events_filter: run.events,
            webhook_schedule: run.schedule.clone(),
            webhook_headers: run.webhook_headers.clone(),
            metadata: run.metadata.clone(),
            warning: run.warning.clone(),
        }
    }
}

/// A run in the words of Cerebrium's clients; the Python one reads `isAsync`, the Go one `async`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CerebriumRun {
    id: RunId,
    function_name: String,
    status: &'static str,
    state: RunState,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    created_at: Timestamp,
    updated_at: Timestamp,
    completed_at: Option<Timestamp>,
    queue_proxy_received_at: Timestamp,
    queue_proxy_wait_started_at: Timestamp,
    queue_proxy_wait_ended_at: Option<Timestamp>,
    container_id: String,
    container_started_at: String,
    ip: String,
    method: &'static str,
    model_id: AppId,
    project_id: ProjectId,
    region: String,
    webhook_endpoint: String,
    websocket: bool,
    r#async: bool,
    is_async: bool,
    queue_time_ms: f64,
    response_time_ms: f64,
    runtime_ms: f64,
    activator_queue_time_ms: u64,
    container_queue_time_ms: u64,
    total_queue_time_ms: u64,
    execution_time_ms: u64,
    total_response_time_ms: u64,
}

impl CerebriumRun {
    fn of(run: &RunView) -> Self {
        let since = |at: Option<Timestamp>| at.map_or(Duration::ZERO, |at| at.since(run.accepted_at));
        let (queued, total) = (since(run.started_at), since(run.ended_at));
        let runtime = run.run_time_ms.unwrap_or(0.0);
        let is_async = run.mode == Mode::Async;
        Self {
            id: run.id,
            function_name: run.function.clone(),
            status: cerebrium_status(run.state),
            state: run.state,
            status_code: run.status_code,
            created_at: run.accepted_at,
            updated_at: run.ended_at.or(run.started_at).unwrap_or(run.accepted_at),
            completed_at: run.ended_at,
            queue_proxy_received_at: run.accepted_at,
            queue_proxy_wait_started_at: run.accepted_at,
            queue_proxy_wait_ended_at: run.started_at,
            container_id: String::new(),
            container_started_at: String::new(),
            ip: String::new(),
            method: "POST",
            model_id: run.app.clone(),
            project_id: run.app.project(),
            region: String::new(),
            webhook_endpoint: run.webhooks.first().map_or_else(String::new, ToString::to_string),
            websocket: false,
            r#async: is_async,
            is_async,
            queue_time_ms: queued.as_secs_f64() * 1e3,
            response_time_ms: total.as_secs_f64() * 1e3,
            runtime_ms: runtime,
            activator_queue_time_ms: 0,
            container_queue_time_ms: millis(queued),
            total_queue_time_ms: millis(queued),
            execution_time_ms: millis(total.saturating_sub(queued)),
            total_response_time_ms: millis(total),
        }
    }
}

/// Their word for a state. They wait until a run is `success` or `failed`, so that every ending is one.
const fn cerebrium_status(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "proxyQueued",
        RunState::Running => "processing",
        RunState::Succeeded => "success",
        RunState::Failed | RunState::Cancelled | RunState::Expired => "failed",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The project's runs.
pub(super) async fn list(
    Control(project): Control,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<RunPage<RunRow>>> {
    let app = match params.text("app") {
        Some(text) => Some(find_app(&gateway, &project, text).await?.id.clone()),
        None => None,
    };
    page(&gateway, project, app, &params, RunRow::of).await.map(Json)
}

/// An app's runs.
pub(super) async fn list_of_app(
    OwnApp(app): OwnApp,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<RunPage<CerebriumRun>>> {
    page(&gateway, app.id.project(), Some(app.id.clone()), &params, CerebriumRun::of).await.map(Json)
}

async fn page<T>(
    gateway: &Gateway,
    project: ProjectId,
    app: Option<AppId>,
    params: &Params,
    show: fn(&RunView) -> T,
) -> Answer<RunPage<T>> {
    let search = Search::new(params.text("text"), params.texts("metadata"))
        .map_err(|error| Problem::bad_request("invalid_query", error.to_string()))?;
    let filter = RunFilter {
        app,
        async_only: params.flag("asyncOnly")?,
        state: params.text("state").map(state).transpose()?,
        since: params.moment("since")?,
        until: params.moment("until")?,
        search,
        before: params.cursor("nextToken")?,
        ..RunFilter::of(project, params.limit("limit", PAGE_RUNS)?)
    };
    let list = gateway.runs.runs(filter).await?;
    Ok(RunPage { items: list.runs.iter().map(show).collect(), next_token: list.next })
}

fn state(text: &str) -> Answer<RunState> {
    RunState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
        let words = RunState::ALL.map(RunState::as_str).join(", ");
        unread("state", &format!("one of {words}"), text)
    })
}

/// One of an app's runs.
#[derive(Serialize)]
pub(super) struct Item {
    item: CerebriumRun,
}

/// One of an app's runs, for Cerebrium's clients.
pub(super) async fn show_of_app(OwnRun(run): OwnRun) -> Json<Item> {
    Json(Item { item: CerebriumRun::of(&run) })
}

/// One run; with `?wait=`, once it has ended or the time is over.
pub(super) async fn show(
    AnyKeysRun { project, run }: AnyKeysRun,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Response> {
    let wait = params.wait()?;
    if run.state.is_terminal() || wait.is_zero() {
        return detail(&run);
    }
    gateway.runs.wait_for_end(run.id, wait).await;
    // Gone only if it was removed meanwhile; then what was read before is the last that is known.
    let run = gateway.runs.run(&project, run.id).await?.unwrap_or(run);
    detail(&run)
}

/// Cancels a run, wherever it is. One that is executed is given time to let go; the answer is what the
/// record says in the end.
pub(super) async fn cancel(OwnRun(run): OwnRun, State(gateway): State<Gateway>) -> Answer<Response> {
    let project = run.app.project();
    let id = run.id;
    if gateway.actions.cancel_run(run.app, id).await? == Cancellation::Asked {
        gateway.runs.wait_for_end(id, CANCEL_WAIT).await;
    }
    let run = gateway.runs.run(&project, id).await?.ok_or_else(|| unknown_run(&id.to_string()))?;
    match run.state {
        RunState::Cancelled => detail(&run),
        RunState::Queued | RunState::Running => {
            let mut response = detail(&run)?;
            *response.status_mut() = StatusCode::ACCEPTED;
            Ok(response)
        }
        ended => {
            let message = format!("the run has ended as `{ended}` and cannot be cancelled any more");
            Err(Problem::conflict("already_ended", message).about(run.id))
        }
    }
}

/// Written by hand to a buffer, so that the result's bytes are not parsed into a tree on their way.
fn detail(run: &RunView) -> Answer<Response> {
    let result = run.result.as_deref().map(serde_json::from_slice::<&RawValue>).transpose();
    let result = result.map_err(|error| {
        tracing::error!(run.id = %run.id, error.message = %error, "a stored result is not JSON");
        Problem::internal().about(run.id)
    })?;
    let detail = RunDetail {
        row: RunRow::of(run),
        kept_until: run.kept_until(),
        attempts: &run.attempts,
        deliveries: &run.deliveries,
        result,
    };
    let body = serde_json::to_vec(&detail).expect("a run's view has text keys only");
    Ok(([(header::CONTENT_TYPE, JSON)], body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_is_one_that_cerebriums_clients_stop_waiting_at() {
        for state in RunState::ALL {
            let word = cerebrium_status(state);
            assert_eq!(state.is_terminal(), matches!(word, "success" | "failed"), "{state}");
        }
    }

    #[test]
    fn a_state_is_read_by_its_word_and_others_are_named() {
        assert_eq!(state("running").unwrap(), RunState::Running);
        assert!(state("done").unwrap_err().message.contains("queued, running, succeeded"));
    }
}
