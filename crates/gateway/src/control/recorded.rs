//! What an inbox recorded: read, waited for, and sent once more.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use queue::delivery::Timings;
use queue::inbox::{CapturedRequest, SignatureVerdict};
use queue::replay::NotReplayed;
use queue::run::EndpointUrl;
use queue::{InboxId, Timestamp};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tokio::time::{Instant, sleep};

use super::request::{Fields, Params, refused};
use super::scope::OwnInbox;
use crate::Gateway;
use crate::problem::{Answer, Problem, clip};

/// Requests of a page, when the caller says nothing.
const PAGE_REQUESTS: usize = 100;
/// Bytes of bodies after which a page ends, whatever its limit: one more body may follow.
const PAGE_BYTES: usize = 8 << 20;
/// How often the store is asked while a caller waits; the port has no way to wait in.
const POLL: Duration = Duration::from_millis(100);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestPage {
    items: Vec<RequestView>,
    /// Where `?after=` goes on.
    next_token: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestView {
    id: String,
    sequence: i64,
    method: String,
    path: String,
    #[serde(serialize_with = "as_object")]
    headers: Vec<(String, String)>,
    body: String,
    /// `base64` when the body is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_encoding: Option<&'static str>,
    received_at: Timestamp,
    signature: SignatureVerdict,
}

impl From<CapturedRequest> for RequestView {
    fn from(request: CapturedRequest) -> Self {
        let (body, body_encoding) = match String::from_utf8(request.body.into()) {
            Ok(text) => (text, None),
            Err(bytes) => (STANDARD.encode(bytes.as_bytes()), Some("base64")),
        };
        Self {
            id: request.id.to_string(),
            sequence: request.sequence,
            method: request.method,
            path: request.path,
            headers: request.headers,
            body,
            body_encoding,
            received_at: request.received_at,
            signature: request.signature,
        }
    }
}

/// Headers as an object, in the order of arrival; values of a repeated name are joined by commas, which
/// means the same (RFC 9110, 5.3).
pub(super) fn as_object<S: Serializer>(
    headers: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (at, (name, value)) in headers.iter().enumerate() {
        if headers[..at].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            continue;
        }
        let mut joined = value.clone();
        for (_, more) in headers[at + 1..].iter().filter(|(later, _)| later.eq_ignore_ascii_case(name)) {
            joined.push_str(", ");
            joined.push_str(more);
        }
        map.serialize_entry(&name.to_ascii_lowercase(), &joined)?;
    }
    map.end()
}

/// What an inbox recorded, oldest first; with `?wait=`, once there is something or the time is over.
pub(super) async fn requests(
    OwnInbox(inbox): OwnInbox,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<RequestPage>> {
    let after = params.cursor::<i64>("after")?.unwrap_or(0);
    let limit = params.limit("limit", PAGE_REQUESTS)?;
    let deadline = Instant::now() + params.wait()?;
    loop {
        let items = read(&gateway, &inbox.id, after, limit).await?;
        let stopping = !gateway.ready.load(std::sync::atomic::Ordering::Relaxed);
        if !items.is_empty() || stopping || Instant::now() >= deadline {
            let next_token = items.last().map_or(after, |request| request.sequence).to_string();
            return Ok(Json(RequestPage { items: items.into_iter().map(Into::into).collect(), next_token }));
        }
        sleep(POLL.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

/// Reads one request after the other, since a body may have 100 MiB and a page must have an end.
async fn read(gateway: &Gateway, inbox: &InboxId, after: i64, limit: usize) -> Answer<Vec<CapturedRequest>> {
    let _turn = gateway.recorded_reads.acquire().await;
    let (mut items, mut bytes, mut after) = (Vec::new(), 0, after);
    while items.len() < limit && bytes < PAGE_BYTES {
        let Some(request) = gateway.inboxes.requests(inbox, after, 1).await?.pop() else { break };
        after = request.sequence;
        bytes += request.body.len();
        items.push(request);
    }
    Ok(items)
}

/// What came of sending a recorded request once more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayView {
    url: EndpointUrl,
    status_code: Option<u16>,
    #[serde(serialize_with = "as_object")]
    headers: Vec<(String, String)>,
    response: Option<String>,
    /// Why no whole answer came.
    reason: Option<String>,
    duration_ms: f64,
    timings: Timings,
}

/// Sends a recorded request to an address, and tells what that answered.
pub(super) async fn replay(
    OwnInbox(inbox): OwnInbox,
    State(gateway): State<Gateway>,
    Path((_, _, number)): Path<(String, String, String)>,
    fields: Fields,
) -> Answer<Json<ReplayView>> {
    fields.only(&["url"])?;
    let Some(url) = fields.text(&["url"])? else {
        return Err(refused("`url` is missing: the address that the request is to be sent to"));
    };
    let request = recorded(&gateway, &inbox.id, &number).await?;
    let replayed = gateway.replays.replay(&request, url).await.map_err(|why| match why {
        NotReplayed::Refused(refused) => {
            Problem::unprocessable(refused.rule, format!("`url` is refused: {refused}"))
        }
        NotReplayed::Busy => Problem::too_many("too_many_replays", why.to_string(), 1),
        NotReplayed::Method(_) => Problem::unprocessable("not_replayable", why.to_string()),
    })?;
    Ok(Json(ReplayView {
        url: replayed.url,
        status_code: replayed.status_code,
        headers: replayed.headers,
        response: replayed.response,
        reason: replayed.reason,
        duration_ms: (replayed.duration.as_secs_f64() * 1e6).round() / 1e3,
        timings: replayed.timings,
    }))
}

/// One of them, by its number.
async fn recorded(gateway: &Gateway, inbox: &InboxId, number: &str) -> Answer<CapturedRequest> {
    let found = match number.parse::<i64>() {
        Ok(number) => {
            let _turn = gateway.recorded_reads.acquire().await;
            gateway.inboxes.requests(inbox, number.saturating_sub(1), 1).await?.pop()
        }
        Err(_) => None,
    };
    found.filter(|request| request.sequence.to_string() == number).ok_or_else(|| {
        let message = format!(
            "this inbox has no request `{}`; it keeps the newest 10,000, and `postback inbox show` lists them",
            clip(number)
        );
        Problem::not_found("unknown_request", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Headers(#[serde(serialize_with = "as_object")] Vec<(String, String)>);

    #[test]
    fn repeated_headers_are_joined_and_none_is_lost() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = Headers(vec![header("b", "1"), header("A", "2"), header("B", "3")]);
        assert_eq!(serde_json::to_string(&headers).unwrap(), r#"{"b":"1, 3","a":"2"}"#);
    }
}
