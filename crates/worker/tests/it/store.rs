//! A store in memory that keeps the promises of the ports and remembers everything it was told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use queue::app::{AppConfig, Function};
use queue::delivery::DueDelivery;
use queue::event::{AppEvent, StoredEvent};
use queue::id::DeliveryId;
use queue::lease::{Lease, Release, Released};
use queue::limits::CRASHES_MAX;
use queue::log::{LogLine, LogQuery, StoredLine};
use queue::outcome::{Cancellation, Code, Expired, Finish, Finished, Outcome, RunError};
use queue::port::{
    Accepted, AppEvents, Claim, Departure, Logs, Outbox, Registry, Runs, Secrets, StoreError, Stored,
};
use queue::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, NewBuild, NewProject, Prepared, Project, Rotated,
    SecretChange,
};
use queue::run::{CallRecord, EndpointUrl, LeasedRun, NewRun, Ready, RunFilter, RunList, RunView};
use queue::{AppId, BuildId, Clock, Entropy, LeaseToken, ProjectId, RunId, Timestamp};

#[derive(Default)]
struct State {
    queued: VecDeque<LeasedRun>,
    leased: HashMap<RunId, LeasedRun>,
    ended: HashMap<RunId, Outcome>,
    crash_loops: Vec<RunId>,
    late: Vec<(AppId, RunId)>,
    retried: Vec<(RunId, Code)>,
    delayed: Vec<(Timestamp, LeasedRun)>,
    releases: Vec<(RunId, Release)>,
    started: Vec<RunId>,
    calls: Vec<CallRecord>,
    first_attempts: Vec<bool>,
    stale: usize,
    claims: usize,
    refuse: usize,
    apps: HashMap<AppId, Arc<App>>,
    lines: Vec<LogLine>,
    events: Vec<AppEvent>,
    sent: Vec<DueDelivery>,
    wakes: usize,
    told: Vec<queue::progress::Progress>,
    secrets: BTreeMap<String, String>,
}

#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    tokens: AtomicU64,
    /// No receiver has a place free.
    pub(crate) full_outbox: AtomicBool,
    /// Whoever tells of a start next is taken down.
    pub(crate) poisoned_start: AtomicBool,
}

impl Memory {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn token(&self) -> LeaseToken {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(1 + self.tokens.fetch_add(1, Ordering::Relaxed)).to_le_bytes());
        LeaseToken::from_bytes(bytes)
    }

    /// Queues a run, as the gateway does when memory has no place for it.
    pub(crate) fn queue(&self, run: LeasedRun) {
        let mut state = self.state();
        let at = state.queued.partition_point(|other| other.priority >= run.priority);
        state.queued.insert(at, run);
    }

    /// Queues a run that is to start later.
    pub(crate) fn delay(&self, run: LeasedRun, not_before: Timestamp) {
        self.state().delayed.push((not_before, run));
    }

    /// Leases a run for the short way through memory.
    pub(crate) fn lease(&self, mut run: LeasedRun) -> LeasedRun {
        run.lease.token = self.token();
        run.lease.attempt = 1;
        self.state().leased.insert(run.lease.run, run.clone());
        run
    }

    /// The lease of a run is taken by somebody else.
    pub(crate) fn steal(&self, run: RunId) {
        let token = self.token();
        if let Some(leased) = self.state().leased.get_mut(&run) {
            leased.lease.token = token;
        }
    }

    pub(crate) fn put_app(&self, app: Arc<App>) {
        self.state().apps.insert(app.id.clone(), app);
    }

    /// The next writes fail.
    pub(crate) fn refuse(&self, writes: usize) {
        self.state().refuse = writes;
    }

    pub(crate) fn outcome(&self, run: RunId) -> Option<Outcome> {
        self.state().ended.get(&run).cloned()
    }

    pub(crate) fn ended(&self) -> usize {
        self.state().ended.len()
    }

    pub(crate) fn releases(&self) -> Vec<(RunId, Release)> {
        self.state().releases.clone()
    }

    /// The run should have started by now.
    pub(crate) fn is_late(&self, app: AppId, run: RunId) {
        self.state().late.push((app, run));
    }

    pub(crate) fn retried(&self) -> Vec<(RunId, Code)> {
        self.state().retried.clone()
    }

    pub(crate) fn crash_loops(&self) -> Vec<RunId> {
        self.state().crash_loops.clone()
    }

    /// What runs told on their way.
    pub(crate) fn told(&self) -> Vec<queue::progress::Progress> {
        self.state().told.clone()
    }

    pub(crate) fn started_runs(&self) -> Vec<RunId> {
        self.state().started.clone()
    }

    pub(crate) fn recorded_calls(&self) -> Vec<CallRecord> {
        self.state().calls.clone()
    }

    pub(crate) fn queued(&self) -> usize {
        self.state().queued.len()
    }

    pub(crate) fn leased(&self) -> usize {
        self.state().leased.len()
    }

    pub(crate) fn stale(&self) -> usize {
        self.state().stale
    }

    pub(crate) fn claims(&self) -> usize {
        self.state().claims
    }

    pub(crate) fn sent(&self) -> Vec<DueDelivery> {
        self.state().sent.clone()
    }

    pub(crate) fn wakes(&self) -> usize {
        self.state().wakes
    }

    pub(crate) fn first_attempts(&self) -> Vec<bool> {
        self.state().first_attempts.clone()
    }

    pub(crate) fn events(&self) -> Vec<AppEvent> {
        self.state().events.clone()
    }

    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.state().lines.clone()
    }

    fn may_write(state: &mut State) -> Stored<()> {
        if state.refuse == 0 {
            return Ok(());
        }
        state.refuse -= 1;
        Err(StoreError::Unavailable("the disk is full".to_owned()))
    }
}

#[async_trait]
impl Runs for Memory {
    async fn accept(&self, _: NewRun, _: Claim) -> Stored<Accepted> {
        unreachable!("the gateway accepts")
    }

    async fn claim(&self, app: &AppId, max: usize, bytes_max: usize) -> Stored<Vec<LeasedRun>> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        state.claims += 1;
        let mut claimed = Vec::new();
        let mut bytes = 0;
        let mut left = VecDeque::new();
        while let Some(mut run) = state.queued.pop_front() {
            bytes += run.input.len();
            if &run.app != app || claimed.len() == max || (bytes > bytes_max && !claimed.is_empty()) {
                left.push_back(run);
                continue;
            }
            run.lease.token = self.token();
            run.lease.attempt += 1;
            state.leased.insert(run.lease.run, run.clone());
            claimed.push(run);
        }
        state.queued = left;
        Ok(claimed)
    }

    fn progress(&self, told: queue::progress::Progress) {
        assert!(!self.poisoned_start.swap(false, Ordering::Relaxed), "a start that takes its teller down");
        self.state().told.push(told);
    }

    fn started(&self, leases: Vec<Lease>) {
        self.state().started.extend(leases.iter().map(|lease| lease.run));
    }

    async fn finish(&self, finish: Finish) -> Stored<Finished> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        Self::may_write(&mut state)?;
        let run = finish.lease.run;
        match state.leased.get(&run) {
            Some(leased) if leased.lease.token == finish.lease.token => {}
            _ => {
                state.stale += 1;
                return Ok(Finished::Stale);
            }
        }
        let leased = state.leased.remove(&run).unwrap();
        assert!(state.ended.insert(run, finish.outcome).is_none(), "a run ended twice");
        state.first_attempts.extend(&finish.first_attempts);
        let due = leased.webhooks.iter().zip(0..).zip(finish.first_attempts);
        let due = due.filter(|(_, first)| *first).map(|((url, index), _)| DueDelivery {
            thin: false,
            id: DeliveryId::outcome(run, index),
            project: leased.app.project(),
            url: url.clone(),
            attempt: 1,
            step: 1,
            schedule: None,
            body: bytes::Bytes::new(),
            large_bytes: 0,
            caller_secret: None,
            headers: None,
        });
        Ok(Finished::Recorded(due.collect()))
    }

    async fn cancel(&self, _: &ProjectId, _: RunId) -> Stored<Cancellation> {
        unreachable!("the gateway cancels")
    }

    async fn expire(&self, _: Timestamp) -> Stored<Expired> {
        Ok(Expired { ended: 0, leased: std::mem::take(&mut self.state().late) })
    }

    async fn ready(&self, now: Timestamp) -> Stored<Ready> {
        let delayed = std::mem::take(&mut self.state().delayed);
        let (due, left): (Vec<_>, Vec<_>) = delayed.into_iter().partition(|(at, _)| *at <= now);
        let apps = due.iter().map(|(_, run)| (run.app.clone(), run.priority)).collect();
        due.into_iter().for_each(|(_, run)| self.queue(run));
        let next = left.iter().map(|(at, _)| *at).min();
        self.state().delayed.extend(left);
        Ok(Ready { apps, next })
    }

    async fn retry(&self, lease: Lease, error: RunError) -> Stored<Released> {
        let mut state = self.state();
        Self::may_write(&mut state)?;
        let Some(mut run) = state.leased.remove(&lease.run) else { return Ok(Released::Stale) };
        run.failures += 1;
        state.retried.push((lease.run, error.code));
        // The store makes it wait; here it is due at the next look.
        state.delayed.push((Timestamp::default(), run));
        Ok(Released::Queued)
    }

    async fn release(&self, lease: Lease, release: Release) -> Stored<Released> {
        tokio::task::yield_now().await;
        let mut state = self.state();
        Self::may_write(&mut state)?;
        state.releases.push((lease.run, release));
        let Some(mut run) = state.leased.remove(&lease.run) else { return Ok(Released::Stale) };
        run.crashes += u32::from(release.is_death());
        if run.crashes >= CRASHES_MAX {
            state.crash_loops.push(lease.run);
            return Ok(Released::Ended(Code::CrashLoop));
        }
        state.queued.push_back(run);
        Ok(Released::Queued)
    }

    fn record_call(&self, call: CallRecord) {
        self.state().calls.push(call);
    }

    async fn run(&self, _: &ProjectId, _: RunId) -> Stored<Option<RunView>> {
        Ok(None)
    }

    async fn input(&self, project: &ProjectId, run: RunId) -> Stored<Option<bytes::Bytes>> {
        unreachable!("the dashboard asks: {project} {run}")
    }

    async fn removed(&self, project: &ProjectId, run: RunId) -> Stored<Option<Timestamp>> {
        unreachable!("the gateway asks: {project} {run}")
    }

    async fn runs(&self, _: RunFilter) -> Stored<RunList> {
        Ok(RunList::default())
    }

    async fn wait_for_end(&self, _: RunId, _: Duration) {}

    async fn backlog(&self) -> Stored<Vec<(AppId, u64)>> {
        let mut state = self.state();
        Self::may_write(&mut state)?;
        let mut counts = HashMap::<AppId, u64>::new();
        for run in &state.queued {
            *counts.entry(run.app.clone()).or_default() += 1;
        }
        Ok(counts.into_iter().collect())
    }
}

#[async_trait]
impl Secrets for Memory {
    async fn secret_names(&self, _: &ProjectId, _: Option<&AppId>) -> Stored<Vec<String>> {
        Ok(self.state().secrets.keys().cloned().collect())
    }

    async fn change_secrets(&self, _: &ProjectId, _: Option<&AppId>, change: SecretChange) -> Stored<bool> {
        self.state().secrets.extend(change.set);
        Ok(true)
    }

    async fn secrets_of(&self, _: &AppId) -> Stored<BTreeMap<String, String>> {
        Ok(self.state().secrets.clone())
    }
}

#[async_trait]
impl Registry for Memory {
    async fn create_project(&self, _: NewProject) -> Stored<()> {
        Ok(())
    }

    async fn projects(&self) -> Stored<Vec<Project>> {
        Ok(Vec::new())
    }

    async fn project(&self, _: &ProjectId) -> Stored<Option<Project>> {
        Ok(None)
    }

    async fn identify(&self, _: &KeyHash) -> Stored<Option<Identity>> {
        Ok(None)
    }

    async fn rotate_keys(&self, _: &ProjectId, _: FreshKeys) -> Stored<Rotated> {
        Ok(Rotated::Done)
    }
    async fn sign_v1a(&self, _: &ProjectId, _: bool, _: String) -> Stored<bool> {
        Ok(true)
    }

    async fn app(&self, id: &AppId) -> Stored<Option<Arc<App>>> {
        Ok(self.state().apps.get(id).cloned())
    }

    async fn apps(&self, _: Option<&ProjectId>) -> Stored<Vec<Arc<App>>> {
        Ok(self.state().apps.values().cloned().collect())
    }

    async fn register_build(&self, _: NewBuild) -> Stored<Build> {
        unreachable!("the gateway registers builds")
    }

    async fn build(&self, _: &BuildId) -> Stored<Option<Build>> {
        Ok(None)
    }

    async fn set_build_status(&self, _: &BuildId, _: BuildStatus, _: Option<Prepared>) -> Stored<bool> {
        Ok(false)
    }

    async fn activate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        Ok(None)
    }

    async fn reconfigure(&self, _: &AppId, _: AppConfig) -> Stored<Option<Arc<App>>> {
        Ok(None)
    }

    async fn delete_app(&self, _: &AppId) -> Stored<bool> {
        Ok(false)
    }

    async fn reactivate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        Ok(None)
    }

    async fn builds(&self, _: &AppId, _: usize) -> Stored<Vec<Build>> {
        Ok(Vec::new())
    }

    async fn unfinished_builds(&self) -> Stored<Vec<Build>> {
        Ok(Vec::new())
    }
}

/// A line that makes the task panic that keeps it.
pub(crate) const POISON: &str = "poison";

#[async_trait]
impl Logs for Memory {
    fn append(&self, lines: Vec<LogLine>) {
        assert!(!lines.iter().any(|line| line.text == POISON), "a line that takes its reader down");
        self.state().lines.extend(lines);
    }

    async fn read(&self, _: LogQuery) -> Stored<Vec<StoredLine>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl AppEvents for Memory {
    fn note(&self, event: AppEvent) {
        self.state().events.push(event);
    }

    async fn events(&self, _: &AppId, _: Option<i64>, _: usize) -> Stored<Vec<StoredEvent>> {
        Ok(Vec::new())
    }
}

/// The way to deliveries, which remembers what was sent.
pub(crate) struct Tray(pub(crate) Arc<Memory>);

struct Place(Arc<Memory>);

impl Outbox for Tray {
    fn reserve(&self, _: &EndpointUrl, _: usize) -> Option<Box<dyn Departure>> {
        let full = self.0.full_outbox.load(Ordering::Relaxed);
        (!full).then(|| Box::new(Place(Arc::clone(&self.0))) as Box<dyn Departure>)
    }

    fn wake(&self) {
        self.0.state().wakes += 1;
    }
}

impl Departure for Place {
    fn send(self: Box<Self>, due: DueDelivery) {
        self.0.state().sent.push(due);
    }
}

pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the tests' clock is the real one")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
    }
}

/// Counts up: ids differ, and that is all they must.
pub(crate) struct Counting(AtomicU64);

impl Default for Counting {
    /// Far from where another process begins: ports are drawn from here, and these tests may run several times at once.
    fn default() -> Self {
        Self(AtomicU64::new(u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (byte, value) in bytes.iter_mut().rev().zip(number.iter().rev().chain(std::iter::repeat(&0))) {
            *byte = *value;
        }
    }
}
