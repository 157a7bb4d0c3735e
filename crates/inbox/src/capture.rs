//! Receiving: read within bounds, check the signature, record, and only then answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use http_body_util::BodyExt as _;
use queue::inbox::{CapturedRequest, Inbox, Mistake, Recorded, SignatureState, SignatureVerdict};
use queue::limits::INBOX_BODY_BYTES_MAX;
use queue::port::StoreError;
use queue::signature::{SignatureHeaders, SigningKeys};
use queue::{InboxId, Timestamp, answer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::Shared;

/// Headers recorded of one request.
const HEADERS_MAX: usize = 100;
/// Bytes of names and values of all headers.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Signatures over larger bodies are judged beside the runtime: each key is one more hash over the body.
const JUDGED_HERE_BYTES_MAX: usize = 256 << 10;
/// Longest pause in the middle of a body.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a request was not recorded.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no inbox at this address; `postback inbox create` makes one")]
    UnknownInbox,
    #[error("the body is larger than the {} MiB an inbox records", INBOX_BODY_BYTES_MAX >> 20)]
    BodyTooLarge,
    #[error("an inbox records up to {HEADERS_MAX} headers of {} KiB in all", HEADER_BYTES_MAX >> 10)]
    HeadersTooLarge,
    #[error("nothing of the body arrived for {} s", BODY_PAUSE_MAX.as_secs())]
    BodyTooSlow,
    #[error("the body ended early: {0}")]
    BodyBroken(axum::Error),
    #[error("too many large bodies are arriving at once; send it again in a moment")]
    Busy,
    #[error("{}", of_store(.0).2)]
    Store(#[from] StoreError),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::UnknownInbox => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken(_) => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(error) => of_store(error).0,
        }
    }

    /// The words of the API.
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownInbox => "unknown_inbox",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyBroken(_) => "body_incomplete",
            Self::Busy => "too_many_large_bodies",
            Self::Store(error) => of_store(error).1,
        }
    }
}

/// Status, code and what a sender is told: what the store said of itself stays in the log.
fn of_store(error: &StoreError) -> (StatusCode, &'static str, &'static str) {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        StoreError::Unavailable(_) => {
            (unavailable, "store_unavailable", "the request could not be recorded; send it again")
        }
        StoreError::Full(_) => (
            unavailable,
            "storage_full",
            "the disk of the server is full, and the request was not recorded; send it again later",
        ),
        StoreError::Unknown(_) => (
            unavailable,
            "outcome_unknown",
            "the request may or may not have been recorded; send it again, and it may be there twice",
        ),
        StoreError::Corrupt(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "store_corrupt",
            "the store holds something unreadable; the server's log names it",
        ),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = (self.status(), self.code());
        if let Self::Store(error) = &self {
            tracing::error!(error = %error, "A request to an inbox could not be recorded");
        }
        metrics::counter!("postback_inbox_requests_total", "outcome" => code).increment(1);
        let mut response = answer_json(status, answer::error_body(None, &self.to_string(), code));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Any method at `/inbox/{id}` and below.
pub(crate) async fn receive(State(room): State<Arc<Shared>>, request: Request) -> Response {
    match room.record(request).await {
        Ok(kept) => {
            metrics::counter!("postback_inbox_requests_total", "outcome" => "recorded").increment(1);
            room.reply(&kept).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// A request that is in the store, and the inbox that has it.
pub(crate) struct Kept {
    pub(crate) inbox: Inbox,
    pub(crate) id: uuid::Uuid,
    pub(crate) recorded: Recorded,
}

impl Shared {
    async fn record(&self, request: Request) -> Result<Kept, Refusal> {
        let received_at = self.clock.now();
        let (head, body) = request.into_parts();
        let id = addressed(&head.uri).ok_or(Refusal::UnknownInbox)?;
        let inbox = self.inboxes.inbox(&id).await?.ok_or(Refusal::UnknownInbox)?;
        let headers = recordable(&head.headers)?;
        let (body, share) = self.read(&head.headers, body).await?;
        let signature = self.verdict(&inbox, &headers, &body, received_at).await?;
        let millis = u64::try_from(received_at.as_millis()).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &self.entropy.bytes()).into_uuid();
        let captured = CapturedRequest {
            id,
            sequence: 0,
            method: head.method.as_str().to_owned(),
            path: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers,
            body,
            received_at,
            signature,
        };
        let recorded = self.inboxes.record(&inbox.id, captured).await?;
        drop(share);
        self.hub.announce(&inbox.id);
        Ok(Kept { inbox, id, recorded })
    }

    /// The whole body, and its share of the bytes that may be in flight.
    async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > INBOX_BODY_BYTES_MAX as u64) {
            return Err(Refusal::BodyTooLarge);
        }
        let mut buffer = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) =
            timeout(BODY_PAUSE_MAX, body.frame()).await.map_err(|_| Refusal::BodyTooSlow)?
        {
            let Ok(chunk) = frame.map_err(Refusal::BodyBroken)?.into_data() else { continue };
            if buffer.len() + chunk.len() > INBOX_BODY_BYTES_MAX {
                return Err(Refusal::BodyTooLarge);
            }
            let more = take(&self.bytes_in_flight, chunk.len()).ok_or(Refusal::Busy)?;
            match &mut share {
                Some(share) => share.merge(more),
                None => share = Some(more),
            }
            buffer.extend_from_slice(&chunk);
        }
        Ok((buffer.freeze(), share))
    }

    /// What the signature headers are worth, judged by the secret of the inbox's project.
    async fn verdict(
        &self,
        inbox: &Inbox,
        headers: &[(String, String)],
        body: &Bytes,
        now: Timestamp,
    ) -> Result<SignatureVerdict, Refusal> {
        let project = self.registry.project(&inbox.project).await?;
        let keys = project.and_then(|project| project.signing_keys().ok());
        let Some(keys) = keys else {
            let detail = "the inbox's project has no usable webhook secret to check with".to_owned();
            let mistake = Some(Mistake::NoSecret);
            return Ok(SignatureVerdict { verdict: SignatureState::Invalid, detail, mistake });
        };
        if body.len() <= JUDGED_HERE_BYTES_MAX {
            return Ok(judge(&keys, headers, body, now));
        }
        let (headers, body) = (headers.to_owned(), body.clone());
        let judged = tokio::task::spawn_blocking(move || judge(&keys, &headers, &body, now)).await;
        judged.map_err(|error| {
            Refusal::Store(StoreError::Unavailable(format!("its signature could not be looked at: {error}")))
        })
    }
}

fn judge(keys: &SigningKeys, headers: &[(String, String)], body: &[u8], now: Timestamp) -> SignatureVerdict {
    let headers: SignatureHeaders<'_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    keys.check(&headers, body, now)
}

/// The inbox in the second segment of the path. The rest is the sender's own and may be no UTF-8.
fn addressed(uri: &Uri) -> Option<InboxId> {
    uri.path().split('/').nth(2)?.parse().ok()
}

fn take(semaphore: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    Arc::clone(semaphore).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
}

/// Headers as they are kept, within their bounds.
fn recordable(headers: &HeaderMap) -> Result<Vec<(String, String)>, Refusal> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        return Err(Refusal::HeadersTooLarge);
    }
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if *name == COOKIE { without_host_cookies(&value) } else { value.into_owned() };
        (name.as_str().to_owned(), value)
    };
    Ok(headers.iter().map(text).collect())
}

/// A browser that opens an inbox's address brings the cookies of this server's own pages along;
/// whoever holds the inbox's view token must not read them there.
fn without_host_cookies(cookies: &str) -> String {
    let hide = |cookie: &str| match cookie.split_once('=') {
        Some((name, _)) if name.trim_start().starts_with("__Host-") => format!("{name}=(hidden)"),
        _ => cookie.to_owned(),
    };
    cookies.split(';').map(hide).collect::<Vec<_>>().join(";")
}

/// An answer that no browser can be made to take for anything but data.
pub(crate) fn answer_json(status: StatusCode, body: Bytes) -> Response {
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    pages::sandbox(headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_our_own_pages_are_hidden_and_others_shown() {
        assert_eq!(
            without_host_cookies("a=1; __Host-postback=secret; b=2"),
            "a=1; __Host-postback=(hidden); b=2"
        );
        assert_eq!(without_host_cookies("plain"), "plain");
    }

    #[test]
    fn the_inbox_is_the_second_segment_whatever_follows() {
        let id = "0123456789abcdef0123456789abcdef";
        for path in ["", "/", "/a/b", "/%ff?x=%ff"] {
            let uri = format!("/inbox/{id}{path}").parse().unwrap();
            assert_eq!(addressed(&uri).unwrap().as_str(), id, "{path}");
        }
        assert!(addressed(&Uri::from_static("/inbox/short")).is_none());
    }
}
