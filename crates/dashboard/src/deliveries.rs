//! What is told to receivers: the list of deliveries, and making them once more.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::delivery::{DeliveryFilter, DeliveryState, DeliveryView, Endpoints};
use queue::run::Receiver;
use queue::{DeliveryId, ProjectId, Timestamp};
use serde::Deserialize;
use url::Url;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;
use crate::{shape, words};

/// Deliveries on one page.
const PAGE_DELIVERIES: usize = 100;
/// How far back failed deliveries may be asked for once more: as long as they are kept.
const HOURS_MAX: u64 = 30 * 24;

#[derive(Deserialize)]
pub(crate) struct Narrow {
    state: Option<String>,
    receiver: Option<String>,
    after: Option<String>,
}

/// A delivery in the list.
struct DeliveryRow {
    run: String,
    event: &'static str,
    url: String,
    /// The query that shows those of its receiver.
    of_receiver: String,
    state: DeliveryState,
    /// What the last attempt came to.
    last: String,
    attempts: u32,
    when: String,
}

impl DeliveryRow {
    fn of(delivery: &DeliveryView, now: Timestamp) -> Self {
        let last = delivery.attempts.last();
        let report = last.and_then(|attempt| attempt.report.as_ref());
        let status =
            report.and_then(|report| report.status_code).map_or_else(String::new, |code| code.to_string());
        let said = match report.map(|report| &report.reason) {
            Some(Some(word)) => format!("{status} {}", words::reason(word)),
            Some(None) => {
                format!("{status} in {}", shape::duration(report.map_or(Duration::ZERO, |r| r.duration)))
            }
            None => String::new(),
        };
        let when = match (delivery.next_attempt_at, last) {
            (Some(next), _) if next <= now => "due now".to_owned(),
            (Some(next), _) => format!("next {} ({})", shape::relative(next, now), shape::moment(next)),
            (None, Some(last)) => shape::relative(last.ended_at.unwrap_or(last.started_at), now),
            (None, None) => String::new(),
        };
        Self {
            run: delivery.run_id.to_string(),
            event: delivery.event.as_str(),
            url: visible(delivery.url.as_str()).into_owned(),
            of_receiver: query(None, Some(delivery.url.receiver().as_str()), None),
            state: delivery.state,
            last: said.trim().to_owned(),
            attempts: last.map_or(0, |last| last.number),
            when,
        }
    }
}

/// The receiver that the list is narrowed to, with what can be done about it.
struct Chosen {
    origin: String,
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    frame: Frame,
    states: Vec<(DeliveryState, bool)>,
    receiver: Option<Chosen>,
    rows: Vec<DeliveryRow>,
    older: Option<String>,
    newest: Option<String>,
}

pub(crate) fn query(state: Option<DeliveryState>, receiver: Option<&str>, after: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let pairs = [("state", state.map(DeliveryState::as_str)), ("receiver", receiver), ("after", after)];
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/dashboard/deliveries?{}", query.finish())
}

fn state(word: &str) -> Shown<DeliveryState> {
    let found = DeliveryState::ALL.into_iter().find(|known| known.as_str() == word);
    found.ok_or_else(|| {
        Trouble::no_such("state of deliveries", word, &DeliveryState::ALL.map(DeliveryState::as_str))
    })
}

/// The origin of an address that somebody typed.
fn origin(text: &str) -> Option<String> {
    let origin = Url::parse(text.trim()).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

/// `/dashboard/deliveries`
pub(crate) async fn list(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Query(narrow): Query<Narrow>,
) -> Shown<Response> {
    let state =
        narrow.state.as_deref().map(str::trim).filter(|word| !word.is_empty()).map(state).transpose()?;
    let asked = narrow.receiver.as_deref().filter(|text| !text.trim().is_empty());
    let receiver = match asked {
        Some(text) => Some(origin(text).ok_or_else(|| {
            Trouble::Invalid("A receiver is written as an address: https://example.com".into())
        })?),
        None => None,
    };
    let after =
        narrow.after.as_deref().filter(|text| !text.is_empty()).map(str::parse::<DeliveryId>).transpose();
    let after = after.map_err(|_| {
        Trouble::Invalid("`after` is no id of a delivery; begin with the newest deliveries again.".to_owned())
    })?;
    let filter = DeliveryFilter {
        project: project.clone(),
        endpoints: receiver.as_deref().map(|origin| Endpoints::Of(Receiver::stored(origin))),
        state,
        after,
        limit: PAGE_DELIVERIES + 1,
    };
    let mut deliveries = room.ports.deliveries.deliveries(filter).await?;
    let more = deliveries.len() > PAGE_DELIVERIES;
    deliveries.truncate(PAGE_DELIVERIES);
    let now = room.ports.clock.now();
    let page = DeliveriesPage {
        frame: Frame::new(Some(project.to_string())),
        states: DeliveryState::ALL.into_iter().map(|one| (one, Some(one) == state)).collect(),
        older: deliveries
            .last()
            .filter(|_| more)
            .map(|last| query(state, receiver.as_deref(), Some(&last.id))),
        newest: after.map(|_| query(state, receiver.as_deref(), None)),
        rows: deliveries.iter().map(|delivery| DeliveryRow::of(delivery, now)).collect(),
        receiver: receiver.map(|origin| Chosen { origin }),
    };
    Ok(pages::html(StatusCode::OK, &page))
}

#[derive(Deserialize)]
pub(crate) struct Again {
    receiver: String,
    hours: u64,
}

/// `POST /dashboard/deliveries/redeliver`: all that failed at a receiver since a time.
pub(crate) async fn redeliver(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Form(again): Form<Again>,
) -> Shown<Response> {
    let Some(origin) = origin(&again.receiver) else {
        return Err(Trouble::Invalid("A receiver is written as an address: https://example.com".into()));
    };
    let to = query(None, Some(&origin), None);
    make_again(&room, project, Endpoints::Of(Receiver::stored(&origin)), again.hours).await?;
    Ok(Redirect::to(&to).into_response())
}

/// Makes everything once more that failed at some endpoints in the last hours.
pub(crate) async fn make_again(
    room: &Shared,
    project: ProjectId,
    endpoints: Endpoints,
    hours: u64,
) -> Shown<()> {
    if !(1..=HOURS_MAX).contains(&hours) {
        return Err(Trouble::Invalid(format!("Say how many hours to go back: 1 to {HOURS_MAX}.")));
    }
    let back = i64::try_from(hours).unwrap_or(0) * 3_600_000;
    let since = Timestamp::from_millis(room.ports.clock.now().as_millis() - back);
    room.ports.actions.redeliver_failed(project, endpoints, since).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_delivery_says_what_its_last_attempt_came_to_and_when_the_next_is_due() {
        let now = Timestamp::from_millis(60_000);
        let mut delivery = sample::delivered().deliveries.remove(0);
        let row = DeliveryRow::of(&delivery, now);
        assert_eq!((row.last.as_str(), row.attempts, row.when.as_str()), ("200 in 20 ms", 2, "53 s ago"));
        assert_eq!(row.of_receiver, "/dashboard/deliveries?receiver=https%3A%2F%2Freceiver.example");
        delivery.attempts.truncate(1);
        delivery.state = DeliveryState::Pending;
        delivery.next_attempt_at = Some(Timestamp::from_millis(90_000));
        let row = DeliveryRow::of(&delivery, now);
        assert_eq!(row.last, "503 the receiver answered with an error");
        assert_eq!(row.when, "next in 30 s (1970-01-01 00:01:30)");
    }

    #[test]
    fn a_state_that_there_is_not_is_named_with_those_that_there_are() {
        assert_eq!(state("pending").unwrap(), DeliveryState::Pending);
        let Err(Trouble::Invalid(message)) = state("done") else { panic!("it is taken") };
        assert!(message.starts_with("`done` is no state of deliveries; there are pending, "), "{message}");
    }

    #[test]
    fn a_receiver_is_found_by_any_of_its_addresses() {
        assert_eq!(origin(" https://Example.com/hook?a=1 ").as_deref(), Some("https://example.com"));
        for wrong in ["example.com", "mailto:a@example.com", ""] {
            assert_eq!(origin(wrong), None, "{wrong}");
        }
    }
}
