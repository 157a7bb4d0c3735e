//! Requests as an inbox would have recorded them.

use bytes::Bytes;
use queue::Timestamp;
use queue::inbox::{CapturedRequest, SignatureState, SignatureVerdict};

/// The first request of an inbox, without a signature.
pub fn recorded(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> CapturedRequest {
    CapturedRequest {
        id: uuid::Uuid::nil(),
        sequence: 1,
        method: method.into(),
        path: path.into(),
        headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        body: Bytes::copy_from_slice(body),
        received_at: Timestamp::from_millis(0),
        signature: SignatureVerdict {
            verdict: SignatureState::Missing,
            detail: String::new(),
            mistake: None,
        },
    }
}
