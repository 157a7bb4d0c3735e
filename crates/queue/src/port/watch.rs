//! What there is to see of it: logs, events, figures.

use async_trait::async_trait;

use super::Stored;
use crate::clock::Timestamp;
use crate::event::{AppEvent, StoredEvent};
use crate::id::{AppId, ProjectId};
use crate::log::{LogLine, LogQuery, StoredLine};
use crate::traffic::{Slice, Span, Standing};

/// What user code and builds print. Never waited for, never in the way of a run.
#[async_trait]
pub trait Logs: Send + Sync {
    /// Keeps lines; drops and counts them when the writer is far behind.
    fn append(&self, lines: Vec<LogLine>);

    /// Reads lines, after all that was appended before the call.
    async fn read(&self, query: LogQuery) -> Stored<Vec<StoredLine>>;
}

/// What happened to apps, and why. Never waited for, never in the way of a run.
#[async_trait]
pub trait AppEvents: Send + Sync {
    /// Keeps an event, if its app is there; the oldest of the app makes room. Rides in the next batch; under
    /// pressure it is dropped and counted.
    fn note(&self, event: AppEvent);

    /// Events of an app, oldest first: up to `limit` after the cursor, or without one the newest.
    async fn events(&self, app: &AppId, after: Option<i64>, limit: usize) -> Stored<Vec<StoredEvent>>;
}

/// Figures of what happened, and of what is to be done.
#[async_trait]
pub trait Traffic: Send + Sync {
    /// What happened in a project, or with one of its apps, slice by slice up to `now`, oldest first. Deliveries are
    /// counted for the whole project only.
    async fn traffic(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        span: Span,
        now: Timestamp,
    ) -> Stored<Vec<Slice>>;

    /// How a project stands at the moment.
    async fn standing(&self, project: &ProjectId) -> Stored<Standing>;
}
