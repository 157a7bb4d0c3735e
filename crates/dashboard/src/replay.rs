//! A recorded request of an inbox, sent once more to an address that somebody types, and what that answered.
//!
//! The answer is shown on the page that asked for it, and kept nowhere.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use pages::inert::visible;
use queue::ProjectId;
use queue::delivery::Timings;
use queue::inbox::{CapturedRequest, Inbox};
use queue::limits::WEBHOOK_URL_BYTES_MAX;
use queue::replay::{NotReplayed, Replayed, headers_sent};
use queue::signature::TIMESTAMP_HEADER;
use serde::Deserialize;

use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;
use crate::{Shared, inboxes, shape, words};

/// What came back, for people.
struct Came {
    /// Where it came from.
    url: String,
    /// The status with its usual words, or the word for why there is none.
    badge: String,
    tone: &'static str,
    /// Why no whole answer came.
    why: Option<&'static str>,
    /// It points elsewhere, and nobody went there.
    redirects: bool,
    took: String,
    /// Where the time went.
    parts: Vec<(&'static str, String)>,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl Came {
    fn of(replayed: &Replayed) -> Self {
        let status = replayed.status_code.and_then(|status| StatusCode::from_u16(status).ok());
        let reason = replayed.reason.as_deref();
        Self {
            url: visible(replayed.url.as_str()).into_owned(),
            badge: match (status, reason) {
                (Some(status), None) => {
                    let word = status.canonical_reason().unwrap_or_default();
                    format!("{} {word}", status.as_u16()).trim_end().to_owned()
                }
                (Some(status), Some(reason)) => format!("{} {reason}", status.as_u16()),
                (None, reason) => reason.unwrap_or_default().to_owned(),
            },
            tone: match status {
                Some(status) if reason.is_none() && status.as_u16() < 400 => "succeeded",
                _ => "failed",
            },
            why: reason.map(words::reason),
            redirects: status.is_some_and(|status| status.is_redirection()),
            took: shape::duration(replayed.duration),
            parts: parts(&replayed.timings),
            headers: shown(replayed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))),
            body: replayed.response.as_deref().map(|body| shape::body(body.as_bytes())),
        }
    }
}

/// The steps of an attempt that were taken, with the time of each.
fn parts(timings: &Timings) -> Vec<(&'static str, String)> {
    let parts = [
        ("Name", timings.dns),
        ("Connect", timings.connect),
        ("TLS", timings.tls),
        ("First byte", timings.first_byte),
    ];
    parts.into_iter().filter_map(|(what, took)| Some((what, shape::duration(took?)))).collect()
}

fn shown<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    headers.map(|(name, value)| (visible(name).into_owned(), visible(value).into_owned())).collect()
}

#[derive(Template)]
#[template(path = "replay.html")]
struct ReplayPage {
    frame: Frame,
    /// What people call the inbox.
    inbox: String,
    id: String,
    /// The request on its own page.
    page: String,
    sequence: i64,
    method: String,
    path: String,
    arrived: String,
    size: String,
    /// The headers that go along.
    headers: Vec<(String, String)>,
    /// How many of those recorded stay behind.
    stay: usize,
    is_signed: bool,
    url: String,
    url_max: usize,
    /// Why nothing was sent.
    trouble: Option<String>,
    came: Option<Came>,
}

impl Shared {
    async fn recorded(
        &self,
        project: &ProjectId,
        id: &str,
        sequence: &str,
    ) -> Shown<(Inbox, CapturedRequest)> {
        let inbox = self.own_inbox(project, id).await?;
        let sequence = sequence.parse::<i64>().map_err(|_| Trouble::Unknown("request"))?;
        let _turn = self.recorded_reads.acquire().await;
        let found = self.ports.inboxes.requests(&inbox.id, sequence.saturating_sub(1), 1).await?.pop();
        let request = found.filter(|request| request.sequence == sequence);
        Ok((inbox, request.ok_or(Trouble::Unknown("request"))?))
    }

    fn replay_page(
        &self,
        project: &ProjectId,
        inbox: &Inbox,
        request: &CapturedRequest,
        url: &str,
    ) -> ReplayPage {
        let headers = shown(headers_sent(&request.headers));
        let prefix = format!("/inbox/{}", inbox.id);
        let path = request.path.strip_prefix(&prefix).unwrap_or(&request.path);
        ReplayPage {
            frame: Frame::new(Some(project.to_string())),
            inbox: inboxes::name(inbox),
            id: inbox.id.to_string(),
            page: format!("/inboxes/{}/requests/{}?token={}", inbox.id, request.sequence, inbox.view_token),
            sequence: request.sequence,
            method: visible(&request.method).into_owned(),
            path: visible(if path.is_empty() { "/" } else { path }).into_owned(),
            arrived: shape::moment(request.received_at),
            size: pages::size(request.body.len() as u64),
            stay: request.headers.len() - headers.len(),
            headers,
            is_signed: request.headers.iter().any(|(name, _)| name == TIMESTAMP_HEADER),
            url: visible(url).into_owned(),
            url_max: WEBHOOK_URL_BYTES_MAX,
            trouble: None,
            came: None,
        }
    }
}

/// `GET /dashboard/inboxes/{inbox}/requests/{sequence}/replay`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path((id, sequence)): Path<(String, String)>,
) -> Shown<Response> {
    let (inbox, request) = room.recorded(&project, &id, &sequence).await?;
    Ok(pages::html(StatusCode::OK, &room.replay_page(&project, &inbox, &request, "")))
}

#[derive(Deserialize)]
pub(crate) struct Target {
    url: String,
}

/// `POST /dashboard/inboxes/{inbox}/requests/{sequence}/replay`
pub(crate) async fn send(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path((id, sequence)): Path<(String, String)>,
    form: Result<Form<Target>, FormRejection>,
) -> Shown<Response> {
    let Form(target) = form.map_err(|why| Trouble::Unreadable(why.status(), why.body_text()))?;
    let (inbox, request) = room.recorded(&project, &id, &sequence).await?;
    let url = target.url.trim();
    let mut page = room.replay_page(&project, &inbox, &request, url);
    let status = match room.ports.replays.replay(&request, url).await {
        Ok(replayed) => {
            page.came = Some(Came::of(&replayed));
            StatusCode::OK
        }
        Err(why) => {
            page.trouble = Some(visible(&why.to_string()).into_owned());
            match why {
                NotReplayed::Busy => StatusCode::TOO_MANY_REQUESTS,
                NotReplayed::Refused(_) | NotReplayed::Method(_) => StatusCode::UNPROCESSABLE_ENTITY,
            }
        }
    };
    Ok(pages::html(status, &page))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue::run::EndpointUrl;

    use super::*;

    fn replayed(status_code: Option<u16>, reason: Option<&str>) -> Replayed {
        Replayed {
            url: EndpointUrl::checked("https://receiver.example/hook"),
            status_code,
            headers: vec![("x-mine".to_owned(), "\u{202e}1".to_owned())],
            response: Some("{\"a\":1}".to_owned()),
            reason: reason.map(str::to_owned),
            duration: Duration::from_millis(30),
            timings: Timings { connect: Some(Duration::from_millis(2)), ..Timings::default() },
        }
    }

    #[test]
    fn an_answer_is_said_as_what_it_is() {
        for (status, reason, badge, tone, redirects) in [
            (Some(200), None, "200 OK", "succeeded", false),
            (Some(302), None, "302 Found", "succeeded", true),
            (Some(500), None, "500 Internal Server Error", "failed", false),
            (Some(799), None, "799", "failed", false),
            (Some(200), Some("timeout:body"), "200 timeout:body", "failed", false),
            (None, Some("refused"), "refused", "failed", false),
        ] {
            let came = Came::of(&replayed(status, reason));
            assert_eq!((came.badge.as_str(), came.tone, came.redirects), (badge, tone, redirects));
            assert_eq!(came.why.is_some(), reason.is_some(), "{badge}");
        }
        let came = Came::of(&replayed(Some(200), None));
        assert_eq!(came.parts, [("Connect", "2.0 ms".to_owned())]);
        assert!(!came.headers[0].1.contains('\u{202e}'), "{:?}", came.headers);
        assert_eq!(came.body.as_deref(), Some("{\n  \"a\": 1\n}"));
    }
}
