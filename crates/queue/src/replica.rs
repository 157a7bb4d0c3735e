//! A replica as people see it.

use std::time::Duration;

use serde::Serialize;

use crate::id::{BuildId, ReplicaId, RunId};

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    /// Its code is being loaded.
    Starting,
    /// It is the first of a build that is about to be live.
    Ready,
    /// It works, or could.
    Serving,
    /// It finishes what it has, and ends.
    Leaving,
}

impl ReplicaState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
        }
    }
}

/// One replica, at the moment of asking.
#[derive(Clone, Debug)]
pub struct ReplicaView {
    /// Its id.
    pub id: ReplicaId,
    /// The build it serves.
    pub build: BuildId,
    /// Where it stands.
    pub state: ReplicaState,
    /// For how long there has been one.
    pub age: Duration,
    /// What its processes hold, in bytes; `None` before there are any, and where the system does not tell.
    pub memory: Option<u64>,
    /// The ids of the GPUs that are its own.
    pub gpus: Vec<String>,
    /// Calls it works on.
    pub calls: usize,
    /// The first of them, up to [`REPLICA_RUNS_SHOWN`](crate::limits::REPLICA_RUNS_SHOWN), the oldest first.
    pub runs: Vec<RunId>,
}
