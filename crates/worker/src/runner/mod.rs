//! A replica with functions: they are called through a runner, a process that imports the app's code and is
//! spoken to in frames over a socket. Here frames become outcomes; what every replica does stands in [`crate::replica`].

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use queue::app::{Contract, Function};
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::registry::{BuildStatus, Prepared};
use queue::webhook::Event;
use queue::{RunId, Timestamp, limits};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::calls::UnderWay;
use crate::frames::{Broken, CallError, CallFrame, FromRunner, Incoming, Outgoing, PROTOCOL, Start, Values};
use crate::memory::Watch;
use crate::process::{Exit, Printed, Process};
use crate::replica::{
    self, BODIES_BYTES_MAX, Begun, EXIT_GRACE, End, Fate, Grants, Kind, Order, Orders, Stage, app_environment,
};
use crate::waiting::Work;
use crate::{FAR, meters, process};

mod early;
mod misfit;
mod printing;

/// The file that a runner imports.
const ENTRY: &str = "main.py";
/// Reads of the socket before other things get their turn.
const READS_PER_TURN: usize = 16;
/// How long a replica waits to be told that another build has taken its place.
const SWITCH_GRACE: Duration = Duration::from_secs(1);
/// Longest message and traceback that are kept of an error.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
const TRACEBACK_BYTES_MAX: usize = 64 << 10;

/// What a look at the socket found.
enum Reading {
    /// There may be more.
    More,
    /// Nothing more for now.
    Paused,
    /// Nothing more ever.
    Closed,
}

/// Functions, behind a runner that is spoken to over a socket.
#[derive(Default)]
pub(crate) struct Runner {
    functions: Vec<Function>,
    outgoing: Outgoing,
    incoming: Incoming,
    /// Work for functions that the code does not have, until it is known what to do with it.
    aside: Vec<(Work, Instant)>,
}

type Replica = replica::Replica<Runner>;

impl Kind for Runner {
    type Ways = UnixStream;

    async fn start(
        replica: &mut Replica,
        prepared: &Prepared,
        grants: &Grants,
        secrets: BTreeMap<String, String>,
    ) -> Result<Begun<UnixStream>, End> {
        let started = process::start(&replica.ports.options, prepared, grants);
        let (process, ways, printed) = started.map_err(|error| replica.denied(prepared, &error))?;
        let frame = replica.start_frame(prepared.folder.clone(), secrets);
        replica.kind.outgoing.start(&frame);
        Ok(Begun { process, printed, ways })
    }

    async fn work(
        replica: &mut Replica,
        process: &mut Process,
        socket: &mut UnixStream,
        printed: &mut mpsc::Receiver<Printed>,
        orders: &mut Orders,
    ) -> Fate {
        replica.work(process, socket, printed, orders).await
    }

    fn places(replica: &Replica) -> usize {
        if replica.kind.outgoing.bytes() >= BODIES_BYTES_MAX {
            return 0;
        }
        replica.concurrency.saturating_sub(replica.calls.len() + replica.kind.aside.len())
    }

    fn begin(replica: &mut Replica, work: Work, now: Instant, started_at: Timestamp) {
        replica.begin(work, now, started_at);
    }

    fn stop(replica: &mut Replica, call: u32) {
        replica.kind.outgoing.cancel(call);
    }

    fn ask_to_end(replica: &mut Replica, _: &Process) {
        replica.kind.outgoing.stop();
    }

    fn print(replica: &mut Replica, printed: Printed) {
        replica.print(printed);
    }

    fn on_time(replica: &mut Replica, now: Instant) {
        replica.turn_down(now);
    }

    fn cancel_aside(replica: &mut Replica, run: RunId) {
        replica.cancel_aside(run);
    }

    fn hand_back(replica: &mut Replica) {
        replica.hand_back();
    }

    async fn hear_the_rest(replica: &mut Replica, socket: &mut UnixStream, fate: &mut Fate) {
        if !matches!(fate, Fate::Broken(_) | Fate::Failed(_)) {
            while let Ok(Reading::More) = replica.read(socket).map_err(|said| *fate = said) {}
        }
    }

    fn cannot_start(_: &Replica, prepared: &Prepared) -> String {
        format!("cannot start {}", prepared.python)
    }

    fn too_slow(_: &Replica, limit: Duration) -> String {
        format!("{ENTRY} was not imported within {} s", limit.as_secs())
    }

    fn ended_early(_: &Replica, exit: Exit) -> String {
        format!("the replica ended while it imported {ENTRY}: {exit}")
    }

    fn is_in_order(exit: Exit) -> bool {
        exit == Exit::Status(0)
    }
}

impl Replica {
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
        let news = self.news();
        loop {
            let more = self.look_for_work(&news, process);
            if self.kind.outgoing.write_to(socket).is_err() {
                return self.closed(process).await;
            }
            let wake_at = self.wake_at();
            if let Some(at) = wake_at
                && at != timer_at
            {
                timer.as_mut().reset(at);
                timer_at = at;
            }
            let interest = if self.kind.outgoing.is_empty() {
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
                () = more, if self.stage == Stage::Serving && self.calls.len() < self.concurrency => ControlFlow::Continue(()),
                exit = process.ended() => ControlFlow::Break(Fate::Exited(exit)),
            };
            if let ControlFlow::Break(fate) = turn {
                return fate;
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        [self.stage_wakes_at(), self.calls.wake_at(), self.aside_until()].into_iter().flatten().min()
    }

    fn begin(&mut self, mut work: Work, now: Instant, started_at: Timestamp) {
        let id = work.id();
        let (function, input, attempt, accepted_at) = match &mut work {
            Work::Run(run) => (&run.function, &mut run.input, run.lease.attempt, run.accepted_at),
            Work::Call(waiting) => {
                (&waiting.call.function, &mut waiting.call.input, 1, waiting.call.accepted_at)
            }
        };
        let index = self.kind.functions.iter().position(|offered| offered.name == **function);
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
        self.kind.outgoing.call(&CallFrame { call, function: index, attempt, run: id, body: &body, values });
        if let Some(lease) = start {
            self.tell_start(lease, started_at);
        }
    }

    /// Reads what there is, for a while.
    fn read(&mut self, socket: &UnixStream) -> Result<Reading, Fate> {
        for _ in 0..READS_PER_TURN {
            match self.kind.incoming.read_from(socket) {
                Ok(0) => return Ok(Reading::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Paused),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Reading::Closed),
            }
            loop {
                match self.kind.incoming.next_frame() {
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

    /// Code that failed may have failed because it had too much. Then the call is told so, and the replica, which
    /// may be left with half of its processes, takes no other call.
    fn held_to_its_bounds(&self) -> Result<(), Fate> {
        self.refused().map_or(Ok(()), |excess| Err(Fate::Excess(excess)))
    }

    fn ready(&mut self, functions: Vec<Function>) {
        let concurrency = self.build.config.concurrency(&functions);
        self.concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
        self.kind.functions.clone_from(&functions);
        self.has_started(functions, false);
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

    /// The socket is closed: the process is about to end, or broken.
    async fn closed(&mut self, process: &mut Process) -> Fate {
        match tokio::time::timeout(EXIT_GRACE, process.ended()).await {
            Ok(exit) => Fate::Exited(exit),
            Err(_) => Fate::Broken("it closed its socket".to_owned()),
        }
    }
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

fn moment(microseconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(microseconds / 1_000).unwrap_or(i64::MAX))
}

fn cut(mut text: String, bytes_max: usize) -> String {
    queue::text::truncate(&mut text, bytes_max);
    text
}
