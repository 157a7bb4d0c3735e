//! A replica that is a web server of the app's own: one task that owns its process, from its start to its end.
//! It takes work when the server is ready and has places, sends it over HTTP to the replica's own port, and
//! answers for it as [`crate::replica`] does for functions: limits, cancels, and who is charged for a death.
//!
//! The body of a caller's request and that of its answer pass between the two connections as they come; the
//! bodies of runs are whole. Where the answer to a run comes from is no matter to the rest of the room.

mod client;
mod ending;
mod entrypoint;
mod exchange;
mod health;
mod ports;
mod result;
mod tunnel;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::log::Stream;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::StartFailure;
use queue::progress::Progress;
use queue::registry::{Build, BuildStatus, Prepared};
use queue::web::{CustomRuntime, Head, PORT_VARIABLE, Visitor};
use queue::webhook::Event;
use queue::{ReplicaId, RunId, Timestamp};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::gpus::Given;
use crate::load::Load;
use crate::memory::Watch;
use crate::printed::Printer;
use crate::process::{Printed, Process};
use crate::record::{Recorder, answer};
use crate::replica::{End, Ended, Grants, Order, Plan, Started, app_environment, bounds, timed_out};
use crate::waiting::{Seat, Waiting, Work};
use crate::{FAR, Ports, disk, meters, process};

use client::Client;
use ending::Fate;
use health::{Looks, Word};
use ports::Port;

/// A replica that must wait for others before it takes work asks again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// From an exchange that came to nothing to the news that the process is gone.
const EXIT_GRACE: Duration = Duration::from_secs(1);
/// Bodies of runs on their way to the server that keep a replica from taking more work.
const BODIES_BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting {
        until: Instant,
    },
    Parked,
    Serving,
    /// `until` is set once the server was asked to end.
    Leaving {
        until: Option<Instant>,
    },
}

/// What an exchange is about.
enum Sent {
    /// A caller's request, told as it is answered.
    Visit(Arc<dyn Visitor>, queue::web::Request),
    /// One whose answer is a result.
    Run(Head, Bytes),
}

struct Server {
    id: ReplicaId,
    build: Arc<Build>,
    runtime: CustomRuntime,
    concurrency: usize,
    stage: Stage,
    first: bool,
    /// Its GPUs, until its process is gone.
    gpus: Given,
    begun: Instant,
    /// The port on which the server is up.
    port: u16,
    /// Its ready check, as far as it has one, was answered well.
    ready: bool,
    /// What kept it from being up when it was last looked at.
    not_yet: String,
    /// Somebody had the configured port when it started.
    configured_was_taken: bool,
    client: Client,
    calls: Calls,
    exchanges: JoinSet<(u32, exchange::End)>,
    under_way: HashMap<u32, (CancellationToken, AbortHandle)>,
    /// Exchanges that came to nothing, and until when that may turn out to be the end of the process.
    broken: Vec<(Instant, u32, String)>,
    seat: Seat,
    load: Arc<Load>,
    held_back: bool,
    printer: Printer,
    started: mpsc::UnboundedSender<Started>,
    waiting: Arc<Waiting>,
    recorder: Recorder,
    ports: Arc<Ports>,
    batch: Vec<Work>,
}

/// Runs a replica to its end.
pub(crate) async fn run(plan: Plan, runtime: CustomRuntime) -> Ended {
    let id = plan.id.clone();
    let (mut server, mut orders) = Server::new(plan, runtime);
    let end = server.live(&mut orders).await;
    server.printer.finish();
    Ended { id, end }
}

impl Drop for Server {
    /// After a panic of this task what it had in hand goes back to the store, as with [`crate::replica`].
    fn drop(&mut self) {
        self.give_back();
        self.waiting.leave(&mut self.seat);
    }
}

impl Server {
    fn new(plan: Plan, runtime: CustomRuntime) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let Plan { id, build, first, gpus, load, orders, started, waiting, recorder, ports } = plan;
        let begun = Instant::now();
        let log_of = first.then(|| build.id.clone());
        let concurrency = usize::try_from(build.concurrency()).unwrap_or(usize::MAX);
        let server = Self {
            printer: Printer::new(Arc::clone(&ports.logs), build.app.clone(), id.clone(), log_of),
            stage: Stage::Starting { until: begun + build.config.start_limit().min(FAR) },
            calls: Calls::new(ports.options.cancel_grace),
            client: Client::new(concurrency),
            port: 0,
            ready: true,
            not_yet: String::new(),
            configured_was_taken: false,
            exchanges: JoinSet::new(),
            under_way: HashMap::new(),
            broken: Vec::new(),
            seat: Seat::default(),
            held_back: false,
            batch: Vec::new(),
            id,
            build,
            runtime,
            concurrency,
            first,
            gpus,
            begun,
            load,
            started,
            waiting,
            recorder,
            ports,
        };
        (server, orders)
    }

    async fn live(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> End {
        let Some(prepared) = self.build.prepared.clone() else {
            return self.not_started(BuildStatus::InitFailure, "the build has no environment".to_owned());
        };
        let secrets = match self.ports.secrets.secrets_of(&self.build.app).await {
            Ok(secrets) => secrets,
            Err(error) => return hindered(format!("the app's secrets cannot be read: {error}")),
        };
        let Some(port) = Port::free(&*self.ports.entropy, self.runtime.port) else {
            return hindered("the machine has no free port left for the app's web server".to_owned());
        };
        self.configured_was_taken = ports::is_taken(self.runtime.port).await;
        let options = &self.ports.options;
        let started = Grants::make(options, &self.id, &self.build, &prepared).and_then(|grants| {
            let started = self.start(&prepared, &grants, secrets, port.number())?;
            Ok((started, grants))
        });
        let ((mut process, mut printed), grants) = match started {
            Ok(started) => started,
            Err(error) if crate::replica::is_shortage(&error) => {
                return hindered(crate::replica::shortage_message(&error));
            }
            Err(error) => {
                let why = format!("the entrypoint `{}` cannot be started: {error}", self.runtime.entrypoint);
                return self.not_started(BuildStatus::InitFailure, why);
            }
        };
        meters::replica_started();
        self.load.set_root(process.id());
        let (words, mut health) = mpsc::unbounded_channel();
        let looks = Looks {
            client: self.client.clone(),
            runtime: self.runtime.clone(),
            port: port.number(),
            configured_was_free: !self.configured_was_taken,
            root: process.id(),
        };
        let mut looking = JoinSet::new();
        looking.spawn(looks.go_on(words));
        let mut watch = process.id().map(|root| Watch::new(root, bounds(&self.build), grants.group.clone()));
        let filled = disk::beyond(grants.folders(), self.build.config.disk(), disk::LOOK_EVERY);
        let mut fate = tokio::select! {
            biased;
            fate = self.work(&mut process, &mut watch, &mut health, &mut printed, orders) => fate,
            excess = filled => Fate::Excess(excess),
        };
        drop(looking);
        self.waiting.leave(&mut self.seat);
        let exit = match fate {
            Fate::Exited(exit) => exit,
            _ => process.kill().await,
        };
        if let (Fate::Exited(_), Some(excess)) = (&fate, watch.as_ref().and_then(Watch::told)) {
            fate = Fate::Excess(excess);
        }
        self.print_the_rest(&mut printed).await;
        // Nobody is left who could use it; there may be much of it.
        tokio::task::spawn_blocking(move || drop(grants));
        self.end(fate, exit)
    }

    /// Starts the entrypoint in the app's folder, with the environment's programs first on its path.
    fn start(
        &mut self,
        prepared: &Prepared,
        grants: &Grants,
        secrets: std::collections::BTreeMap<String, String>,
        port: u16,
    ) -> std::io::Result<(Process, mpsc::Receiver<Printed>)> {
        let (words, changed) = entrypoint::words(&self.runtime.entrypoint, self.runtime.port, port);
        if changed && self.first {
            let configured = self.runtime.port;
            self.say(format!(
                "port {configured} of the entrypoint is {port} for this replica, as `{PORT_VARIABLE}` says"
            ));
        }
        let options = &self.ports.options;
        let programs = Path::new(&prepared.python).parent().unwrap_or(Path::new("/")).to_path_buf();
        let path = options.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path);
        let mut search = OsString::from(&programs);
        if let Some(path) = path {
            search.push(":");
            search.push(path);
        }
        let mut environment: Vec<(OsString, OsString)> =
            vec![("PATH".into(), search), ("PYTHONUNBUFFERED".into(), "1".into())];
        if let Some(venv) = programs.parent().filter(|folder| folder.join("pyvenv.cfg").is_file()) {
            environment.push(("VIRTUAL_ENV".into(), venv.into()));
        }
        let of_app = app_environment(options, &self.build, &self.gpus);
        environment.extend(of_app.into_iter().map(|(name, value)| (name.into(), value.into())));
        environment.extend(secrets.into_iter().map(|(name, value)| (name.into(), value.into())));
        environment.push((PORT_VARIABLE.into(), port.to_string().into()));
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        process::start_program(options, prepared, grants, &words, environment)
    }

    async fn work(
        &mut self,
        process: &mut Process,
        watch: &mut Option<Watch>,
        health: &mut mpsc::UnboundedReceiver<Word>,
        printed: &mut mpsc::Receiver<Printed>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> Fate {
        let mut looks = tokio::time::interval(watch.as_ref().map_or(FAR, Watch::pause));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut printing, mut asking) = (true, true);
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
            self.leave_when_done(process);
            self.printer.flush();
            let wake_at = self.wake_at();
            let timer = tokio::time::sleep_until(wake_at.unwrap_or_else(|| Instant::now() + FAR));
            let turn = tokio::select! {
                biased;
                order = orders.recv() => self.obey(order.unwrap_or(Order::Kill)),
                () = timer, if wake_at.is_some() => self.on_time(Instant::now()),
                Some(ended) = self.exchanges.join_next(), if !self.exchanges.is_empty() => {
                    // One that was stopped has been settled.
                    if let Ok((call, end)) = ended {
                        self.on_end(call, end);
                    }
                    ControlFlow::Continue(())
                }
                word = health.recv(), if asking => match word {
                    Some(word) => self.on_word(word),
                    None => {
                        asking = false;
                        ControlFlow::Continue(())
                    }
                },
                _ = looks.tick() => match watch.as_mut().and_then(Watch::look) {
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
                () = news, if self.may_take() => ControlFlow::Continue(()),
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
        let broken = self.broken.first().map(|(until, ..)| *until);
        [of_stage, self.calls.wake_at(), broken].into_iter().flatten().min()
    }

    fn may_take(&self) -> bool {
        self.stage == Stage::Serving
            && self.ready
            && self.calls.len() < self.concurrency
            && self.recorder.has_room()
    }

    fn take_work(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        let places = if self.may_take() { self.concurrency - self.calls.len() } else { 0 };
        let bytes = if places > 0 { BODIES_BYTES_MAX } else { 0 };
        let mut batch = std::mem::take(&mut self.batch);
        self.held_back = self.waiting.take(&mut self.seat, self.calls.len(), places, bytes, &mut batch);
        if !batch.is_empty() {
            let (now, started_at) = (Instant::now(), self.ports.clock.now());
            for work in batch.drain(..) {
                self.begin(work, now, started_at);
            }
        }
        self.batch = batch;
    }

    fn begin(&mut self, mut work: Work, now: Instant, started_at: Timestamp) {
        let (sent, accepted_at) = match &mut work {
            Work::Run(run) => {
                let input = std::mem::take(&mut run.input);
                (Some(request_of(input, &run.function, run.lease.run)), run.accepted_at)
            }
            Work::Call(waiting) if waiting.reply.is_closed() => {
                let error = RunError::new(Code::Cancelled, "the caller went away before the call began");
                return self.settle(work, Outcome::failed(error, 0.0, started_at), None);
            }
            Work::Call(waiting) => {
                let call = &mut waiting.call;
                let sent = match &call.visitor {
                    Some(visitor) => {
                        visitor.request().map(|request| Sent::Visit(Arc::clone(visitor), request))
                    }
                    None => Some(request_of(std::mem::take(&mut call.input), &call.function, call.id)),
                };
                (sent, call.accepted_at)
            }
        };
        let Some(sent) = sent else {
            let error = RunError::new(Code::Interrupted, "the request was sent before; send it again");
            return self.settle(work, Outcome::failed(error, 0.0, started_at), None);
        };
        meters::waited(started_at.since(accepted_at));
        let start = match &work {
            Work::Run(run) if run.events.has(Event::Start) => Some(run.lease),
            Work::Run(_) | Work::Call(_) => None,
        };
        let call = self.calls.begin(work, now, started_at);
        let (client, port, stop) = (self.client.clone(), self.port, CancellationToken::new());
        let stopping = stop.clone();
        let handle = self.exchanges.spawn(async move {
            let end = match sent {
                Sent::Visit(visitor, request) => {
                    exchange::visit(client, port, request, visitor, stopping).await
                }
                Sent::Run(head, body) => exchange::run(client, port, head, body).await,
            };
            (call, end)
        });
        self.under_way.insert(call, (stop, handle));
        if let Some(lease) = start {
            let items = Bytes::from_static(b"[]");
            self.ports.runs.progress(Progress {
                lease,
                event: Event::Start,
                items,
                dropped: 0,
                due_at: started_at,
            });
            self.ports.outbox.wake();
        }
    }

    fn on_end(&mut self, call: u32, end: exchange::End) {
        self.under_way.remove(&call);
        let outcome = match end {
            exchange::End::Broken(why) => {
                self.broken.push((Instant::now() + EXIT_GRACE, call, why));
                return;
            }
            exchange::End::Told(status) if status.is_server_error() => {
                let message = format!("the app's web server answered {status}");
                Err((RunError::new(Code::UserError, message), Some(status.as_u16())))
            }
            exchange::End::Told(status) => Ok((Bytes::from_static(b"null"), status.as_u16())),
            exchange::End::CutShort(status, why) => {
                let message = format!("the answer of the app's web server ended before it was whole: {why}");
                Err((RunError::new(Code::UserError, message), Some(status.as_u16())))
            }
            exchange::End::Gone => Err((RunError::new(Code::Cancelled, "the caller went away"), None)),
            exchange::End::Result(status, Ok(json)) => Ok((json, status.as_u16())),
            exchange::End::Result(status, Err(error)) => {
                let status = (error.code == Code::UserError).then_some(status.as_u16());
                Err((error, status.filter(|status| *status >= 400)))
            }
        };
        self.close(call, outcome);
    }

    /// The exchange of a call is over.
    fn close(&mut self, call: u32, outcome: Result<(Bytes, u16), (RunError, Option<u16>)>) {
        let Some(ended) = self.calls.end(call) else { return };
        let Some(work) = ended.work else { return };
        let now = self.ports.clock.now();
        let milliseconds = now.since(ended.started_at).as_secs_f64() * 1e3;
        let outcome = match outcome {
            Ok((json, status)) => Outcome::succeeded(json, status, milliseconds, now),
            Err((error, status)) => {
                let mut outcome = Outcome::failed(error, milliseconds, now);
                outcome.status_code = status.unwrap_or(outcome.status_code);
                outcome
            }
        };
        self.settle(work, outcome, Some(ended.started_at));
    }

    /// The end of a run or call goes to the store and to whoever waits.
    fn settle(&self, work: Work, outcome: Outcome, started_at: Option<Timestamp>) {
        let outcome = outcome.served_by(self.build.id.clone());
        match work {
            Work::Run(run) => self.recorder.finish(run, outcome),
            Work::Call(call) => answer(&self.ports, call, outcome, started_at),
        }
    }

    /// Lets go of an exchange: its connection closes, which is how a web server learns of it.
    fn stop(&mut self, call: u32) {
        if let Some((stop, handle)) = self.under_way.remove(&call) {
            stop.cancel();
            handle.abort();
        }
        self.broken.retain(|(_, of, _)| *of != call);
        self.calls.end(call);
    }

    fn cancel(&mut self, run: RunId) {
        let Some((call, work, started_at)) = self.calls.cancel(run, Instant::now()) else { return };
        self.stop(call);
        let error = RunError::new(Code::Cancelled, "the run was cancelled while it was executed");
        let now = self.ports.clock.now();
        self.settle(
            work,
            Outcome::failed(error, now.since(started_at).as_secs_f64() * 1e3, now),
            Some(started_at),
        );
    }

    fn on_time(&mut self, now: Instant) -> ControlFlow<Fate> {
        match self.stage {
            Stage::Starting { until } if now >= until => return ControlFlow::Break(Fate::TooSlow),
            Stage::Leaving { until: Some(until) } if now >= until => return ControlFlow::Break(Fate::Killed),
            _ => {}
        }
        // The process lives on: the exchange failed by itself.
        let over = self.broken.iter().position(|(until, ..)| *until > now).unwrap_or(self.broken.len());
        for (_, call, why) in self.broken.drain(..over).collect::<Vec<_>>() {
            let message = format!("the app's web server did not answer: {why}");
            self.close(call, Err((RunError::new(Code::UserError, message), Some(502))));
        }
        let due = self.calls.due(now, &*self.ports.clock);
        if !due.started.is_empty() {
            self.ports.runs.started(due.started);
        }
        for (call, work, started_at) in due.overdue {
            self.stop(call);
            let outcome = timed_out(&work, started_at, self.ports.clock.now());
            self.settle(work, outcome, Some(started_at));
        }
        ControlFlow::Continue(())
    }

    fn on_word(&mut self, word: Word) -> ControlFlow<Fate> {
        match word {
            Word::NotYet(why) => self.not_yet = why,
            Word::Up(port) => self.up(port),
            Word::Ready(ready) => {
                self.ready = ready;
                let path = self.runtime.readycheck_endpoint.as_deref().unwrap_or_default();
                self.say(if ready {
                    format!("replica {} is ready again: it gets requests", self.id)
                } else {
                    format!("replica {} is not ready: `GET {path}` failed; it gets no requests", self.id)
                });
            }
            Word::Sick(why) => return ControlFlow::Break(Fate::Sick(why)),
        }
        ControlFlow::Continue(())
    }

    fn up(&mut self, port: u16) {
        let Stage::Starting { .. } = self.stage else { return };
        self.port = port;
        self.load.idle_from_now();
        self.printer.forget_newest();
        self.stage = if self.first { Stage::Parked } else { Stage::Serving };
        let seconds = self.begun.elapsed().as_secs_f64();
        self.say(format!("replica {} is ready after {seconds:.2} s", self.id));
        let alone = port == self.runtime.port;
        if alone {
            let warning = format!(
                "the web server listens on port {port} whatever `{PORT_VARIABLE}` says, so there can be one replica \
                 of it at a time; have it listen on the port that the environment variable `{PORT_VARIABLE}` names"
            );
            tracing::warn!(app.id = %self.build.app, replica.id = %self.id, "{warning}");
            self.say(format!("warning: {warning}"));
        }
        // The pool ends after its replicas; when it is gone, so is the order to serve.
        let _ = self.started.send(Started { id: self.id.clone(), functions: Vec::new(), alone });
    }

    fn obey(&mut self, order: Order) -> ControlFlow<Fate> {
        match (order, self.stage) {
            (Order::Kill, _) | (Order::Leave, Stage::Starting { .. }) => {
                return ControlFlow::Break(Fate::Killed);
            }
            (Order::Leave, Stage::Parked | Stage::Serving) => {
                self.waiting.leave(&mut self.seat);
                self.stage = Stage::Leaving { until: None };
            }
            (Order::Serve, Stage::Parked) => {
                self.printer.leave_build();
                self.stage = Stage::Serving;
            }
            (Order::Serve, Stage::Starting { .. }) => self.first = false,
            (Order::Cancel(run), _) => self.cancel(run),
            (Order::Show(to), _) => drop(to.send((self.id.clone(), self.calls.shown()))),
            (Order::Leave | Order::Serve, _) => {}
        }
        ControlFlow::Continue(())
    }

    fn leave_when_done(&mut self, process: &Process) {
        if self.stage == (Stage::Leaving { until: None }) && self.calls.is_empty() {
            process.ask_to_end();
            self.stage = Stage::Leaving { until: Some(Instant::now() + self.ports.options.stop_grace) };
        }
    }

    fn print(&mut self, Printed { stream, lines, .. }: Printed) {
        let at = self.ports.clock.now();
        for line in lines {
            self.printer.outside(at, stream, line);
        }
    }

    fn say(&mut self, text: String) {
        self.printer.outside(self.ports.clock.now(), Stream::System, text);
    }

    /// What the process had printed before it ended.
    async fn print_the_rest(&mut self, printed: &mut mpsc::Receiver<Printed>) {
        let rest = async {
            while let Some(lines) = printed.recv().await {
                self.print(lines);
            }
        };
        // A process outside of the tree may hold the pipe open.
        let _ = tokio::time::timeout(EXIT_GRACE, rest).await;
    }
}

/// The request of a run. One that was kept for a function, before the app was a web server, is a POST to the path of
/// its name.
fn request_of(input: Bytes, function: &str, run: RunId) -> Sent {
    let (mut head, body) = Head::and_body(&input).unwrap_or_else(|| {
        let json = ("content-type".to_owned(), Bytes::from_static(b"application/json"));
        let target = format!("/{}", function.trim_start_matches('/'));
        (Head { method: "POST".to_owned(), target, headers: vec![json] }, input)
    });
    head.headers.push(("x-request-id".to_owned(), run.to_string().into()));
    Sent::Run(head, body)
}

fn hindered(why: String) -> End {
    let error = RunError::new(Code::FailedToStart, why);
    End::Hindered(StartFailure { status: BuildStatus::InitFailure, error })
}
