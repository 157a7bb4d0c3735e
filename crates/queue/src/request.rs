//! A call of a function by somebody whose project is known already, and what it is answered.
//!
//! It goes the way of every request from outside: the same checks, bounds, queue and words.

use bytes::Bytes;

use crate::id::{AppId, RunId};

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
