//! The end of a pool, and of what waits in it: the server stops, the app is deleted, or no replica starts.

use queue::event::EventKind;
use queue::lease::Release;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use tokio::time::Instant;

use super::Pool;
use crate::member::Member;
use crate::record::answer;
use crate::waiting::Closed;

/// Why a run or call of a deleted app ends.
pub(crate) fn app_deleted() -> RunError {
    RunError::new(Code::Cancelled, "the app was deleted")
}

impl Pool {
    /// When no replica starts, time after time, whatever waits in memory ends.
    pub(super) fn tell_if_given_up(&self, failure: &StartFailure) {
        if !self.brake.given_up() || self.serving_or_starting() > 0 {
            return;
        }
        let message = format!("no replica of the app could be started: {}", failure.error.message);
        if !self.waiting.is_empty() {
            let text = "so many starts failed in a row that the calls and runs that wait here end".to_owned();
            self.tell(EventKind::GivenUp, text, None);
        }
        self.end_waiting(&RunError { code: Code::FailedToStart, message, ..failure.error.clone() });
    }

    fn end_waiting(&self, error: &RunError) {
        let ended = || Outcome::failed(error.clone(), 0.0, self.ports.clock.now());
        for run in self.waiting.take_runs() {
            self.recorder.finish(run, ended());
        }
        self.end_calls(error);
    }

    fn end_calls(&self, error: &RunError) {
        for call in self.waiting.take_calls() {
            answer(&self.ports, call, Outcome::failed(error.clone(), 0.0, self.ports.clock.now()), None);
        }
    }

    /// The server stops. Runs that no replica has go back; calls that wait are still served.
    pub(super) fn drain(&mut self) {
        self.drain_until = Some(Instant::now() + self.ports.options.drain_timeout);
        if self.closed.is_none() {
            self.closed = Some(Closed::Stopping);
            self.waiting.close(Closed::Stopping);
        }
    }

    /// When to look again.
    pub(super) fn close_down(&mut self, now: Instant) -> Option<Instant> {
        if self.closed == Some(Closed::Retired) {
            self.end_waiting(&app_deleted());
        }
        for run in self.waiting.take_runs() {
            self.recorder.release(run.lease, Release::Drained);
        }
        let time_is_up = self.drain_until.is_some_and(|moment| now >= moment);
        if time_is_up {
            self.end_calls(&RunError::new(Code::Interrupted, "the server is shutting down; try again"));
            self.members.values_mut().for_each(Member::kill);
            return None;
        }
        if self.waiting.is_empty() {
            self.members.values_mut().for_each(Member::leave);
        }
        self.drain_until
    }
}
