//! One request in every form, beside another one, and the picture in its body.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use pages::inert::visible;
use pages::{html, size};
use queue::inbox::{CapturedRequest, Inbox};
use queue::port::Stored;
use queue::text::cut;

use crate::assets::Links;
use crate::difference::{self, Line};
use crate::door::Opened;
use crate::page::{Ask, gone, name, page_path, unavailable};
use crate::view::{RequestView, hex};
use crate::{Shared, aside, image};

/// Of a body, shown laid out or as it came.
const TEXT_BYTES_MAX: usize = 512 << 10;
/// Of a body, on one page of bytes.
const HEX_BYTES: usize = 4 << 10;

/// The forms in which a request is shown: their word in the address, and their name.
const VIEWS: [(&str, &str); 4] =
    [("pretty", "Pretty"), ("raw", "Raw"), ("headers", "Headers"), ("hex", "Hex")];

struct Tab {
    name: &'static str,
    link: String,
    here: bool,
}

#[derive(Template)]
#[template(path = "single.html")]
struct SinglePage {
    links: Links,
    name: String,
    /// Back to all of them.
    all: String,
    id: String,
    token: String,
    request: RequestView,
    older: Option<String>,
    newer: Option<String>,
    /// Until when it is shown, to whoever came by a link.
    shown_until: Option<String>,
    /// What a comparison is offered with.
    other: i64,
    tabs: Vec<Tab>,
    view: &'static str,
    /// The body, in the chosen form.
    text: String,
    note: String,
    /// Further pages of bytes.
    hex_before: Option<String>,
    hex_after: Option<String>,
}

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    links: Links,
    name: String,
    all: String,
    id: String,
    token: String,
    old: i64,
    new: i64,
    sides: [RequestView; 2],
    heads: Vec<Line>,
    /// `None` when they are the same.
    bodies: Option<Vec<Line>>,
}

/// `/inboxes/{id}/requests/{sequence}?token=…&view=…`
pub(crate) async fn show(
    State(room): State<Arc<Shared>>,
    Path((id, sequence)): Path<(String, i64)>,
    Query(ask): Query<Ask>,
) -> Response {
    match room.single(&id, sequence, &ask).await {
        Ok(Some(page)) => aside(move || html(StatusCode::OK, &page)).await,
        Ok(None) => gone(),
        Err(error) => unavailable(&error),
    }
}

/// `/inboxes/{id}/compare?token=…&old=…&new=…`
pub(crate) async fn compare(
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(ask): Query<Ask>,
) -> Response {
    match room.beside(&id, &ask).await {
        Ok(Some(page)) => aside(move || html(StatusCode::OK, &page)).await,
        Ok(None) => gone(),
        Err(error) => unavailable(&error),
    }
}

/// `/inboxes/{id}/requests/{sequence}/image?token=…`: a body that is a picture, and no other.
pub(crate) async fn picture(
    State(room): State<Arc<Shared>>,
    Path((id, sequence)): Path<(String, i64)>,
    Query(ask): Query<Ask>,
) -> Response {
    let found = async {
        let Some(Opened { inbox, .. }) = room.open(&id, ask.token.as_deref()).await? else { return Ok(None) };
        let _turn = room.reads.acquire().await;
        room.request(&inbox, sequence).await
    };
    let request = match found.await {
        Ok(Some(request)) => request,
        Ok(None) => return gone(),
        Err(error) => return unavailable(&error),
    };
    let Some(kind) = image::kind(&request.body) else { return gone() };
    let mut response = Body::from(request.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    pages::sandbox(headers);
    response
}

impl Shared {
    /// One recorded request.
    pub(crate) async fn request(&self, inbox: &Inbox, sequence: i64) -> Stored<Option<CapturedRequest>> {
        let found = self.inboxes.requests(&inbox.id, sequence.saturating_sub(1), 1).await?.pop();
        Ok(found.filter(|request| request.sequence == sequence))
    }

    async fn single(&self, id: &str, sequence: i64, ask: &Ask) -> Stored<Option<SinglePage>> {
        let Some(opened) = self.open(id, ask.token.as_deref()).await? else { return Ok(None) };
        let Opened { inbox, until } = opened;
        let _turn = self.reads.acquire().await;
        let Some(request) = self.request(&inbox, sequence).await? else { return Ok(None) };
        let older = self.inboxes.requests_before(&inbox.id, sequence, 1, 0).await?.pop();
        let newer = self.inboxes.requests(&inbox.id, sequence, 1).await?.pop();
        let here =
            |sequence: i64| format!("{}/requests/{sequence}?token={}", page_path(&inbox), inbox.view_token);
        let link = |other: Option<&CapturedRequest>| other.map(|other| here(other.sequence));
        let wanted = ask.view.as_deref();
        let view = VIEWS.iter().map(|(word, _)| *word).find(|word| wanted == Some(*word)).unwrap_or("pretty");
        let tabs = VIEWS.iter().map(|(word, name)| Tab {
            name,
            link: format!("{}&view={word}", here(sequence)),
            here: *word == view,
        });
        let from = ask.from.unwrap_or(0).min(request.body.len()) / HEX_BYTES * HEX_BYTES;
        let hex_page = |from: usize| format!("{}&view=hex&from={from}", here(sequence));
        let (views, bytes) = (self.views(&inbox), request.body.len());
        let ((text, note), request) =
            aside(move || (shown(&request.body, view, from), views.of(&request))).await;
        let is_hex = view == "hex";
        Ok(Some(SinglePage {
            links: Links::new(),
            name: name(&inbox),
            all: format!("{}?token={}", page_path(&inbox), inbox.view_token),
            id: inbox.id.to_string(),
            token: inbox.view_token.clone(),
            shown_until: until.map(queue::Timestamp::to_rfc3339),
            older: link(older.as_ref()),
            newer: link(newer.as_ref()),
            other: older.or(newer).map_or(sequence, |other| other.sequence),
            tabs: tabs.collect(),
            view,
            text,
            note,
            hex_before: (is_hex && from > 0).then(|| hex_page(from - HEX_BYTES)),
            hex_after: (is_hex && from + HEX_BYTES < bytes).then(|| hex_page(from + HEX_BYTES)),
            request,
        }))
    }

    async fn beside(&self, id: &str, ask: &Ask) -> Stored<Option<ComparePage>> {
        let Some(Opened { inbox, .. }) = self.open(id, ask.token.as_deref()).await? else { return Ok(None) };
        let (Some(old), Some(new)) = (ask.old, ask.new) else { return Ok(None) };
        let _turn = self.reads.acquire().await;
        // The older one first, whichever way round they were asked for.
        let (old, new) = (old.min(new), old.max(new));
        let Some(old) = self.request(&inbox, old).await? else { return Ok(None) };
        let Some(new) = self.request(&inbox, new).await? else { return Ok(None) };
        let views = self.views(&inbox);
        let sequences = (old.sequence, new.sequence);
        let (heads, bodies, sides) = aside(move || {
            let sides = [views.of(&old), views.of(&new)];
            (difference::heads(&old, &new), difference::bodies(&old, &new), sides)
        })
        .await;
        Ok(Some(ComparePage {
            links: Links::new(),
            name: name(&inbox),
            all: format!("{}?token={}", page_path(&inbox), inbox.view_token),
            id: inbox.id.to_string(),
            token: inbox.view_token.clone(),
            heads,
            bodies,
            old: sequences.0,
            new: sequences.1,
            sides,
        }))
    }
}

/// A body in one of its forms, and what is to be said about it.
fn shown(body: &[u8], view: &str, from: usize) -> (String, String) {
    if body.is_empty() {
        return (String::new(), "no body".to_owned());
    }
    if view == "hex" {
        let end = body.len().min(from + HEX_BYTES);
        let note = format!("bytes {from} to {} of {}", end - 1, body.len());
        return (hex(&body[from.min(end)..end], from), note);
    }
    let lossy = std::str::from_utf8(body).is_err();
    let may_be_laid_out = view == "pretty" && body.len() <= TEXT_BYTES_MAX;
    // Of a large body so much is looked at as is shown, and one more byte that says that there is more.
    let text = String::from_utf8_lossy(&body[..body.len().min(TEXT_BYTES_MAX + 1)]);
    let json = may_be_laid_out.then(|| pages::pretty(&text, TEXT_BYTES_MAX + 1)).flatten();
    let laid_out = json.is_some();
    let whole = json.unwrap_or_else(|| text.into_owned());
    let text = cut(&whole, TEXT_BYTES_MAX);
    let mut notes = Vec::new();
    if may_be_laid_out && !laid_out {
        notes.push("not JSON, so as it came".to_owned());
    }
    if lossy {
        notes.push("not UTF-8: what could not be read is shown as �".to_owned());
    }
    if text.len() < whole.len() {
        notes.push(format!("the first {} of {} are shown", size(text.len() as u64), size(body.len() as u64)));
    }
    (visible(text).into_owned(), notes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_four_forms() {
        let body = br#"{"a":"<b>"}"#;
        assert_eq!(shown(body, "pretty", 0), ("{\n  \"a\": \"<b>\"\n}".to_owned(), String::new()));
        assert_eq!(shown(body, "raw", 0), (r#"{"a":"<b>"}"#.to_owned(), String::new()));
        let (text, note) = shown(body, "hex", 0);
        assert!(text.starts_with("0000  7b 22 61 22") && note == "bytes 0 to 10 of 11", "{text} {note}");
        let (text, note) = shown(b"\xff\x1b[31m", "pretty", 0);
        assert_eq!(text, "\u{fffd}␛[31m");
        assert!(note.contains("not JSON") && note.contains("not UTF-8"), "{note}");
        assert_eq!(shown(b"", "raw", 0).1, "no body");
    }

    #[test]
    fn a_large_body_is_cut_between_characters_and_not_called_what_it_is_not() {
        let json = format!("[\"{}\"]", "ä".repeat(TEXT_BYTES_MAX));
        let (text, note) = shown(json.as_bytes(), "pretty", 0);
        assert_eq!(note, "the first 512.0 KiB of 1.0 MiB are shown");
        assert!(text.len() <= TEXT_BYTES_MAX && text.ends_with('ä'), "{}", text.len());
    }

    #[test]
    fn bytes_are_shown_page_by_page() {
        let body = vec![b'x'; HEX_BYTES + 3];
        let (text, note) = shown(&body, "hex", HEX_BYTES);
        assert!(text.starts_with("1000  78 78 78 "), "{text}");
        assert_eq!(note, "bytes 4096 to 4098 of 4099");
    }
}
