//! Requests by somebody who is known already and brings no key, and what they are answered.
//!
//! They go the way of every request from outside: the same checks, bounds, queue and words.

use bytes::Bytes;

use crate::id::{AppId, RunId};
use crate::registry::Identity;

/// A request to the newest generation's path, without a key.
#[derive(Clone, Debug)]
pub struct FunctionRequest {
    /// The app; its project is the caller's.
    pub app: AppId,
    /// The function.
    pub function: String,
    /// What would stand behind the `?` of the path.
    pub query: String,
    /// The JSON body.
    pub body: Bytes,
    /// How much of the answer's body is wanted, in bytes.
    pub answer_bytes_max: usize,
}

/// What the request is answered.
#[derive(Clone, Debug)]
pub struct FunctionAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The run it is about, if one was made.
    pub run: Option<RunId>,
    /// The body, or its beginning.
    pub body: Bytes,
    /// The length of the whole body.
    pub bytes: u64,
}

/// A request to any path of the API.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// Who asks, and what that opens: no more than a key of this scope would.
    pub caller: Identity,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Path and query, encoded as they stand in an address.
    pub target: String,
    /// Its headers, by name.
    pub headers: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// How much of the answer's body is wanted, in bytes.
    pub answer_bytes_max: usize,
}

/// What it is answered.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers in their order, by name.
    pub headers: Vec<(String, String)>,
    /// The body, or its beginning.
    pub body: Bytes,
    /// The length of the whole body.
    pub bytes: u64,
}
