//! Run: keeps replicas alive, gives them runs, records outcomes.
//!
//! ```text
//! Dispatch ─► waiting ─► replica ═(frames)═ runner        one task per replica
//!   store ──► (claim)      │                              one pool task per app decides
//!                          └──► record ─► store, Outbox   one recorder task per app commits
//! ```
//!
//! Promises:
//! - a run is given to one replica at a time, under its lease, and its end is recorded once; what
//!   the store refuses is kept and tried again while the process lives;
//! - a run that dies with its own replica is charged, one that shared the replica is not: it runs
//!   again, alone, so that the culprit is found;
//! - at its limit a run ends as `timeout`; a replica that does not let go of it is killed with
//!   everything it started;
//! - nothing that a replica started outlives the replica or the server ([`supervise`]);
//! - memory is bounded by `queue::limits`, whatever waits and whatever is printed.

mod brake;
mod calls;
mod contain;
mod disk;
pub mod frames;
pub mod gpus;
mod load;
mod member;
mod memory;
mod meters;
mod pool;
mod posix;
mod printed;
mod process;
mod record;
mod replica;
mod runner;
mod scale;
mod supervise;
mod telling;
mod usage;
mod waiting;
mod web;
mod worker;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use queue::contain::Policy;
use queue::hardware::Gpu;
use queue::port::{AppEvents, Logs, Outbox, Registry, Runs, Secrets};
use queue::{AppId, Clock, Entropy, ProjectId, limits};
use tokio::sync::mpsc;

pub use contain::{Containment, Groups, Lack, Machine, examine};
use gpus::Gpus;
pub use supervise::{Lifeline, launcher};
pub use worker::{Handle, Worker};

/// How replicas are run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Put before every replica's command: [`Lifeline::prefix`]. When empty, replicas run without a
    /// supervisor, and only their process group ends with them.
    pub supervisor: Vec<OsString>,
    /// The folder of the Python side, with its `__main__.py`.
    pub runner: PathBuf,
    /// The whole environment of a replica's process: `PATH`, `HOME`, `LANG`, `TMPDIR` and the like.
    pub environment: Vec<(OsString, OsString)>,
    /// How replicas are contained: what each is granted comes on top.
    pub policy: Policy,
    /// Where replicas get control groups, if there are any to be had.
    pub groups: Option<Groups>,
    /// Every app has a user of its own; the server must be root.
    pub identities: bool,
    /// Replicas have their temporary folders below it.
    pub scratch: PathBuf,
    /// The folder that outlives replicas, with one folder for each project.
    pub storage: Option<PathBuf>,
    /// The GPUs that replicas can be given, from [`gpus::look_up`].
    pub gpus: Vec<Gpu>,
    /// Replicas whose GPUs are not there run on CPUs instead.
    pub cpu_fallback: bool,
    /// Time that calls have to end after the server was asked to stop.
    pub drain_timeout: Duration,
    /// Time a replica has to come back after a call was cancelled.
    pub cancel_grace: Duration,
    /// What one attempt may print, in bytes.
    pub output_max: u64,
    /// Time a replica has to exit after it was asked to.
    pub stop_grace: Duration,
    /// Shortest time from one start to the next after a replica ended badly; doubles with every
    /// failed start …
    pub restart_pause: Duration,
    /// … up to this.
    pub restart_pause_max: Duration,
}

impl Options {
    /// The folder of a project that outlives its replicas: `/persistent-storage` of Cerebrium.
    pub fn storage_of(&self, project: &ProjectId) -> Option<PathBuf> {
        self.storage.as_ref().map(|storage| storage.join(project.as_str()))
    }

    /// The defaults, for the runner in this folder.
    pub fn new(runner: impl Into<PathBuf>) -> Self {
        Self {
            supervisor: Vec::new(),
            runner: runner.into(),
            environment: Vec::new(),
            policy: Policy::default(),
            groups: None,
            identities: false,
            scratch: std::env::temp_dir(),
            storage: None,
            gpus: Vec::new(),
            cpu_fallback: false,
            drain_timeout: Duration::from_secs(30),
            cancel_grace: limits::CANCEL_GRACE,
            output_max: limits::RUN_OUTPUT_BYTES_MAX,
            stop_grace: Duration::from_secs(5),
            restart_pause: Duration::from_secs(1),
            restart_pause_max: Duration::from_secs(30),
        }
    }
}

/// As good as for ever: bounds what configuration may add to the clock.
pub(crate) const FAR: Duration = Duration::from_secs(366 * 86_400);

/// What every part of the room works with.
pub(crate) struct Ports {
    pub(crate) options: Options,
    pub(crate) runs: Arc<dyn Runs>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) secrets: Arc<dyn Secrets>,
    pub(crate) logs: Arc<dyn Logs>,
    pub(crate) events: Arc<dyn AppEvents>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) gpus: Arc<Gpus>,
    /// Takes the apps of runs that went back to the store from a pool that takes nothing more.
    pub(crate) returned: mpsc::UnboundedSender<AppId>,
}
