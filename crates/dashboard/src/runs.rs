//! The list of runs, and the page of one.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::delivery::{DeliveryState, Redelivered};
use queue::log::{LogQuery, LogScope, StoredLine};
use queue::outcome::Cancellation;
use queue::run::{RunFilter, RunState, RunView};
use queue::{AppId, ProjectId, RunId, Timestamp};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::log::Line;
use crate::session::SignedIn;
use crate::timeline::{self, Moment};
use crate::try_it::Again;
use crate::{shape, words};

/// Runs on one page.
const PAGE_RUNS: usize = 100;
/// Lines of a run's log on its page: the newest.
const PAGE_LINES: usize = 500;
/// States that the list can be narrowed to.
const STATES: [RunState; 6] = [
    RunState::Queued,
    RunState::Running,
    RunState::Succeeded,
    RunState::Failed,
    RunState::Cancelled,
    RunState::Expired,
];

#[derive(Deserialize)]
pub(crate) struct Narrow {
    app: Option<String>,
    state: Option<String>,
    before: Option<RunId>,
}

/// A run in the list.
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) function: String,
    pub(crate) state: RunState,
    pub(crate) accepted: String,
    pub(crate) ago: String,
    pub(crate) took: String,
    /// Why it failed, in a word.
    pub(crate) error: String,
}

impl Row {
    pub(crate) fn of(run: &RunView, now: Timestamp) -> Self {
        let until = run.ended_at.unwrap_or(now);
        Self {
            id: run.id.to_string(),
            app: run.app.name().to_string(),
            function: run.function.clone(),
            state: run.state,
            accepted: shape::moment(run.accepted_at),
            ago: shape::relative(run.accepted_at, now),
            took: shape::duration(until.since(run.accepted_at)),
            error: run.error.as_ref().map_or_else(String::new, |error| error.code.as_str().to_owned()),
        }
    }
}

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage {
    frame: Frame,
    apps: Vec<String>,
    app: String,
    states: Vec<(RunState, bool)>,
    rows: Vec<Row>,
    /// The query of the next page.
    older: Option<String>,
    newest: Option<String>,
}

/// `/dashboard/runs`
pub(crate) async fn list(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Query(narrow): Query<Narrow>,
) -> Shown<Response> {
    let apps = room.ports.registry.apps(Some(&project)).await?;
    let named = narrow.app.as_deref().filter(|name| !name.is_empty());
    let app = named.and_then(|name| apps.iter().find(|app| app.id.name().as_str() == name));
    let state =
        narrow.state.as_deref().and_then(|word| STATES.into_iter().find(|state| state.as_str() == word));
    let filter = RunFilter {
        project: project.clone(),
        app: app.map(|app| app.id.clone()),
        async_only: false,
        state,
        before: narrow.before,
        limit: PAGE_RUNS + 1,
    };
    let mut runs = room.ports.runs.runs(filter).await?;
    let more = runs.len() > PAGE_RUNS;
    runs.truncate(PAGE_RUNS);
    let now = room.ports.clock.now();
    let page = RunsPage {
        frame: Frame::new(Some(project.to_string())),
        apps: apps.iter().map(|app| app.id.name().to_string()).collect(),
        app: app.map_or_else(String::new, |app| app.id.name().to_string()),
        states: STATES.into_iter().map(|one| (one, Some(one) == state)).collect(),
        older: runs.last().filter(|_| more).map(|last| address(app.map(|app| &app.id), state, Some(last.id))),
        newest: narrow.before.map(|_| address(app.map(|app| &app.id), state, None)),
        rows: runs.iter().map(|run| Row::of(run, now)).collect(),
    };
    Ok(pages::html(StatusCode::OK, &page))
}

fn address(app: Option<&AppId>, state: Option<RunState>, before: Option<RunId>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if let Some(app) = app {
        query.append_pair("app", app.name().as_str());
    }
    if let Some(state) = state {
        query.append_pair("state", state.as_str());
    }
    if let Some(before) = before {
        query.append_pair("before", &before.to_string());
    }
    format!("/dashboard/runs?{}", query.finish())
}

/// What went wrong, for the box at the head of the page.
struct Wrong {
    code: &'static str,
    kind: String,
    message: String,
    cause: &'static str,
    traceback: Option<String>,
}

/// A delivery with its button.
struct Told {
    id: String,
    url: String,
    state: DeliveryState,
    attempts: usize,
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    row: Row,
    status_code: Option<u16>,
    run_time: Option<String>,
    build: Option<String>,
    metadata: Option<String>,
    warning: Option<String>,
    wrong: Option<Wrong>,
    moments: Vec<Moment>,
    input: Option<String>,
    again: Option<Again>,
    result: Option<String>,
    deliveries: Vec<Told>,
    lines: Vec<Line>,
    more_lines: bool,
    /// Seconds after which the page looks again by itself; none when nothing is to come.
    look_every: u8,
}

/// `/dashboard/runs/{run}`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(run): Path<String>,
) -> Shown<Response> {
    let run = room.find(&project, &run).await?;
    let query = LogQuery {
        scope: LogScope::Run(run.id),
        after: None,
        since: None,
        limit: PAGE_LINES + 1,
        newest: true,
    };
    let lines = room.ports.logs.read(query).await?;
    let mut page = RunPage::of(&project, &run, &lines, room.ports.clock.now());
    if let Some(input) = room.input(&project, &run).await? {
        page.again = room.again(&run, &input).await?;
        page.input = Some(shape::body(input.as_bytes()));
    }
    Ok(pages::html(StatusCode::OK, &page))
}

impl RunPage {
    fn of(project: &ProjectId, run: &RunView, lines: &[StoredLine], now: Timestamp) -> Self {
        let more_lines = lines.len() > PAGE_LINES;
        let deliveries = run.deliveries.iter().map(|delivery| Told {
            id: delivery.id.clone(),
            url: visible(delivery.url.as_str()).into_owned(),
            state: delivery.state,
            attempts: delivery.attempts.len(),
        });
        let waits = |told: &Told| matches!(told.state, DeliveryState::Pending | DeliveryState::Sending);
        let deliveries: Vec<_> = deliveries.collect();
        Self {
            frame: Frame::new(Some(project.to_string())),
            row: Row::of(run, now),
            status_code: run.status_code,
            run_time: run.run_time_ms.map(|millis| {
                shape::duration(std::time::Duration::from_secs_f64((millis / 1e3).clamp(0.0, 1e9)))
            }),
            build: run.build.as_ref().map(ToString::to_string),
            metadata: run.metadata.as_ref().map(|metadata| shape::body(metadata.as_str().as_bytes())),
            warning: run.warning.as_deref().map(|warning| visible(warning).into_owned()),
            wrong: run.error.as_ref().map(|error| Wrong {
                code: error.code.as_str(),
                kind: visible(&error.kind).into_owned(),
                message: visible(&error.message).into_owned(),
                cause: words::cause(error),
                traceback: error.traceback.as_deref().map(|text| visible(text).into_owned()),
            }),
            moments: timeline::of(run, now),
            input: None,
            again: None,
            result: run.result.as_ref().map(|result| shape::body(result)),
            look_every: match run.state.is_terminal() {
                false => 2,
                true if deliveries.iter().any(waits) => 15,
                true => 0,
            },
            deliveries,
            lines: lines.iter().skip(usize::from(more_lines)).map(Line::of).collect(),
            more_lines,
        }
    }
}

impl Shared {
    async fn find(&self, project: &ProjectId, text: &str) -> Shown<RunView> {
        let Ok(id) = text.parse::<RunId>() else { return Err(Trouble::Unknown("run")) };
        self.ports.runs.run(project, id).await?.ok_or(Trouble::Unknown("run"))
    }
}

/// `POST /dashboard/runs/{run}/cancel`
pub(crate) async fn cancel(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(run): Path<String>,
) -> Shown<Response> {
    let run = room.find(&project, &run).await?;
    match room.ports.runs.cancel(&project, run.id).await? {
        Cancellation::Done => room.ports.outbox.wake(),
        Cancellation::Asked => room.ports.dispatch.cancel(&run.app, run.id),
        Cancellation::TooLate(state) => {
            return Err(Trouble::Refused(format!(
                "The run has ended as `{state}` and cannot be cancelled any more."
            )));
        }
        Cancellation::Unknown => return Err(Trouble::Unknown("run")),
    }
    Ok(Redirect::to(&format!("/dashboard/runs/{}", run.id)).into_response())
}

/// `POST /dashboard/runs/{run}/deliveries/{delivery}/redeliver`
pub(crate) async fn redeliver(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path((run, delivery)): Path<(String, String)>,
) -> Shown<Response> {
    let run = room.find(&project, &run).await?;
    let Ok(id) = delivery.parse::<queue::DeliveryId>() else { return Err(Trouble::Unknown("delivery")) };
    if id.run != run.id {
        return Err(Trouble::Unknown("delivery"));
    }
    let refused = |why: &str| Err(Trouble::Refused(why.to_owned()));
    match room.ports.deliveries.redeliver(&project, id).await? {
        Redelivered::Due => room.ports.outbox.wake(),
        Redelivered::UnderWay => {
            return refused("An attempt of this delivery is under way; look at how it ends first.");
        }
        Redelivered::EndpointDisabled => {
            return refused(
                "The endpoint is disabled; enabling it delivers all that waits: `postback endpoints enable`.",
            );
        }
        Redelivered::Unknown => return Err(Trouble::Unknown("delivery")),
    }
    Ok(Redirect::to(&format!("/dashboard/runs/{}", run.id)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn page(run: &RunView) -> String {
        let project: ProjectId = "p-11111111".parse().unwrap();
        RunPage::of(&project, run, &[], Timestamp::from_millis(60_000)).render().unwrap()
    }

    #[test]
    fn what_others_wrote_is_text_on_the_page() {
        for run in [sample::delivered(), sample::failed()] {
            let html = page(&run);
            assert!(!html.contains("<script>alert") && !html.contains("<img src=x"), "{html}");
        }
        assert!(page(&sample::delivered()).contains("busy &#60;script&#62;"));
    }

    #[test]
    fn a_failed_run_says_what_it_means_and_an_open_one_looks_again() {
        let failed = page(&sample::failed());
        assert!(failed.contains("The model&#39;s own code raised an error."), "{failed}");
        assert!(failed.contains("data-look-every=\"0\"") && !failed.contains("/cancel"));
        let queued = page(&sample::run(RunState::Queued));
        assert!(queued.contains("data-look-every=\"2\"") && queued.contains("/cancel"));
    }
}
