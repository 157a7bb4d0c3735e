//! The ports in memory, and a room over them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use inbox::{InboxRoom, Options};
use queue::app::{AppConfig, Function};
use queue::inbox::{CapturedRequest, Inbox, InboxChange, Recorded};
use queue::port::{Inboxes, Registry, StoreError, Stored};
use queue::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, NewBuild, NewProject, Prepared, Project, Rotated,
};
use queue::signature::WebhookSecret;
use queue::{AppId, BuildId, Clock, Entropy, InboxId, ProjectId, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const TOKEN: &str = "the-view-token";
/// Replaced by the other one, and good for an hour still.
pub(crate) const FORMER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// 2026-01-31T12:00:00Z
pub(crate) const NOON: Timestamp = Timestamp::from_millis(1_769_860_800_000);

/// A store of inboxes in memory. `commits` has a permit for each write that may become durable.
pub(crate) struct Memory {
    pub(crate) inboxes: Mutex<HashMap<InboxId, Inbox>>,
    pub(crate) requests: Mutex<Vec<CapturedRequest>>,
    pub(crate) commits: Semaphore,
    pub(crate) broken: AtomicBool,
    /// How many seconds it is past noon.
    pub(crate) past_noon: AtomicU64,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        let inbox = Inbox {
            id: ID.parse().expect("32 digits"),
            project: "p-12345678".parse().expect("a project id"),
            view_token: TOKEN.into(),
            created_at: NOON,
            name: None,
            expires_at: None,
            reply: None,
        };
        Arc::new(Self {
            inboxes: Mutex::new(HashMap::from([(inbox.id.clone(), inbox)])),
            requests: Mutex::default(),
            commits: Semaphore::new(1 << 20),
            broken: AtomicBool::new(false),
            past_noon: AtomicU64::new(0),
        })
    }

    fn check(&self) -> Stored<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the disk is full".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Inboxes for Memory {
    async fn create_inbox(&self, inbox: Inbox) -> Stored<bool> {
        self.inboxes.lock().expect("lock").insert(inbox.id.clone(), inbox);
        Ok(true)
    }

    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>> {
        Ok(self.inboxes.lock().expect("lock").get(id).cloned())
    }

    async fn inboxes(&self, _: &ProjectId) -> Stored<Vec<Inbox>> {
        Ok(self.inboxes.lock().expect("lock").values().cloned().collect())
    }

    async fn change_inbox(&self, _: &InboxId, _: InboxChange) -> Stored<Option<Inbox>> {
        Err(unused())
    }

    async fn delete_inbox(&self, id: &InboxId) -> Stored<bool> {
        Ok(self.inboxes.lock().expect("lock").remove(id).is_some())
    }

    /// Counts all requests for the script.
    async fn record(&self, _: &InboxId, mut request: CapturedRequest) -> Stored<Recorded> {
        self.check()?;
        self.commits.acquire().await.expect("never closed").forget();
        let mut requests = self.requests.lock().expect("lock");
        request.sequence = requests.last().map_or(1, |last| last.sequence + 1);
        requests.push(request.clone());
        Ok(Recorded { sequence: request.sequence, place: requests.len() as u64 - 1 })
    }

    async fn requests(&self, _: &InboxId, after: i64, limit: usize) -> Stored<Vec<CapturedRequest>> {
        self.check()?;
        let requests = self.requests.lock().expect("lock");
        Ok(requests.iter().filter(|request| request.sequence > after).take(limit).cloned().collect())
    }

    async fn requests_before(
        &self,
        _: &InboxId,
        before: i64,
        limit: usize,
        _: usize,
    ) -> Stored<Vec<CapturedRequest>> {
        self.check()?;
        let requests = self.requests.lock().expect("lock");
        let older = requests.iter().rev().filter(|request| request.sequence < before);
        Ok(older.take(limit).cloned().collect())
    }
}

/// A registry with the one project.
pub(crate) struct OneProject;

fn unused() -> StoreError {
    StoreError::Unavailable("an inbox asks for projects only".into())
}

#[async_trait]
impl Registry for OneProject {
    async fn project(&self, id: &ProjectId) -> Stored<Option<Project>> {
        let until = NOON.plus(Duration::from_secs(3_600));
        let former =
            WebhookSecret { secret: FORMER_SECRET.into(), created_at: NOON, expires_at: Some(until) };
        Ok(Some(Project {
            id: id.clone(),
            webhook_secrets: vec![WebhookSecret::in_force(SECRET.into(), NOON), former],
            webhook_keys: Vec::new(),
            sign_v1a: false,
            token_secret: Vec::new(),
            created_at: NOON,
        }))
    }

    async fn create_project(&self, _: NewProject) -> Stored<()> {
        Err(unused())
    }

    async fn projects(&self) -> Stored<Vec<Project>> {
        Err(unused())
    }

    async fn identify(&self, _: &KeyHash) -> Stored<Option<Identity>> {
        Err(unused())
    }

    async fn rotate_keys(&self, _: &ProjectId, _: FreshKeys) -> Stored<Rotated> {
        Err(unused())
    }

    async fn sign_v1a(&self, _: &ProjectId, _: bool, _: String) -> Stored<bool> {
        Err(unused())
    }

    async fn app(&self, _: &AppId) -> Stored<Option<Arc<App>>> {
        Err(unused())
    }

    async fn apps(&self, _: Option<&ProjectId>) -> Stored<Vec<Arc<App>>> {
        Err(unused())
    }

    async fn register_build(&self, _: NewBuild) -> Stored<Build> {
        Err(unused())
    }

    async fn build(&self, _: &BuildId) -> Stored<Option<Build>> {
        Err(unused())
    }

    async fn set_build_status(&self, _: &BuildId, _: BuildStatus, _: Option<Prepared>) -> Stored<bool> {
        Err(unused())
    }

    async fn activate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        Err(unused())
    }

    async fn reconfigure(&self, _: &AppId, _: AppConfig) -> Stored<Option<Arc<App>>> {
        Err(unused())
    }

    async fn delete_app(&self, _: &AppId) -> Stored<bool> {
        Err(unused())
    }

    async fn reactivate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        Err(unused())
    }

    async fn builds(&self, _: &AppId, _: usize) -> Stored<Vec<Build>> {
        Err(unused())
    }

    async fn unfinished_builds(&self) -> Stored<Vec<Build>> {
        Err(unused())
    }
}

impl Clock for Memory {
    fn now(&self) -> Timestamp {
        NOON.plus(Duration::from_secs(self.past_noon.load(Ordering::Relaxed)))
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0];
        }
    }
}

/// A room over `memory`, at `public_url`.
pub(crate) fn room(memory: &Arc<Memory>, public_url: &str) -> InboxRoom {
    stoppable(memory, public_url, CancellationToken::new())
}

/// The same, with live pages that end on `shutdown`.
pub(crate) fn stoppable(memory: &Arc<Memory>, public_url: &str, shutdown: CancellationToken) -> InboxRoom {
    InboxRoom::new(
        Arc::clone(memory) as Arc<dyn Inboxes>,
        Arc::new(OneProject),
        Arc::clone(memory) as Arc<dyn Clock>,
        Arc::new(Counting::default()),
        Options { public_url: public_url.parse().expect("an address"), allowed_hosts: vec![], shutdown },
    )
}
