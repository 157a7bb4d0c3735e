//! The page of an inbox, and the download of a body.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use pages::html;
use pages::inert::visible;
use queue::inbox::Inbox;
use queue::port::{StoreError, Stored};
use serde::Deserialize;

use crate::assets::Links;
use crate::door::Opened;
use crate::search::{Found, TEXT_CHARS_MAX};
use crate::view::{RequestView, Views};
use crate::{Shared, aside, curl};

/// Requests on one page.
const PAGE_REQUESTS_MAX: usize = 100;
/// Bytes of bodies read for one page, beyond its first request.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// The query of every address under an inbox's page.
#[derive(Deserialize)]
pub(crate) struct Ask {
    /// The view token.
    pub(crate) token: Option<String>,
    /// Show what arrived before this request.
    pub(crate) before: Option<i64>,
    /// Tell of what arrived after this request.
    pub(crate) after: Option<i64>,
    /// Show what holds this text.
    pub(crate) q: Option<String>,
    /// In which form a request is shown.
    pub(crate) view: Option<String>,
    /// From which byte on.
    pub(crate) from: Option<usize>,
    /// Two requests to compare.
    pub(crate) old: Option<i64>,
    pub(crate) new: Option<i64>,
}

/// The page of an inbox.
#[derive(Template)]
#[template(path = "inbox.html")]
struct InboxPage {
    links: Links,
    /// What people call the inbox.
    name: String,
    id: String,
    token: String,
    /// What was searched for; empty when nothing was.
    q: String,
    q_max: usize,
    /// Where senders post.
    address: String,
    /// The script that they are answered by, when somebody set one.
    reply: Option<String>,
    /// When the inbox ends, if it does.
    ends: Option<String>,
    /// Until when it is shown, to whoever came by a link.
    shown_until: Option<String>,
    /// A first request to try.
    example: String,
    requests: Vec<RequestView>,
    /// An empty one, which the script fills for what arrives.
    blank: RequestView,
    /// Where the script listens; `None` on pages of older requests.
    events: Option<String>,
    newest: Option<String>,
    older: Option<String>,
}

/// Said for a wrong token, an unknown inbox and a deleted one alike.
#[derive(Template)]
#[template(path = "gone.html")]
struct GonePage {
    links: Links,
}

/// `/inboxes/{id}?token=…`
pub(crate) async fn show(
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(ask): Query<Ask>,
) -> Response {
    match room.render(&id, &ask).await {
        Ok(Some(page)) => aside(move || html(StatusCode::OK, &page)).await,
        Ok(None) => gone(),
        Err(error) => unavailable(&error),
    }
}

/// `/inboxes/{id}/requests/{sequence}/body?token=…`: the bytes as they arrived, never shown.
pub(crate) async fn body(
    State(room): State<Arc<Shared>>,
    Path((id, sequence)): Path<(String, i64)>,
    Query(ask): Query<Ask>,
) -> Response {
    let body = async {
        let Some(Opened { inbox, .. }) = room.open(&id, ask.token.as_deref()).await? else { return Ok(None) };
        let _turn = room.reads.acquire().await;
        Ok(room.request(&inbox, sequence).await?.map(|request| request.body))
    };
    match body.await {
        Ok(Some(bytes)) => {
            let mut response = Body::from(bytes).into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            let name = format!("attachment; filename=\"{}\"", curl::file_name(sequence));
            headers.insert(CONTENT_DISPOSITION, HeaderValue::from_str(&name).expect("a number is ASCII"));
            pages::sandbox(headers);
            response
        }
        Ok(None) => gone(),
        Err(error) => unavailable(&error),
    }
}

impl Shared {
    async fn render(&self, id: &str, ask: &Ask) -> Stored<Option<InboxPage>> {
        let Some(opened) = self.open(id, ask.token.as_deref()).await? else { return Ok(None) };
        let Opened { inbox, until } = opened;
        let _turn = self.reads.acquire().await;
        let before = ask.before.unwrap_or(i64::MAX);
        let q: String = ask.q.as_deref().unwrap_or_default().trim().chars().take(TEXT_CHARS_MAX).collect();
        let found = if q.is_empty() {
            let requests =
                self.inboxes.requests_before(&inbox.id, before, PAGE_REQUESTS_MAX, PAGE_BYTES_MAX).await?;
            let looked_to = requests.last().map(|request| request.sequence);
            Found { requests, looked_to }
        } else {
            self.search(&inbox.id, &q, before, PAGE_REQUESTS_MAX).await?
        };
        let newest = found.requests.first().map_or(0, |request| request.sequence);
        let (views, shown) = (self.views(&inbox), found.requests);
        let requests: Vec<_> = aside(move || shown.iter().map(|request| views.of(request)).collect()).await;
        let here = format!("{}?token={}", page_path(&inbox), inbox.view_token);
        let older = match found.looked_to {
            Some(oldest) if !self.inboxes.requests_before(&inbox.id, oldest, 1, 0).await?.is_empty() => {
                let search: String = url::form_urlencoded::byte_serialize(q.as_bytes()).collect();
                let search = if q.is_empty() { String::new() } else { format!("&q={search}") };
                Some(format!("{here}{search}&before={oldest}"))
            }
            _ => None,
        };
        let address = self.address(&inbox.id);
        Ok(Some(InboxPage {
            links: Links::new(),
            name: name(&inbox),
            id: inbox.id.to_string(),
            token: inbox.view_token.clone(),
            reply: inbox.reply.as_ref().map(|reply| reply.script.to_string()),
            ends: inbox.expires_at.map(queue::Timestamp::to_rfc3339),
            shown_until: until.map(queue::Timestamp::to_rfc3339),
            q_max: TEXT_CHARS_MAX,
            example: format!(
                "curl -X POST {address} \\\n  -H 'Content-Type: application/json' \\\n  --data '{{\"hello\": \"world\"}}'"
            ),
            address,
            requests,
            blank: RequestView::default(),
            events: (ask.before.is_none() && q.is_empty())
                .then(|| format!("{}/events?token={}&after={newest}", page_path(&inbox), inbox.view_token)),
            newest: (ask.before.is_some() || !q.is_empty()).then_some(here),
            older,
            q: visible(&q).into_owned(),
        }))
    }

    /// Shows requests as the page of their inbox does.
    pub(crate) fn views(&self, inbox: &Inbox) -> Views {
        Views { address: self.address(&inbox.id), page: page_path(inbox), token: inbox.view_token.clone() }
    }
}

/// What people call an inbox, or the beginning of its id.
pub(crate) fn name(inbox: &Inbox) -> String {
    match &inbox.name {
        Some(name) => visible(name).into_owned(),
        None => inbox.id.as_str().chars().take(8).collect(),
    }
}

pub(crate) fn page_path(inbox: &Inbox) -> String {
    format!("/inboxes/{}", inbox.id)
}

/// The one answer for everything that is not there, or not for this visitor.
pub(crate) fn gone() -> Response {
    html(StatusCode::NOT_FOUND, &GonePage { links: Links::new() })
}

/// An address that cannot be read is that of no inbox.
pub(crate) async fn in_words(answer: Response) -> Response {
    pages::unread(answer).await.map_or_else(|answer| answer, |_| gone())
}

/// The store is in trouble; the page may be tried again.
pub(crate) fn unavailable(error: &StoreError) -> Response {
    tracing::error!(error = %error, "An inbox could not be read");
    let message = "the inbox cannot be read right now; try again in a moment\n";
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], message).into_response()
}
