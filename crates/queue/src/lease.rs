//! A lease: the right to execute a run, for as long as its node lives and its token is current.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{LeaseToken, RunId};
use crate::outcome::{Code, RunError};

/// The right to execute one run. A write about the run counts only while its token is current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Proof that this attempt is the current one.
    pub token: LeaseToken,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// What it is called when a write about a run comes under a lease that is no longer current: nothing is changed,
/// and whoever came too late says so in its log.
///
/// It is the end of no attempt on record. A node whose data directory is locked cannot lose a lease while it
/// lives: runs under an older incarnation are orphans when the next process starts, and end as
/// [`Release::ServerLost`] there; and an attempt that ended otherwise has that end already. An attempt can end
/// so only where nodes share a store and one of them takes over another's runs.
pub const LEASE_LOST: &str = "lease_lost";

/// How an attempt of a run ended without ending the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// Its own replica was ended by a signal while it worked on it. Counts towards `crash_loop`.
    WorkerCrashed,
    /// Its own replica exited while it worked on it. Counts likewise.
    WorkerExited,
    /// Its own replica held more memory than it may, and was ended. Counts likewise.
    OutOfMemory,
    /// Its own replica broke the protocol, and was ended. Counts likewise.
    ProtocolError,
    /// The server went away under it. Counts towards `interrupted` once a replica had it.
    ServerLost,
    /// It was claimed and never handed to a replica. Counts towards nothing.
    Drained,
    /// A replica had it when the server or the replica was stopped, or another call took the replica down.
    /// Says nothing about the run, and counts towards its `max_attempts` only.
    CutShort,
}

impl Release {
    /// Every one of them.
    pub const ALL: [Self; 7] = [
        Self::WorkerCrashed,
        Self::WorkerExited,
        Self::OutOfMemory,
        Self::ProtocolError,
        Self::ServerLost,
        Self::Drained,
        Self::CutShort,
    ];

    /// The death of a run's own replica, by the code that says how it died.
    pub const fn death(code: Code) -> Self {
        match code {
            Code::WorkerExited => Self::WorkerExited,
            Code::OutOfMemory => Self::OutOfMemory,
            Code::ProtocolError => Self::ProtocolError,
            _ => Self::WorkerCrashed,
        }
    }

    /// Whether it counts towards `crash_loop`.
    pub const fn is_death(self) -> bool {
        !matches!(self, Self::ServerLost | Self::Drained | Self::CutShort)
    }

    /// Whether it counts towards `max_attempts`. Nobody knows whether a replica had the run when the server was
    /// lost, so that counts as if one had: such a run is never executed more often than it may be.
    pub const fn is_execution(self) -> bool {
        !matches!(self, Self::Drained)
    }

    /// The code with which a run ends that may not be executed again after such an attempt.
    pub const fn code(self) -> Code {
        match self {
            Self::WorkerCrashed => Code::WorkerCrashed,
            Self::WorkerExited => Code::WorkerExited,
            Self::OutOfMemory => Code::OutOfMemory,
            Self::ProtocolError => Code::ProtocolError,
            Self::ServerLost | Self::Drained | Self::CutShort => Code::Interrupted,
        }
    }

    /// The end code of the attempt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkerCrashed => "worker_crashed",
            Self::WorkerExited => "worker_exited",
            Self::OutOfMemory => "out_of_memory",
            Self::ProtocolError => "protocol_error",
            Self::ServerLost => "server_lost",
            Self::Drained | Self::CutShort => "drained",
        }
    }
}

/// What became of a released run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is queued again.
    Queued,
    /// It ended instead: it had used up its chances, was cancelled, or had to start by now. Its deliveries are due.
    Ended(Code),
    /// The lease was no longer current; nothing changed.
    Stale,
}

/// One attempt of a run as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// From 1.
    pub number: u32,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its end code; `None` while it runs.
    pub end: Option<String>,
    /// Why it failed, when it did and another one followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}
