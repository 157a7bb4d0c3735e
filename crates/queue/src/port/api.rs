//! The port by which a room asks what people ask over HTTP, for somebody whom it knows: nobody hands a key on.

use async_trait::async_trait;

use crate::request::{ApiAnswer, ApiRequest};

/// The server's own API.
#[async_trait]
pub trait Api: Send + Sync {
    /// What can be asked, as an OpenAPI document.
    fn document(&self) -> &serde_json::Value;
    /// Answers a request as one from outside would be with a key of the caller's scope, whatever it asks for.
    async fn ask(&self, request: ApiRequest) -> ApiAnswer;
}
