//! Work for a function that this replica's code does not have.
//!
//! While traffic moves from one build to another, a call that was checked against the new one can meet a replica of
//! the old one that has not heard of it yet. Such work is put aside for a moment: when the replica is told to leave,
//! it goes back to the front of the queue, for the others. When nothing is told, there is no such function.

use queue::RunId;
use queue::lease::Release;
use queue::outcome::{Code, Outcome, RunError};
use tokio::time::Instant;

use super::{Replica, SWITCH_GRACE};
use crate::waiting::Work;

impl Replica {
    /// Puts it aside, until it is known what to do with it.
    pub(super) fn put_aside(&mut self, work: Work, now: Instant) {
        self.kind.aside.push((work, now + SWITCH_GRACE));
    }

    pub(super) fn aside_until(&self) -> Option<Instant> {
        self.kind.aside.first().map(|(_, until)| *until)
    }

    /// Those that were put aside long enough end: this build is live, and does not have what they ask for.
    pub(super) fn turn_down(&mut self, now: Instant) {
        let over = self.kind.aside.iter().take_while(|(_, until)| *until <= now).count();
        let over: Vec<_> = self.kind.aside.drain(..over).collect();
        for (work, _) in over {
            let function = match &work {
                Work::Run(run) => &run.function,
                Work::Call(waiting) => &waiting.call.function,
            };
            let names: Vec<_> = self.kind.functions.iter().map(|offered| offered.name.as_str()).collect();
            let message =
                format!("the live build has no function `{function}`; it has: {}", names.join(", "));
            let error = RunError::new(Code::UserError, message);
            self.settle(work, Outcome::failed(error, 0.0, self.ports.clock.now()), None);
        }
    }

    /// The replica leaves: others may have what they ask for.
    pub(super) fn hand_back(&mut self) {
        for (work, _) in self.kind.aside.drain(..).rev() {
            self.waiting.put_back(work);
        }
    }

    /// Gives a run back that is to be cancelled; the store ends it.
    pub(super) fn cancel_aside(&mut self, run: RunId) {
        if let Some(at) = self.kind.aside.iter().position(|(work, _)| work.id() == run)
            && let (Work::Run(run), _) = self.kind.aside.remove(at)
        {
            self.recorder.release(run.lease, Release::Drained);
        }
    }
}
