//! What happened to an app, and why: its list of events.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{AppId, BuildId};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The number of replicas changes.
    Scaled,
    /// A build became live.
    Deployed,
    /// A build did not.
    DeployFailed,
    /// A former build became live again.
    RolledBack,
    /// A former build did not start any more.
    RollbackFailed,
    /// Somebody changed the scaling of the live build.
    Reconfigured,
    /// The replicas are replaced, for new secrets for instance.
    Restarted,
    /// A replica did not start.
    StartFailed,
    /// A replica ended that nobody had asked to.
    ReplicaDied,
    /// So many starts failed in a row that waiting runs end.
    GivenUp,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Scaled,
        Self::Deployed,
        Self::DeployFailed,
        Self::RolledBack,
        Self::RollbackFailed,
        Self::Reconfigured,
        Self::Restarted,
        Self::StartFailed,
        Self::ReplicaDied,
        Self::GivenUp,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scaled => "scaled",
            Self::Deployed => "deployed",
            Self::DeployFailed => "deploy_failed",
            Self::RolledBack => "rolled_back",
            Self::RollbackFailed => "rollback_failed",
            Self::Reconfigured => "reconfigured",
            Self::Restarted => "restarted",
            Self::StartFailed => "start_failed",
            Self::ReplicaDied => "replica_died",
            Self::GivenUp => "given_up",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppEvent {
    /// When.
    pub at: Timestamp,
    /// To which app.
    pub app: AppId,
    /// What.
    pub kind: EventKind,
    /// What and why, in words; cut at [`crate::limits::EVENT_TEXT_BYTES_MAX`].
    pub text: String,
    /// The build that it is about.
    pub build: Option<BuildId>,
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Grows with every event: the cursor of the next page.
    pub id: i64,
    /// The event.
    pub event: AppEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_answers() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
