//! The end of a replica: what it means for the pool, for the calls it worked on, and who is charged.

use queue::lease::Release;
use queue::log::Stream;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::registry::BuildStatus;

use super::{End, Fate, Kind, Replica, Stage};
use crate::memory::Excess;
use crate::meters;
use crate::process::Exit;
use crate::waiting::Work;

impl<K: Kind> Replica<K> {
    pub(super) fn end(&mut self, fate: Fate, exit: Exit) -> End {
        if let Stage::Starting { until } = self.stage {
            let limit = until - self.begun;
            return match fate {
                Fate::Killed => End::Left,
                Fate::Failed(failure) => self.failed(failure),
                Fate::TooSlow => {
                    let why = K::too_slow(self, limit);
                    self.not_started(BuildStatus::InitTimeout, why)
                }
                Fate::Broken(why) => self
                    .not_started(BuildStatus::InitFailure, format!("the runner broke the protocol: {why}")),
                Fate::Sick(why) => self.not_started(BuildStatus::InitFailure, why),
                Fate::Excess(excess) => self.not_started(BuildStatus::InitFailure, excess.to_string()),
                Fate::Exited(_) | Fate::Stuck => {
                    let why = K::ended_early(self, exit);
                    match self.not_started(BuildStatus::InitFailure, why) {
                        End::NotStarted(failure) if exit.is_from_outside() => End::Killed(failure),
                        end => end,
                    }
                }
            };
        }
        let leaving = matches!(self.stage, Stage::Leaving { .. });
        let error = match &fate {
            Fate::Broken(why) => {
                let why = format!("the replica broke the protocol and was ended: {why}");
                RunError::new(Code::ProtocolError, why)
            }
            Fate::Sick(why) => RunError::new(Code::WorkerExited, format!("the replica was ended: {why}")),
            Fate::Excess(excess) => {
                let code = match excess {
                    Excess::Memory { .. } => Code::OutOfMemory,
                    Excess::Processes { .. } | Excess::Disk { .. } => Code::WorkerCrashed,
                };
                RunError::new(code, excess.to_string())
            }
            Fate::Stuck => RunError::new(
                Code::Interrupted,
                "another call on the same replica did not end at its limit, so the replica was ended; try again",
            ),
            Fate::Killed => {
                RunError::new(Code::Interrupted, "the replica was ended by the server; try again")
            }
            _ => exit.error(),
        };
        let own_fault = !matches!(fate, Fate::Stuck | Fate::Killed);
        // One that leaves, and has nothing to do any more, may end as it likes.
        let done = leaving && self.calls.is_empty();
        let in_order = done && K::is_in_order(exit);
        if own_fault && !done {
            tracing::warn!(
                replica.id = %self.id, app.id = %self.build.app, calls = self.calls.len(), reason = %error.message,
                "a replica died"
            );
        }
        self.say(format!(
            "replica {} ended: {}",
            self.id,
            if own_fault && !in_order { &error.message } else { "asked to" }
        ));
        self.abandon(&error, own_fault);
        self.load.set(0);
        match fate {
            _ if done => End::Left,
            Fate::Killed => End::Left,
            Fate::Stuck => {
                meters::replica_died("stuck");
                End::Died("a call did not end at its limit, so the replica was ended".to_owned())
            }
            _ => {
                meters::replica_died(error.code.as_str());
                End::Died(error.message)
            }
        }
    }

    /// Ends the attempts of the calls that went down with the process. A run that was alone on it is
    /// charged; several are suspects, none is charged, and each runs alone next time.
    fn abandon(&mut self, error: &RunError, own_fault: bool) {
        let alone = self.calls.len() == 1;
        let now = self.ports.clock.now();
        K::let_go(self);
        let calls: Vec<_> = self.calls.drain().collect();
        for mut call in calls {
            let Some(work) = call.work.take() else {
                self.printer.close(call.log);
                continue;
            };
            if own_fault {
                self.printer.inside(&mut call.log, call.run, now, Stream::System, error.message.clone());
            }
            self.printer.close(call.log);
            self.tell_the_rest(call.telling.take());
            match work {
                Work::Run(run) => {
                    let release =
                        if own_fault && alone { Release::death(error.code) } else { Release::CutShort };
                    if own_fault {
                        self.waiting.suspect(call.run);
                    }
                    self.recorder.release(run.lease, release);
                }
                work @ Work::Call(_) => {
                    let ran_for = now.since(call.started_at).as_secs_f64() * 1e3;
                    let mut outcome = Outcome::failed(error.clone(), ran_for, now);
                    if let Some(status) = K::STATUS_OF_DEATH.filter(|_| own_fault) {
                        outcome.status_code = status;
                    }
                    self.settle(work, outcome, Some(call.started_at));
                }
            }
        }
    }

    pub(super) fn not_started(&mut self, status: BuildStatus, message: String) -> End {
        let mut error = RunError::new(Code::FailedToStart, message);
        error.traceback = self.printer.newest();
        self.failed(StartFailure { status, error })
    }

    fn failed(&mut self, failure: StartFailure) -> End {
        let error = &failure.error;
        // What the code raised has a kind and a traceback of its own, that nobody has seen yet.
        let raised = error.kind != error.code.as_str();
        let kind = if raised { format!("{}: ", error.kind) } else { String::new() };
        self.say(format!("replica {} did not start: {kind}{}", self.id, error.message));
        if let Some(traceback) = error.traceback.clone().filter(|_| raised) {
            for line in traceback.lines() {
                self.printer.outside(self.ports.clock.now(), Stream::Stderr, line.to_owned());
            }
        }
        tracing::warn!(
            replica.id = %self.id, app.id = %self.build.app, build.id = %self.build.id,
            reason = %failure.error.message,
            "a replica did not start"
        );
        End::NotStarted(failure)
    }
}
