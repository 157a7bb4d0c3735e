//! The replicas of one app: one task that decides how many there are, which of them serve, and when
//! runs are claimed from the store. The runs themselves do not pass through it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, OptionFuture};
use queue::event::EventKind;
use queue::lease::Release;
use queue::outcome::{Code, RunError};
use queue::port::{StartFailure, Stored};
use queue::registry::{App, Build, BuildStatus};
use queue::run::LeasedRun;
use queue::{AppId, BuildId, ReplicaId};
use tokio::sync::mpsc;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::brake::Brake;
use crate::gpus::Given;
use crate::load::Load;
use crate::member::{Member, Standing};
use crate::record::{Recorder, RecorderTask};
use crate::replica::{self, End, Ended, Plan, Started};
use crate::runner::Runner;
use crate::scale::{Reason, Rules, Scaler};
use crate::usage::Usage;
use crate::waiting::{Closed, Waiting};
use crate::web::WebServer;
use crate::{Ports, meters};

mod bench;
mod closing;
mod entry;
mod list;
mod scaling;

use bench::{Bench, WaitsFor};
pub(crate) use closing::app_deleted;
use entry::Published;
pub(crate) use entry::{Entry, Message};
pub(crate) use list::listed;

/// What a caller can do whose call took too long.
pub(crate) const WAY_OUT: &str =
    "send a `webhook_endpoint` with the request, and the result will be posted to it";

/// After a claim failed.
const CLAIM_PAUSE: Duration = Duration::from_millis(500);
/// After a look at the registry that found no live build.
const LOOKUP_PAUSE: Duration = Duration::from_secs(5);
/// Time that pending ends have to be recorded after the last replica is gone.
const RECORDING_GRACE: Duration = Duration::from_secs(5);

/// The task of an app.
pub(crate) struct Pool {
    app: AppId,
    live: Option<Arc<Build>>,
    members: HashMap<ReplicaId, Member>,
    tasks: JoinSet<Ended>,
    started_sender: mpsc::UnboundedSender<Started>,
    started: mpsc::UnboundedReceiver<Started>,
    mailbox: mpsc::UnboundedReceiver<Message>,
    brake: Brake,
    scaler: Scaler,
    claim: Option<BoxFuture<'static, Stored<Vec<LeasedRun>>>>,
    /// Neither claims nor looks at the registry before this moment.
    store_not_before: Option<Instant>,
    /// The machine had nothing left to start a replica with, and that was said.
    hindered: bool,
    /// A build of which there can be one replica at a time.
    alone: Option<BuildId>,
    /// No more work comes in.
    closed: Option<Closed>,
    /// The server stops: what is left at this moment is given back.
    drain_until: Option<Instant>,
    waiting: Arc<Waiting>,
    recorder: Recorder,
    recorder_task: Option<RecorderTask>,
    published: Arc<Published>,
    bench: Bench,
    stop: CancellationToken,
    ports: Arc<Ports>,
}

impl Pool {
    pub(crate) fn new(
        id: AppId,
        app: Option<&App>,
        ports: Arc<Ports>,
        stop: CancellationToken,
    ) -> (Entry, Self) {
        let waiting = Arc::new(Waiting::default());
        let (recorder, recorder_task) = Recorder::new();
        let (sender, mailbox) = mpsc::unbounded_channel();
        let (started_sender, started) = mpsc::unbounded_channel();
        let published = Arc::new(Published::default());
        let entry = Entry {
            waiting: Arc::clone(&waiting),
            recorder: recorder.clone(),
            mailbox: sender,
            published: Arc::clone(&published),
            waits_for: WaitsFor::default(),
        };
        let bench = Bench::new(&ports.gpus, id.clone(), Arc::clone(&entry.waits_for));
        let pool = Self {
            app: id,
            live: app.and_then(|app| app.live.clone()).map(Arc::new),
            members: HashMap::new(),
            tasks: JoinSet::new(),
            started_sender,
            started,
            mailbox,
            brake: Brake::new(ports.options.restart_pause, ports.options.restart_pause_max),
            scaler: Scaler::default(),
            claim: None,
            store_not_before: None,
            hindered: false,
            alone: None,
            closed: None,
            drain_until: None,
            waiting,
            recorder,
            recorder_task: Some(recorder_task),
            published,
            bench,
            stop,
            ports,
        };
        if let Some(live) = &pool.live {
            pool.balance(live);
        }
        (entry, pool)
    }

    /// Works until the server stops or the app is gone, and everything is recorded.
    pub(crate) async fn run(mut self) {
        let done = CancellationToken::new();
        let Some(recorder) = self.recorder_task.take() else { return };
        let mut recording = tokio::spawn(recorder.run(
            self.app.clone(),
            Arc::clone(&self.ports),
            Arc::clone(&self.waiting),
            done.clone(),
        ));
        tokio::select! {
            () = self.keep() => {}
            // It ends after this one, unless it panicked: then no end would be recorded any more.
            Err(error) = &mut recording => {
                tracing::error!(app.id = %self.app, %error, "the recorder of an app failed");
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
                return;
            }
        }
        let Self { recorder, stop, app, .. } = self;
        drop(recorder);
        // A run of a deleted app may still be on its way into its place.
        tokio::select! {
            _ = &mut recording => return,
            () = stop.cancelled() => done.cancel(),
        }
        if tokio::time::timeout(RECORDING_GRACE, recording).await.is_err() {
            tracing::error!(app.id = %app, "stopped before every end was recorded; those runs run again");
        }
    }

    async fn keep(&mut self) {
        let waiting = Arc::clone(&self.waiting);
        let mut heard = true;
        loop {
            self.look_up_live().await;
            let look_at = self.decide(Instant::now());
            if self.closed.is_some() && self.tasks.is_empty() && self.claim.is_none() && waiting.is_empty() {
                return;
            }
            let look_again = OptionFuture::from(look_at.map(tokio::time::sleep_until));
            tokio::select! {
                message = self.mailbox.recv(), if heard => match message {
                    Some(message) => self.on_message(message),
                    None => heard = false,
                },
                Some(started) = self.started.recv() => self.on_started(started),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.on_ended(ended),
                Some(claimed) = OptionFuture::from(self.claim.as_mut()) => self.on_claimed(claimed),
                () = waiting.attention.notified() => {}
                () = self.bench.news(), if self.bench.listens() => {}
                () = self.stop.cancelled(), if self.drain_until.is_none() => self.drain(),
                Some(()) = look_again => {}
            }
        }
    }

    /// A pool that was woken before it was told of a live build asks for it.
    async fn look_up_live(&mut self) {
        let now = Instant::now();
        if self.live.is_some() || !self.waiting.demand(false).backlog || self.store_pauses(now).is_some() {
            return;
        }
        self.store_not_before = Some(now + LOOKUP_PAUSE);
        match self.ports.registry.app(&self.app).await {
            Ok(app) => {
                if let Some(live) = app.and_then(|app| app.live.clone()) {
                    self.store_not_before = None;
                    self.follow(live);
                }
            }
            Err(error) => {
                tracing::warn!(app.id = %self.app, %error, "could not look up an app; trying again");
            }
        }
    }

    /// This build is the live one: the first replica of it, if there is one, serves from now on.
    fn follow(&mut self, live: Build) {
        if self.live.as_ref().is_none_or(|old| old.id != live.id) {
            self.brake.release();
        }
        let now = Instant::now();
        let roll_out = live.config.roll_out_duration();
        if !roll_out.is_zero() {
            self.roll_out(&live, now, roll_out);
        }
        self.members.values_mut().for_each(|member| member.follow(&live));
        self.balance(&live);
        self.live = Some(Arc::new(live));
        // What there is now is not spare only because nobody has called yet.
        self.scaler.note(u32::try_from(self.serving_or_starting()).unwrap_or(u32::MAX), now);
    }

    fn store_pauses(&self, now: Instant) -> Option<Instant> {
        self.store_not_before.filter(|moment| *moment > now)
    }

    fn serving_or_starting(&self) -> usize {
        self.members.values().filter(|member| member.counts() && !member.outdated).count()
    }

    /// A fresh replica first; when it serves, those that are here go.
    fn restart(&mut self) {
        let Some(live) = self.live.clone().filter(|_| self.closed.is_none()) else { return };
        if self.is_single() {
            let text =
                "the replica is replaced: it goes first, since there can be one of it at a time".to_owned();
            self.tell(EventKind::Restarted, text, Some(&live.id));
            return self.members.values_mut().filter(|member| member.counts()).for_each(Member::leave);
        }
        let mut found = false;
        for member in self.members.values_mut().filter(|member| member.counts()) {
            member.outdated = true;
            found = true;
        }
        if found {
            let text = "the replicas are replaced: a fresh one first, then the others go".to_owned();
            self.tell(EventKind::Restarted, text, Some(&live.id));
            // Without a GPU for it, it waits for the one that an old replica leaves.
            if let Some(gpus) = self.gpus_for(&live, Instant::now()) {
                self.start(live, Standing::Starting, gpus);
            }
        }
    }

    /// A replica serves that was started after those that are outdated.
    fn let_outdated_go(&mut self) {
        self.members.values_mut().filter(|member| member.outdated).for_each(Member::leave);
    }

    /// No fresh replica starts: what there is stays.
    fn keep_outdated(&mut self) {
        if self.serving_or_starting() == 0 {
            self.members.values_mut().for_each(|member| member.outdated = false);
        }
    }

    /// Starts, stops and claims what is to be started, stopped and claimed now. When to look again
    /// if nothing happens before.
    fn decide(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        let mut look_by = |moment: Instant| next = Some(next.map_or(moment, |at: Instant| at.min(moment)));
        if self.closed.is_some() {
            self.bench.clear();
            self.close_down(now).into_iter().for_each(&mut look_by);
        }
        self.start_firsts(now).into_iter().for_each(&mut look_by);
        let Some(live) = self.live.clone() else {
            self.bench.rest_unless_first();
            let wakes = self.waiting.demand(false).backlog;
            self.store_pauses(now).filter(|_| wakes).into_iter().for_each(&mut look_by);
            return next;
        };

        let rules = if self.is_single() { Rules::of(&live).for_one_at_a_time() } else { Rules::of(&live) };
        let rules = if self.closed.is_some() { rules.for_what_is_left() } else { rules };
        let is_waited_for = self.bench.is_waited_for();
        let rules = rules.on_hardware(self.bench.room(&live), is_waited_for);
        self.let_rolled_out_go(now).into_iter().for_each(&mut look_by);
        let active = u32::try_from(self.serving_or_starting()).unwrap_or(u32::MAX);
        let fresh = self.of_live_build();
        let seen = self.see(&live, &rules, active, now);
        let verdict = self.scaler.look(&rules, &seen, now);
        verdict.look_at.into_iter().for_each(&mut look_by);

        // Those of the build before help with the work, but are not those that must always be there.
        let least = rules.least.saturating_sub(fresh);
        let replacing = active == 0 && self.members.values().any(|member| member.counts() && member.outdated);
        let missing = verdict.wanted.saturating_sub(active).max(least).max(u32::from(replacing));
        let missing = if self.is_single() && !self.members.is_empty() { 0 } else { missing };
        if missing > 0 {
            match self.brake.holds_until(now) {
                Some(moment) => {
                    self.bench.rest_unless_first();
                    look_by(moment);
                }
                None => {
                    // After a failed start one replica shows whether it was worth trying again.
                    let missing =
                        if self.brake.on_trial() { missing.min(1).saturating_sub(active) } else { missing };
                    let given: Vec<Given> = (0..missing).map_while(|_| self.gpus_for(&live, now)).collect();
                    let starting = u32::try_from(given.len()).unwrap_or(missing);
                    if starting > 0 {
                        self.tell_scaled(active, active + starting, verdict.reason);
                    }
                    for gpus in given {
                        self.start(Arc::clone(&live), Standing::Starting, gpus);
                    }
                }
            }
        } else {
            self.bench.rest_unless_first();
            let spare = active.saturating_sub(verdict.kept);
            let gone = if spare > 0 { self.let_go(spare, fresh.saturating_sub(rules.most)) } else { 0 };
            if gone > 0 {
                let reason = if is_waited_for { Reason::WaitedFor } else { Reason::Quiet(rules.cooldown) };
                self.tell_scaled(active, active - gone, reason);
            }
        }
        self.make_room(now).into_iter().for_each(&mut look_by);
        self.claim_if_needed(now).into_iter().for_each(&mut look_by);
        self.publish_count();
        next
    }

    fn claim_if_needed(&mut self, now: Instant) -> Option<Instant> {
        if self.claim.is_some() || self.closed.is_some() {
            return None;
        }
        // Runs are not taken out of the store for replicas that do not start.
        if self.brake.given_up() && self.serving_or_starting() == 0 {
            return None;
        }
        if let Some(moment) = self.store_pauses(now) {
            return self.waiting.demand(false).backlog.then_some(moment);
        }
        let (count, bytes) = self.waiting.begin_claim()?;
        let (runs, app) = (Arc::clone(&self.ports.runs), self.app.clone());
        self.claim = Some(async move { runs.claim(&app, count, bytes).await }.boxed());
        // Polled for the first time when the loop comes round.
        None
    }

    fn on_claimed(&mut self, claimed: Stored<Vec<LeasedRun>>) {
        self.claim = None;
        let claimed = claimed.map_err(|error| {
            tracing::warn!(app.id = %self.app, %error, "could not claim queued runs; trying again");
            self.store_not_before = Some(Instant::now() + CLAIM_PAUSE);
        });
        for run in self.waiting.end_claim(claimed.ok()) {
            self.recorder.release(run.lease, Release::Drained);
        }
    }

    fn start(&mut self, build: Arc<Build>, standing: Standing, gpus: Given) {
        let id = ReplicaId::generate(&*self.ports.entropy);
        let load = Arc::new(Load::new());
        let (orders, to_replica) = mpsc::unbounded_channel();
        let gpus_given = gpus.uuids().to_vec();
        let plan = Plan {
            id: id.clone(),
            build: Arc::clone(&build),
            first: matches!(standing, Standing::First(_)),
            gpus,
            load: Arc::clone(&load),
            orders: to_replica,
            started: self.started_sender.clone(),
            waiting: Arc::clone(&self.waiting),
            recorder: self.recorder.clone(),
            ports: Arc::clone(&self.ports),
        };
        let task = match build.config.runtime.clone() {
            Some(runtime) => self.tasks.spawn(replica::run(plan, WebServer::new(runtime, &build))),
            None => self.tasks.spawn(replica::run(plan, Runner::default())),
        };
        let member = Member {
            task: task.id(),
            build,
            functions: Vec::new(),
            standing,
            begun: Instant::now(),
            outdated: false,
            leaves_at: None,
            usage: Usage::default(),
            gpus: gpus_given,
            load,
            orders,
        };
        self.members.insert(id, member);
        self.publish_builds();
    }

    fn publish_builds(&self) {
        let mut builds: Vec<_> = self.members.values().map(|member| member.build.id.clone()).collect();
        builds.sort_unstable();
        builds.dedup();
        *self.published.builds.lock().unwrap_or_else(PoisonError::into_inner) = builds;
    }

    fn publish_count(&self) {
        let count = self.serving_or_starting();
        if self.published.count.swap(count, Ordering::Relaxed) != count {
            meters::replicas(&self.app, count);
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::StartFirst { build, reply } => {
                if self.closed.is_none() {
                    self.bench.push_first(build, reply);
                }
            }
            Message::Switch(app) => {
                if let Some(live) = app.live.clone() {
                    self.follow(live);
                }
            }
            Message::Discard(build) => {
                self.bench.discard(&build);
                let discarded =
                    self.members.values_mut().filter(|member| matches!(member.standing, Standing::First(_)));
                discarded.filter(|member| member.build.id == build).for_each(Member::leave);
            }
            Message::Restart => self.restart(),
            Message::List(listing) => self.list(listing),
            Message::Cancel(run) => self.members.values().for_each(|member| member.cancel(run)),
            Message::Retire => {
                self.closed = Some(Closed::Retired);
                self.waiting.close(Closed::Retired);
            }
        }
    }

    fn on_started(&mut self, Started { id, functions, alone }: Started) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if alone {
            self.alone = Some(member.build.id.clone());
        }
        member.functions.clone_from(&functions);
        self.hindered = false;
        let mut started = false;
        match &mut member.standing {
            Standing::First(reply) => {
                // A build that was cancelled meanwhile has nobody waiting.
                if reply.take().is_none_or(|reply| reply.send(Ok(functions)).is_err()) {
                    member.leave();
                }
            }
            Standing::Starting => {
                member.standing = Standing::Serving;
                self.brake.release();
                started = true;
                if let Some(live) = &self.live {
                    member.follow(live);
                }
                if !member.outdated {
                    self.let_outdated_go();
                }
            }
            Standing::Serving | Standing::Leaving => {}
        }
        if started {
            // None of them is spare only because it took long to start.
            let serving = self.members.values().filter(|member| matches!(member.standing, Standing::Serving));
            self.scaler.note(u32::try_from(serving.count()).unwrap_or(u32::MAX), Instant::now());
        }
    }

    /// What it means that a replica's task is gone without a word.
    fn end_of(&mut self, task: task::Id) -> Option<Ended> {
        let (id, member) = self.members.iter_mut().find(|(_, member)| member.task == task)?;
        // What brought it about may do so again, as often as replicas are started.
        member.begun = Instant::now();
        let why =
            "the part of the server failed that keeps the replica; the server's log says how".to_owned();
        let end = match member.standing {
            Standing::First(_) | Standing::Starting => End::NotStarted(StartFailure {
                status: BuildStatus::InitFailure,
                error: RunError::new(Code::FailedToStart, why),
            }),
            Standing::Serving | Standing::Leaving => End::Died(why),
        };
        Some(Ended { id: id.clone(), end })
    }

    fn on_ended(&mut self, ended: Result<Ended, JoinError>) {
        let Ended { id, end } = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(app.id = %self.app, %error, "the task of a replica failed");
                let Some(ended) = self.end_of(error.id()) else { return };
                ended
            }
        };
        let Some(member) = self.members.remove(&id) else { return };
        self.publish_builds();
        match (end, member.standing) {
            (
                End::NotStarted(failure) | End::Killed(failure) | End::Hindered(failure),
                Standing::First(Some(reply)),
            ) => drop(reply.send(Err(failure))),
            (End::Hindered(failure), Standing::Starting) => {
                self.keep_outdated();
                self.brake.hindered(Instant::now());
                if !std::mem::replace(&mut self.hindered, true) {
                    self.tell_ended(EventKind::StartFailed, &id, &failure.error.message, &member.build);
                    tracing::error!(app.id = %self.app, "{}; its runs wait", failure.error.message);
                }
            }
            (End::NotStarted(failure), Standing::Starting) => {
                self.keep_outdated();
                self.brake.failed(Instant::now());
                self.tell_ended(EventKind::StartFailed, &id, &failure.error.message, &member.build);
                self.tell_if_given_up(&failure);
            }
            (End::Killed(failure), Standing::Starting) => {
                self.keep_outdated();
                self.brake.killed(Instant::now());
                self.tell_ended(EventKind::StartFailed, &id, &failure.error.message, &member.build);
                self.tell_if_given_up(&failure);
            }
            (End::Died(why), Standing::Starting | Standing::Serving | Standing::Leaving) => {
                self.brake.died(member.begun);
                self.tell_ended(EventKind::ReplicaDied, &id, &why, &member.build);
            }
            _ => {}
        }
    }
}
