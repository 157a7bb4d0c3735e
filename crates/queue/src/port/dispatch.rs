//! The way of runs and calls to replicas.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::id::{AppId, RunId};
use crate::outcome::Outcome;
use crate::registry::App;
use crate::request::{FunctionAnswer, FunctionRequest};
use crate::run::{Generation, LeasedRun};
use crate::web::Visitor;
use crate::webhook::Metadata;

/// What became of a value that a caller was to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is on its way.
    Yes,
    /// The caller takes less than the function yields; nothing more can be kept for it.
    Behind,
    /// Nobody listens any more.
    Gone,
}

/// A caller that is told what a generator yields as it comes.
pub trait Listener: std::fmt::Debug + Send + Sync {
    /// The next value as text; the first is empty and says that values come.
    fn tell(&self, text: Bytes) -> Heard;
}

/// A synchronous call on its way to a replica.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its id.
    pub id: RunId,
    /// The app, with the live build it was checked against.
    pub app: Arc<App>,
    /// The function it calls.
    pub function: Arc<str>,
    /// The generation of the API it came through.
    pub generation: Generation,
    /// The raw JSON body.
    pub input: Bytes,
    /// Limit from acceptance to answer.
    pub limit: Duration,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// What the caller wants to be told back.
    pub metadata: Option<Metadata>,
    /// Gets what a generator yields as it comes; the result is `null` then.
    pub listener: Option<Arc<dyn Listener>>,
    /// Sends a request to an app that is a web server, and gets its answer as it comes; the result is `null` then.
    pub visitor: Option<Arc<dyn Visitor>>,
}

/// Why a synchronous call was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Too many calls of the app wait already.
    #[error(
        "too many calls of this app are waiting; try again, or send a `webhook_endpoint` and be called back"
    )]
    Busy,
    /// The server is stopping.
    #[error("the server is shutting down; try again")]
    Stopping,
}

/// How runs get to replicas.
#[async_trait]
pub trait Dispatch: Send + Sync {
    /// A place in memory for a run about to be accepted; `None` when it must wait in the store.
    fn reserve(&self, app: &Arc<App>, bytes: usize) -> Option<Box<dyn Slot>>;

    /// There is queued work for the app in the store, of this priority at most.
    fn wake(&self, app: &AppId, priority: i8);

    /// The run is to be cancelled, and the store knows: wherever it is on its way to a replica it goes
    /// back, and a replica that works on it is told to let go, or loses its process tree after
    /// [`CANCEL_GRACE`](crate::limits::CANCEL_GRACE).
    fn cancel(&self, app: &AppId, run: RunId);

    /// Executes a synchronous call and waits for its outcome. Every ending is an [`Outcome`],
    /// `timeout` included; the record of the call is written by the worker.
    async fn call(&self, call: Call) -> Result<Outcome, Refused>;
}

/// A reserved place. Dropping it gives the place back.
pub trait Slot: Send {
    /// Puts the run into its place.
    fn hand_over(self: Box<Self>, run: LeasedRun);
}

/// Calls of functions, as requests from outside make them.
#[async_trait]
pub trait Calls: Send + Sync {
    /// Calls a function as a request with a key of the app's project would, and waits for the answer.
    async fn call(&self, request: FunctionRequest) -> FunctionAnswer;
}
