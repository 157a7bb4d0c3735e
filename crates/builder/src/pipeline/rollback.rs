//! Back to a former build, the way a deploy goes forward: a replica of it starts first, then traffic moves.

use std::path::Path;

use queue::event::EventKind;
use queue::limits::BUILDS_PER_APP_MAX;
use queue::port::{RollbackError, Stored};
use queue::registry::{App, Build, BuildStatus};
use queue::{AppId, BuildId};

use super::Builder;

impl Builder {
    pub(super) async fn go_back(
        &self,
        app: &AppId,
        wanted: Option<&BuildId>,
    ) -> Result<BuildId, RollbackError> {
        let inner = &self.inner;
        let known = inner.registry.app(app).await?.ok_or(RollbackError::NoFormerBuild)?;
        let live = known.live.clone().ok_or(RollbackError::NoFormerBuild)?;
        let build = self.former(&known, &live, wanted).await?;
        // What is being built would take the place of what somebody goes back to.
        if !known.latest_status.is_final() {
            self.stop_build(&known.latest_build).await?;
        }
        let entered = inner.enter(&build).ok_or_else(|| RollbackError::UnderWay(build.id.clone()))?;
        let gone_back = tokio::select! {
            biased;
            () = entered.token.cancelled() => Err(RollbackError::Stopped),
            gone_back = self.start_again(&build) => gone_back,
        };
        match &gone_back {
            Ok(()) => {
                tracing::info!(app.id = %app, build.id = %build.id, "a former build is live again");
                let text = format!("build {} is live again, in place of {}", build.id, live.id);
                inner.tell(EventKind::RolledBack, text, &build);
            }
            Err(why) => {
                inner.replicas.discard(&build.id);
                tracing::info!(app.id = %app, build.id = %build.id, %why, "a former build did not become live again");
                let text = format!("build {} did not become live again: {why}", build.id);
                inner.tell(EventKind::RollbackFailed, text, &build);
            }
        }
        drop(entered);
        inner.collect().await;
        gone_back.map(|()| build.id)
    }

    /// The build that is meant: the one of this name, or else the last one before the live one that can be started.
    async fn former(
        &self,
        app: &App,
        live: &Build,
        wanted: Option<&BuildId>,
    ) -> Result<Build, RollbackError> {
        let Some(wanted) = wanted else {
            let builds = self.inner.registry.builds(&app.id, BUILDS_PER_APP_MAX).await?;
            let is_former = |build: &Build| {
                build.id != live.id
                    && build.created_at <= live.created_at
                    && build.status == BuildStatus::Success
                    && is_whole(build)
            };
            return builds.into_iter().find(is_former).ok_or(RollbackError::NoFormerBuild);
        };
        let build = self.inner.registry.build(wanted).await?.filter(|build| build.app == app.id);
        let build = build.ok_or_else(|| RollbackError::Unknown(wanted.clone()))?;
        if build.id == live.id {
            Err(RollbackError::AlreadyLive(build.id))
        } else if build.status != BuildStatus::Success {
            Err(RollbackError::NeverLive(build.id, build.status))
        } else if !is_whole(&build) {
            Err(RollbackError::Gone(build.id))
        } else {
            Ok(build)
        }
    }

    async fn start_again(&self, build: &Build) -> Result<(), RollbackError> {
        let inner = &self.inner;
        inner.log(build).say("==> going back to this build: importing main.py");
        let functions = inner.replicas.start_first(build).await.map_err(RollbackError::Start)?;
        match inner.registry.reactivate(&build.id, functions).await? {
            Some(app) => {
                inner.replicas.switch(&app);
                Ok(())
            }
            None => Err(RollbackError::Stopped),
        }
    }

    pub(super) async fn stop_build(&self, build: &BuildId) -> Stored<bool> {
        let running = self.inner.jobs().get(build).map(|running| running.token.clone());
        // The store decides whether there was something to stop; the work follows.
        let moved = self.inner.registry.set_build_status(build, BuildStatus::Cancelled, None).await?;
        if let Some(token) = running {
            token.cancel();
        }
        Ok(moved)
    }
}

/// Its files and its interpreter are still there.
pub(super) fn is_whole(build: &Build) -> bool {
    let prepared = build.prepared.as_ref();
    prepared.is_some_and(|it| Path::new(&it.folder).is_dir() && Path::new(&it.python).exists())
}
