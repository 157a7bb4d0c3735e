//! What a request was answered, for people: as text, whatever it is.

use std::time::Duration;

use http::StatusCode;
use queue::RunId;

use crate::shape;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) tone: &'static str,
    pub(crate) took: String,
    pub(crate) bytes: String,
    /// The run that it is about.
    pub(crate) run: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    /// `body` is the beginning of all its `bytes`.
    pub(crate) fn of(status: u16, run: Option<RunId>, body: &[u8], bytes: u64, took: Duration) -> Self {
        let known = StatusCode::from_u16(status).ok();
        Self {
            status,
            reason: known.and_then(|status| status.canonical_reason()).unwrap_or_default(),
            tone: if status < 400 { "succeeded" } else { "failed" },
            took: shape::duration(took),
            bytes: pages::size(bytes),
            run: run.map(|run| run.to_string()),
            body: shape::beginning(body, bytes),
        }
    }
}
