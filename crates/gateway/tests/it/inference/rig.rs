//! A [`World`] whose way into the store can be held up, fail, or lead straight to a replica.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gateway::{Gateway, Options, Ports, Surface};
use queue::actions::Actions;
use queue::lease::{Lease, Release, Released};
use queue::outcome::{Cancellation, Expired, Finish, Finished, Outcome};
use queue::port::*;
use queue::registry::App;
use queue::run::{CallRecord, LeasedRun, Mode, NewRun, RunFilter, RunList, RunState, RunView};
use queue::{AppId, ProjectId, RunId};
use tokio::sync::Semaphore;

use crate::fakes::{World, options};

pub(crate) struct Rig {
    pub(crate) world: Arc<World>,
    /// Each acceptance takes a permit before it returns.
    pub(crate) gate: Semaphore,
    /// Acceptances that reached the gate.
    pub(crate) at_gate: Semaphore,
    /// What acceptance answers after the gate, instead of success.
    pub(crate) accept_error: Mutex<Option<StoreError>>,
    /// There are slots in memory.
    pub(crate) slots: AtomicBool,
    pub(crate) handed: Mutex<Vec<LeasedRun>>,
    pub(crate) released: Mutex<Vec<Lease>>,
    /// A permit for each hand-over or release, for tests to wait on.
    pub(crate) settled: Semaphore,
    /// What calls yield, to those who listen.
    pub(crate) yields: Mutex<Vec<&'static str>>,
    /// Calls never end.
    pub(crate) hangs: AtomicBool,
    /// Whether the last call had a listener.
    pub(crate) listened: AtomicBool,
}

impl Rig {
    /// With an open gate and no slots.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            world: World::new(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            at_gate: Semaphore::new(0),
            accept_error: Mutex::new(None),
            slots: AtomicBool::new(false),
            handed: Mutex::new(Vec::new()),
            released: Mutex::new(Vec::new()),
            settled: Semaphore::new(0),
            yields: Mutex::default(),
            hangs: AtomicBool::new(false),
            listened: AtomicBool::new(false),
        })
    }

    /// With a closed gate, and slots.
    pub(crate) fn gated() -> Arc<Self> {
        let rig = Self::new();
        rig.gate.forget_permits(Semaphore::MAX_PERMITS);
        rig.slots.store(true, Ordering::SeqCst);
        rig
    }

    pub(crate) fn router(self: &Arc<Self>) -> Surface {
        self.gateway(options()).surface()
    }

    pub(crate) fn gateway(self: &Arc<Self>, options: Options) -> Gateway {
        let world = &self.world;
        let actions = Actions {
            runs: self.clone(),
            deliveries: world.clone(),
            registry: world.clone(),
            builds: world.clone(),
            replicas: world.clone(),
            dispatch: Arc::new(Desk(Arc::clone(self))),
            outbox: world.clone(),
            clock: world.clone(),
            entropy: world.clone(),
        };
        let ports = Ports {
            actions,
            runs: self.clone(),
            deliveries: world.clone(),
            dispatch: Arc::new(Desk(Arc::clone(self))),
            registry: world.clone(),
            inboxes: world.clone(),
            logs: world.clone(),
            events: world.clone(),
            replicas: world.clone(),
            outbox: world.clone(),
            guard: world.clone(),
            replays: world.clone(),
            builds: world.clone(),
            keyring: world.clone(),
            secrets: world.clone(),
            clock: world.clone(),
            entropy: world.clone(),
            metrics: Arc::new(|| "postback_up 1\n".to_owned()),
        };
        Gateway::new(ports, options)
    }

    /// Ends a run as a worker would.
    pub(crate) fn end(&self, run: RunId, outcome: &Outcome) {
        let mut view = self.world.hold().runs[&run].clone();
        view.state = outcome.ending.state();
        view.error.clone_from(&outcome.error);
        view.status_code = Some(outcome.status_code);
        view.run_time_ms = Some(outcome.run_time_ms);
        view.result.clone_from(&outcome.result);
        view.ended_at = Some(outcome.ended_at);
        self.world.put_run(view);
    }
}

fn queued(run: &NewRun) -> RunView {
    RunView {
        id: run.id,
        app: run.app.clone(),
        function: run.function.to_string(),
        generation: run.generation,
        mode: Mode::Async,
        state: RunState::Queued,
        error: None,
        status_code: None,
        run_time_ms: None,
        accepted_at: run.accepted_at,
        priority: run.options.priority,
        not_before: run.options.not_before,
        retry: run.options.retry.clone(),
        max_attempts: run.options.max_attempts,
        started_at: None,
        ended_at: None,
        build: None,
        webhooks: run.webhooks.clone(),
        events: run.options.events,
        schedule: None,
        webhook_headers: Vec::new(),
        metadata: run.options.metadata.clone(),
        warning: run.warning.clone(),
        attempts: Vec::new(),
        deliveries: Vec::new(),
        result: None,
    }
}

#[async_trait]
impl Runs for Rig {
    async fn accept(&self, run: NewRun, claim: Claim) -> Stored<Accepted> {
        self.at_gate.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        if let Some(error) = self.accept_error.lock().unwrap().clone() {
            return Err(error);
        }
        let view = queued(&run);
        let accepted = self.world.accept(run, claim).await?;
        if matches!(accepted, Accepted::Queued | Accepted::Leased(_)) {
            self.world.put_run(view);
        }
        Ok(accepted)
    }

    async fn claim(&self, _: &AppId, _: usize, _: usize) -> Stored<Vec<LeasedRun>> {
        Ok(Vec::new())
    }

    fn started(&self, _: Vec<Lease>) {}

    fn progress(&self, _: queue::progress::Progress) {}

    async fn finish(&self, finish: Finish) -> Stored<Finished> {
        self.world.finish(finish).await
    }

    async fn cancel(&self, project: &ProjectId, run: RunId) -> Stored<Cancellation> {
        Runs::cancel(&*self.world, project, run).await
    }

    async fn expire(&self, _: queue::Timestamp) -> Stored<Expired> {
        Ok(Expired::default())
    }

    async fn ready(&self, _: queue::Timestamp) -> Stored<queue::run::Ready> {
        Ok(queue::run::Ready::default())
    }

    async fn retry(&self, _: Lease, _: queue::outcome::RunError) -> Stored<Released> {
        Ok(Released::Queued)
    }

    async fn release(&self, lease: Lease, _: Release) -> Stored<Released> {
        self.released.lock().unwrap().push(lease);
        self.settled.add_permits(1);
        Ok(Released::Queued)
    }

    fn record_call(&self, _: CallRecord) {}

    async fn run(&self, project: &ProjectId, run: RunId) -> Stored<Option<RunView>> {
        self.world.run(project, run).await
    }

    async fn input(&self, project: &ProjectId, run: RunId) -> Stored<Option<bytes::Bytes>> {
        self.world.input(project, run).await
    }

    async fn removed(&self, project: &ProjectId, run: RunId) -> Stored<Option<queue::Timestamp>> {
        self.world.removed(project, run).await
    }

    async fn runs(&self, filter: RunFilter) -> Stored<RunList> {
        self.world.runs(filter).await
    }

    async fn wait_for_end(&self, run: RunId, wait: Duration) {
        self.world.wait_for_end(run, wait).await;
    }

    async fn backlog(&self) -> Stored<Vec<(AppId, u64)>> {
        Ok(Vec::new())
    }
}

struct Place(Arc<Rig>);

impl Slot for Place {
    fn hand_over(self: Box<Self>, run: LeasedRun) {
        self.0.handed.lock().unwrap().push(run);
        self.0.settled.add_permits(1);
    }
}

/// Where calls and slots are asked for.
struct Desk(Arc<Rig>);

#[async_trait]
impl Dispatch for Desk {
    fn reserve(&self, _: &Arc<App>, _: usize) -> Option<Box<dyn Slot>> {
        self.0.slots.load(Ordering::SeqCst).then(|| Box::new(Place(Arc::clone(&self.0))) as Box<dyn Slot>)
    }

    fn wake(&self, app: &AppId, priority: i8) {
        Dispatch::wake(&*self.0.world, app, priority);
    }

    fn cancel(&self, app: &AppId, run: RunId) {
        Dispatch::cancel(&*self.0.world, app, run);
    }

    async fn call(&self, mut call: Call) -> Result<Outcome, Refused> {
        let listener = call.listener.take();
        self.0.listened.store(listener.is_some(), Ordering::SeqCst);
        if let Some(listener) = &listener {
            for text in self.0.yields.lock().unwrap().iter() {
                listener.tell(bytes::Bytes::from_static(text.as_bytes()));
            }
        }
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.0.world.call(call).await
    }
}
