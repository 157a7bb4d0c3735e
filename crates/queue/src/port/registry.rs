//! What is kept of projects, keys, apps and builds, and what changes there.

use std::sync::Arc;

use async_trait::async_trait;

use super::Stored;
use crate::app::{AppConfig, Function};
use crate::id::{AppId, BuildId, ProjectId};
use crate::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, KeyMade, KeyView, NewBuild, NewProject, Prepared,
    Project, Rotated,
};

/// Projects, keys, apps and builds.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Makes a project, unless one of this id is there.
    async fn create_project(&self, project: NewProject) -> Stored<()>;

    /// Every project, oldest first. The first is the default project of the legacy paths.
    async fn projects(&self) -> Stored<Vec<Project>>;

    /// One project.
    async fn project(&self, id: &ProjectId) -> Stored<Option<Project>>;

    /// Who holds the key with this hash; nobody once it is revoked or has expired.
    async fn identify(&self, key: &KeyHash) -> Stored<Option<Identity>>;

    /// The named keys of a project, newest first.
    async fn keys(&self, _project: &ProjectId) -> Stored<Vec<KeyView>> {
        Ok(Vec::new())
    }

    /// Keeps a named key, known by its hash.
    async fn create_key(&self, _project: &ProjectId, _key: KeyView, _hash: KeyHash) -> Stored<KeyMade> {
        Ok(KeyMade::Unknown)
    }

    /// Revokes a named key: it opens nothing any more when this returns. Returns whether it was there.
    async fn revoke_key(&self, _project: &ProjectId, _id: &str) -> Stored<bool> {
        Ok(false)
    }

    /// Replaces keys and secrets of a project, all in one write. Signing ones that are replaced go on until
    /// the overlap is over.
    async fn rotate_keys(&self, project: &ProjectId, fresh: FreshKeys) -> Stored<Rotated>;

    /// Switches the `v1a` signature of a project's deliveries; `key` is put in force when it has none yet.
    /// Returns whether there is such a project.
    async fn sign_v1a(&self, project: &ProjectId, on: bool, key: String) -> Stored<bool>;

    /// One app. Answered from memory on the hot path.
    async fn app(&self, id: &AppId) -> Stored<Option<Arc<App>>>;

    /// A project's apps, by name; every app when `project` is `None`.
    async fn apps(&self, project: Option<&ProjectId>) -> Stored<Vec<Arc<App>>>;

    /// Registers a build as `pending`, with its app if that is new. An older build of the app that
    /// is not final yet is cancelled.
    async fn register_build(&self, build: NewBuild) -> Stored<Build>;

    /// One build.
    async fn build(&self, id: &BuildId) -> Stored<Option<Build>>;

    /// Moves a build on, unless it is final. `prepared` is kept when given. Returns whether it moved.
    async fn set_build_status(
        &self,
        id: &BuildId,
        status: BuildStatus,
        prepared: Option<Prepared>,
    ) -> Stored<bool>;

    /// Makes a build live, unless it is final already: status `success`, its functions known, the
    /// app pointing at it. `None` when it was cancelled or its app deleted meanwhile.
    async fn activate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>>;

    /// Replaces the live build's configuration, for scaling changes. `None` when there is no such
    /// app or it has no live build.
    async fn reconfigure(&self, app: &AppId, config: AppConfig) -> Stored<Option<Arc<App>>>;

    /// Removes an app and its builds; its queued runs end as `cancelled`, their webhooks are told.
    /// Returns whether it was there.
    async fn delete_app(&self, id: &AppId) -> Stored<bool>;

    /// Makes a build live again that was live before. `None` when it never was, or its app was deleted.
    async fn reactivate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>>;

    /// Builds of an app, the newest first, up to `limit`.
    async fn builds(&self, app: &AppId, limit: usize) -> Stored<Vec<Build>>;

    /// Builds that a former process of this node left unfinished.
    async fn unfinished_builds(&self) -> Stored<Vec<Build>>;
}

/// Changes of apps that need no new build.
#[async_trait]
pub trait Settings: Send + Sync {
    /// Changes the scaling of an app's live build: keys of the control plane with what was written for each.
    async fn rescale(&self, app: &AppId, wanted: &[(&str, &str)]) -> Result<(), SettingRefused>;
}

/// Why nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SettingRefused {
    /// The key whose value is refused, as the control plane or the config file spells it.
    pub key: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}
