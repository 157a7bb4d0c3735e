//! What replicas and runs printed, in the form Cerebrium's clients read.

use axum::Json;
use axum::extract::State;
use queue::log::{LogQuery, LogScope, StoredLine, Stream};
use queue::{AppId, ProjectId, Timestamp};
use serde::Serialize;

use super::request::{Params, unread};
use super::scope::{OwnApp, OwnRun};
use crate::Gateway;
use crate::problem::Answer;

/// Lines of a page, when the caller says nothing.
const PAGE_LINES: usize = 500;
/// Lines read from the store at once.
const CHUNK_LINES: usize = 1_000;
/// Lines looked at for one page, so that a filter that matches nothing has an end.
const SCANNED_LINES_MAX: usize = 20_000;
/// Newest lines looked at for those that pass a filter.
const NEWEST_LINES: usize = 5_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogPage {
    logs: Vec<LogLineView>,
    /// Where a reader who follows goes on; never repeats a line.
    next_page_token: Option<String>,
    has_more: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogLineView {
    app_id: AppId,
    project_id: ProjectId,
    run_id: String,
    container_id: String,
    container_name: &'static str,
    log_id: String,
    line_number: i64,
    log_line: String,
    stream: Stream,
    timestamp: Timestamp,
}

impl From<StoredLine> for LogLineView {
    fn from(StoredLine { id, line }: StoredLine) -> Self {
        Self {
            project_id: line.app.project(),
            app_id: line.app,
            run_id: line.run.map_or_else(String::new, |run| run.to_string()),
            container_id: line.replica.map_or_else(String::new, |replica| replica.to_string()),
            container_name: "replica",
            log_id: id.to_string(),
            line_number: id,
            log_line: line.text,
            stream: line.stream,
            timestamp: line.at,
        }
    }
}

/// What an app's replicas printed; with `?runId=`, what that run printed.
pub(super) async fn of_app(
    OwnApp(app): OwnApp,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<LogPage>> {
    // Of another app's run no line passes the filter, so it reads like a run without lines.
    let scope = match params.text("runId") {
        None => LogScope::App(app.id.clone()),
        Some(text) => LogScope::Run(text.parse().map_err(|_| unread("runId", "a run's id", text))?),
    };
    let filter = Filter { app: Some(app.id.clone()), ..Filter::read(&params)? };
    read(&gateway, scope, &filter, &params).await.map(Json)
}

/// What a run printed.
pub(super) async fn of_run(
    OwnRun(run): OwnRun,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<LogPage>> {
    read(&gateway, LogScope::Run(run.id), &Filter::read(&params)?, &params).await.map(Json)
}

/// Which lines of a scope are wanted.
#[derive(Default)]
struct Filter {
    app: Option<AppId>,
    until: Option<Timestamp>,
    search: Option<String>,
    stream: Option<&'static str>,
    container: Option<String>,
}

impl Filter {
    fn read(params: &Params) -> Answer<Self> {
        let streams = [Stream::Stdout, Stream::Stderr, Stream::System].map(Stream::as_str);
        Ok(Self {
            app: None,
            until: params.moment("beforeDate")?,
            search: params.text("search").map(str::to_lowercase),
            stream: params.word("stream", &streams)?,
            container: params.text("container").map(str::to_owned),
        })
    }

    /// Whether some lines may be left out.
    fn narrows(&self) -> bool {
        self.search.is_some() || self.stream.is_some() || self.container.is_some()
    }

    fn wants(&self, StoredLine { line, .. }: &StoredLine) -> bool {
        self.app.as_ref().is_none_or(|app| *app == line.app)
            && self.until.is_none_or(|until| line.at < until)
            && self.stream.is_none_or(|stream| stream == line.stream.as_str())
            && self.search.as_ref().is_none_or(|search| line.text.to_lowercase().contains(search))
            && self.container.as_ref().is_none_or(|container| {
                line.replica.as_ref().is_some_and(|replica| replica.as_str() == container)
            })
    }
}

async fn read(gateway: &Gateway, scope: LogScope, filter: &Filter, params: &Params) -> Answer<LogPage> {
    let size = params.limit("pageSize", PAGE_LINES)?;
    let after = match params.text("nextToken") {
        Some(_) => params.cursor::<i64>("nextToken")?,
        None => None,
    };
    // Once there is a cursor, clients send it in place of the moment.
    let since = if after.is_some() { None } else { params.moment("afterDate")? };
    let direction = params.word("direction", &["forward", "backward"])?;
    let forward =
        after.is_some() || since.is_some() || filter.until.is_some() || direction == Some("forward");
    if !forward {
        return newest(gateway, scope, filter, size, direction == Some("backward")).await;
    }

    let mut page = Vec::new();
    let mut query = LogQuery { scope, after, since, limit: CHUNK_LINES, newest: false };
    let mut scanned = 0;
    loop {
        let chunk = gateway.logs.read(query.clone()).await?;
        let exhausted = chunk.len() < CHUNK_LINES;
        scanned += chunk.len();
        for line in chunk {
            if page.len() == size {
                return Ok(LogPage::new(page, query.after, true));
            }
            query.after = Some(line.id);
            if filter.wants(&line) {
                page.push(line.into());
            }
        }
        if exhausted || scanned >= SCANNED_LINES_MAX {
            return Ok(LogPage::new(page, query.after, !exhausted));
        }
    }
}

/// The newest lines. Given oldest first, since the Python client goes on after the last of them; newest
/// first only to those who ask for it.
async fn newest(
    gateway: &Gateway,
    scope: LogScope,
    filter: &Filter,
    size: usize,
    backward: bool,
) -> Answer<LogPage> {
    let limit = if filter.narrows() { NEWEST_LINES } else { size };
    let query = LogQuery { scope, after: None, since: None, limit, newest: true };
    let lines = gateway.logs.read(query).await?;
    let last = lines.last().map(|line| line.id);
    let mut wanted: Vec<LogLineView> =
        lines.into_iter().rev().filter(|line| filter.wants(line)).take(size).map(Into::into).collect();
    if !backward {
        wanted.reverse();
    }
    Ok(LogPage::new(wanted, last, false))
}

impl LogPage {
    fn new(logs: Vec<LogLineView>, next: Option<i64>, has_more: bool) -> Self {
        Self { logs, next_page_token: next.map(|id| id.to_string()), has_more }
    }
}
