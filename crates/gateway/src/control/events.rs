//! What happened to an app, and why.

use axum::Json;
use axum::extract::State;
use queue::event::{EventKind, StoredEvent};
use queue::{BuildId, Timestamp};
use serde::Serialize;

use super::request::Params;
use super::scope::OwnApp;
use crate::Gateway;
use crate::problem::Answer;

/// Events of a page, when the caller says nothing.
const PAGE_EVENTS: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventPage {
    items: Vec<EventView>,
    /// Where `?after=` goes on.
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView {
    id: String,
    at: Timestamp,
    kind: EventKind,
    text: String,
    build_id: Option<BuildId>,
}

/// Oldest first: the newest ones, or those after a cursor.
pub(super) async fn list(
    OwnApp(app): OwnApp,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<EventPage>> {
    let after = params.cursor::<i64>("after")?;
    let limit = params.limit("limit", PAGE_EVENTS)?;
    let events = gateway.events.events(&app.id, after, limit).await?;
    let next_token = events.last().map(|event| event.id).or(after).map(|id| id.to_string());
    let items = events
        .into_iter()
        .map(|StoredEvent { id, event }| EventView {
            id: id.to_string(),
            at: event.at,
            kind: event.kind,
            text: event.text,
            build_id: event.build,
        })
        .collect();
    Ok(Json(EventPage { items, next_token }))
}
