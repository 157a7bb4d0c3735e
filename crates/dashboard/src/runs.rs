//! The page of a run.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::delivery::{DeliveryState, Redelivered};
use queue::log::{LogQuery, LogScope, StoredLine};
use queue::outcome::Cancellation;
use queue::port::Stored;
use queue::run::RunView;
use queue::{ProjectId, RunId, Timestamp};

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::log::Line;
use crate::run_list::Row;
use crate::session::SignedIn;
use crate::timeline::{self, Moment};
use crate::try_it::Again;
use crate::{link, shape, words};

/// Lines of a run's log on its page: the newest.
const PAGE_LINES: usize = 500;

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
pub(crate) struct RunPage {
    pub(crate) frame: Frame,
    /// It is shown by a link that ends then, without buttons.
    pub(crate) shared_until: Option<String>,
    share_hours_max: u64,
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
    let lines = room.lines(run.id).await?;
    let mut page = RunPage::of(&project, &run, &lines, room.ports.clock.now());
    if let Some(input) = room.input(&project, &run).await? {
        page.again = room.again(&run, &input).await?;
        page.input = Some(shape::body(input.as_bytes()));
    }
    Ok(pages::html(StatusCode::OK, &page))
}

impl RunPage {
    pub(crate) fn of(project: &ProjectId, run: &RunView, lines: &[StoredLine], now: Timestamp) -> Self {
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
            shared_until: None,
            share_hours_max: link::HOURS_MAX,
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
    /// The newest lines of a run's log, and one more if there are more.
    pub(crate) async fn lines(&self, run: RunId) -> Stored<Vec<StoredLine>> {
        let query = LogQuery {
            scope: LogScope::Run(run),
            after: None,
            since: None,
            limit: PAGE_LINES + 1,
            newest: true,
        };
        self.ports.logs.read(query).await
    }

    pub(crate) async fn find(&self, project: &ProjectId, text: &str) -> Shown<RunView> {
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
    match room.ports.actions.cancel_run(run.app, run.id).await? {
        Cancellation::Done | Cancellation::Asked => {}
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
    match room.ports.actions.redeliver(project, id).await? {
        Redelivered::Due => {}
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
    use queue::run::RunState;

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
        let mut shared = RunPage::of(
            &"p-11111111".parse().unwrap(),
            &sample::delivered(),
            &[],
            Timestamp::from_millis(60_000),
        );
        shared.frame = Frame::new(None);
        shared.shared_until = Some("tomorrow".into());
        let shared = shared.render().unwrap();
        assert!(
            shared.contains("tomorrow") && !shared.contains("<form") && !shared.contains("<button"),
            "{shared}"
        );
        assert!(!shared.contains("href=\"/dashboard/runs"), "{shared}");
        let queued = page(&sample::run(RunState::Queued));
        assert!(queued.contains("data-look-every=\"2\"") && queued.contains("/cancel"));
    }
}
