//! One build, step by step, and what is said and recorded when a step fails.

use std::sync::Arc;

use queue::app::Function;
use queue::event::{AppEvent, EventKind};
use queue::port::{StartFailure, StoreError};
use queue::registry::{Build, BuildStatus, Prepared};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::archive::{UnpackError, unpack};
use crate::build_log::BuildLog;
use crate::command::Stop;
use crate::environment::{EnvironmentError, count, seconds};

/// Why a build did not become live.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the build was stopped")]
    Stopped,
    #[error(transparent)]
    Archive(#[from] UnpackError),
    #[error(
        "the archive has no main.py; it holds the functions that can be called, unless `[cerebrium.runtime.custom]` starts \
         a web server"
    )]
    NoMain,
    #[error(transparent)]
    Environment(EnvironmentError),
    #[error("{}", .0.error.message)]
    Start(StartFailure),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the build's files could not be kept: {0}")]
    Io(#[from] std::io::Error),
}

impl From<EnvironmentError> for Ended {
    fn from(error: EnvironmentError) -> Self {
        match error {
            EnvironmentError::Stopped => Self::Stopped,
            error => Self::Environment(error),
        }
    }
}

impl Ended {
    /// What the registry is told; `None` leaves the build to the next process.
    fn status(&self, server_stops: bool) -> Option<BuildStatus> {
        match self {
            Self::Stopped if server_stops => None,
            Self::Stopped => Some(BuildStatus::Cancelled),
            Self::Start(failure) => Some(failure.status),
            Self::Archive(_) | Self::NoMain | Self::Environment(_) | Self::Store(_) | Self::Io(_) => {
                Some(BuildStatus::BuildFailure)
            }
        }
    }
}

impl Inner {
    pub(super) fn log(&self, build: &Build) -> BuildLog {
        BuildLog::new(Arc::clone(&self.logs), Arc::clone(&self.clock), build.app.clone(), build.id.clone())
    }

    /// For the list of the app's events.
    pub(super) fn tell(&self, kind: EventKind, text: String, build: &Build) {
        let (at, app) = (self.clock.now(), build.app.clone());
        self.events.note(AppEvent { at, app, kind, text, build: Some(build.id.clone()) });
    }

    /// Makes a build whose archive is there, to its end.
    pub(super) async fn make(&self, mut build: Build, token: CancellationToken) {
        let began = Instant::now();
        let log = self.log(&build);
        let ended = self.steps(&mut build, &token, &log).await;
        let status = match ended {
            Ok(()) => {
                tracing::info!(build.id = %build.id, app.id = %build.app, "a build is live");
                self.tell(EventKind::Deployed, format!("build {} is live", build.id), &build);
                self.folders.remove_archive(&build.id);
                BuildStatus::Success
            }
            Err(ended) => {
                self.replicas.discard(&build.id);
                let Some(status) = ended.status(self.stopping.is_cancelled()) else { return };
                self.say_why(&ended, &log);
                let why = ended.to_string();
                let why = why.lines().next().unwrap_or_default();
                tracing::info!(build.id = %build.id, app.id = %build.app, status = status.as_str(), why, "a build ended");
                // The last line is in the log before the status that makes clients stop reading it.
                if let Err(error) = self.registry.set_build_status(&build.id, status, None).await {
                    super::warn_of(
                        &error,
                        "a build's end could not be recorded; it begins again after a restart",
                    );
                    return;
                }
                if status != BuildStatus::Cancelled {
                    let text = format!("build {} did not become live: {why}", build.id);
                    self.tell(EventKind::DeployFailed, text, &build);
                }
                self.folders.remove(&build.id);
                status
            }
        };
        metrics::counter!("postback_builds_total", "status" => status.as_str()).increment(1);
        metrics::histogram!("postback_build_seconds").record(began.elapsed().as_secs_f64());
    }

    async fn steps(&self, build: &mut Build, token: &CancellationToken, log: &BuildLog) -> Result<(), Ended> {
        let turn = match self.turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                log.say("==> waiting for other builds to end");
                tokio::select! {
                    () = token.cancelled() => return Err(Ended::Stopped),
                    turn = self.turns.acquire() => turn.map_err(|_| Ended::Stopped)?,
                }
            }
        };
        let began = Instant::now();
        let limit = self.build_limit;
        let stop = Stop { token: token.clone(), limit, deadline: began + limit };
        self.unpack(build, log).await?;
        let folder = self.folders.app(&build.id);
        let environment = self.environments.prepare(&build.config, &build.id, &folder, log, &stop).await?;
        self.folders.note_environment(&build.id, &environment.key)?;

        let text = |path: &std::path::Path| {
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| std::io::Error::other("the data directory is not UTF-8"))
        };
        let prepared = Prepared { folder: text(&folder)?, python: text(&environment.python)? };
        if token.is_cancelled()
            || !self
                .registry
                .set_build_status(&build.id, BuildStatus::Initializing, Some(prepared.clone()))
                .await?
        {
            return Err(Ended::Stopped);
        }
        build.status = BuildStatus::Initializing;
        build.prepared = Some(prepared);
        // Importing may take as long as the app's own limit; other builds need not wait for it.
        drop(turn);

        let functions = self.first_replica(build, token, log).await?;
        let names: Vec<_> = functions.iter().map(|function| function.name.as_str()).collect();
        let what =
            if build.config.runtime.is_some() { "its own web server".to_owned() } else { names.join(", ") };
        log.say(format!("==> ready in {}: {what}", seconds(began)));
        match self.registry.activate(&build.id, functions).await? {
            Some(app) => {
                self.replicas.switch(&app);
                Ok(())
            }
            None => Err(Ended::Stopped),
        }
    }

    async fn unpack(&self, build: &Build, log: &BuildLog) -> Result<(), Ended> {
        let (archive, folder) = (self.folders.archive(&build.id), self.folders.app(&build.id));
        let began = Instant::now();
        let main = folder.join("main.py");
        let unpacked = tokio::task::spawn_blocking(move || {
            let mut archive = std::fs::File::open(archive)?;
            unpack(&mut archive, &folder)
        })
        .await
        .map_err(std::io::Error::other)??;
        log.say(format!(
            "==> unpacked {}, {} KiB, in {}",
            count(unpacked.files, "file"),
            unpacked.bytes.div_ceil(1024),
            seconds(began)
        ));
        if build.config.runtime.is_some() || main.is_file() { Ok(()) } else { Err(Ended::NoMain) }
    }

    async fn first_replica(
        &self,
        build: &Build,
        token: &CancellationToken,
        log: &BuildLog,
    ) -> Result<Vec<Function>, Ended> {
        match &build.config.runtime {
            None => log.say("==> importing main.py"),
            Some(runtime) => log.say(format!("==> starting {}", runtime.entrypoint)),
        }
        tokio::select! {
            biased;
            () = token.cancelled() => Err(Ended::Stopped),
            started = self.replicas.start_first(build) => started.map_err(Ended::Start),
        }
    }

    fn say_why(&self, ended: &Ended, log: &BuildLog) {
        if let Ended::Start(failure) = ended
            && let Some(traceback) = &failure.error.traceback
        {
            log.quote(traceback);
        }
        log.say(format!("==> {ended}"));
    }
}
