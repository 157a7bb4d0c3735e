//! Builds: from an uploaded archive to a live app, and back to a former one.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use super::{StartFailure, StoreError, Stored};
use crate::id::{AppId, BuildId};
use crate::registry::{Build, BuildStatus};

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// More than an archive may have.
    #[error("the archive is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The build already has its archive, or is final.
    #[error("this build has been uploaded already; deploy again for a new one")]
    AlreadyUploaded,
    /// The body ended early or the disk refused it.
    #[error("the archive could not be received: {0}")]
    Io(#[from] std::io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an app did not go back to a former build.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is none.
    #[error("there is no former build of this app to go back to")]
    NoFormerBuild,
    /// It is not a build of the app.
    #[error("this app has no build `{0}`")]
    Unknown(BuildId),
    /// Nothing to do.
    #[error("build `{0}` is live already")]
    AlreadyLive(BuildId),
    /// It never started.
    #[error("build `{0}` never was live: it ended as `{end}`", end = .1.as_str())]
    NeverLive(BuildId, BuildStatus),
    /// It was removed with age.
    #[error("the files of build `{0}` are not kept any more; deploy that version again")]
    Gone(BuildId),
    /// Somebody else does it.
    #[error("build `{0}` is being started already")]
    UnderWay(BuildId),
    /// The server stops, the app was deleted, or a newer deploy came.
    #[error("it was stopped before the build was live again")]
    Stopped,
    /// Its code does not start any more.
    #[error("{}", .0.error.message)]
    Start(StartFailure),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Builds: from an uploaded archive to a live app.
#[async_trait]
pub trait Builds: Send + Sync {
    /// Receives a build's archive and starts the build. Returns when the archive is safe on disk;
    /// the build goes on by itself and its status tells the rest.
    async fn upload(
        &self,
        build: &BuildId,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), UploadError>;

    /// Stops a build that is not final. Returns whether there was something to stop.
    async fn cancel(&self, build: &BuildId) -> Stored<bool>;

    /// Makes a former build of an app live again, the last one before the live one when none is named: a replica
    /// of it starts first, then traffic moves. Returns which it was, once it is live. A build under way is stopped.
    async fn roll_back(&self, app: &AppId, build: Option<&BuildId>) -> Result<BuildId, RollbackError>;

    /// Whether a build can still be started.
    fn is_kept(&self, build: &Build) -> bool;
}
