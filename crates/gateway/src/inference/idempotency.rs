//! `Idempotency-Key`: a caller that got no answer asks again, and the call is not run twice.
//!
//! The key belongs to a function of an app. The same call under the same key gets the first one's run,
//! told by [`REPLAYED`]; another call under it is refused. Body and webhooks make the call what it is; options
//! (priority, delay, metadata and the like) do not, since a repetition may say them anew: the first one's
//! stand. A call that waits is kept durably when it
//! brings a key: a caller that lost its connection gets the result by asking again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use queue::RunId;
use queue::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use queue::run::{EndpointUrl, Generation, Idempotency};
use sha2::{Digest as _, Sha256};

use crate::problem::{Answer, Problem};

/// The key of a call.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `true` on an answer about a run that an earlier request started.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Bodies from this size on are hashed beside the threads that serve connections.
const HASHED_ASIDE_BYTES: usize = 1 << 20;

/// The key that a request brings.
pub(super) fn key(headers: &HeaderMap) -> Answer<Option<&str>> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(Problem::bad_request(
            "duplicate_header",
            "the request has `Idempotency-Key` twice; send it once",
        ));
    }
    let key = key.to_str().ok().filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        Problem::unprocessable(
            "idempotency_key",
            format!(
                "`Idempotency-Key` is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters of ASCII, such as a UUID"
            ),
        )
    })
}

/// The key, with what makes another call under it the same call.
pub(super) async fn bind(
    key: &str,
    generation: Generation,
    endpoints: &[EndpointUrl],
    input: &Bytes,
) -> Idempotency {
    let mut hash = Sha256::new();
    hash.update([generation as u8]);
    for endpoint in endpoints {
        // An address has no such byte, so no two lists of addresses read the same.
        hash.update(endpoint.as_str());
        hash.update([0]);
    }
    hash.update([0]);
    let fingerprint = if input.len() < HASHED_ASIDE_BYTES {
        hash.chain_update(input).finalize()
    } else {
        let (aside, input) = (hash.clone(), input.clone());
        let hashed = tokio::task::spawn_blocking(move || aside.chain_update(&input).finalize()).await;
        hashed.expect("hashing does not panic, and nobody stops it")
    };
    Idempotency { key: key.into(), fingerprint: fingerprint.into() }
}

/// 422: the key was used for something else.
pub(super) fn mismatch(first: RunId) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency_mismatch",
        "this `Idempotency-Key` was used for another call of this function (other body or webhook), whose run \
         is named here; use a new key for a new call",
    )
    .about(first)
}
