//! What waits: runs, and calls with those who wait for them.

use queue::RunId;
use queue::outcome::Outcome;
use queue::port::Call;
use queue::run::LeasedRun;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Something to execute.
#[derive(Debug)]
pub(crate) enum Work {
    Run(LeasedRun),
    Call(WaitingCall),
}

/// A synchronous call and whoever waits for it.
#[derive(Debug)]
pub(crate) struct WaitingCall {
    pub(crate) call: Call,
    pub(crate) reply: oneshot::Sender<Outcome>,
    pub(crate) deadline: Instant,
}

impl Work {
    pub(super) fn input_bytes(&self) -> usize {
        match self {
            Self::Run(run) => run.input.len(),
            Self::Call(waiting) => waiting.call.input.len(),
        }
    }

    pub(crate) fn id(&self) -> RunId {
        match self {
            Self::Run(run) => run.lease.run,
            Self::Call(waiting) => waiting.call.id,
        }
    }

    /// Somebody waits for a call, but no more urgently than for a run that says nothing.
    pub(super) const fn priority(&self) -> i8 {
        match self {
            Self::Run(run) => run.priority,
            Self::Call(_) => 0,
        }
    }
}
