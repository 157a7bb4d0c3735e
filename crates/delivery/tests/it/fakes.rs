//! Neighbours that live in memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use delivery::{Engine, Handle, Options, Resolve, ResolveError, Rules};
use queue::app::{AppConfig, Function};
use queue::clock::{Clock, Entropy, Timestamp};
use queue::delivery::{
    AttemptEnd, DeliveryFilter, DeliveryState, DeliveryView, DueDelivery, Enabled, EndpointView, Endpoints,
    Redelivered,
};
use queue::id::{AppId, BuildId, DeliveryId, EndpointId, InboxId, ProjectId, RunId};
use queue::inbox::{CapturedRequest, Inbox, InboxChange, Recorded};
use queue::port::{Deliveries, Inboxes, Registry, Room, StoreError, Stored};
use queue::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, NewBuild, NewProject, Prepared, Project, Rotated,
};
use queue::run::{EndpointUrl, Receiver};
use queue::signature::WebhookSecret;
use queue::webhook::Schedule;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const INBOX: &str = "0123456789abcdef0123456789abcdef";

/// The wall clock, and what a test adds to it.
#[derive(Default)]
pub(crate) struct WallClock {
    ahead: AtomicI64,
}

impl WallClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for WallClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ahead = self.ahead.load(Ordering::SeqCst);
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap() + ahead)
    }
}

/// No jitter.
pub(crate) struct NoChance;

impl Entropy for NoChance {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// Deliveries as a store would keep them.
#[derive(Default)]
pub(crate) struct Shelf {
    rows: Mutex<Vec<Row>>,
    pub(crate) ends: Mutex<Vec<AttemptEnd>>,
    pub(crate) changed: Notify,
    pub(crate) begins: AtomicUsize,
    /// Answers to `begin` that fail before it works.
    pub(crate) broken: AtomicUsize,
}

struct Row {
    id: DeliveryId,
    url: EndpointUrl,
    receiver: Receiver,
    state: DeliveryState,
    due_at: Timestamp,
    attempt: u32,
    schedule: Option<Schedule>,
    body: Bytes,
    large_bytes: usize,
}

impl Row {
    fn due(&self) -> DueDelivery {
        DueDelivery {
            id: self.id,
            project: project(),
            url: self.url.clone(),
            attempt: self.attempt,
            step: self.attempt,
            schedule: self.schedule.clone(),
            body: self.body.clone(),
            thin: false,
            large_bytes: self.large_bytes,
            caller_secret: None,
            headers: None,
        }
    }
}

pub(crate) fn project() -> ProjectId {
    "p-12345678".parse().unwrap()
}

impl Shelf {
    /// Puts a delivery there, due now.
    pub(crate) fn put(&self, url: &str) -> DeliveryId {
        self.put_row(url, None)
    }

    /// The same with a body, whose result has so many bytes if it is a large one. Who looks meanwhile must not find
    /// it with another.
    pub(crate) fn put_with(&self, url: &str, body: Bytes, large_bytes: usize) -> DeliveryId {
        self.put_row(url, Some((body, large_bytes)))
    }

    fn put_row(&self, url: &str, body: Option<(Bytes, usize)>) -> DeliveryId {
        let mut rows = self.rows.lock().unwrap();
        let number = u128::try_from(rows.len()).unwrap();
        let id = DeliveryId::outcome(RunId::from_bytes(number.to_be_bytes()), 0);
        let url = EndpointUrl::checked(url);
        let (body, large_bytes) = body.unwrap_or_else(|| {
            let body = format!(r#"{{"run_id":"{}","result":{{"big":12345678901234567890}}}}"#, id.run);
            (body.into(), 0)
        });
        rows.push(Row {
            id,
            receiver: url.receiver(),
            url,
            state: DeliveryState::Pending,
            due_at: Timestamp::from_millis(0),
            attempt: 0,
            schedule: None,
            body,
            large_bytes,
        });
        id
    }

    /// Puts a delivery there whose first attempt is recorded already, as `finish` does.
    pub(crate) fn put_begun(&self, url: &str) -> DueDelivery {
        let id = self.put(url);
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.id == id).unwrap();
        row.state = DeliveryState::Sending;
        row.attempt = 1;
        row.due()
    }

    /// Gives a delivery a schedule of its run's own.
    pub(crate) fn schedule(&self, id: DeliveryId, schedule: &str) {
        let mut rows = self.rows.lock().unwrap();
        rows.iter_mut().find(|row| row.id == id).unwrap().schedule = schedule.parse().ok();
    }

    pub(crate) fn state(&self, id: DeliveryId) -> DeliveryState {
        self.rows.lock().unwrap().iter().find(|row| row.id == id).unwrap().state
    }

    pub(crate) fn count(&self, state: DeliveryState) -> usize {
        self.rows.lock().unwrap().iter().filter(|row| row.state == state).count()
    }

    /// How each attempt of a delivery ended, in order.
    pub(crate) fn ends_of(&self, id: DeliveryId) -> Vec<AttemptEnd> {
        self.ends.lock().unwrap().iter().filter(|end| end.id == id).cloned().collect()
    }

    /// Hands a delivery out once more, as after a crash that lost its attempt's record.
    pub(crate) fn put_back(&self, id: DeliveryId, attempt: u32) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.id == id).unwrap();
        (row.state, row.attempt) = (DeliveryState::Sending, attempt);
    }

    /// Waits for `enough`, which is asked after every change.
    pub(crate) async fn wait_until(&self, enough: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if enough(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the shelf got there in time");
    }

    /// The first attempt's end of a delivery.
    pub(crate) async fn first_end(&self, id: DeliveryId) -> AttemptEnd {
        self.wait_until(|shelf| !shelf.ends_of(id).is_empty()).await;
        self.ends_of(id).remove(0)
    }
}

#[async_trait]
impl Deliveries for Shelf {
    async fn begin(&self, now: Timestamp, room: Room) -> Stored<Vec<DueDelivery>> {
        self.begins.fetch_add(1, Ordering::SeqCst);
        if self.broken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(StoreError::Unavailable("a test said so".into()));
        }
        // As long as a commit, so that others act meanwhile.
        tokio::task::yield_now().await;
        let mut used: HashMap<Receiver, usize> = HashMap::new();
        let mut begun = Vec::new();
        let mut bytes = room.bytes;
        for row in self.rows.lock().unwrap().iter_mut() {
            if begun.len() == room.total {
                break;
            }
            let places = room.receivers.get(&row.receiver).copied().unwrap_or(room.per_receiver);
            let used = used.entry(row.receiver.clone()).or_default();
            let large = row.large_bytes;
            if row.state == DeliveryState::Pending && row.due_at <= now && *used < places && large <= bytes {
                bytes -= large;
                *used += 1;
                row.state = DeliveryState::Sending;
                row.attempt += 1;
                begun.push(row.due());
            }
        }
        Ok(begun)
    }

    fn complete(&self, end: AttemptEnd) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.id == end.id).unwrap();
        assert_eq!((row.state, row.attempt), (DeliveryState::Sending, end.attempt), "an attempt ends once");
        row.state = end.verdict.state();
        if let Some(at) = end.verdict.again_at() {
            row.due_at = at;
        }
        self.ends.lock().unwrap().push(end);
        drop(rows);
        self.changed.notify_waiters();
    }

    async fn next_due(&self, room: Room) -> Stored<Option<Timestamp>> {
        let rows = self.rows.lock().unwrap();
        let open = |row: &&Row| {
            row.state == DeliveryState::Pending
                && room.receivers.get(&row.receiver).copied().unwrap_or(room.per_receiver) > 0
        };
        Ok(rows.iter().filter(open).map(|row| row.due_at).min())
    }

    async fn delivery(&self, _: &ProjectId, _: DeliveryId) -> Stored<Option<DeliveryView>> {
        unreachable!("{ELSEWHERE}")
    }

    async fn deliveries(&self, _: DeliveryFilter) -> Stored<Vec<DeliveryView>> {
        unreachable!("{ELSEWHERE}")
    }

    async fn redeliver(&self, _: &ProjectId, _: DeliveryId) -> Stored<Redelivered> {
        unreachable!("{ELSEWHERE}")
    }

    async fn redeliver_failed(&self, _: &ProjectId, _: Endpoints, _: Timestamp) -> Stored<u64> {
        unreachable!("{ELSEWHERE}")
    }

    async fn endpoints(&self, _: &ProjectId) -> Stored<Vec<EndpointView>> {
        unreachable!("{ELSEWHERE}")
    }

    async fn set_body_limit(&self, _: &ProjectId, _: EndpointUrl, _: Option<u64>) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }

    async fn disable(&self, _: &ProjectId, _: EndpointUrl) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }

    async fn enable(&self, _: &ProjectId, _: &EndpointId) -> Stored<Enabled> {
        unreachable!("{ELSEWHERE}")
    }
}

/// One project and one inbox.
pub(crate) struct House;

const ELSEWHERE: &str = "delivery asks for nothing else";

#[async_trait]
impl Registry for House {
    async fn create_project(&self, _: NewProject) -> Stored<()> {
        unreachable!("{ELSEWHERE}")
    }
    async fn projects(&self) -> Stored<Vec<Project>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn project(&self, id: &ProjectId) -> Stored<Option<Project>> {
        Ok((*id == project()).then(|| Project {
            id: id.clone(),
            webhook_secrets: vec![WebhookSecret::in_force(SECRET.into(), Timestamp::default())],
            webhook_keys: Vec::new(),
            sign_v1a: false,
            token_secret: Vec::new(),
            created_at: Timestamp::default(),
        }))
    }
    async fn identify(&self, _: &KeyHash) -> Stored<Option<Identity>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn rotate_keys(&self, _: &ProjectId, _: FreshKeys) -> Stored<Rotated> {
        unreachable!("{ELSEWHERE}")
    }
    async fn sign_v1a(&self, _: &ProjectId, _: bool, _: String) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }
    async fn app(&self, _: &AppId) -> Stored<Option<Arc<App>>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn apps(&self, _: Option<&ProjectId>) -> Stored<Vec<Arc<App>>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn register_build(&self, _: NewBuild) -> Stored<Build> {
        unreachable!("{ELSEWHERE}")
    }
    async fn build(&self, _: &BuildId) -> Stored<Option<Build>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn set_build_status(&self, _: &BuildId, _: BuildStatus, _: Option<Prepared>) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }
    async fn activate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn reconfigure(&self, _: &AppId, _: AppConfig) -> Stored<Option<Arc<App>>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn delete_app(&self, _: &AppId) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }
    async fn reactivate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        unreachable!("{ELSEWHERE}")
    }

    async fn builds(&self, _: &AppId, _: usize) -> Stored<Vec<Build>> {
        unreachable!("{ELSEWHERE}")
    }

    async fn unfinished_builds(&self) -> Stored<Vec<Build>> {
        unreachable!("{ELSEWHERE}")
    }
}

#[async_trait]
impl Inboxes for House {
    async fn create_inbox(&self, _: Inbox) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }
    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>> {
        Ok((id.as_str() == INBOX).then(|| Inbox {
            id: id.clone(),
            project: project(),
            view_token: String::new(),
            created_at: Timestamp::default(),
            name: None,
            expires_at: None,
            reply: None,
        }))
    }
    async fn inboxes(&self, _: &ProjectId) -> Stored<Vec<Inbox>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn change_inbox(&self, _: &InboxId, _: InboxChange) -> Stored<Option<Inbox>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn delete_inbox(&self, _: &InboxId) -> Stored<bool> {
        unreachable!("{ELSEWHERE}")
    }
    async fn record(&self, _: &InboxId, _: CapturedRequest) -> Stored<Recorded> {
        unreachable!("{ELSEWHERE}")
    }
    async fn requests(&self, _: &InboxId, _: i64, _: usize) -> Stored<Vec<CapturedRequest>> {
        unreachable!("{ELSEWHERE}")
    }
    async fn requests_before(&self, _: &InboxId, _: i64, _: usize, _: usize) -> Stored<Vec<CapturedRequest>> {
        unreachable!("{ELSEWHERE}")
    }
}

/// What names mean: each look-up takes the next answer, the last one stays.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) answers: Mutex<HashMap<&'static str, Vec<Answer>>>,
    pub(crate) asked: AtomicUsize,
}

#[derive(Clone)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    Nothing,
    Shortage,
    Silence,
}

impl Names {
    pub(crate) fn say(&self, name: &'static str, answers: &[&[&str]]) {
        let parse = |list: &&[&str]| Answer::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect());
        self.answers.lock().unwrap().insert(name, answers.iter().map(parse).collect());
    }

    pub(crate) fn say_nothing(&self, name: &'static str, answer: Answer) {
        self.answers.lock().unwrap().insert(name, vec![answer]);
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            match answers.get_mut(name) {
                Some(list) if list.len() > 1 => list.remove(0),
                Some(list) => list[0].clone(),
                None => Answer::Nothing,
            }
        };
        match answer {
            Answer::Addresses(addresses) => Ok(addresses),
            Answer::Nothing => Err(ResolveError::Unresolved("no such name".into())),
            Answer::Shortage => Err(ResolveError::Shortage("too many open files".into())),
            Answer::Silence => std::future::pending().await,
        }
    }
}

/// An engine among these neighbours, stopped when it is dropped.
pub(crate) struct World {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) names: Arc<Names>,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) handle: Handle,
    pub(crate) stop: CancellationToken,
    pub(crate) running: tokio::task::JoinHandle<()>,
}

impl World {
    /// Loopback may be called; an attempt has two seconds.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let names = Arc::new(Names::default());
        let resolver: Arc<dyn Resolve> = Arc::clone(&names) as _;
        let mut options = Options {
            rules: Rules { allow_private: vec!["127.0.0.0/8".parse().unwrap()], ..Rules::default() },
            attempt_limit: Duration::from_secs(2),
            resolver: Some(resolver),
            ..Options::default()
        };
        change(&mut options);
        let shelf = Arc::new(Shelf::default());
        let deliveries: Arc<dyn Deliveries> = Arc::clone(&shelf) as _;
        let clock = Arc::new(WallClock::default());
        let (engine, handle) = Engine::new(
            options,
            deliveries,
            Arc::new(House),
            Arc::new(House),
            Arc::clone(&clock) as _,
            Arc::new(NoChance),
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(engine.run(stop.clone()));
        Self { shelf, names, clock, handle, stop, running }
    }

    /// Puts a delivery on the shelf and tells the engine.
    pub(crate) fn deliver(&self, url: &str) -> DeliveryId {
        use queue::port::Outbox as _;
        let id = self.shelf.put(url);
        self.handle.wake();
        id
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
