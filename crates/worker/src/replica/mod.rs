//! The life of a replica, whatever its process is: one task that starts it, keeps the limits of its calls, obeys
//! the pool, and when the process is gone decides who is charged for it.
//!
//! What differs is a [`Kind`]: how the process is started, how work gets to it and answers come back.
//! [`crate::runner`] has functions behind a runner, [`crate::web`] a web server of the app's own.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::lease::{Lease, Release};
use queue::log::Stream;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::progress::Progress;
use queue::registry::{Build, BuildStatus, Prepared};
use queue::webhook::Event;
use queue::{ReplicaId, RunId, Timestamp, shortage};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::calls::Calls;
use crate::gpus::Given;
use crate::load::Load;
use crate::memory::{Excess, Watch};
use crate::printed::Printer;
use crate::process::{Exit, Printed, Process};
use crate::record::{Recorder, answer};
use crate::telling::Telling;
use crate::waiting::{Seat, Waiting, Work};
use crate::{FAR, Ports, disk, meters};

mod ending;
mod environment;
mod grants;
mod kind;
mod orders;

pub(crate) use environment::app_environment;
pub(crate) use grants::Grants;
pub(crate) use kind::{Begun, Kind, Orders};
pub(crate) use orders::{End, Ended, Order, Plan, Started, UnderWayHere};

use grants::bounds;

/// From the end of the ways to a process to its own end, and to the end of what it printed.
pub(crate) const EXIT_GRACE: Duration = Duration::from_secs(1);
/// Bytes on their way to the process that keep a replica from taking more work.
pub(crate) const BODIES_BYTES_MAX: usize = 64 << 20;
/// A replica that must wait for others before it takes work asks again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting {
        until: Instant,
    },
    Parked,
    Serving,
    /// `until` is set once the process was asked to end.
    Leaving {
        until: Option<Instant>,
    },
}

/// Why the work of a replica ended.
#[derive(Debug)]
pub(crate) enum Fate {
    /// The process is gone.
    Exited(Exit),
    /// It sent something that makes no sense, or closed its socket and lived on.
    Broken(String),
    /// Its import raised.
    Failed(StartFailure),
    /// It was not ready in time.
    TooSlow,
    /// Its health check failed time after time.
    Sick(String),
    /// It held more than it may.
    Excess(Excess),
    /// A call did not come back after it was cancelled.
    Stuck,
    /// It was told to end at once.
    Killed,
}

/// Where a replica hears of new work.
pub(crate) struct News {
    waiting: Arc<Waiting>,
    bell: Arc<Notify>,
}

impl News {
    /// Whether work is granted to seats, and the next word of it.
    fn next(&self) -> (bool, Notified<'_>) {
        let grants = self.waiting.grants();
        (grants, if grants { self.bell.notified() } else { self.waiting.work.notified() })
    }
}

/// See the module.
pub(crate) struct Replica<K: Kind> {
    pub(crate) id: ReplicaId,
    pub(crate) build: Arc<Build>,
    pub(crate) concurrency: usize,
    pub(crate) stage: Stage,
    pub(crate) first: bool,
    /// Its GPUs, until its process is gone.
    pub(crate) gpus: Given,
    pub(crate) begun: Instant,
    pub(crate) calls: Calls,
    pub(crate) seat: Seat,
    pub(crate) load: Arc<Load>,
    pub(crate) held_back: bool,
    pub(crate) watch: Option<Watch>,
    pub(crate) printer: Printer,
    pub(crate) started: mpsc::UnboundedSender<Started>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) recorder: Recorder,
    pub(crate) ports: Arc<Ports>,
    pub(crate) batch: Vec<Work>,
    pub(crate) kind: K,
}

/// Runs a replica to its end.
pub(crate) async fn run<K: Kind>(plan: Plan, kind: K) -> Ended {
    let id = plan.id.clone();
    let (mut replica, mut orders) = Replica::new(plan, kind);
    let end = replica.live(&mut orders).await;
    replica.printer.finish();
    Ended { id, end }
}

impl<K: Kind> Drop for Replica<K> {
    /// Usually everything has been settled by now. After a panic of this task what it had in hand goes back to
    /// the store, charged: if a run has brought the panic about, it ends before it does so for ever.
    fn drop(&mut self) {
        let calls: Vec<_> = self.calls.drain().collect();
        let begun = calls.into_iter().filter_map(|call| call.work).map(|work| (work, Release::WorkerCrashed));
        let taken = std::mem::take(&mut self.batch).into_iter().map(|work| (work, Release::Drained));
        for (work, release) in begun.chain(taken) {
            // A call needs no word: whoever waits for it sees that nobody has it any more.
            if let Work::Run(run) = work {
                self.recorder.release(run.lease, release);
            }
        }
        self.leave_queue();
    }
}

impl<K: Kind> Replica<K> {
    fn new(plan: Plan, kind: K) -> (Self, Orders) {
        let Plan { id, build, first, gpus, load, orders, started, waiting, recorder, ports } = plan;
        let begun = Instant::now();
        let log_of = first.then(|| build.id.clone());
        let replica = Self {
            printer: Printer::new(Arc::clone(&ports.logs), build.app.clone(), id.clone(), log_of),
            concurrency: usize::try_from(build.concurrency()).unwrap_or(usize::MAX),
            stage: Stage::Starting { until: begun + build.config.start_limit().min(FAR) },
            calls: Calls::new(ports.options.cancel_grace),
            seat: Seat::default(),
            held_back: false,
            watch: None,
            batch: Vec::new(),
            id,
            build,
            first,
            gpus,
            begun,
            load,
            started,
            waiting,
            recorder,
            ports,
            kind,
        };
        (replica, orders)
    }

    async fn live(&mut self, orders: &mut Orders) -> End {
        let Some(prepared) = self.build.prepared.clone() else {
            return self.not_started(BuildStatus::InitFailure, "the build has no environment".to_owned());
        };
        let secrets = match self.ports.secrets.secrets_of(&self.build.app).await {
            Ok(secrets) => secrets,
            Err(error) => return hindered(format!("the app's secrets cannot be read: {error}")),
        };
        let grants = match Grants::make(&self.ports.options, &self.id, &self.build, &prepared) {
            Ok(grants) => grants,
            Err(error) => return self.denied(&prepared, &error),
        };
        let Begun { mut process, mut printed, mut ways } =
            match K::start(self, &prepared, &grants, secrets).await {
                Ok(begun) => begun,
                Err(end) => return end,
            };
        meters::replica_started();
        self.load.set_root(process.id());
        self.watch = process.id().map(|root| Watch::new(root, bounds(&self.build), grants.group.clone()));
        let filled = disk::beyond(grants.folders(), self.build.config.disk(), disk::LOOK_EVERY);
        let mut fate = tokio::select! {
            biased;
            fate = K::work(self, &mut process, &mut ways, &mut printed, orders) => fate,
            excess = filled => Fate::Excess(excess),
        };
        self.leave_queue();
        let exit = match fate {
            Fate::Exited(exit) => exit,
            _ => process.kill().await,
        };
        if let (Fate::Exited(_), Some(excess)) = (&fate, self.refused()) {
            fate = Fate::Excess(excess);
        }
        K::hear_the_rest(self, &mut ways, &mut fate).await;
        self.print_the_rest(&mut printed).await;
        // Nobody is left who could use it; there may be much of it.
        tokio::task::spawn_blocking(move || drop(grants));
        self.end(fate, exit)
    }

    /// The system does not start the process.
    pub(crate) fn denied(&mut self, prepared: &Prepared, error: &io::Error) -> End {
        // A fork is refused with "try again" when there are too many processes.
        if shortage::is_shortage(error) || error.kind() == io::ErrorKind::WouldBlock {
            return hindered(format!(
                "the server has no file descriptors, processes or memory left to start a replica ({error}); raise its \
                 limits (`ulimit -n`, `LimitNOFILE=`), then try again"
            ));
        }
        let why = format!("{}: {error}", K::cannot_start(self, prepared));
        self.not_started(BuildStatus::InitFailure, why)
    }

    /// It takes no more work, and what it has not begun is for others.
    fn leave_queue(&mut self) {
        self.waiting.leave(&mut self.seat);
        K::hand_back(self);
    }

    /// What the kernel refused the replica.
    pub(crate) fn refused(&self) -> Option<Excess> {
        self.watch.as_ref().and_then(Watch::told)
    }

    /// When the stage it is in wants to be looked at.
    pub(crate) fn stage_wakes_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Starting { until } => Some(until),
            Stage::Leaving { until } => until,
            Stage::Serving if self.held_back => Some(Instant::now() + ASK_AGAIN),
            Stage::Serving | Stage::Parked => None,
        }
    }

    /// Takes what work there is, leaves when there is nothing left to do, and returns how the replica hears of more.
    pub(crate) fn look_for_work<'a>(&mut self, news: &'a News, process: &Process) -> Notified<'a> {
        loop {
            // Made before looking for work, so that no word of new work is missed.
            let (grants, more) = news.next();
            self.take_work();
            if news.waiting.grants() == grants {
                self.load.set(self.calls.len());
                self.leave_when_done(process);
                self.printer.flush();
                return more;
            }
        }
    }

    fn take_work(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        let places = if self.recorder.has_room() { K::places(self) } else { 0 };
        let bytes = if places > 0 { BODIES_BYTES_MAX } else { 0 };
        self.held_back = self.waiting.take(&mut self.seat, self.calls.len(), places, bytes, &mut self.batch);
        if !self.batch.is_empty() {
            let (now, started_at) = (Instant::now(), self.ports.clock.now());
            // One by one from where it lies: after a panic, what is left there goes back.
            self.batch.reverse();
            while let Some(work) = self.batch.pop() {
                match &work {
                    Work::Call(waiting) if waiting.reply.is_closed() => {
                        let error =
                            RunError::new(Code::Cancelled, "the caller went away before the call began");
                        self.settle(work, Outcome::failed(error, 0.0, started_at), None);
                    }
                    Work::Run(_) | Work::Call(_) => K::begin(self, work, now, started_at),
                }
            }
        }
    }

    /// It can be called.
    pub(crate) fn has_started(&mut self, functions: Vec<queue::app::Function>, alone: bool) {
        self.load.idle_from_now();
        self.printer.forget_newest();
        self.stage = if self.first { Stage::Parked } else { Stage::Serving };
        let seconds = self.begun.elapsed().as_secs_f64();
        self.say(format!("replica {} is ready after {seconds:.2} s", self.id));
        // The pool ends after its replicas; when it is gone, so is the order to serve.
        let _ = self.started.send(Started { id: self.id.clone(), functions, alone });
    }

    pub(crate) fn news(&self) -> News {
        News { waiting: Arc::clone(&self.waiting), bell: self.seat.bell() }
    }

    pub(crate) fn obey(&mut self, order: Order) -> ControlFlow<Fate> {
        match (order, self.stage) {
            (Order::Kill, _) | (Order::Leave, Stage::Starting { .. }) => {
                return ControlFlow::Break(Fate::Killed);
            }
            (Order::Leave, Stage::Parked | Stage::Serving) => {
                self.leave_queue();
                self.stage = Stage::Leaving { until: None };
            }
            (Order::Serve, Stage::Parked) => {
                self.printer.leave_build();
                self.stage = Stage::Serving;
            }
            (Order::Serve, Stage::Starting { .. }) => self.first = false,
            (Order::Cancel(run), _) => {
                K::cancel_aside(self, run);
                self.end_call(run, || {
                    RunError::new(Code::Cancelled, "the run was cancelled while it was executed")
                });
            }
            (Order::Show(to), _) => drop(to.send((self.id.clone(), self.calls.shown()))),
            (Order::Leave | Order::Serve, _) => {}
        }
        ControlFlow::Continue(())
    }

    fn leave_when_done(&mut self, process: &Process) {
        if self.stage == (Stage::Leaving { until: None }) && self.calls.is_empty() {
            K::ask_to_end(self, process);
            self.stage = Stage::Leaving { until: Some(Instant::now() + self.ports.options.stop_grace) };
        }
    }

    pub(crate) fn on_time(&mut self, now: Instant) -> ControlFlow<Fate> {
        match self.stage {
            Stage::Starting { until } if now >= until => return ControlFlow::Break(Fate::TooSlow),
            Stage::Leaving { until: Some(until) } if now >= until => return ControlFlow::Break(Fate::Killed),
            _ => {}
        }
        K::on_time(self, now);
        let due = self.calls.due(now, &*self.ports.clock);
        self.tell(due.told);
        if !due.started.is_empty() {
            self.ports.runs.started(due.started);
        }
        for (call, work, started_at) in due.overdue {
            let outcome = timed_out(&work, started_at, self.ports.clock.now());
            self.cut_short(call, work, outcome, started_at);
        }
        if due.grace_over { ControlFlow::Break(Fate::Stuck) } else { ControlFlow::Continue(()) }
    }

    /// Ends a call before it is answered. The process is told; one that does not let go is ended.
    pub(crate) fn end_call(&mut self, run: RunId, error: impl FnOnce() -> RunError) {
        let Some((call, work, started_at)) = self.calls.cancel(run, Instant::now()) else { return };
        let now = self.ports.clock.now();
        let outcome = Outcome::failed(error(), now.since(started_at).as_secs_f64() * 1e3, now);
        self.cut_short(call, work, outcome, started_at);
    }

    fn cut_short(&mut self, call: u32, work: Work, outcome: Outcome, started_at: Timestamp) {
        let telling = self.calls.get_mut(call).and_then(|call| call.telling.take());
        self.tell_the_rest(telling);
        K::stop(self, call);
        self.settle(work, outcome, Some(started_at));
    }

    /// The end of a run or call goes to the store and to whoever waits.
    pub(crate) fn settle(&self, work: Work, outcome: Outcome, started_at: Option<Timestamp>) {
        let outcome = outcome.served_by(self.build.id.clone());
        match work {
            Work::Run(run) => self.recorder.finish(run, outcome),
            Work::Call(call) => answer(&self.ports, call, outcome, started_at),
        }
    }

    /// What runs tell their endpoints on their way.
    fn tell(&self, told: Vec<Progress>) {
        if told.is_empty() {
            return;
        }
        for progress in told {
            self.ports.runs.progress(progress);
        }
        self.ports.outbox.wake();
    }

    /// A run that wants to be told is begun.
    pub(crate) fn tell_start(&self, lease: Lease, started_at: Timestamp) {
        let items = Bytes::from_static(b"[]");
        self.tell(vec![Progress { lease, event: Event::Start, items, dropped: 0, due_at: started_at }]);
    }

    /// The rest of what a call has to tell goes before its end.
    pub(crate) fn tell_the_rest(&self, telling: Option<Box<Telling>>) {
        if let Some(mut telling) = telling {
            let mut told = Vec::new();
            telling.tell_the_rest(Instant::now(), self.ports.clock.now(), &mut told);
            self.tell(told);
        }
    }

    pub(crate) fn say(&mut self, text: String) {
        self.printer.outside(self.ports.clock.now(), Stream::System, text);
    }

    /// What the process had printed before it ended.
    async fn print_the_rest(&mut self, printed: &mut mpsc::Receiver<Printed>) {
        let rest = async {
            while let Some(lines) = printed.recv().await {
                K::print(self, lines);
            }
        };
        // A process outside of the tree may hold the pipe open.
        let _ = tokio::time::timeout(EXIT_GRACE, rest).await;
    }
}

/// The machine, and not the code, keeps a replica from its start.
pub(crate) fn hindered(why: String) -> End {
    let error = RunError::new(Code::FailedToStart, why);
    End::Hindered(StartFailure { status: BuildStatus::InitFailure, error })
}

/// How a run or call ends that reached its limit.
fn timed_out(work: &Work, started_at: Timestamp, now: Timestamp) -> Outcome {
    let (limit, way_out) = match work {
        Work::Run(run) => (run.limit, "raise `response_grace_period` in the app's config"),
        Work::Call(waiting) => (waiting.call.limit, crate::pool::WAY_OUT),
    };
    let message = format!("the run did not end within {} s; {way_out}", limit.as_secs_f64());
    Outcome::failed(RunError::new(Code::Timeout, message), now.since(started_at).as_secs_f64() * 1e3, now)
}
