//! Answering as the inbox's reply settings say, once the request is recorded.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use queue::inbox::{Does, Reply, ResetConnection, Step};
use queue::limits::INBOX_SILENCE;
use tokio::time::sleep;

use crate::Shared;
use crate::capture::{Kept, answer_json};

impl Shared {
    /// The answer to a recorded request.
    pub(crate) async fn reply(&self, kept: &Kept) -> Response {
        let id = format!("{{\"id\":\"{}\"}}", kept.id);
        let Some(reply) = &kept.inbox.reply else { return answer_json(StatusCode::OK, id.into()) };
        let step = reply.script.step(kept.recorded.place);
        let silent = matches!(step.does, Does::Timeout);
        self.wait(if silent { INBOX_SILENCE } else { step.delay }).await;
        match step.does {
            Does::Status(status) => answer(reply, step, status, id),
            Does::Timeout | Does::Reset => {
                let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
                response.extensions_mut().insert(ResetConnection);
                response
            }
        }
    }

    /// Lets a sender wait; not one too many, and not when the server stops.
    async fn wait(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        let Ok(_turn) = self.waits.try_acquire() else { return };
        tokio::select! {
            () = sleep(time) => {}
            () = self.options.shutdown.cancelled() => {}
        }
    }
}

/// What people chose, in the sandbox in which all answers of inboxes are.
fn answer(reply: &Reply, step: Step, status: u16, id: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let bodiless =
        matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let (body, content_type) = match &reply.body {
        _ if bodiless => (String::new(), None),
        Some(text) => (text.clone(), Some("text/plain; charset=utf-8")),
        None => (id, Some("application/json")),
    };
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = step.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    for (at, (name, value)) in reply.headers.iter().enumerate() {
        let read = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value));
        let (Ok(header), Ok(value)) = read else { continue };
        // The first of a name takes the place of ours, further ones stand beside it.
        if reply.headers[..at].iter().any(|(earlier, _)| earlier == name) {
            headers.append(header, value);
        } else {
            headers.insert(header, value);
        }
    }
    pages::sandbox(headers);
    response
}
