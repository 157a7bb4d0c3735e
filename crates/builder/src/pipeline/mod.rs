//! From an uploaded archive to a live app.
//!
//! ```text
//! upload ─► <data>/builds/<id>/archive.zip ─► app/ ─► environment ─► first replica ─► live
//! ```
//!
//! The archive is on disk before the upload is answered, so a build survives the server: [`Builder::resume`]
//! begins it again. Whatever goes wrong, the version that was live stays live.

mod folders;
mod job;
mod rollback;
mod upkeep;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use queue::contain::Policy;
use queue::limits::{BUILD_LIMIT, UPLOAD_BYTES_MAX};
use queue::port::{
    AppEvents, Builds, Logs, Registry, Replicas, RollbackError, StoreError, Stored, UploadError,
};
use queue::registry::{Build, BuildStatus};
use queue::{AppId, BuildId, Clock, Timestamp};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::Commands;
use crate::environment::Environments;
use folders::Folders;

/// Builds that are made at once; the others wait their turn.
const BUILDS_AT_ONCE: usize = 2;

/// What a builder is told by the binary.
#[derive(Clone, Debug)]
pub struct Options {
    /// Builds and environments are kept below it.
    pub data_dir: PathBuf,
    /// uv and downloaded packages are kept below it; servers may share it.
    pub cache_dir: PathBuf,
    /// The folder of the Python side, whose bytecode is made for each interpreter, if replicas are started here.
    pub runner: Option<PathBuf>,
    /// Put before every command, so that it and all it started end with the server. May be empty.
    pub supervisor: Vec<OsString>,
    /// The server's own environment. `PATH` says where interpreters and tools are; of the rest only what
    /// builds need is handed over to commands, no secrets of the server.
    pub environment: Vec<(OsString, OsString)>,
    /// How commands that run code of strangers are contained: what each is granted comes on top.
    pub policy: Policy,
    /// Such commands have their temporary folders below it.
    pub scratch: PathBuf,
    /// Builds may install Debian packages, if the server is root.
    pub install_apt_packages: bool,
    /// Time a build has to prepare its environment.
    pub build_limit: Duration,
}

impl Options {
    /// No supervisor, and an empty environment: set what the server has.
    pub fn new(data_dir: PathBuf, cache_dir: PathBuf) -> Self {
        Self {
            policy: Policy::default(),
            scratch: data_dir.join("tmp"),
            data_dir,
            cache_dir,
            runner: None,
            supervisor: Vec::new(),
            environment: Vec::new(),
            install_apt_packages: false,
            build_limit: BUILD_LIMIT,
        }
    }
}

/// Makes builds. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Builder {
    inner: Arc<Inner>,
}

struct Inner {
    folders: Folders,
    environments: Environments,
    registry: Arc<dyn Registry>,
    logs: Arc<dyn Logs>,
    events: Arc<dyn AppEvents>,
    replicas: Arc<dyn Replicas>,
    clock: Arc<dyn Clock>,
    turns: Semaphore,
    build_limit: Duration,
    jobs: Mutex<HashMap<BuildId, Running>>,
    tasks: TaskTracker,
    /// The server stops: builds end without a verdict and begin again with the next one.
    stopping: CancellationToken,
}

/// A build that is being uploaded or made.
struct Running {
    app: AppId,
    created_at: Timestamp,
    token: CancellationToken,
}

impl Builder {
    /// A builder that works below the folders of `options`.
    pub fn new(
        options: Options,
        registry: Arc<dyn Registry>,
        logs: Arc<dyn Logs>,
        events: Arc<dyn AppEvents>,
        replicas: Arc<dyn Replicas>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Fails only for an empty path, which no folder has.
        let absolute = |folder: PathBuf| std::path::absolute(&folder).unwrap_or(folder);
        let (data_dir, cache_dir) = (absolute(options.data_dir), absolute(options.cache_dir));
        let path = options.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value);
        let search_path = path
            .map(|path| std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect())
            .unwrap_or_default();
        let environment = options.environment.into_iter().filter(|(name, _)| is_handed_over(name)).collect();
        let (policy, scratch) = (options.policy, absolute(options.scratch));
        let commands = Commands { supervisor: options.supervisor, environment, policy, scratch };
        Self {
            inner: Arc::new(Inner {
                folders: Folders::new(data_dir.join("builds")),
                environments: Environments::new(
                    commands,
                    search_path,
                    data_dir.join("environments"),
                    cache_dir,
                    options.runner.map(absolute),
                    options.install_apt_packages,
                ),
                registry,
                logs,
                events,
                replicas,
                clock,
                turns: Semaphore::new(BUILDS_AT_ONCE),
                build_limit: options.build_limit,
                jobs: Mutex::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
            }),
        }
    }

    /// Begins again what a former process left unfinished, and clears what nobody needs. Call once, before
    /// serving.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn resume(&self) -> Stored<()> {
        for build in self.inner.registry.unfinished_builds().await? {
            let inner = &self.inner;
            if inner.folders.archive(&build.id).is_file() {
                let Some(entered) = inner.enter(&build) else { continue };
                inner.folders.clear_for_restart(&build.id);
                inner.log(&build).say("==> the server was restarted; the build begins again");
                self.start(build, entered);
            } else if build.status != BuildStatus::Pending {
                inner.log(&build).say("the server was restarted and the archive is gone; deploy again");
                inner.registry.set_build_status(&build.id, BuildStatus::BuildFailure, None).await?;
            } else if upkeep::is_forgotten(&build, inner.clock.now()) {
                inner.registry.set_build_status(&build.id, BuildStatus::Cancelled, None).await?;
            }
        }
        self.inner.collect().await;
        Ok(())
    }

    /// Removes builds and environments that nobody needs any more. Done after each build too.
    pub async fn collect(&self) {
        self.inner.collect().await;
    }

    /// Stops builds without a verdict: the next process begins them again. Returns when their commands are
    /// gone.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn start(&self, build: Build, entered: Entered) {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn(async move {
            inner.make(build, entered.token.clone()).await;
            drop(entered);
            inner.collect().await;
        });
    }
}

impl Inner {
    fn jobs(&self) -> std::sync::MutexGuard<'_, HashMap<BuildId, Running>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a build is under way, and stops older ones of its app: the newest wins. `None` when it
    /// is under way already.
    fn enter(self: &Arc<Self>, build: &Build) -> Option<Entered> {
        let mut jobs = self.jobs();
        if jobs.contains_key(&build.id) {
            return None;
        }
        for older in jobs.values() {
            if older.app == build.app && older.created_at <= build.created_at {
                older.token.cancel();
            }
        }
        let token = self.stopping.child_token();
        let running = Running { app: build.app.clone(), created_at: build.created_at, token: token.clone() };
        jobs.insert(build.id.clone(), running);
        Some(Entered { inner: Arc::clone(self), build: build.id.clone(), token })
    }
}

/// A build that is under way until this is dropped.
struct Entered {
    inner: Arc<Inner>,
    build: BuildId,
    token: CancellationToken,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.inner.jobs().remove(&self.build);
    }
}

/// Names of the environment that commands of a build may see: what finds programs, networks, certificates,
/// caches and compilers. Everything else might be a secret.
fn is_handed_over(name: &std::ffi::OsStr) -> bool {
    const NAMES: &[&str] = &[
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TERM",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NETRC",
        "CC",
        "CXX",
        "CFLAGS",
        "CXXFLAGS",
        "LDFLAGS",
        "MAKEFLAGS",
        "MAX_JOBS",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDAARCHS",
        "CUDACXX",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PKG_CONFIG_PATH",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "PYENV_ROOT",
        "MAMBA_EXE",
        "MAMBARC",
        "CONDARC",
        "DEBIAN_FRONTEND",
        "SOURCE_DATE_EPOCH",
    ];
    const PREFIXES: &[&str] =
        &["LC_", "PIP_", "UV_", "SSL_CERT_", "XDG_", "GIT_SSL_", "HF_HOME", "NIX_SSL_", "CMAKE_"];
    let Some(name) = name.to_str() else { return false };
    let name = name.to_ascii_uppercase();
    NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[async_trait]
impl Builds for Builder {
    async fn upload(
        &self,
        build: &BuildId,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), UploadError> {
        let inner = &self.inner;
        let Some(build) = inner.registry.build(build).await? else {
            return Err(UploadError::AlreadyUploaded);
        };
        if build.status != BuildStatus::Pending {
            return Err(UploadError::AlreadyUploaded);
        }
        let entered = inner.enter(&build).ok_or(UploadError::AlreadyUploaded)?;
        let received = inner.folders.receive(&build.id)?.ok_or(UploadError::AlreadyUploaded)?;
        let bytes = received.write(archive).await?;
        if !inner.registry.set_build_status(&build.id, BuildStatus::Building, None).await? {
            inner.folders.remove_archive(&build.id);
            return Err(UploadError::AlreadyUploaded);
        }
        metrics::counter!("postback_uploads_total").increment(1);
        inner.log(&build).say(format!("==> received {} KiB", bytes.div_ceil(1024)));
        self.start(Build { status: BuildStatus::Building, ..build }, entered);
        Ok(())
    }

    async fn cancel(&self, build: &BuildId) -> Stored<bool> {
        self.stop_build(build).await
    }

    async fn roll_back(&self, app: &AppId, build: Option<&BuildId>) -> Result<BuildId, RollbackError> {
        self.go_back(app, build).await
    }

    fn is_kept(&self, build: &Build) -> bool {
        rollback::is_whole(build)
    }
}

/// An archive on its way to disk. Without [`Receiving::write`] having ended well, nothing stays.
struct Receiving {
    partial: tempfile::TempPath,
    file: tokio::fs::File,
    place: PathBuf,
}

impl Receiving {
    /// Writes the archive, and returns its size once it is safe on disk.
    async fn write(
        mut self,
        mut archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<u64, UploadError> {
        let mut bytes = 0;
        while let Some(chunk) = archive.next().await {
            let chunk = chunk?;
            bytes += chunk.len() as u64;
            if bytes > UPLOAD_BYTES_MAX {
                return Err(UploadError::TooLarge { limit: UPLOAD_BYTES_MAX });
            }
            self.file.write_all(&chunk).await?;
        }
        self.file.flush().await?;
        self.file.sync_all().await?;
        self.partial.persist(&self.place).map_err(|error| error.error)?;
        let folder = self.place.parent().map(std::fs::File::open);
        if let Some(folder) = folder {
            folder?.sync_all()?;
        }
        Ok(bytes)
    }
}

/// The store's words for a failed read, where nothing better can be done than to say it once.
fn warn_of(error: &StoreError, what: &str) {
    tracing::warn!(error = %error, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_see_what_they_need_and_no_secret() {
        for name in [
            "PATH",
            "https_proxy",
            "PIP_INDEX_URL",
            "SSL_CERT_FILE",
            "UV_INDEX",
            "LC_ALL",
            "HOME",
            "CMAKE_ARGS",
            "CMAKE_BUILD_PARALLEL_LEVEL",
            "CUDAARCHS",
        ] {
            assert!(is_handed_over(name.as_ref()), "{name}");
        }
        for name in
            ["POSTBACK_API_KEY", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "PYTHONPATH", "GITHUB_TOKEN"]
        {
            assert!(!is_handed_over(name.as_ref()), "{name}");
        }
    }
}
