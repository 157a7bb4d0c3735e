//! A request body, received within bounds: its size, its time, and the memory of all together.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http::{StatusCode, request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use queue::limits::REQUEST_BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::listener::TooSlow;
use crate::problem::{Answer, Problem};

const MIB: usize = 1 << 20;
/// Memory for the bodies of requests under way, beyond the first MiB of each.
const LARGE_BODIES_MIB: usize = 1 << 10;
/// Read of a body that was refused, so that its sender gets to read why.
const LINGER_BYTES: usize = 8 * MIB;
const LINGER: Duration = Duration::from_secs(2);

/// The memory that large bodies share.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_BODIES_MIB)))
    }
}

/// A body, and its share of the budget.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _share: Share,
}

/// Receives the body of an inference request.
pub(crate) async fn receive(budget: &Budget, parts: &request::Parts, body: Body) -> Answer<Received> {
    if let Some(coding) = parts.headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_encoding",
            "compressed bodies are not taken; send the JSON as it is, without `Content-Encoding`",
        ));
    }
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let expected = declared.unwrap_or(0).max(body.size_hint().lower());
    if expected > REQUEST_BODY_BYTES_MAX as u64 {
        if !parts.headers.contains_key(EXPECT) {
            tokio::spawn(linger(body));
        }
        return Err(too_large());
    }
    let mut share = Share { budget: budget.clone(), held: None };
    let expected = usize::try_from(expected).unwrap_or(REQUEST_BODY_BYTES_MAX);
    share.grow_to(expected)?;
    collect(body, expected, share).await
}

async fn collect(mut body: Body, expected: usize, mut share: Share) -> Answer<Received> {
    let Some(first) = next_data(&mut body).await? else {
        return Ok(Received { bytes: Bytes::new(), _share: share });
    };
    if first.len() > REQUEST_BODY_BYTES_MAX {
        return Err(too_large());
    }
    // Most bodies are one frame, which is then the body itself, uncopied.
    let Some(second) = next_data(&mut body).await? else {
        return Ok(Received { bytes: first, _share: share });
    };
    let mut bytes = BytesMut::with_capacity(expected.max(first.len() + second.len()));
    bytes.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(data) = next {
        if bytes.len() + data.len() > REQUEST_BODY_BYTES_MAX {
            tokio::spawn(linger(body));
            return Err(too_large());
        }
        share.grow_to(bytes.len() + data.len())?;
        bytes.extend_from_slice(&data);
        next = next_data(&mut body).await?;
    }
    Ok(Received { bytes: bytes.freeze(), _share: share })
}

/// The next bytes; `None` at the end.
async fn next_data(body: &mut Body) -> Answer<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(None)
}

fn broken(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_too_slow",
                "the body came too slowly; send it again over a better connection, or send less",
            );
        }
        cause = error.source();
    }
    Problem::bad_request("body_incomplete", "the body ended before it was complete; send it again")
}

fn too_large() -> Problem {
    Problem::too_large(format!(
        "the body is larger than {} MiB; send a link to large inputs instead",
        REQUEST_BODY_BYTES_MAX / MIB
    ))
}

/// Reads on a little, so that closing the connection does not destroy the answer on its way.
async fn linger(mut body: Body) {
    let mut read = 0;
    let drain = async {
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > LINGER_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

struct Share {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Makes sure that the share covers a body of so many bytes.
    fn grow_to(&mut self, bytes: usize) -> Answer<()> {
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (bytes / MIB).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget.0).try_acquire_many_owned(missing).map_err(|_| {
            Problem::unavailable(
                "too_many_large_bodies",
                "other large requests fill the memory kept for them; try again",
            )
            .retry_after(2)
        })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}
