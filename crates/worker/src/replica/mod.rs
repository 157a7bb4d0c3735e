//! A replica: one task that owns one runner process, from its start to its end. It takes work when
//! it has places, turns frames into outcomes, keeps the limits of its calls, and when the process
//! dies it decides who is charged for it.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::app::{Contract, Function};
use queue::lease::Release;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::progress::Progress;
use queue::registry::{Build, BuildStatus};
use queue::webhook::Event;
use queue::{BuildId, ReplicaId, Timestamp, limits, shortage};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::calls::{Calls, UnderWay};
use crate::frames::{Broken, CallError, CallFrame, FromRunner, Incoming, Outgoing, PROTOCOL, Start, Values};
use crate::gpus::Given;
use crate::load::Load;
use crate::memory::{Excess, Watch};
use crate::printed::Printer;
use crate::process::{Printed, Process};
use crate::record::{Recorder, answer};
use crate::telling::Telling;
use crate::waiting::{Seat, Waiting, Work};
use crate::{FAR, Ports, disk, meters, process};

mod early;
mod ending;
mod environment;
mod grants;
mod misfit;
mod orders;
mod printing;

use ending::Fate;
pub(crate) use environment::app_environment;
pub(crate) use grants::{Grants, bounds};
pub(crate) use orders::{End, Ended, Order, Plan, Started, UnderWayHere};

/// The file that a runner imports.
const ENTRY: &str = "main.py";
/// Reads of the socket before other things get their turn.
const READS_PER_TURN: usize = 16;
/// Bytes on their way to the runner that keep a replica from taking more work.
const OUTGOING_BYTES_MAX: usize = 64 << 20;
/// A replica that must wait for others before it takes work asks again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a replica waits to be told that another build has taken its place.
const SWITCH_GRACE: Duration = Duration::from_secs(1);
/// From the end of the socket to the end of the process.
const EXIT_GRACE: Duration = Duration::from_secs(1);
/// Longest message and traceback that are kept of an error.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
const TRACEBACK_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting {
        until: Instant,
    },
    Parked,
    Serving,
    /// `until` is set once the runner was told to stop.
    Leaving {
        until: Option<Instant>,
    },
}

/// What a look at the socket found.
enum Reading {
    /// There may be more.
    More,
    /// Nothing more for now.
    Paused,
    /// Nothing more ever.
    Closed,
}

struct Replica {
    id: ReplicaId,
    build: Arc<Build>,
    build_id: BuildId,
    functions: Vec<Function>,
    concurrency: usize,
    stage: Stage,
    first: bool,
    gpus: Given,
    begun: Instant,
    calls: Calls,
    seat: Seat,
    load: Arc<Load>,
    held_back: bool,
    watch: Option<Watch>,
    outgoing: Outgoing,
    incoming: Incoming,
    printer: Printer,
    started: mpsc::UnboundedSender<Started>,
    waiting: Arc<Waiting>,
    recorder: Recorder,
    ports: Arc<Ports>,
    batch: Vec<Work>,
    /// Work for functions that the code does not have, until it is known what to do with it.
    aside: Vec<(Work, Instant)>,
}

/// Runs a replica to its end.
pub(crate) async fn run(plan: Plan) -> Ended {
    let id = plan.id.clone();
    let (mut replica, mut orders) = Replica::new(plan);
    let end = replica.live(&mut orders).await;
    replica.printer.finish();
    Ended { id, end }
}

impl Drop for Replica {
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
        self.waiting.leave(&mut self.seat);
        self.hand_back();
    }
}

impl Replica {
    fn new(plan: Plan) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let Plan { id, build, first, gpus, load, orders, started, waiting, recorder, ports } = plan;
        let begun = Instant::now();
        let log_of = first.then(|| build.id.clone());
        let replica = Self {
            printer: Printer::new(Arc::clone(&ports.logs), build.app.clone(), id.clone(), log_of),
            build_id: build.id.clone(),
            functions: Vec::new(),
            concurrency: 0,
            stage: Stage::Starting { until: begun + build.config.start_limit().min(FAR) },
            calls: Calls::new(ports.options.cancel_grace),
            seat: Seat::default(),
            held_back: false,
            watch: None,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            batch: Vec::new(),
            aside: Vec::new(),
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
        };
        (replica, orders)
    }

    async fn live(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        let Some(prepared) = self.build.prepared.clone() else {
            return self.not_started(BuildStatus::InitFailure, "the build has no environment".to_owned());
        };
        let secrets = match self.ports.secrets.secrets_of(&self.build.app).await {
            Ok(secrets) => secrets,
            Err(error) => {
                let why = format!("the app's secrets cannot be read: {error}");
                let error = RunError::new(Code::FailedToStart, why);
                return End::Hindered(StartFailure { status: BuildStatus::InitFailure, error });
            }
        };
        let started =
            Grants::make(&self.ports.options, &self.id, &self.build, &prepared).and_then(|grants| {
                let started = process::start(&self.ports.options, &prepared, &grants)?;
                Ok((started, grants))
            });
        let ((mut process, socket, mut printed), grants) = match started {
            Ok(started) => started,
            Err(error) if is_shortage(&error) => {
                let error = RunError::new(Code::FailedToStart, shortage_message(&error));
                return End::Hindered(StartFailure { status: BuildStatus::InitFailure, error });
            }
            Err(error) => {
                let why = format!("cannot start {}: {error}", prepared.python);
                return self.not_started(BuildStatus::InitFailure, why);
            }
        };
        meters::replica_started();
        self.load.set_root(process.id());
        self.outgoing.start(&self.start_frame(prepared.folder, secrets));
        self.watch = process.id().map(|root| Watch::new(root, bounds(&self.build), grants.group.clone()));
        let filled = disk::beyond(grants.folders(), self.build.config.disk(), disk::LOOK_EVERY);
        let mut fate = tokio::select! {
            biased;
            fate = self.work(&mut process, &socket, &mut printed, orders) => fate,
            excess = filled => Fate::Excess(excess),
        };
        self.waiting.leave(&mut self.seat);
        self.hand_back();
        let exit = match fate {
            Fate::Exited(exit) => exit,
            _ => process.kill().await,
        };
        if let (Fate::Exited(_), Some(excess)) = (&fate, self.refused()) {
            fate = Fate::Excess(excess);
        }
        if !matches!(fate, Fate::Broken(_) | Fate::Failed(_)) {
            // What it said before it ended may explain the end.
            while let Ok(Reading::More) = self.read(&socket).map_err(|said| fate = said) {}
        }
        self.print_the_rest(&mut printed).await;
        // Nobody is left who could use it; there may be much of it.
        tokio::task::spawn_blocking(move || drop(grants));
        self.end(fate, exit)
    }

    fn start_frame(&self, folder: String, secrets: BTreeMap<String, String>) -> Start {
        let environment = app_environment(&self.ports.options, &self.build, &self.gpus);
        Start {
            protocol: PROTOCOL,
            folder,
            entry: ENTRY.to_owned(),
            concurrency: self.build.concurrency(),
            item_concurrency: self.build.functions.is_empty().then(|| {
                let item = Function {
                    name: String::new(),
                    contract: Contract::Item,
                    parameters: Vec::new(),
                    takes_any: false,
                    streams: false,
                };
                self.build.config.concurrency(&[item])
            }),
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            secrets,
        }
    }

    async fn work(
        &mut self,
        process: &mut Process,
        socket: &UnixStream,
        printed: &mut mpsc::Receiver<Printed>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> Fate {
        let timer = tokio::time::sleep_until(self.begun);
        tokio::pin!(timer);
        let mut timer_at = self.begun;
        let mut printing = true;
        let mut looks = tokio::time::interval(self.watch.as_ref().map_or(FAR, Watch::pause));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (waiting, bell) = (Arc::clone(&self.waiting), self.seat.bell());
        loop {
            // Made before looking for work, so that no word of new work is missed.
            let grants = waiting.grants();
            let news = if grants { bell.notified() } else { waiting.work.notified() };
            self.take_work();
            if waiting.grants() != grants {
                continue;
            }
            self.load.set(self.calls.len());
            self.leave_when_done();
            self.printer.flush();
            if self.outgoing.write_to(socket).is_err() {
                return self.closed(process).await;
            }
            let wake_at = self.wake_at();
            if let Some(at) = wake_at
                && at != timer_at
            {
                timer.as_mut().reset(at);
                timer_at = at;
            }
            let interest = if self.outgoing.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            let turn = tokio::select! {
                biased;
                order = orders.recv() => self.obey(order.unwrap_or(Order::Kill)),
                // Before the socket: a replica that never stops talking still has its limits.
                () = &mut timer, if wake_at.is_some() => {
                    let turn = self.on_time(Instant::now());
                    // A timer that rang is not set, whatever moment comes next.
                    timer.as_mut().reset(Instant::now() + Duration::from_secs(3600));
                    timer_at = self.begun;
                    turn
                }
                ready = socket.ready(interest) => match ready {
                    Ok(ready) if ready.is_readable() || ready.is_read_closed() => match self.read(socket) {
                        Ok(Reading::More | Reading::Paused) => ControlFlow::Continue(()),
                        Ok(Reading::Closed) => return self.closed(process).await,
                        Err(fate) => ControlFlow::Break(fate),
                    },
                    Ok(_) => ControlFlow::Continue(()),
                    Err(_) => return self.closed(process).await,
                },
                _ = looks.tick() => match self.watch.as_mut().and_then(Watch::look) {
                    Some(excess) => ControlFlow::Break(Fate::Excess(excess)),
                    None => ControlFlow::Continue(()),
                },
                lines = printed.recv(), if printing => {
                    match lines {
                        Some(lines) => self.print(lines),
                        None => printing = false,
                    }
                    ControlFlow::Continue(())
                }
                () = news, if self.stage == Stage::Serving && self.calls.len() < self.concurrency => ControlFlow::Continue(()),
                exit = process.ended() => ControlFlow::Break(Fate::Exited(exit)),
            };
            if let ControlFlow::Break(fate) = turn {
                return fate;
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let of_stage = match self.stage {
            Stage::Starting { until } => Some(until),
            Stage::Leaving { until } => until,
            Stage::Serving if self.held_back => Some(Instant::now() + ASK_AGAIN),
            Stage::Serving | Stage::Parked => None,
        };
        [of_stage, self.calls.wake_at(), self.aside_until()].into_iter().flatten().min()
    }

    fn may_take(&self) -> bool {
        self.stage == Stage::Serving
            && self.calls.len() + self.aside.len() < self.concurrency
            && self.outgoing.bytes() < OUTGOING_BYTES_MAX
            && self.recorder.has_room()
    }

    fn take_work(&mut self) {
        if !self.may_take() {
            if self.stage == Stage::Serving {
                self.held_back = self.waiting.take(&mut self.seat, self.calls.len(), 0, 0, &mut self.batch);
            }
            return;
        }
        let places = self.concurrency - self.calls.len() - self.aside.len();
        let mut batch = std::mem::take(&mut self.batch);
        self.held_back =
            self.waiting.take(&mut self.seat, self.calls.len(), places, OUTGOING_BYTES_MAX, &mut batch);
        if !batch.is_empty() {
            let (now, started_at) = (Instant::now(), self.ports.clock.now());
            for work in batch.drain(..) {
                self.begin(work, now, started_at);
            }
        }
        self.batch = batch;
    }

    fn begin(&mut self, mut work: Work, now: Instant, started_at: Timestamp) {
        let id = work.id();
        let (function, input, attempt, accepted_at) = match &mut work {
            Work::Run(run) => (&run.function, &mut run.input, run.lease.attempt, run.accepted_at),
            Work::Call(waiting) if waiting.reply.is_closed() => {
                let error = RunError::new(Code::Cancelled, "the caller went away before the call began");
                return self.settle(work, Outcome::failed(error, 0.0, started_at), None);
            }
            Work::Call(waiting) => {
                (&waiting.call.function, &mut waiting.call.input, 1, waiting.call.accepted_at)
            }
        };
        let index = self.functions.iter().position(|offered| offered.name == **function);
        let Some(index) = index.and_then(|index| u16::try_from(index).ok()) else {
            return self.put_aside(work, now);
        };
        meters::waited(started_at.since(accepted_at));
        // The store has the body of a run, and a call is never sent twice.
        let body = std::mem::take(input);
        let attempt = u16::try_from(attempt).unwrap_or(u16::MAX);
        let (mut values, mut start) = (Values::Gathered, None);
        match &work {
            Work::Run(run) if run.events.has_progress() => {
                if run.events.has(Event::Output) {
                    values = Values::Told;
                }
                start = run.events.has(Event::Start).then_some(run.lease);
            }
            Work::Call(waiting) if waiting.call.listener.is_some() => values = Values::Live,
            Work::Run(_) | Work::Call(_) => {}
        }
        let call = self.calls.begin(work, now, started_at);
        self.outgoing.call(&CallFrame { call, function: index, attempt, run: id, body: &body, values });
        if let Some(lease) = start {
            let items = Bytes::from_static(b"[]");
            self.tell(vec![Progress { lease, event: Event::Start, items, dropped: 0, due_at: started_at }]);
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

    /// The rest of what a call has to tell goes before its end.
    fn tell_the_rest(&self, telling: Option<Box<Telling>>) {
        if let Some(mut telling) = telling {
            let mut told = Vec::new();
            telling.tell_the_rest(Instant::now(), self.ports.clock.now(), &mut told);
            self.tell(told);
        }
    }

    /// The end of a run or call goes to the store and to whoever waits.
    fn settle(&self, work: Work, outcome: Outcome, started_at: Option<Timestamp>) {
        let outcome = outcome.served_by(self.build_id.clone());
        match work {
            Work::Run(run) => self.recorder.finish(run, outcome),
            Work::Call(call) => answer(&self.ports, call, outcome, started_at),
        }
    }

    /// Reads what there is, for a while.
    fn read(&mut self, socket: &UnixStream) -> Result<Reading, Fate> {
        for _ in 0..READS_PER_TURN {
            match self.incoming.read_from(socket) {
                Ok(0) => return Ok(Reading::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Paused),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Reading::Closed),
            }
            loop {
                match self.incoming.next_frame() {
                    Ok(Some(frame)) => self.on_frame(frame)?,
                    Ok(None) => break,
                    Err(Broken(why)) => return Err(Fate::Broken(why)),
                }
            }
        }
        Ok(Reading::More)
    }

    fn on_frame(&mut self, frame: FromRunner) -> Result<(), Fate> {
        match frame {
            FromRunner::Result { call, status, milliseconds, json } => {
                let ended = self.answered(call)?;
                let now = self.ports.clock.now();
                let outcome = if json.len() > limits::RESULT_BYTES_MAX {
                    let message = format!(
                        "the result is {} bytes of JSON; {} are allowed",
                        json.len(),
                        limits::RESULT_BYTES_MAX
                    );
                    Outcome::failed(RunError::new(Code::ResultTooLarge, message), milliseconds, now)
                } else {
                    Outcome::succeeded(json, status, milliseconds, now)
                };
                self.close(ended, outcome);
            }
            FromRunner::Error { call, milliseconds, error } => {
                self.held_to_its_bounds()?;
                let ended = self.answered(call)?;
                let status = error.status;
                let mut outcome = Outcome::failed(run_error(error), milliseconds, self.ports.clock.now());
                outcome.status_code = status.unwrap_or(outcome.status_code);
                self.close(ended, outcome);
            }
            FromRunner::Log { call: 0, stream, microseconds, line } => {
                self.printer.outside(moment(microseconds), stream, line);
            }
            FromRunner::Log { call, stream, microseconds, line } => {
                let Some(under_way) = self.calls.get_mut(call) else { return Err(not_under_way(call)) };
                let due = note_line(under_way, &line);
                let run = under_way.run;
                let exceeds = under_way.log.exceeds(line.len() + 1, self.ports.options.output_max);
                self.printer.inside(&mut under_way.log, run, moment(microseconds), stream, line);
                if let Some(due) = due {
                    self.calls.wake_by(due);
                }
                if exceeds {
                    self.silence(run);
                }
            }
            FromRunner::Output { call, json } => {
                let Some(under_way) = self.calls.get_mut(call) else { return Err(not_under_way(call)) };
                let telling = under_way.telling.as_mut();
                let due = telling.and_then(|telling| telling.value(json.as_deref(), Instant::now()));
                if let Some(due) = due {
                    self.calls.wake_by(due);
                }
            }
            FromRunner::Chunk { call, text } => return self.on_chunk(call, text),
            FromRunner::Ready(ready) => {
                let Stage::Starting { .. } = self.stage else {
                    return Err(Fate::Broken("it said twice that it is ready".to_owned()));
                };
                if ready.protocol != PROTOCOL {
                    let why = format!("it speaks protocol {}, the server {PROTOCOL}", ready.protocol);
                    return Err(Fate::Broken(why));
                }
                self.ready(ready.functions);
            }
            FromRunner::Failed(failed) => {
                self.held_to_its_bounds()?;
                let error = RunError {
                    code: Code::FailedToStart,
                    kind: cut(failed.kind, MESSAGE_BYTES_MAX),
                    message: cut(failed.message, MESSAGE_BYTES_MAX),
                    traceback: failed.traceback.map(|text| cut(text, TRACEBACK_BYTES_MAX)),
                };
                return Err(Fate::Failed(StartFailure { status: BuildStatus::InitFailure, error }));
            }
        }
        Ok(())
    }

    /// What the kernel refused the replica.
    fn refused(&self) -> Option<Excess> {
        self.watch.as_ref().and_then(Watch::told)
    }

    /// Code that failed may have failed because it had too much. Then the call is told so, and the replica, which
    /// may be left with half of its processes, takes no other call.
    fn held_to_its_bounds(&self) -> Result<(), Fate> {
        self.refused().map_or(Ok(()), |excess| Err(Fate::Excess(excess)))
    }

    fn ready(&mut self, functions: Vec<Function>) {
        let concurrency = self.build.config.concurrency(&functions);
        self.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
        self.functions.clone_from(&functions);
        self.load.idle_from_now();
        self.printer.forget_newest();
        self.stage = if self.first { Stage::Parked } else { Stage::Serving };
        let seconds = self.begun.elapsed().as_secs_f64();
        self.say(format!("replica {} is ready after {seconds:.2} s", self.id));
        // The pool ends after its replicas; when it is gone, so is the order to serve.
        let _ = self.started.send(Started { id: self.id.clone(), functions, alone: false });
    }

    fn answered(&mut self, call: u32) -> Result<UnderWay, Fate> {
        self.calls.end(call).ok_or_else(|| not_under_way(call))
    }

    fn close(&mut self, ended: UnderWay, outcome: Outcome) {
        self.printer.close(ended.log);
        self.tell_the_rest(ended.telling);
        if let Some(work) = ended.work {
            self.settle(work, outcome, Some(ended.started_at));
        }
    }

    fn obey(&mut self, order: Order) -> ControlFlow<Fate> {
        match (order, self.stage) {
            (Order::Kill, _) | (Order::Leave, Stage::Starting { .. }) => {
                return ControlFlow::Break(Fate::Killed);
            }
            (Order::Leave, Stage::Parked | Stage::Serving) => {
                self.waiting.leave(&mut self.seat);
                self.hand_back();
                self.stage = Stage::Leaving { until: None };
            }
            (Order::Serve, Stage::Parked) => {
                self.printer.leave_build();
                self.stage = Stage::Serving;
            }
            (Order::Serve, Stage::Starting { .. }) => self.first = false,
            (Order::Cancel(run), _) => {
                self.cancel_aside(run);
                self.cancel(run);
            }
            (Order::Show(to), _) => drop(to.send((self.id.clone(), self.calls.shown()))),
            (Order::Leave | Order::Serve, _) => {}
        }
        ControlFlow::Continue(())
    }

    fn leave_when_done(&mut self) {
        if self.stage == (Stage::Leaving { until: None }) && self.calls.is_empty() {
            self.outgoing.stop();
            self.stage = Stage::Leaving { until: Some(Instant::now() + self.ports.options.stop_grace) };
        }
    }

    fn on_time(&mut self, now: Instant) -> ControlFlow<Fate> {
        match self.stage {
            Stage::Starting { until } if now >= until => return ControlFlow::Break(Fate::TooSlow),
            Stage::Leaving { until: Some(until) } if now >= until => return ControlFlow::Break(Fate::Killed),
            _ => {}
        }
        self.turn_down(now);
        let due = self.calls.due(now, &*self.ports.clock);
        self.tell(due.told);
        if !due.started.is_empty() {
            self.ports.runs.started(due.started);
        }
        for (call, work, started_at) in due.overdue {
            let telling = self.calls.get_mut(call).and_then(|call| call.telling.take());
            self.tell_the_rest(telling);
            self.outgoing.cancel(call);
            let outcome = timed_out(&work, started_at, self.ports.clock.now());
            self.settle(work, outcome, Some(started_at));
        }
        if due.grace_over { ControlFlow::Break(Fate::Stuck) } else { ControlFlow::Continue(()) }
    }

    /// The socket is closed: the process is about to end, or broken.
    async fn closed(&mut self, process: &mut Process) -> Fate {
        match tokio::time::timeout(EXIT_GRACE, process.ended()).await {
            Ok(exit) => Fate::Exited(exit),
            Err(_) => Fate::Broken("it closed its socket".to_owned()),
        }
    }
}

pub(crate) fn shortage_message(error: &io::Error) -> String {
    format!(
        "the server has no file descriptors, processes or memory left to start a replica ({error}); raise its limits \
         (`ulimit -n`, `LimitNOFILE=`), then try again"
    )
}

/// A fork is refused with "try again" when there are too many processes.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    shortage::is_shortage(error) || error.kind() == io::ErrorKind::WouldBlock
}

/// Returns when what a call printed is to be told, if that was not said before.
fn note_line(call: &mut UnderWay, line: &str) -> Option<Instant> {
    call.telling.as_mut()?.line(line, Instant::now())
}

fn not_under_way(call: u32) -> Fate {
    Fate::Broken(format!("it sent a frame about call {call}, which is not under way"))
}

fn run_error(CallError { code, kind, message, traceback, .. }: CallError) -> RunError {
    // Only a call that reached its limit is cancelled, and its end is recorded already.
    let code = if code == Code::Cancelled { Code::UserError } else { code };
    RunError {
        code,
        kind: cut(kind, MESSAGE_BYTES_MAX),
        message: cut(message, MESSAGE_BYTES_MAX),
        traceback: traceback.map(|text| cut(text, TRACEBACK_BYTES_MAX)),
    }
}

pub(crate) fn timed_out(work: &Work, started_at: Timestamp, now: Timestamp) -> Outcome {
    let (limit, way_out) = match work {
        Work::Run(run) => (run.limit, "raise `response_grace_period` in the app's config"),
        Work::Call(waiting) => (waiting.call.limit, crate::pool::WAY_OUT),
    };
    let message = format!("the run did not end within {} s; {way_out}", limit.as_secs_f64());
    Outcome::failed(RunError::new(Code::Timeout, message), now.since(started_at).as_secs_f64() * 1e3, now)
}

fn moment(microseconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(microseconds / 1_000).unwrap_or(i64::MAX))
}

fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
