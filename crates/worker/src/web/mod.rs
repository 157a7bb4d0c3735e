//! A replica that is a web server of the app's own: it gets work when it is ready and has places, over HTTP on the
//! replica's own port. What every replica does stands in [`crate::replica`].
//!
//! The body of a caller's request and that of its answer pass between the two connections as they come; the
//! bodies of runs are whole. Where the answer to a run comes from is no matter to the rest of the room.

mod client;
mod entrypoint;
mod exchange;
mod health;
mod ports;
mod result;
mod tunnel;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use queue::outcome::{Code, Outcome, RunError};
use queue::registry::{Build, Prepared};
use queue::web::{CustomRuntime, Head, PORT_VARIABLE, Visitor};
use queue::webhook::Event;
use queue::{RunId, Timestamp};
use tokio::sync::mpsc;
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::memory::Watch;
use crate::process::{Exit, Printed, Process};
use crate::replica::{
    self, Begun, EXIT_GRACE, End, Fate, Grants, Kind, Order, Orders, Stage, app_environment,
};
use crate::waiting::Work;
use crate::{FAR, meters, process};

use client::Client;
use health::{Looks, Word};
use ports::Port;

/// What an exchange is about.
enum Sent {
    /// A caller's request, told as it is answered.
    Visit(Arc<dyn Visitor>, queue::web::Request),
    /// One whose answer is a result.
    Run(Head, Bytes),
}

/// A web server of the app's own, with its requests under way.
pub(crate) struct WebServer {
    runtime: CustomRuntime,
    /// The port on which the server is up.
    port: u16,
    /// Its ready check, as far as it has one, was answered well.
    ready: bool,
    /// What kept it from being up when it was last looked at.
    not_yet: String,
    /// Somebody had the configured port when it started.
    configured_was_taken: bool,
    client: Client,
    exchanges: JoinSet<(u32, exchange::End)>,
    under_way: HashMap<u32, (CancellationToken, AbortHandle)>,
    /// Exchanges that came to nothing, and until when that may turn out to be the end of the process.
    broken: Vec<(Instant, u32, String)>,
}

impl WebServer {
    pub(crate) fn new(runtime: CustomRuntime, build: &Build) -> Self {
        Self {
            runtime,
            port: 0,
            ready: true,
            not_yet: String::new(),
            configured_was_taken: false,
            client: Client::new(usize::try_from(build.concurrency()).unwrap_or(usize::MAX)),
            exchanges: JoinSet::new(),
            under_way: HashMap::new(),
            broken: Vec::new(),
        }
    }
}

type Replica = replica::Replica<WebServer>;

/// What is known of a server that runs.
pub(crate) struct Ways {
    /// Nobody else gets it.
    _port: Port,
    health: mpsc::UnboundedReceiver<Word>,
    looking: JoinSet<()>,
}

impl Kind for WebServer {
    type Ways = Ways;

    async fn start(
        replica: &mut Replica,
        prepared: &Prepared,
        grants: &Grants,
        secrets: BTreeMap<String, String>,
    ) -> Result<Begun<Ways>, End> {
        let configured = replica.kind.runtime.port;
        let Some(port) = Port::free(&*replica.ports.entropy, configured) else {
            return Err(replica::hindered(
                "the machine has no free port left for the app's web server".to_owned(),
            ));
        };
        replica.kind.configured_was_taken = ports::is_taken(configured).await;
        let started = replica.start(prepared, grants, secrets, port.number());
        let (process, printed) = started.map_err(|error| replica.denied(prepared, &error))?;
        let (words, health) = mpsc::unbounded_channel();
        let looks = Looks {
            client: replica.kind.client.clone(),
            runtime: replica.kind.runtime.clone(),
            port: port.number(),
            configured_was_free: !replica.kind.configured_was_taken,
            root: process.id(),
        };
        let mut looking = JoinSet::new();
        looking.spawn(looks.go_on(words));
        Ok(Begun { process, printed, ways: Ways { _port: port, health, looking } })
    }

    async fn work(
        replica: &mut Replica,
        process: &mut Process,
        ways: &mut Ways,
        printed: &mut mpsc::Receiver<Printed>,
        orders: &mut Orders,
    ) -> Fate {
        replica.work(process, &mut ways.health, printed, orders).await
    }

    fn places(replica: &Replica) -> usize {
        if replica.kind.ready { replica.concurrency.saturating_sub(replica.calls.len()) } else { 0 }
    }

    fn begin(replica: &mut Replica, work: Work, now: Instant, started_at: Timestamp) {
        replica.begin(work, now, started_at);
    }

    /// Its connection closes, which is how a web server learns of it.
    fn stop(replica: &mut Replica, call: u32) {
        replica.kind.stop(call);
        replica.calls.end(call);
    }

    fn ask_to_end(_: &mut Replica, process: &Process) {
        process.ask_to_end();
    }

    fn print(replica: &mut Replica, Printed { stream, lines, .. }: Printed) {
        let at = replica.ports.clock.now();
        for line in lines {
            replica.printer.outside(at, stream, line);
        }
    }

    fn on_time(replica: &mut Replica, now: Instant) {
        replica.close_broken(now);
    }

    /// An answer may be whole and still lie in its connection.
    async fn hear_the_rest(replica: &mut Replica, ways: &mut Ways, _: &mut Fate) {
        ways.looking.abort_all();
        let rest = async {
            while let Some(ended) = replica.kind.exchanges.join_next().await {
                if let Ok((call, end)) = ended
                    && !matches!(end, exchange::End::Broken(_) | exchange::End::CutShort(..))
                {
                    replica.on_end(call, end);
                }
            }
        };
        // Somebody who takes an answer slowly keeps the replica for so long and no longer.
        let _ = tokio::time::timeout(EXIT_GRACE, rest).await;
    }

    fn let_go(replica: &mut Replica) {
        let calls: Vec<_> = replica.kind.under_way.keys().copied().collect();
        calls.into_iter().for_each(|call| replica.kind.stop(call));
    }

    fn cannot_start(replica: &Replica, _: &Prepared) -> String {
        format!("the entrypoint `{}` cannot be started", replica.kind.runtime.entrypoint)
    }

    fn too_slow(replica: &Replica, limit: Duration) -> String {
        let WebServer { runtime, not_yet, .. } = &replica.kind;
        replica.kind.with_port_hint(format!(
            "the app's web server was not up within {} s: {}; it must listen on port {} or on the one that the \
             environment variable `{PORT_VARIABLE}` names, at 0.0.0.0 or 127.0.0.1",
            limit.as_secs(),
            if not_yet.is_empty() { "it was not seen" } else { not_yet },
            runtime.port
        ))
    }

    fn ended_early(replica: &Replica, exit: Exit) -> String {
        replica.kind.with_port_hint(format!("the app's web server ended before it was up: {exit}"))
    }

    /// Servers that are asked to end do so in many ways.
    fn is_in_order(_: Exit) -> bool {
        true
    }

    const STATUS_OF_DEATH: Option<u16> = Some(502);
}

impl WebServer {
    /// Lets go of an exchange.
    fn stop(&mut self, call: u32) {
        if let Some((stop, handle)) = self.under_way.remove(&call) {
            stop.cancel();
            handle.abort();
        }
        self.broken.retain(|(_, of, _)| *of != call);
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
}

impl Replica {
    /// Starts the entrypoint in the app's folder, with the environment's programs first on its path.
    fn start(
        &mut self,
        prepared: &Prepared,
        grants: &Grants,
        secrets: BTreeMap<String, String>,
        port: u16,
    ) -> std::io::Result<(Process, mpsc::Receiver<Printed>)> {
        let (words, changed) = entrypoint::words(&self.kind.runtime.entrypoint, self.kind.runtime.port, port);
        if changed && self.first {
            let configured = self.kind.runtime.port;
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
        health: &mut mpsc::UnboundedReceiver<Word>,
        printed: &mut mpsc::Receiver<Printed>,
        orders: &mut Orders,
    ) -> Fate {
        let mut looks = tokio::time::interval(self.watch.as_ref().map_or(FAR, Watch::pause));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut printing, mut asking) = (true, true);
        let news = self.news();
        loop {
            let more = self.look_for_work(&news, process);
            let wake_at = self.wake_at();
            let timer = tokio::time::sleep_until(wake_at.unwrap_or_else(|| Instant::now() + FAR));
            let turn = tokio::select! {
                biased;
                order = orders.recv() => self.obey(order.unwrap_or(Order::Kill)),
                () = timer, if wake_at.is_some() => self.on_time(Instant::now()),
                Some(ended) = self.kind.exchanges.join_next(), if !self.kind.exchanges.is_empty() => {
                    match ended {
                        Ok((call, end)) => self.on_end(call, end),
                        Err(error) => self.on_panic(error.id()),
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
                _ = looks.tick() => match self.watch.as_mut().and_then(Watch::look) {
                    Some(excess) => ControlFlow::Break(Fate::Excess(excess)),
                    None => ControlFlow::Continue(()),
                },
                lines = printed.recv(), if printing => {
                    match lines {
                        Some(lines) => WebServer::print(self, lines),
                        None => printing = false,
                    }
                    ControlFlow::Continue(())
                }
                () = more, if self.stage == Stage::Serving && WebServer::places(self) > 0 => ControlFlow::Continue(()),
                exit = process.ended() => ControlFlow::Break(Fate::Exited(exit)),
            };
            if let ControlFlow::Break(fate) = turn {
                return fate;
            }
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let broken = self.kind.broken.first().map(|(until, ..)| *until);
        [self.stage_wakes_at(), self.calls.wake_at(), broken].into_iter().flatten().min()
    }

    fn begin(&mut self, mut work: Work, now: Instant, started_at: Timestamp) {
        let (sent, accepted_at) = match &mut work {
            Work::Run(run) => {
                let input = std::mem::take(&mut run.input);
                (Some(request_of(input, &run.function, run.lease.run)), run.accepted_at)
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
        let (client, port, stop) = (self.kind.client.clone(), self.kind.port, CancellationToken::new());
        let stopping = stop.clone();
        let handle = self.kind.exchanges.spawn(async move {
            let end = match sent {
                Sent::Visit(visitor, request) => {
                    exchange::visit(client, port, request, visitor, stopping).await
                }
                Sent::Run(head, body) => exchange::run(client, port, head, body).await,
            };
            (call, end)
        });
        self.kind.under_way.insert(call, (stop, handle));
        if let Some(lease) = start {
            self.tell_start(lease, started_at);
        }
    }

    fn on_end(&mut self, call: u32, end: exchange::End) {
        self.kind.under_way.remove(&call);
        let outcome = match end {
            exchange::End::Broken(why) => {
                self.kind.broken.push((Instant::now() + EXIT_GRACE, call, why));
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

    /// An exchange came to no end: it was stopped, and is settled, or it panicked.
    fn on_panic(&mut self, exchange: task::Id) {
        let call = self.kind.under_way.iter().find(|(_, (_, handle))| handle.id() == exchange);
        if let Some(call) = call.map(|(call, _)| *call) {
            tracing::error!(replica.id = %self.id, app.id = %self.build.app, "a request to a web server failed in the server");
            self.on_end(
                call,
                exchange::End::Broken("the server failed while it waited for the answer".into()),
            );
        }
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

    /// Exchanges came to nothing, and the process lives on: they failed by themselves.
    fn close_broken(&mut self, now: Instant) {
        let broken = &mut self.kind.broken;
        let over = broken.iter().position(|(until, ..)| *until > now).unwrap_or(broken.len());
        for (_, call, why) in broken.drain(..over).collect::<Vec<_>>() {
            let message = format!("the app's web server did not answer: {why}");
            self.close(call, Err((RunError::new(Code::UserError, message), Some(502))));
        }
    }

    fn on_word(&mut self, word: Word) -> ControlFlow<Fate> {
        match word {
            Word::NotYet(why) => self.kind.not_yet = why,
            Word::Up(port) => self.up(port),
            Word::Ready(ready) => {
                self.kind.ready = ready;
                let path = self.kind.runtime.readycheck_endpoint.as_deref().unwrap_or_default();
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
        self.kind.port = port;
        let alone = port == self.kind.runtime.port;
        self.has_started(Vec::new(), alone);
        if alone {
            let warning = format!(
                "the web server listens on port {port} whatever `{PORT_VARIABLE}` says, so there can be one replica \
                 of it at a time; have it listen on the port that the environment variable `{PORT_VARIABLE}` names"
            );
            tracing::warn!(app.id = %self.build.app, replica.id = %self.id, "{warning}");
            self.say(format!("warning: {warning}"));
        }
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
