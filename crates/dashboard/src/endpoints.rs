//! Endpoints: how each does, what is to come there, and what can be done about it.

use std::collections::HashSet;
use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::delivery::{Enabled, EndpointState, EndpointView, Endpoints};
use queue::figures::{EndpointFigures, LastAttempt, ReceiverStanding};
use queue::{EndpointId, ProjectId, Timestamp};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::deliveries::{make_again, query};
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;
use crate::{shape, words};

/// An endpoint, as a line of the list and as the head of its page.
struct EndpointRow {
    id: String,
    url: String,
    state: EndpointState,
    since: String,
    reason: String,
    /// `98.2 %`, of how many.
    rate: Option<String>,
    attempts: u64,
    /// Whether one of them failed.
    fails: bool,
    p50: String,
    p95: String,
    /// What waits, for its next attempt or for the endpoint.
    waiting: String,
    /// When its last attempt began.
    last: String,
    bytes_max: Option<String>,
}

impl EndpointRow {
    fn of(endpoint: &EndpointView, figures: &EndpointFigures, now: Timestamp) -> Self {
        let took = |time: Option<std::time::Duration>| time.map(shape::duration).unwrap_or_default();
        let last = figures.last.first().map(|last| shape::relative(last.attempt.started_at, now));
        let more = if figures.pending_more { "+" } else { "" };
        Self {
            id: endpoint.id.as_str().to_owned(),
            url: visible(endpoint.url.as_str()).into_owned(),
            state: endpoint.state,
            since: shape::relative(endpoint.since, now),
            reason: visible(&endpoint.reason).into_owned(),
            rate: figures.success_percent().map(|percent| format!("{percent} %")),
            attempts: figures.attempts,
            fails: figures.succeeded < figures.attempts,
            p50: took(figures.p50),
            p95: took(figures.p95),
            waiting: format!("{}{more}", endpoint.waiting + figures.pending),
            last: last.unwrap_or_default(),
            bytes_max: endpoint.body_bytes_max.map(pages::size),
        }
    }
}

#[derive(Template)]
#[template(path = "endpoints.html")]
struct EndpointsPage {
    frame: Frame,
    rows: Vec<EndpointRow>,
}

impl EndpointsPage {
    fn of(project: &ProjectId, known: &[Known], now: Timestamp) -> Self {
        Self {
            frame: Frame::new(Some(project.to_string())),
            rows: known.iter().map(|known| EndpointRow::of(&known.endpoint, &known.figures, now)).collect(),
        }
    }
}

/// An endpoint with its figures.
struct Known {
    endpoint: EndpointView,
    figures: EndpointFigures,
}

impl Shared {
    /// The project's endpoints: disabled ones first, then by their last use.
    async fn known_endpoints(&self, project: &ProjectId) -> Shown<Vec<Known>> {
        let mut views = self.ports.deliveries.endpoints(project).await?;
        let seen = self.ports.deliveries.endpoint_figures(project).await?;
        let now = self.ports.clock.now();
        let mut known = Vec::with_capacity(views.len() + seen.len());
        for figures in seen {
            let endpoint = match views.iter().position(|view| view.url == figures.url) {
                Some(at) => views.remove(at),
                None => EndpointView::seen(project, figures.url.clone(), figures.since),
            };
            known.push(Known { endpoint, figures });
        }
        known.extend(views.into_iter().map(|endpoint| {
            let figures = EndpointFigures::none(endpoint.url.clone(), now);
            Known { endpoint, figures }
        }));
        known.sort_by_key(|known| known.endpoint.state == EndpointState::Enabled);
        Ok(known)
    }

    async fn known_endpoint(&self, project: &ProjectId, id: &str) -> Shown<Known> {
        let known = self.known_endpoints(project).await?;
        known.into_iter().find(|known| known.endpoint.id.as_str() == id).ok_or(Trouble::Unknown("endpoint"))
    }
}

/// `/dashboard/endpoints`
pub(crate) async fn list(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let known = room.known_endpoints(&project).await?;
    Ok(pages::html(StatusCode::OK, &EndpointsPage::of(&project, &known, room.ports.clock.now())))
}

/// An attempt on the page of its endpoint.
struct AttemptRow {
    run: String,
    delivery: String,
    number: u32,
    at: String,
    ago: String,
    /// `open`, `good` or `bad`.
    tone: &'static str,
    what: String,
    took: String,
    /// Whether its delivery can be made once more: it failed, and no later attempt is shown above it.
    again: bool,
}

impl AttemptRow {
    /// The attempts, the newest first.
    fn all(last: &[LastAttempt], enabled: bool, now: Timestamp) -> Vec<Self> {
        let mut shown = HashSet::new();
        let row = |last: &LastAttempt| {
            let row = Self::of(last, now);
            let is_newest = shown.insert(last.delivery_id.clone());
            Self { again: enabled && is_newest && row.tone == "bad", ..row }
        };
        last.iter().map(row).collect()
    }

    fn of(last: &LastAttempt, now: Timestamp) -> Self {
        let (tone, what) = match &last.attempt.report {
            None => ("open", "under way".to_owned()),
            Some(report) => {
                let status = report.status_code.map_or_else(String::new, |status| status.to_string());
                match &report.reason {
                    None => ("good", format!("{status} taken")),
                    Some(word) => ("bad", format!("{status} {}", words::reason(word))),
                }
            }
        };
        Self {
            run: last.run_id.to_string(),
            delivery: last.delivery_id.clone(),
            number: last.attempt.number,
            at: shape::moment(last.attempt.started_at),
            ago: shape::relative(last.attempt.started_at, now),
            tone,
            what: what.trim().to_owned(),
            again: false,
            took: last
                .attempt
                .report
                .as_ref()
                .map_or_else(String::new, |report| shape::duration(report.duration)),
        }
    }
}

/// An attempt that is still to come.
struct NextRow {
    run: String,
    at: String,
    when: String,
}

/// How the receiver is treated at the moment.
struct Treated {
    origin: String,
    under_way: usize,
    places: usize,
    /// Until when it is left alone.
    paused: Option<String>,
}

#[derive(Template)]
#[template(path = "endpoint.html")]
struct EndpointPage {
    frame: Frame,
    row: EndpointRow,
    treated: Treated,
    /// Since when attempts are counted.
    counted: String,
    next: Vec<NextRow>,
    more_next: bool,
    last: Vec<AttemptRow>,
    deliveries: String,
    events: Vec<(String, &'static str, String)>,
}

impl EndpointPage {
    fn of(project: &ProjectId, known: &Known, standing: ReceiverStanding, now: Timestamp) -> Self {
        let Known { endpoint, figures } = known;
        let receiver = endpoint.url.receiver();
        let moment = |at| format!("{} UTC", shape::moment(at));
        Self {
            frame: Frame::new(Some(project.to_string())),
            row: EndpointRow::of(endpoint, figures, now),
            treated: Treated {
                origin: visible(receiver.as_str()).into_owned(),
                under_way: standing.under_way,
                places: standing.places,
                paused: standing.paused_until.map(moment),
            },
            counted: moment(figures.since),
            next: figures
                .next
                .iter()
                .map(|next| NextRow {
                    run: next.run_id.to_string(),
                    at: moment(next.at),
                    when: if next.at <= now { "due now".to_owned() } else { shape::relative(next.at, now) },
                })
                .collect(),
            more_next: figures.pending_more || figures.pending > figures.next.len() as u64,
            last: AttemptRow::all(&figures.last, endpoint.state == EndpointState::Enabled, now),
            deliveries: query(None, Some(receiver.as_str()), None),
            events: endpoint
                .events
                .iter()
                .rev()
                .map(|event| {
                    let reason = visible(&event.reason).into_owned();
                    (shape::moment(event.at), event.state.as_str(), reason)
                })
                .collect(),
        }
    }
}

/// `/dashboard/endpoints/{endpoint}`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let known = room.known_endpoint(&project, &id).await?;
    let standing = room.ports.outbox.standing(&known.endpoint.url.receiver());
    let page = EndpointPage::of(&project, &known, standing, room.ports.clock.now());
    Ok(pages::html(StatusCode::OK, &page))
}

fn page_of(id: &EndpointId) -> Response {
    Redirect::to(&format!("/dashboard/endpoints/{}", id.as_str())).into_response()
}

/// `POST /dashboard/endpoints/{endpoint}/enable`
pub(crate) async fn enable(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let EndpointView { id, .. } = room.known_endpoint(&project, &id).await?.endpoint;
    let page = page_of(&id);
    match room.ports.actions.enable_endpoint(project, id).await? {
        // Of one that never was disabled the store knows nothing.
        Enabled::Replayed(_) | Enabled::Already | Enabled::Unknown => Ok(page),
    }
}

/// `POST /dashboard/endpoints/{endpoint}/disable`
pub(crate) async fn disable(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let EndpointView { id, url, .. } = room.known_endpoint(&project, &id).await?.endpoint;
    room.ports.deliveries.disable(&project, url).await?;
    Ok(page_of(&id))
}

/// `POST /dashboard/endpoints/{endpoint}/test`: a test event, and the page of its run.
pub(crate) async fn test(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Shown<Response> {
    let endpoint = room.known_endpoint(&project, &id).await?.endpoint;
    if endpoint.state == EndpointState::Disabled {
        return Err(Trouble::Refused(
            "The endpoint is disabled, and a test event would wait with everything else. Enable it first."
                .into(),
        ));
    }
    let run = room.ports.actions.test_endpoint(project, endpoint.url).await?;
    Ok(Redirect::to(&format!("/dashboard/runs/{run}")).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Again {
    hours: u64,
}

/// `POST /dashboard/endpoints/{endpoint}/redeliver`: all that failed there in the last hours.
pub(crate) async fn redeliver(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Form(again): Form<Again>,
) -> Shown<Response> {
    let EndpointView { id, url, .. } = room.known_endpoint(&project, &id).await?.endpoint;
    make_again(&room, project, Endpoints::One(url), again.hours).await?;
    Ok(page_of(&id))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue::delivery::EndpointEvent;
    use queue::figures::NextAttempt;
    use queue::run::EndpointUrl;

    use super::*;
    use crate::sample;

    const NOW: Timestamp = Timestamp::from_millis(60_000);

    fn project() -> ProjectId {
        "p-11111111".parse().unwrap()
    }

    fn known(state: EndpointState) -> Known {
        let delivery = sample::delivered().deliveries.remove(0);
        let url = EndpointUrl::checked("https://receiver.example/hook?<script>");
        let mut figures = EndpointFigures::none(url.clone(), Timestamp::from_millis(1_000));
        let last =
            |attempt| LastAttempt { delivery_id: delivery.id.clone(), run_id: delivery.run_id, attempt };
        figures.last = delivery.attempts.iter().rev().cloned().map(last).collect();
        (figures.attempts, figures.succeeded, figures.pending) = (3, 2, 41);
        figures.measure(vec![Duration::from_millis(20), Duration::from_millis(950)]);
        let at = Timestamp::from_millis(90_000);
        figures.next = vec![NextAttempt { delivery_id: delivery.id.clone(), run_id: delivery.run_id, at }];
        let reason = "http_status 410".to_owned();
        let events = vec![EndpointEvent { at: NOW, state, reason: reason.clone() }];
        let seen = EndpointView::seen(&project(), url, Timestamp::from_millis(0));
        Known { endpoint: EndpointView { state, reason, events, waiting: 1, ..seen }, figures }
    }

    #[test]
    fn the_list_says_how_each_does() {
        let page = EndpointsPage::of(&project(), &[known(EndpointState::Disabled)], NOW).render().unwrap();
        for said in ["66.6 %", "950 ms", ">42<", "disabled", "/dashboard/endpoints/ep_"] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(!page.contains("<script>alert") && !page.contains("?<script>"), "{page}");
        assert!(EndpointsPage::of(&project(), &[], NOW).render().unwrap().contains("Nothing was told"));
    }

    #[test]
    fn the_page_says_what_is_to_come_and_offers_what_can_be_done() {
        let page =
            |state, standing| EndpointPage::of(&project(), &known(state), standing, NOW).render().unwrap();
        let enabled =
            page(EndpointState::Enabled, ReceiverStanding { places: 8, ..ReceiverStanding::default() });
        for said in ["1970-01-01 00:01:30 UTC", "in 30 s", "/test\"", "/disable\"", "answered with an error"]
        {
            assert!(enabled.contains(said), "{said}: {enabled}");
        }
        // The attempt that failed was followed by one that did not.
        assert_eq!(enabled.matches("/redeliver\"").count(), 1, "all that failed, and no single one");
        assert!(!enabled.contains("/enable\"") && !enabled.contains("?<script>"), "{enabled}");
        let paused = ReceiverStanding { under_way: 1, places: 1, paused_until: Some(NOW) };
        let disabled = page(EndpointState::Disabled, paused);
        for said in ["/enable\"", "left alone until 1970-01-01 00:01:00 UTC", "http_status 410"] {
            assert!(disabled.contains(said), "{said}: {disabled}");
        }
        assert!(!disabled.contains("/test\""), "{disabled}");
    }
}
