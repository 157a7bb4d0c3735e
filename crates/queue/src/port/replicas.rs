//! Replicas: started, moved to other builds, shown.

use std::sync::Arc;

use async_trait::async_trait;

use crate::app::Function;
use crate::hardware::Hardware;
use crate::id::{AppId, BuildId};
use crate::outcome::RunError;
use crate::registry::{App, Build, BuildStatus};
use crate::replica::ReplicaView;

/// Why a build's first replica did not start.
#[derive(Clone, Debug)]
pub struct StartFailure {
    /// `init_failure` or `init_timeout`.
    pub status: BuildStatus,
    /// The import error with its traceback, or how the process ended.
    pub error: RunError,
}

/// The replicas of builds.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// Starts a replica of a prepared build that is not live yet, printing to the build's log, and
    /// returns the functions its code offers. The replica is kept for [`Replicas::switch`].
    async fn start_first(&self, build: &Build) -> Result<Vec<Function>, StartFailure>;

    /// The app's live build or configuration changed: new work goes to replicas of it, the old
    /// ones finish what they have and stop.
    fn switch(&self, app: &Arc<App>);

    /// The build will not become live: its first replica stops.
    fn discard(&self, build: &BuildId);

    /// New replicas take the places of those that run, one of them first; the old ones finish what they have
    /// and stop. When none starts, the old ones stay.
    fn restart(&self, app: &AppId);

    /// The app is gone: its replicas finish what they have and stop.
    fn retire(&self, app: &AppId);

    /// Replicas of an app that are ready or starting.
    fn count(&self, app: &AppId) -> usize;

    /// The replicas of an app as they are at this moment, the oldest first.
    async fn list(&self, _app: &AppId) -> Vec<ReplicaView> {
        Vec::new()
    }

    /// The builds of an app of which there are replicas, be it that they finish what they have.
    fn builds_in_use(&self, app: &AppId) -> Vec<BuildId>;
    /// What replicas can be given here. A node says so if it has more than CPUs.
    fn hardware(&self) -> Hardware {
        Hardware::default()
    }

    /// What replicas of the app are waiting for before they can start, if anything.
    fn waits_for(&self, _app: &AppId) -> Option<String> {
        None
    }
}
