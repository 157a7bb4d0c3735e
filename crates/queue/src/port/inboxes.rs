//! Inboxes and what they recorded.

use async_trait::async_trait;

use super::Stored;
use crate::id::{InboxId, ProjectId};
use crate::inbox::{CapturedRequest, Inbox, InboxChange, Recorded};

/// Inboxes and what they recorded.
#[async_trait]
pub trait Inboxes: Send + Sync {
    /// Makes an inbox. `false` when its project has as many as it may; nothing is kept then.
    async fn create_inbox(&self, inbox: Inbox) -> Stored<bool>;

    /// One inbox. Answered from memory where possible: the guard asks for each delivery.
    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>>;

    /// A project's inboxes, newest first.
    async fn inboxes(&self, project: &ProjectId) -> Stored<Vec<Inbox>>;

    /// Changes what is set of an inbox, and returns it as it is then; `None` when there is no such one.
    async fn change_inbox(&self, id: &InboxId, change: InboxChange) -> Stored<Option<Inbox>>;

    /// Ends an inbox: from now on nobody finds it, and what it recorded is removed in its own time. Says whether
    /// there was one.
    async fn delete_inbox(&self, id: &InboxId) -> Stored<bool>;

    /// Records a request, and says which one it is once it is durable.
    async fn record(&self, inbox: &InboxId, request: CapturedRequest) -> Stored<Recorded>;

    /// Recorded requests with a sequence above `after`, oldest first.
    async fn requests(&self, inbox: &InboxId, after: i64, limit: usize) -> Stored<Vec<CapturedRequest>>;

    /// Recorded requests with a sequence below `before` (`i64::MAX` for the newest), newest first: up
    /// to `limit`, at least one if any, and no more than fit `bytes_max` of bodies beyond the first.
    async fn requests_before(
        &self,
        inbox: &InboxId,
        before: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Stored<Vec<CapturedRequest>>;
}
