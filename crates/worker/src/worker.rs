//! The room's front: the ports it fulfils, and the task that keeps the pools of all apps.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use queue::app::Function;
use queue::hardware::Hardware;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::{
    AppEvents, Call, Dispatch, Logs, Outbox, Refused, Registry, Replicas, Runs, Secrets, Slot, StartFailure,
    StoreError,
};
use queue::registry::{App, Build, BuildStatus};
use queue::replica::ReplicaView;
use queue::run::LeasedRun;
use queue::{AppId, BuildId, Clock, Entropy, RunId, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gpus::Gpus;
use crate::pool::{Entry, Message, Pool, WAY_OUT, app_deleted, listed};
use crate::record::answer;
use crate::waiting::{LOWEST, WaitingCall};
use crate::{FAR, Options, Ports};

/// Between looks for runs that did not start in time, and for those whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two such looks at least.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);
/// Between attempts to read the store at the start.
const PAUSE: Duration = Duration::from_millis(500);

/// The room. [`Worker::run`] keeps it going.
pub struct Worker {
    shared: Arc<Shared>,
    new_pools: mpsc::UnboundedReceiver<Pool>,
    returned: mpsc::UnboundedReceiver<AppId>,
}

struct Shared {
    ports: Arc<Ports>,
    pools: RwLock<HashMap<AppId, Arc<Entry>>>,
    /// The mailboxes of pools whose apps are gone, until their last run has ended.
    retired: Mutex<Vec<(AppId, mpsc::UnboundedSender<Message>)>>,
    /// Deleted apps with a run that went back to the store, until an app has the name again.
    left_behind: Mutex<HashSet<AppId>>,
    /// Apps whose pools are being made; held while one is, so that there is one per app.
    making: Mutex<()>,
    new_pools: mpsc::UnboundedSender<Pool>,
    stopping: AtomicBool,
    stop: CancellationToken,
}

/// The ports of the room. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Worker {
    /// A worker at rest: it accepts work from now on and begins with it in [`Worker::run`].
    #[expect(clippy::too_many_arguments, reason = "one for each port it asks")]
    pub fn new(
        options: Options,
        runs: Arc<dyn Runs>,
        registry: Arc<dyn Registry>,
        secrets: Arc<dyn Secrets>,
        logs: Arc<dyn Logs>,
        events: Arc<dyn AppEvents>,
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        metrics::gauge!("postback_containment_tier").set(f64::from(options.policy.tier as u8));
        let (returning, returned) = mpsc::unbounded_channel();
        let gpus = Gpus::new(options.gpus.clone(), options.cpu_fallback);
        let ports = Ports {
            options,
            runs,
            registry,
            secrets,
            logs,
            events,
            outbox,
            clock,
            entropy,
            gpus,
            returned: returning,
        };
        let (sender, new_pools) = mpsc::unbounded_channel();
        let shared = Shared {
            ports: Arc::new(ports),
            pools: RwLock::default(),
            retired: Mutex::default(),
            left_behind: Mutex::default(),
            making: Mutex::default(),
            new_pools: sender,
            stopping: AtomicBool::new(false),
            stop: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared), new_pools, returned }
    }

    /// Its ports.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Works until `shutdown`, then drains: nothing new begins, calls under way have
    /// [`Options::drain_timeout`] to end, what is left goes back to the store uncharged. Returns
    /// when no replica is left and every end is recorded.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut pools = JoinSet::new();
        let handle = self.handle();
        let first_look = first_look(handle.clone());
        tokio::pin!(first_look);
        let mut looking = true;
        let times = keep_times(handle.clone());
        tokio::pin!(times);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = &mut first_look, if looking => looking = false,
                () = &mut times => {}
                Some(pool) = self.new_pools.recv() => drop(pools.spawn(pool.run())),
                Some(app) = self.returned.recv() => handle.take_up(&app),
                Some(ended) = pools.join_next(), if !pools.is_empty() => report(ended),
            }
        }
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.cancel();
        self.new_pools.close();
        while let Some(pool) = self.new_pools.recv().await {
            pools.spawn(pool.run());
        }
        self.shared.pools.write().unwrap_or_else(PoisonError::into_inner).clear();
        while let Some(ended) = pools.join_next().await {
            report(ended);
        }
    }
}

/// A pool that panicked holds leases that nobody works on any more. Only a restart gives them back, so the
/// panic goes on to whoever runs the worker.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of an app's pool failed");
        if let Ok(panic) = error.try_into_panic() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Work that was queued before this process, and replicas that must always be there.
async fn first_look(handle: Handle) {
    let ports = Arc::clone(&handle.shared.ports);
    let backlog = until_it_answers(|| ports.runs.backlog()).await;
    for (app, runs) in backlog {
        tracing::info!(app.id = %app, runs, "found queued runs");
        handle.wake(&app, LOWEST);
    }
    let apps = until_it_answers(|| ports.registry.apps(None)).await;
    for app in apps {
        if app.live.as_ref().is_some_and(|live| live.config.min_replicas > 0) {
            handle.entry(&app.id, Some(&app));
        }
    }
}

/// Runs past their time to start end in the store; those that wait here go back to it. Runs whose time
/// has come are looked for at that very moment: no run waits for less than the pause between two looks.
async fn keep_times(handle: Handle) {
    let ports = Arc::clone(&handle.shared.ports);
    loop {
        let next = match ports.runs.ready(ports.clock.now()).await {
            Ok(ready) => {
                ready.apps.iter().for_each(|(app, priority)| handle.wake(app, *priority));
                ready.next
            }
            Err(error) => {
                tracing::warn!(%error, "could not look for runs whose time has come; trying again");
                None
            }
        };
        let until_next = next.map_or(LOOK_EVERY, |next| next.since(ports.clock.now()));
        tokio::time::sleep(until_next.clamp(SHORTEST_LOOK, LOOK_EVERY)).await;
        match ports.runs.expire(ports.clock.now()).await {
            Ok(late) => {
                if late.ended > 0 {
                    ports.outbox.wake();
                }
                for (app, run) in late.leased {
                    if let Some(entry) = handle.existing(&app) {
                        entry.give_back(run);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "could not look for runs that did not start in time"),
        }
    }
}

async fn until_it_answers<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => tracing::warn!(%error, "could not look for work; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Handle {
    fn existing(&self, app: &AppId) -> Option<Arc<Entry>> {
        self.shared.pools.read().unwrap_or_else(PoisonError::into_inner).get(app).cloned()
    }

    /// The app's pool, made if it is not there; `None` when the server is stopping.
    fn entry(&self, id: &AppId, app: Option<&Arc<App>>) -> Option<Arc<Entry>> {
        if let Some(entry) = self.existing(id) {
            return Some(entry);
        }
        let shared = &*self.shared;
        let _one_at_a_time = shared.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = self.existing(id) {
            return Some(entry);
        }
        if shared.stopping.load(Ordering::Acquire) {
            return None;
        }
        let (entry, pool) =
            Pool::new(id.clone(), app.map(|app| &**app), Arc::clone(&shared.ports), shared.stop.clone());
        shared.new_pools.send(pool).ok()?;
        let entry = Arc::new(entry);
        shared.pools.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), Arc::clone(&entry));
        Some(entry)
    }

    /// A run of an app that was deleted while it ran went back to the store: an app that has the name by
    /// now gets it. Without one it ends with the others that were queued.
    fn take_up(&self, app: &AppId) {
        // Kept before looking for a pool: one that is made meanwhile finds it.
        self.left_behind().insert(app.clone());
        if let Some(entry) = self.existing(app) {
            self.left_behind().remove(app);
            entry.waiting.wake(LOWEST);
        }
    }

    fn left_behind(&self) -> MutexGuard<'_, HashSet<AppId>> {
        self.shared.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reserved place in an app's memory.
struct Place {
    entry: Arc<Entry>,
    bytes: usize,
    now: Timestamp,
    filled: bool,
}

impl Slot for Place {
    fn hand_over(mut self: Box<Self>, run: LeasedRun) {
        self.filled = true;
        let now = self.now;
        self.entry.fill(run, self.bytes, || Outcome::failed(app_deleted(), 0.0, now));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.filled {
            self.entry.waiting.give_back(self.bytes);
        }
    }
}

/// Takes a call out of the queue when its caller goes away before a replica has it.
struct Caller {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    id: RunId,
    answered: bool,
}

impl Caller {
    /// Ends the call if no replica has it yet.
    fn withdraw(&mut self, code: Code, message: impl FnOnce() -> String) -> bool {
        let Some(waiting) = self.entry.waiting.remove_call(self.id) else { return false };
        self.answered = true;
        let outcome = Outcome::failed(RunError::new(code, message()), 0.0, self.shared.ports.clock.now());
        answer(&self.shared.ports, waiting, outcome, None);
        true
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if !self.answered {
            self.withdraw(Code::Cancelled, || "the caller went away before the call began".to_owned());
        }
    }
}

#[async_trait]
impl Dispatch for Handle {
    fn reserve(&self, app: &Arc<App>, bytes: usize) -> Option<Box<dyn Slot>> {
        let entry = self.entry(&app.id, Some(app))?;
        if !entry.waiting.reserve(bytes) {
            return None;
        }
        Some(Box::new(Place { entry, bytes, now: self.shared.ports.clock.now(), filled: false }))
    }

    fn wake(&self, app: &AppId, priority: i8) {
        if let Some(entry) = self.entry(app, None) {
            entry.waiting.wake(priority);
        }
    }

    fn cancel(&self, app: &AppId, run: RunId) {
        // Without a pool nothing of the app is on its way.
        if let Some(entry) = self.existing(app) {
            entry.cancel(run);
        }
        let retired = self.shared.retired.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, mailbox) in retired.iter().filter(|(of, _)| of == app) {
            let _ = mailbox.send(Message::Cancel(run));
        }
    }

    async fn call(&self, call: Call) -> Result<Outcome, Refused> {
        let entry = self.entry(&call.app.id, Some(&call.app)).ok_or(Refused::Stopping)?;
        let (id, limit) = (call.id, call.limit);
        let waited = self.shared.ports.clock.now().since(call.accepted_at);
        let deadline = Instant::now() + limit.saturating_sub(waited).min(FAR);
        let (reply, mut outcome) = oneshot::channel();
        entry.waiting.push_call(WaitingCall { call, reply, deadline })?;
        let mut caller = Caller { shared: Arc::clone(&self.shared), entry, id, answered: false };
        let mut outcome = match tokio::time::timeout_at(deadline, &mut outcome).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // If it still waits it ends here; else its replica ends it about now.
                let waits_for = caller.entry.waits_for();
                caller.withdraw(Code::Timeout, || {
                    let why = waits_for.map_or_else(String::new, |why| format!(": {why}"));
                    format!("no replica was free within {} s{why}; {WAY_OUT}", limit.as_secs_f64())
                });
                outcome.await
            }
        };
        caller.answered = true;
        if outcome.is_err() {
            let error =
                RunError::new(Code::Interrupted, "the server stopped before the call ended; try again");
            outcome = Ok(Outcome::failed(error, 0.0, self.shared.ports.clock.now()));
        }
        outcome.map_err(|_| Refused::Stopping)
    }
}

#[async_trait]
impl Replicas for Handle {
    async fn start_first(&self, build: &Build) -> Result<Vec<Function>, StartFailure> {
        let stopping = || StartFailure {
            status: BuildStatus::InitFailure,
            error: RunError::new(Code::Interrupted, "the server is shutting down; deploy again"),
        };
        let entry = self.entry(&build.app, None).ok_or_else(stopping)?;
        let (reply, functions) = oneshot::channel();
        entry.tell(Message::StartFirst { build: Arc::new(build.clone()), reply });
        functions.await.unwrap_or_else(|_| {
            if self.shared.stopping.load(Ordering::Acquire) {
                return Err(stopping());
            }
            let error = RunError::new(Code::Cancelled, "the build was given up");
            Err(StartFailure { status: BuildStatus::Cancelled, error })
        })
    }

    fn switch(&self, app: &Arc<App>) {
        if let Some(entry) = self.entry(&app.id, Some(app)) {
            entry.tell(Message::Switch(Arc::clone(app)));
            if self.left_behind().remove(&app.id) {
                entry.waiting.wake(LOWEST);
            }
        }
    }

    fn discard(&self, build: &BuildId) {
        let pools = self.shared.pools.read().unwrap_or_else(PoisonError::into_inner);
        for entry in pools.values() {
            entry.tell(Message::Discard(build.clone()));
        }
    }

    fn restart(&self, app: &AppId) {
        // Without a pool there is no replica.
        if let Some(entry) = self.existing(app) {
            entry.tell(Message::Restart);
        }
    }

    fn retire(&self, app: &AppId) {
        // An app of the same name that comes later gets a pool of its own.
        let mut pools = self.shared.pools.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = pools.remove(app) else { return };
        drop(pools);
        entry.tell(Message::Retire);
        let mut retired = self.shared.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|(_, mailbox)| !mailbox.is_closed());
        retired.push((app.clone(), entry.mailbox()));
    }

    fn count(&self, app: &AppId) -> usize {
        self.existing(app).map_or(0, |entry| entry.count())
    }

    async fn list(&self, app: &AppId) -> Vec<ReplicaView> {
        let Some(entry) = self.existing(app) else { return Vec::new() };
        listed(|message| entry.tell(message)).await
    }

    fn builds_in_use(&self, app: &AppId) -> Vec<BuildId> {
        self.existing(app).map_or_else(Vec::new, |entry| entry.builds())
    }

    fn hardware(&self) -> Hardware {
        self.shared.ports.gpus.hardware()
    }

    fn waits_for(&self, app: &AppId) -> Option<String> {
        self.existing(app).and_then(|entry| entry.waits_for())
    }
}
