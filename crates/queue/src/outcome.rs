//! An outcome: how a run ended, with its result or the reason.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{AppId, BuildId, RunId};
use crate::lease::Lease;
use crate::run::RunState;

/// The ways a run can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The function returned.
    Succeeded,
    /// It did not; the error says why.
    Failed,
    /// Somebody asked for it.
    Cancelled,
    /// It never started in time.
    Expired,
}

impl Ending {
    /// The state of a run that ended so.
    pub const fn state(self) -> RunState {
        match self {
            Self::Succeeded => RunState::Succeeded,
            Self::Failed => RunState::Failed,
            Self::Cancelled => RunState::Cancelled,
            Self::Expired => RunState::Expired,
        }
    }
}

/// Why a run did not succeed. One word each, the same in API, CLI, pages, logs and webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`Code::meaning` says it, and the docs are made from that")]
pub enum Code {
    UserError,
    Timeout,
    WorkerCrashed,
    WorkerExited,
    OutOfMemory,
    OutputLimit,
    ResultTooLarge,
    ResultInvalid,
    ProtocolError,
    FailedToStart,
    CrashLoop,
    Interrupted,
    Cancelled,
    Expired,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 14] = [
        Self::UserError,
        Self::Timeout,
        Self::WorkerCrashed,
        Self::WorkerExited,
        Self::OutOfMemory,
        Self::OutputLimit,
        Self::ResultTooLarge,
        Self::ResultInvalid,
        Self::ProtocolError,
        Self::FailedToStart,
        Self::CrashLoop,
        Self::Interrupted,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserError => "user_error",
            Self::Timeout => "timeout",
            Self::WorkerCrashed => "worker_crashed",
            Self::WorkerExited => "worker_exited",
            Self::OutOfMemory => "out_of_memory",
            Self::OutputLimit => "output_limit",
            Self::ResultTooLarge => "result_too_large",
            Self::ResultInvalid => "result_invalid",
            Self::ProtocolError => "protocol_error",
            Self::FailedToStart => "failed_to_start",
            Self::CrashLoop => "crash_loop",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// What it means, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::UserError => "the function raised an exception",
            Self::Timeout => "the run did not end within its limit",
            Self::WorkerCrashed => "the replica was ended by a signal while it worked on the run",
            Self::WorkerExited => "the replica exited while it worked on the run",
            Self::OutOfMemory => "the replica held more memory than the app's `memory` allows",
            Self::OutputLimit => "the run printed more than a run may",
            Self::ResultTooLarge => "the result is larger than a result may be",
            Self::ResultInvalid => "the result cannot be written as JSON",
            Self::ProtocolError => "the replica broke the protocol between worker and runner",
            Self::FailedToStart => "no replica of the app could be started",
            Self::CrashLoop => "the run took its replica down three times",
            Self::Interrupted => "the server or a replica was lost under the run too many times",
            Self::Cancelled => "somebody cancelled the run",
            Self::Expired => "the run never started in time",
        }
    }

    /// The HTTP status a synchronous caller gets.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Timeout => 504,
            Self::FailedToStart | Self::Interrupted => 503,
            Self::Cancelled => 409,
            Self::Expired => 408,
            _ => 500,
        }
    }
}

/// The reason a run did not succeed, in the form webhooks carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// One of [`Code`].
    pub code: Code,
    /// The exception's type, for `user_error`; else the code again.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, and what to do about it where we know.
    pub message: String,
    /// The traceback, bounded, for exceptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
}

impl RunError {
    /// An error of our own making.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, kind: code.as_str().to_owned(), message: message.into(), traceback: None }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Succeeded, or how not.
    pub ending: Ending,
    /// The function's return value as raw JSON; `None` unless it succeeded.
    pub result: Option<Bytes>,
    /// Why it did not succeed.
    pub error: Option<RunError>,
    /// HTTP status: 200, the result's own `status_code`, or the code's.
    pub status_code: u16,
    /// Time inside the function, in milliseconds.
    pub run_time_ms: f64,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The build that served it, when one did.
    pub build: Option<BuildId>,
}

impl Outcome {
    /// The function returned `result`.
    pub fn succeeded(result: Bytes, status_code: u16, run_time_ms: f64, ended_at: Timestamp) -> Self {
        Self {
            ending: Ending::Succeeded,
            result: Some(result),
            error: None,
            status_code,
            run_time_ms,
            ended_at,
            build: None,
        }
    }

    /// The run ended without a result.
    pub fn failed(error: RunError, run_time_ms: f64, ended_at: Timestamp) -> Self {
        let ending = match error.code {
            Code::Cancelled => Ending::Cancelled,
            Code::Expired => Ending::Expired,
            _ => Ending::Failed,
        };
        let status_code = error.code.http_status();
        Self { ending, result: None, error: Some(error), status_code, run_time_ms, ended_at, build: None }
    }

    /// The same, served by `build`.
    #[must_use]
    pub fn served_by(mut self, build: BuildId) -> Self {
        self.build = Some(build);
        self
    }
}

/// What became of the wish to cancel a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// It waited, and has ended as cancelled; its deliveries are due.
    Done,
    /// It is executed. The wish is kept: the run will not be executed again, and whoever has it under a
    /// lease is to be told.
    Asked,
    /// It had ended already.
    TooLate(RunState),
    /// The project has no such run.
    Unknown,
}

/// What became of runs whose time to start is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many were queued and have ended; their deliveries are due.
    pub ended: u64,
    /// Those that are leased to this node: whoever has one without having begun it gives it back, and that
    /// ends it.
    pub leased: Vec<(AppId, RunId)>,
}

/// The one write that ends a leased run and creates its deliveries.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The lease; a stale one changes nothing.
    pub lease: Lease,
    /// How the run ended.
    pub outcome: Outcome,
    /// For each endpoint of the run, in order: whether delivery has a slot free, so that the first
    /// attempt is recorded in the same transaction and may go out at once.
    pub first_attempts: Vec<bool>,
}

/// What became of a [`Finish`].
#[derive(Clone, Debug)]
pub enum Finished {
    /// The outcome stands. The deliveries whose first attempt was recorded, ready to be sent;
    /// the others are due and will be found by [`crate::port::Deliveries::begin`].
    Recorded(Vec<crate::delivery::DueDelivery>),
    /// The lease was no longer current; nothing changed.
    Stale,
}
