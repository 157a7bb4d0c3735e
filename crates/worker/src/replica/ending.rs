//! The end of a replica: what it means for the pool, for the calls it worked on, and who is charged.

use queue::lease::Release;
use queue::log::Stream;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::registry::BuildStatus;

use super::{ENTRY, End, Replica, Stage};
use crate::memory::Excess;
use crate::meters;
use crate::process::Exit;
use crate::waiting::Work;

/// Why the task's loop ended.
#[derive(Debug)]
pub(super) enum Fate {
    /// The process is gone.
    Exited(Exit),
    /// It sent something that makes no sense, or closed its socket and lived on.
    Broken(String),
    /// Its import raised.
    Failed(StartFailure),
    /// It was not ready in time.
    TooSlow,
    /// It held more than it may.
    Excess(Excess),
    /// A call did not come back after it was cancelled.
    Stuck,
    /// It was told to end at once.
    Killed,
}

impl Replica {
    pub(super) fn end(&mut self, fate: Fate, exit: Exit) -> End {
        if let Stage::Starting { until } = self.stage {
            let limit = until - self.begun;
            return match fate {
                Fate::Killed => End::Left,
                Fate::Failed(failure) => self.failed(failure),
                Fate::TooSlow => {
                    let why = format!("{ENTRY} was not imported within {} s", limit.as_secs());
                    self.not_started(BuildStatus::InitTimeout, why)
                }
                Fate::Broken(why) => self
                    .not_started(BuildStatus::InitFailure, format!("the runner broke the protocol: {why}")),
                Fate::Excess(excess) => self.not_started(BuildStatus::InitFailure, excess.to_string()),
                Fate::Exited(_) | Fate::Stuck => {
                    let why = format!("the replica ended while it imported {ENTRY}: {exit}");
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
        let in_order = done && exit == Exit::Status(0);
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
                    self.settle(work, Outcome::failed(error.clone(), ran_for, now), Some(call.started_at));
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
        self.say(format!("replica {} did not start: {}: {}", self.id, error.kind, error.message));
        if let Some(traceback) = error.traceback.clone().filter(|_| error.kind != error.code.as_str()) {
            for line in traceback.lines() {
                self.printer.outside(self.ports.clock.now(), Stream::Stderr, line.to_owned());
            }
        }
        tracing::warn!(
            replica.id = %self.id, app.id = %self.build.app, build.id = %self.build_id,
            reason = %failure.error.message,
            "a replica did not start"
        );
        End::NotStarted(failure)
    }
}
