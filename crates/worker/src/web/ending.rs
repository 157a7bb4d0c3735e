//! The end of a web server's replica: what it means for the pool, for the calls it worked on, and who is charged.

use queue::lease::Release;
use queue::log::Stream;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::registry::BuildStatus;
use queue::web::PORT_VARIABLE;

use super::{End, Server, Stage};
use crate::memory::Excess;
use crate::meters;
use crate::process::Exit;
use crate::waiting::Work;

/// Why the task's loop ended.
#[derive(Debug)]
pub(super) enum Fate {
    /// The process is gone.
    Exited(Exit),
    /// It was not up in time.
    TooSlow,
    /// Its health check failed time after time.
    Sick(String),
    /// It held more than it may.
    Excess(Excess),
    /// It was told to end at once.
    Killed,
}

impl Server {
    pub(super) fn end(&mut self, fate: Fate, exit: Exit) -> End {
        if let Stage::Starting { until } = self.stage {
            let limit = until - self.begun;
            return match fate {
                Fate::Killed => End::Left,
                Fate::TooSlow => {
                    let why = format!(
                        "the app's web server was not up within {} s: {}; it must listen on port {} or on the one \
                         that the environment variable `{PORT_VARIABLE}` names, at 0.0.0.0 or 127.0.0.1",
                        limit.as_secs(),
                        if self.not_yet.is_empty() { "it was not seen" } else { &self.not_yet },
                        self.runtime.port
                    );
                    let why = self.with_port_hint(why);
                    self.not_started(BuildStatus::InitTimeout, why)
                }
                Fate::Excess(excess) => self.not_started(BuildStatus::InitFailure, excess.to_string()),
                Fate::Sick(why) => self.not_started(BuildStatus::InitFailure, why),
                Fate::Exited(_) => {
                    let why = format!("the app's web server ended before it was up: {exit}");
                    let why = self.with_port_hint(why);
                    match self.not_started(BuildStatus::InitFailure, why) {
                        End::NotStarted(failure) if exit.is_from_outside() => End::Killed(failure),
                        end => end,
                    }
                }
            };
        }
        let leaving = matches!(self.stage, Stage::Leaving { .. });
        let error = match &fate {
            Fate::Excess(excess) => {
                let code = match excess {
                    Excess::Memory { .. } => Code::OutOfMemory,
                    Excess::Processes { .. } | Excess::Disk { .. } => Code::WorkerCrashed,
                };
                RunError::new(code, excess.to_string())
            }
            Fate::Sick(why) => RunError::new(Code::WorkerExited, format!("the replica was ended: {why}")),
            Fate::Killed => {
                RunError::new(Code::Interrupted, "the replica was ended by the server; try again")
            }
            _ => exit.error(),
        };
        let own_fault = !matches!(fate, Fate::Killed);
        let in_order = leaving && self.calls.is_empty();
        if own_fault && !in_order {
            tracing::warn!(
                replica.id = %self.id, app.id = %self.build.app, calls = self.calls.len(), reason = %error.message,
                "a replica died"
            );
        }
        let said = if own_fault && !in_order { &error.message } else { "asked to" };
        self.say(format!("replica {} ended: {said}", self.id));
        self.abandon(&error, own_fault);
        self.load.set(0);
        match fate {
            _ if in_order => End::Left,
            Fate::Killed => End::Left,
            _ => {
                meters::replica_died(error.code.as_str());
                End::Died(error.message)
            }
        }
    }

    /// Two servers cannot have one port, and the second of them says so in words of its own.
    fn with_port_hint(&self, why: String) -> String {
        if !self.configured_was_taken {
            return why;
        }
        format!(
            "{why}; port {} was taken on this machine when it started, maybe by another replica of the app: have the \
             server listen on the port that the environment variable `{PORT_VARIABLE}` names",
            self.runtime.port
        )
    }

    /// Ends the attempts of the calls that went down with the process. A run that was alone on it is
    /// charged; several are suspects, none is charged, and each runs alone next time.
    fn abandon(&mut self, error: &RunError, own_fault: bool) {
        let alone = self.calls.len() == 1;
        let now = self.ports.clock.now();
        for (stop, handle) in self.under_way.drain().map(|(_, exchange)| exchange) {
            stop.cancel();
            handle.abort();
        }
        self.broken.clear();
        let calls: Vec<_> = self.calls.drain().collect();
        for mut call in calls {
            let Some(work) = call.work.take() else { continue };
            if own_fault {
                self.printer.inside(&mut call.log, call.run, now, Stream::System, error.message.clone());
            }
            self.printer.close(call.log);
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
                    if own_fault {
                        outcome.status_code = 502;
                    }
                    self.settle(work, outcome, Some(call.started_at));
                }
            }
        }
    }

    /// What is still in hand after a panic goes back.
    pub(super) fn give_back(&mut self) {
        let calls: Vec<_> = self.calls.drain().collect();
        let begun = calls.into_iter().filter_map(|call| call.work).map(|work| (work, Release::WorkerCrashed));
        let taken = std::mem::take(&mut self.batch).into_iter().map(|work| (work, Release::Drained));
        for (work, release) in begun.chain(taken) {
            // A call needs no word: whoever waits for it sees that nobody has it any more.
            if let Work::Run(run) = work {
                self.recorder.release(run.lease, release);
            }
        }
    }

    pub(super) fn not_started(&mut self, status: BuildStatus, message: String) -> End {
        let mut error = RunError::new(Code::FailedToStart, message);
        error.traceback = self.printer.newest();
        self.say(format!("replica {} did not start: {}", self.id, error.message));
        tracing::warn!(
            replica.id = %self.id, app.id = %self.build.app, build.id = %self.build.id, reason = %error.message,
            "a replica did not start"
        );
        End::NotStarted(StartFailure { status, error })
    }
}
