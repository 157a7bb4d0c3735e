//! The port by which recorded requests are sent once more.

use async_trait::async_trait;

use crate::inbox::CapturedRequest;
use crate::replay::{NotReplayed, Replayed};

/// Sends recorded requests to addresses that people choose.
#[async_trait]
pub trait Replays: Send + Sync {
    /// Sends a recorded request to an address, once, and waits for the answer: the same method, body and
    /// [headers](crate::replay::headers_sent). The address is judged as a webhook's, here and at the connect.
    async fn replay(&self, request: &CapturedRequest, url: &str) -> Result<Replayed, NotReplayed>;
}
