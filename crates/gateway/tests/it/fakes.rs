//! In-memory fakes of the ports: one [`World`] fulfils them all and remembers what it was asked.

mod inboxes;
mod reply;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway::{CorsOrigins, Gateway, Options, Ports, Surface};
use queue::actions::Actions;
use queue::app::{AppConfig, Contract, Function, Parameter};
use queue::inbox::{CapturedRequest, Inbox};
use queue::lease::{Lease, Release, Released};
use queue::log::{LogLine, LogQuery, LogScope, StoredLine};
use queue::outcome::{Cancellation, Expired, Finish, Finished, Outcome, RunError};
use queue::port::*;
use queue::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, NewBuild, NewProject, Prepared, Project, Rotated,
    Scope,
};
use queue::run::{CallRecord, EndpointUrl, LeasedRun, NewRun, Ready, RunFilter, RunList, RunState, RunView};
use queue::search::Said;
use queue::signature::WebhookSecret;
use queue::webhook::Metadata;
use queue::{AppId, BuildId, Clock, Entropy, InboxId, ProjectId, RunId, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

pub(crate) use reply::{Reply, send, send_request};

/// The project of most tests, and another one.
pub(crate) const PROJECT: &str = "p-11111111";
pub(crate) const OTHER_PROJECT: &str = "p-22222222";
pub(crate) const PUBLIC_URL: &str = "http://127.0.0.1:4100";
/// Signs the service-account tokens of both projects.
pub(crate) const TOKEN_SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The private key of a project.
pub(crate) fn private_key(project: &str) -> String {
    format!("private-{project}")
}

/// The public key of a project.
pub(crate) fn public_key(project: &str) -> String {
    format!("public-{project}")
}

/// Everything that the ports hold, for tests to fill and look at.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) keys: BTreeMap<KeyHash, Identity>,
    pub(crate) apps: BTreeMap<AppId, App>,
    pub(crate) builds: BTreeMap<BuildId, Build>,
    pub(crate) uploads: BTreeMap<BuildId, Vec<u8>>,
    pub(crate) accepted: Vec<NewRun>,
    pub(crate) runs: BTreeMap<RunId, RunView>,
    pub(crate) inboxes: Vec<Inbox>,
    pub(crate) requests: Vec<(InboxId, CapturedRequest)>,
    /// Reads of requests under way, and the most there were at once.
    pub(crate) reads: (usize, usize),
    pub(crate) lines: Vec<StoredLine>,
    pub(crate) events: Vec<queue::event::StoredEvent>,
    pub(crate) calls: Vec<Call>,
    /// What other rooms were told, in order: `switch p-…`, `retire p-…`, `cancel b-…`, `wake`.
    pub(crate) told: Vec<String>,
    /// The answer of the next calls; an echo of the input when `None`.
    pub(crate) call_answer: Option<Result<Outcome, Refused>>,
    /// Nobody gets into an app's queue any more.
    pub(crate) queue_full: bool,
    /// Runs that went with age.
    pub(crate) removed: BTreeMap<(ProjectId, RunId), Timestamp>,
    /// The store fails.
    pub(crate) store_error: Option<StoreError>,
    pub(crate) replicas: usize,
}

/// All ports in one.
pub(crate) struct World {
    held: Mutex<Held>,
    ended: Notify,
    now: AtomicI64,
    chance: AtomicU64,
    /// Writes of the control plane that have happened.
    pub(crate) writes: AtomicU64,
    /// While a test holds it, none of them is answered.
    pub(crate) answers: tokio::sync::Mutex<()>,
    /// How often somebody waited for the end of a run.
    pub(crate) waits: AtomicU64,
}

impl World {
    /// Two projects with keys, and nothing else.
    pub(crate) fn new() -> Arc<Self> {
        let mut held = Held::default();
        for project in [PROJECT, OTHER_PROJECT] {
            for (key, scope) in
                [(public_key(project), Scope::Inference), (private_key(project), Scope::Everything)]
            {
                let identity = Identity { project: project.parse().unwrap(), scope };
                held.keys.insert(Sha256::digest(key.as_bytes()).into(), identity);
            }
        }
        Arc::new(Self {
            held: Mutex::new(held),
            ended: Notify::new(),
            now: AtomicI64::new(1_769_860_800_000),
            chance: AtomicU64::new(1),
            writes: AtomicU64::new(0),
            answers: tokio::sync::Mutex::default(),
            waits: AtomicU64::new(0),
        })
    }

    /// Counts a write, and returns when the test lets it be answered.
    pub(crate) async fn written(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        drop(self.answers.lock().await);
    }

    /// The gateway in front of it.
    pub(crate) fn gateway(self: &Arc<Self>) -> Gateway {
        self.gateway_with(options())
    }

    pub(crate) fn gateway_with(self: &Arc<Self>, options: Options) -> Gateway {
        let actions = Actions {
            runs: self.clone(),
            deliveries: self.clone(),
            registry: self.clone(),
            builds: self.clone(),
            replicas: self.clone(),
            dispatch: self.clone(),
            outbox: self.clone(),
            clock: self.clone(),
            entropy: self.clone(),
        };
        let ports = Ports {
            actions,
            runs: self.clone(),
            deliveries: self.clone(),
            registry: self.clone(),
            inboxes: self.clone(),
            logs: self.clone(),
            events: self.clone(),
            dispatch: self.clone(),
            replicas: self.clone(),
            outbox: self.clone(),
            guard: self.clone(),
            replays: self.clone(),
            builds: self.clone(),
            keyring: self.clone(),
            secrets: self.clone(),
            clock: self.clone(),
            entropy: self.clone(),
            metrics: Arc::new(|| "# no metrics\n".to_owned()),
        };
        Gateway::new(ports, options)
    }

    pub(crate) fn router(self: &Arc<Self>) -> Surface {
        self.gateway().surface()
    }

    pub(crate) fn hold(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.now.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// A live app with these functions.
    pub(crate) fn live_app(&self, project: &str, name: &str, functions: Vec<Function>) -> AppId {
        self.live_app_with(project, name, functions, AppConfig::default())
    }

    pub(crate) fn live_app_with(
        &self,
        project: &str,
        name: &str,
        functions: Vec<Function>,
        config: AppConfig,
    ) -> AppId {
        let id = AppId::new(&project.parse().unwrap(), &name.parse().unwrap());
        let at = self.now();
        let build = Build {
            id: BuildId::generate(self),
            app: id.clone(),
            status: BuildStatus::Success,
            config,
            prepared: None,
            functions,
            upload_token_hash: [7; 32],
            created_at: at,
            updated_at: at,
        };
        let app = App {
            id: id.clone(),
            latest_build: build.id.clone(),
            latest_status: BuildStatus::Success,
            live: Some(build.clone()),
            created_at: at,
            updated_at: at,
        };
        let mut held = self.hold();
        held.builds.insert(build.id.clone(), build);
        held.apps.insert(id.clone(), app);
        id
    }

    /// Puts a run there, and wakes who waits for its end.
    pub(crate) fn put_run(&self, run: RunView) {
        self.hold().runs.insert(run.id, run);
        self.ended.notify_waiters();
    }

    fn checked(&self) -> Stored<MutexGuard<'_, Held>> {
        let held = self.hold();
        match &held.store_error {
            Some(error) => Err(error.clone()),
            None => Ok(held),
        }
    }
}

/// A gateway that allows nothing beyond the usual.
pub(crate) fn options() -> Options {
    Options {
        public_url: PUBLIC_URL.into(),
        allow_open_apps: false,
        trusted_proxies: Vec::new(),
        result_links: queue::link::ResultLinks::new(PUBLIC_URL, [7; 32]),
        cors_origins: CorsOrigins::Any,
        rates: gateway::RateLimits::default(),
        version: "0.0.0-test".into(),
    }
}

/// A keyword function with these required parameters.
pub(crate) fn function(name: &str, parameters: &[&str]) -> Function {
    let parameter = |name: &&str| Parameter { name: (*name).to_owned(), required: true };
    Function {
        name: name.into(),
        contract: Contract::Keywords,
        parameters: parameters.iter().map(parameter).collect(),
        takes_any: false,
        streams: false,
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }
}

impl Entropy for World {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.chance.fetch_add(1, Ordering::SeqCst);
        let digest = Sha256::digest(count.to_le_bytes());
        for (byte, chance) in bytes.iter_mut().zip(digest.iter().cycle()) {
            *byte = *chance;
        }
    }
}

#[async_trait]
impl Runs for World {
    async fn accept(&self, run: NewRun, claim: Claim) -> Stored<Accepted> {
        let mut held = self.checked()?;
        if held.queue_full {
            return Ok(Accepted::QueueFull);
        }
        let id = run.id;
        if let Some(wanted) = &run.options.idempotency {
            let known = held.accepted.iter().find_map(|old| {
                let known = old.options.idempotency.as_ref().filter(|known| known.key == wanted.key)?;
                Some(if known == wanted { Accepted::Replayed(old.id) } else { Accepted::KeyTaken(old.id) })
            });
            if let Some(known) = known {
                return Ok(known);
            }
        }
        held.accepted.push(run);
        Ok(match claim {
            Claim::Later => Accepted::Queued,
            Claim::Now(token) => Accepted::Leased(Lease { run: id, token, attempt: 1 }),
        })
    }

    async fn claim(&self, _: &AppId, _: usize, _: usize) -> Stored<Vec<LeasedRun>> {
        Ok(Vec::new())
    }

    fn started(&self, _: Vec<Lease>) {}

    fn progress(&self, _: queue::progress::Progress) {}

    async fn finish(&self, finish: Finish) -> Stored<Finished> {
        self.hold().told.push(format!("finish {}", finish.lease.run));
        Ok(Finished::Recorded(Vec::new()))
    }

    async fn cancel(&self, _: &ProjectId, run: RunId) -> Stored<Cancellation> {
        let cancellation = match self.checked()?.runs.get_mut(&run) {
            None => Cancellation::Unknown,
            Some(view) if view.state == RunState::Queued => {
                view.state = RunState::Cancelled;
                Cancellation::Done
            }
            Some(view) if view.state == RunState::Running => Cancellation::Asked,
            Some(view) => Cancellation::TooLate(view.state),
        };
        self.written().await;
        Ok(cancellation)
    }

    async fn expire(&self, _: Timestamp) -> Stored<Expired> {
        Ok(Expired::default())
    }

    async fn ready(&self, _: Timestamp) -> Stored<Ready> {
        Ok(Ready::default())
    }

    async fn retry(&self, _: Lease, _: RunError) -> Stored<Released> {
        Ok(Released::Queued)
    }

    async fn release(&self, _: Lease, _: Release) -> Stored<Released> {
        Ok(Released::Queued)
    }

    fn record_call(&self, _: CallRecord) {}

    async fn run(&self, project: &ProjectId, run: RunId) -> Stored<Option<RunView>> {
        Ok(self.checked()?.runs.get(&run).filter(|view| view.app.project() == *project).cloned())
    }

    async fn input(&self, project: &ProjectId, run: RunId) -> Stored<Option<Bytes>> {
        unreachable!("the dashboard asks: {project} {run}")
    }

    async fn removed(&self, project: &ProjectId, run: RunId) -> Stored<Option<Timestamp>> {
        Ok(self.checked()?.removed.get(&(project.clone(), run)).copied())
    }

    async fn runs(&self, filter: RunFilter) -> Stored<RunList> {
        let held = self.checked()?;
        let wanted = |run: &&RunView| {
            run.app.project() == filter.project
                && filter.app.as_ref().is_none_or(|app| *app == run.app)
                && filter.state.is_none_or(|state| state == run.state)
                && (!filter.async_only || run.mode == queue::run::Mode::Async)
                && filter.below().is_none_or(|below| run.id < below)
                && filter.from().is_none_or(|from| run.id >= from)
                && filter.search.fits(&Said {
                    id: run.id,
                    function: &run.function,
                    error: run.error.as_ref(),
                    metadata: run.metadata.as_ref().map(Metadata::as_str),
                    warning: run.warning.as_deref(),
                    result: run.result.as_deref(),
                })
        };
        let runs: Vec<_> = held.runs.values().rev().filter(wanted).take(filter.limit).cloned().collect();
        let next = if runs.len() == filter.limit { runs.last().map(|run| run.id) } else { None };
        Ok(RunList { looked: runs.len(), runs, next })
    }

    async fn wait_for_end(&self, run: RunId, wait: Duration) {
        self.waits.fetch_add(1, Ordering::SeqCst);
        let ended = async {
            loop {
                let notified = self.ended.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.hold().runs.get(&run).is_none_or(|run| run.state.is_terminal()) {
                    return;
                }
                notified.await;
            }
        };
        let _ = tokio::time::timeout(wait, ended).await;
    }

    async fn backlog(&self) -> Stored<Vec<(AppId, u64)>> {
        Ok(Vec::new())
    }
}

fn project(id: &str) -> Project {
    Project {
        id: id.parse().unwrap(),
        webhook_secrets: vec![WebhookSecret::in_force(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            Timestamp::from_millis(0),
        )],
        webhook_keys: Vec::new(),
        sign_v1a: false,
        token_secret: TOKEN_SECRET.to_vec(),
        created_at: Timestamp::from_millis(0),
    }
}

#[async_trait]
impl Registry for World {
    async fn create_project(&self, _: NewProject) -> Stored<()> {
        Ok(())
    }

    async fn projects(&self) -> Stored<Vec<Project>> {
        Ok([PROJECT, OTHER_PROJECT].map(project).into())
    }

    async fn project(&self, id: &ProjectId) -> Stored<Option<Project>> {
        Ok([PROJECT, OTHER_PROJECT].contains(&id.as_str()).then(|| project(id.as_str())))
    }

    async fn identify(&self, key: &KeyHash) -> Stored<Option<Identity>> {
        Ok(self.checked()?.keys.get(key).cloned())
    }

    async fn rotate_keys(&self, _: &ProjectId, _: FreshKeys) -> Stored<Rotated> {
        Ok(Rotated::Done)
    }

    async fn sign_v1a(&self, _: &ProjectId, _: bool, _: String) -> Stored<bool> {
        Ok(true)
    }

    async fn app(&self, id: &AppId) -> Stored<Option<Arc<App>>> {
        Ok(self.checked()?.apps.get(id).cloned().map(Arc::new))
    }

    async fn apps(&self, project: Option<&ProjectId>) -> Stored<Vec<Arc<App>>> {
        let held = self.checked()?;
        let of = |app: &&App| project.is_none_or(|project| app.id.project() == *project);
        Ok(held.apps.values().filter(of).cloned().map(Arc::new).collect())
    }

    async fn register_build(&self, new: NewBuild) -> Stored<Build> {
        let mut held = self.checked()?;
        let build = Build {
            id: new.id,
            app: new.app,
            status: BuildStatus::Pending,
            config: new.config,
            prepared: None,
            functions: Vec::new(),
            upload_token_hash: new.upload_token_hash,
            created_at: new.created_at,
            updated_at: new.created_at,
        };
        held.builds.insert(build.id.clone(), build.clone());
        let app = held.apps.entry(build.app.clone()).or_insert_with(|| App {
            id: build.app.clone(),
            live: None,
            latest_build: build.id.clone(),
            latest_status: build.status,
            created_at: build.created_at,
            updated_at: build.created_at,
        });
        (app.latest_build, app.latest_status) = (build.id.clone(), build.status);
        Ok(build)
    }

    async fn build(&self, id: &BuildId) -> Stored<Option<Build>> {
        Ok(self.checked()?.builds.get(id).cloned())
    }

    async fn set_build_status(&self, id: &BuildId, status: BuildStatus, _: Option<Prepared>) -> Stored<bool> {
        let mut held = self.checked()?;
        let Some(build) = held.builds.get_mut(id).filter(|build| !build.status.is_final()) else {
            return Ok(false);
        };
        build.status = status;
        let app = build.app.clone();
        if let Some(app) = held.apps.get_mut(&app).filter(|app| app.latest_build == *id) {
            app.latest_status = status;
        }
        Ok(true)
    }

    async fn activate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        Ok(None)
    }

    async fn reconfigure(&self, app: &AppId, config: AppConfig) -> Stored<Option<Arc<App>>> {
        let changed = self.checked()?.apps.get_mut(app).and_then(|app| {
            app.live.as_mut()?.config = config;
            Some(Arc::new(app.clone()))
        });
        self.written().await;
        Ok(changed)
    }

    async fn delete_app(&self, id: &AppId) -> Stored<bool> {
        let deleted = {
            let mut held = self.checked()?;
            held.builds.retain(|_, build| build.app != *id);
            held.apps.remove(id).is_some()
        };
        self.written().await;
        Ok(deleted)
    }

    async fn reactivate(&self, _: &BuildId, _: Vec<Function>) -> Stored<Option<Arc<App>>> {
        Ok(None)
    }

    async fn builds(&self, app: &AppId, limit: usize) -> Stored<Vec<Build>> {
        let held = self.checked()?;
        Ok(held.builds.values().rev().filter(|build| build.app == *app).take(limit).cloned().collect())
    }

    async fn unfinished_builds(&self) -> Stored<Vec<Build>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Logs for World {
    fn append(&self, lines: Vec<LogLine>) {
        let mut held = self.hold();
        for line in lines {
            let id = i64::try_from(held.lines.len()).unwrap() + 1;
            held.lines.push(StoredLine { id, line });
        }
    }

    async fn read(&self, query: LogQuery) -> Stored<Vec<StoredLine>> {
        let held = self.checked()?;
        let in_scope = |StoredLine { line, .. }: &StoredLine| match &query.scope {
            LogScope::Run(run) => line.run == Some(*run),
            LogScope::Build(build) => line.build.as_ref() == Some(build),
            LogScope::App(app) => line.app == *app && line.build.is_none(),
        };
        let wanted: Vec<_> = held
            .lines
            .iter()
            .filter(|line| in_scope(line))
            .filter(|line| query.after.is_none_or(|after| line.id > after))
            .filter(|line| query.since.is_none_or(|since| line.line.at > since))
            .cloned()
            .collect();
        let skipped = if query.newest { wanted.len().saturating_sub(query.limit) } else { 0 };
        Ok(wanted.into_iter().skip(skipped).take(query.limit).collect())
    }
}

#[async_trait]
impl Dispatch for World {
    fn reserve(&self, _: &Arc<App>, _: usize) -> Option<Box<dyn Slot>> {
        None
    }

    fn wake(&self, app: &AppId, _: i8) {
        self.hold().told.push(format!("wake {app}"));
    }

    fn cancel(&self, app: &AppId, run: RunId) {
        self.hold().told.push(format!("cancel {app} {run}"));
    }

    async fn call(&self, call: Call) -> Result<Outcome, Refused> {
        let mut held = self.hold();
        let echo = Outcome::succeeded(call.input.clone(), 200, 1.5, call.accepted_at);
        held.calls.push(call);
        held.call_answer.clone().unwrap_or(Ok(echo))
    }
}

impl Outbox for World {
    fn reserve(&self, _: &EndpointUrl, _: usize) -> Option<Box<dyn Departure>> {
        None
    }

    fn wake(&self) {
        self.hold().told.push("wake".into());
    }
}

#[async_trait]
impl AddressGuard for World {
    /// Like the real one in what tests ask of it: https, or http on loopback.
    async fn check(&self, url: &str) -> Result<Admitted, AddressRefused> {
        let refuse = |rule, message: &str| Err(AddressRefused { rule, message: message.to_owned() });
        let Ok(parsed) = url::Url::parse(url) else {
            return refuse("syntax", "the webhook address is not a URL");
        };
        let loopback = parsed
            .host_str()
            .is_some_and(|host| host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()));
        if parsed.scheme() != "https" && !loopback {
            return refuse("scheme", "the webhook address must begin with https://");
        }
        let warning = (parsed.host_str() == Some("unresolved.example"))
            .then(|| "unresolved.example does not resolve at the moment".to_owned());
        Ok(Admitted { url: EndpointUrl::checked(parsed.as_str()), warning })
    }
}
