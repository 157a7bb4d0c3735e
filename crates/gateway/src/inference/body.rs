//! A request body, received within bounds: its size, its time, and the memory of all together.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, StatusCode, request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use queue::limits::REQUEST_BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::listener::TooSlow;
use crate::problem::{Answer, Problem};

const MIB: usize = 1 << 20;
/// Room is made for so many times what has come, as far as it was announced.
const AHEAD: usize = 16;
/// Memory for the bodies of requests under way, beyond the first MiB of each.
const LARGE_BODIES_MIB: usize = 1 << 10;
/// Read of a body that was refused, so that its sender gets to read why.
const LINGER_BYTES: usize = 8 * MIB;
const LINGER: Duration = Duration::from_secs(2);

/// Time for a body beyond what its bytes earn …
const GRACE: Duration = Duration::from_secs(30);
/// … at so many a second, once it holds memory that others would like to have.
const HELD_RATE_MIN: u64 = 128 << 10;

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
    share: Share,
}

impl Received {
    /// Both apart: the share is to be held for as long as the bytes are in memory on this request's account.
    pub(crate) fn split(self) -> (Bytes, Share) {
        (self.bytes, self.share)
    }

    /// The bytes, with which the share goes when the last of their users lets go of them.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.share.held.is_some() { Bytes::from_owner(self) } else { self.bytes }
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
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
    receive_encoded(budget, parts, body).await
}

/// The same for a body that nobody reads here, whatever its coding.
pub(super) async fn receive_encoded(budget: &Budget, parts: &request::Parts, body: Body) -> Answer<Received> {
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let expected = declared.unwrap_or(0).max(body.size_hint().lower());
    if expected > REQUEST_BODY_BYTES_MAX as u64 {
        return Err(refuse_unread(&parts.headers, body));
    }
    // What was announced is not held yet: the share grows with what has come.
    let share = Share { budget: budget.clone(), held: None };
    let expected = usize::try_from(expected).unwrap_or(REQUEST_BODY_BYTES_MAX);
    collect(body, expected, share).await
}

async fn collect(mut body: Body, expected: usize, mut share: Share) -> Answer<Received> {
    let Some(first) = next_data(&mut body).await? else {
        return Ok(Received { bytes: Bytes::new(), share });
    };
    if first.len() > REQUEST_BODY_BYTES_MAX {
        return Err(too_large());
    }
    // Most bodies are one frame, which is then the body itself, uncopied.
    let Some(second) = next_data(&mut body).await? else {
        return Ok(Received { bytes: first, share });
    };
    let began = Instant::now();
    let mut bytes = BytesMut::with_capacity(expected.min(MIB).max(first.len() + second.len()));
    bytes.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(data) = next {
        let length = bytes.len() + data.len();
        if length > REQUEST_BODY_BYTES_MAX {
            tokio::spawn(linger(body));
            return Err(too_large());
        }
        share.grow_to(length)?;
        if length > bytes.capacity() {
            // Pages that nothing was written to take no memory, so a body moves but once or twice.
            let wanted = length.max(expected.min(AHEAD * length));
            bytes.reserve(wanted - bytes.len());
        }
        bytes.extend_from_slice(&data);
        next = if bytes.len() < MIB {
            next_data(&mut body).await?
        } else {
            let earned = Duration::from_secs(bytes.len() as u64 / HELD_RATE_MIN);
            timeout_at(began + GRACE + earned, next_data(&mut body)).await.map_err(|_| too_slow())??
        };
    }
    Ok(Received { bytes: bytes.freeze(), share })
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

/// Refuses a body by what it says of its size.
pub(super) fn refuse_unread(headers: &HeaderMap, body: Body) -> Problem {
    if !headers.contains_key(EXPECT) {
        tokio::spawn(linger(body));
    }
    too_large()
}

/// What is wrong with a body that came to no good end.
pub(super) fn broken(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return too_slow();
        }
        cause = error.source();
    }
    Problem::bad_request("body_incomplete", "the body ended before it was complete; send it again")
}

fn too_slow() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "body_too_slow",
        "the body came too slowly; send it again over a better connection, or send less",
    )
}

pub(super) fn too_large() -> Problem {
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

/// A part of the memory for large bodies; dropping it gives it back.
pub(crate) struct Share {
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

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    fn upload(
        announced: usize,
        frames: impl Iterator<Item = usize> + Send + 'static,
        stalls: bool,
    ) -> (request::Parts, Body) {
        let request = http::Request::post("/").header(CONTENT_LENGTH, announced).body(()).unwrap();
        let frames = stream::iter(frames).map(|size| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; size])));
        let end = stream::once(async move {
            if stalls {
                std::future::pending::<()>().await;
            }
        });
        let rest = end.filter_map(|()| async { None });
        (request.into_parts().0, Body::from_stream(frames.chain(rest)))
    }

    #[tokio::test(start_paused = true)]
    async fn uploads_that_have_only_begun_hold_nothing_and_end_when_they_drip() {
        let budget = Budget::new();
        let slow = (0..64).map(|_| {
            let budget = budget.clone();
            tokio::spawn(async move {
                let (parts, body) = upload(REQUEST_BODY_BYTES_MAX, [1_000, MIB].into_iter(), true);
                receive(&budget, &parts, body).await.map(|_| ())
            })
        });
        let slow: Vec<_> = slow.collect();
        tokio::task::yield_now().await;
        let (parts, body) = upload(90 * MIB, std::iter::repeat_n(MIB, 90), false);
        let received = receive(&budget, &parts, body).await.map_err(|problem| problem.message).unwrap();
        assert_eq!(received.bytes.len(), 90 * MIB);
        drop(received);
        for upload in slow {
            assert_eq!(upload.await.unwrap().unwrap_err().code, "body_too_slow");
        }
        assert_eq!(budget.0.available_permits(), LARGE_BODIES_MIB);
    }

    #[tokio::test]
    async fn a_share_lives_as_long_as_the_bytes_it_is_for() {
        let budget = Budget::new();
        let (parts, body) = upload(3 * MIB, std::iter::repeat_n(MIB, 3), false);
        let bytes =
            receive(&budget, &parts, body).await.map_err(|problem| problem.message).unwrap().into_bytes();
        let held = LARGE_BODIES_MIB - budget.0.available_permits();
        assert!((3..=4).contains(&held), "{held} MiB");
        let slice = bytes.slice(..10);
        drop(bytes);
        assert_eq!(LARGE_BODIES_MIB - budget.0.available_permits(), held);
        drop(slice);
        assert_eq!(budget.0.available_permits(), LARGE_BODIES_MIB);
    }
}
