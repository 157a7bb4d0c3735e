//! The ports: what the rooms ask of one another. `postback` wires them; nobody imports a sibling.
//!
//! | port | asked by | fulfilled by |
//! |---|---|---|
//! | [`Runs`] | gateway, worker | store |
//! | [`Deliveries`] | gateway, delivery | store |
//! | [`Registry`] | gateway, worker, builder, delivery, inbox | store |
//! | [`Secrets`] | gateway, worker | store |
//! | [`Inboxes`] | gateway, inbox, delivery | store |
//! | [`Traffic`] | dashboard | store |
//! | [`Logs`] | gateway, worker, builder | store |
//! | [`AppEvents`] | gateway, worker, builder | store |
//! | [`Dispatch`] | gateway | worker |
//! | [`Calls`] | dashboard | gateway |
//! | [`Settings`] | dashboard | gateway |
//! | [`Replicas`] | builder, gateway | worker |
//! | [`Outbox`] | gateway, worker | delivery |
//! | [`AddressGuard`] | gateway | delivery |
//! | [`Replays`] | gateway, dashboard | delivery |
//! | [`Builds`] | gateway | builder |
//! | [`Keyring`] | gateway | postback |

mod guard;
mod replay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::app::{AppConfig, Function};
use crate::clock::Timestamp;
use crate::delivery::{
    AttemptEnd, DeliveryFilter, DeliveryView, DueDelivery, Enabled, EndpointView, Endpoints, Redelivered,
};
use crate::event::{AppEvent, StoredEvent};
use crate::figures::{EndpointFigures, ReceiverStanding};
use crate::hardware::Hardware;
use crate::id::{AppId, BuildId, DeliveryId, EndpointId, InboxId, LeaseToken, ProjectId, RunId};
use crate::inbox::{CapturedRequest, Inbox, InboxChange, Recorded};
use crate::lease::{Lease, Release, Released};
use crate::log::{LogLine, LogQuery, StoredLine};
use crate::outcome::{Cancellation, Expired, Finish, Finished, Outcome, RunError};
use crate::progress::Progress;
use crate::registry::{
    App, Build, BuildStatus, CreatedKey, FreshKeys, Identity, KeyHash, KeyKind, KeyMade, KeyView, KeyWish,
    NewBuild, NewKeys, NewProject, Prepared, Project, Rotated, SecretChange,
};
use crate::replica::ReplicaView;
use crate::request::{FunctionAnswer, FunctionRequest};
use crate::run::{
    CallRecord, EndpointUrl, Generation, LeasedRun, NewRun, Ready, Receiver, RunFilter, RunList, RunView,
};
use crate::traffic::{Slice, Span, Standing};
use crate::web::Visitor;
use crate::webhook::Metadata;

pub use guard::{AddressGuard, AddressRefused, Admitted};
pub use replay::Replays;

/// Why the store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not happen: the store is closed, full or unreachable. Trying again is safe.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// It did not happen: the disk is full. It goes on by itself once there is space.
    #[error("the disk of the data directory is full: {0}")]
    Full(String),
    /// The commit failed: nobody can say whether it happened.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// What was read is not what was once written.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}

/// The store's answer.
pub type Stored<T> = Result<T, StoreError>;

/// Whether a run is taken by this node in the very write that accepts it.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    /// It stays in the store until a worker claims it.
    Later,
    /// It is leased at once, under this token.
    Now(LeaseToken),
}

/// What became of an accepted run.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It is durable, and queued.
    Queued,
    /// It is durable, and leased to this node: the caller hands it over to its slot.
    Leased(Lease),
    /// Nothing was kept: the same call was kept before under its key, as this run.
    Replayed(RunId),
    /// Nothing was kept: its key belongs to another call, kept as this run.
    KeyTaken(RunId),
    /// The app's queue is full.
    QueueFull,
}

/// Runs: accepted, claimed, ended, shown.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Keeps a run. Returns only after the commit that holds it was synced. Of runs that bring the
    /// same idempotency key one is kept, and the others learn its id, as long as it is kept.
    async fn accept(&self, run: NewRun, claim: Claim) -> Stored<Accepted>;

    /// Leases up to `max` queued runs of `app` to this node, those of the highest priority first and the
    /// oldest first among equals; at least one if any, and no more than fit `bytes_max` of bodies beyond
    /// the first. Runs whose time has not come are left alone.
    async fn claim(&self, app: &AppId, max: usize, bytes_max: usize) -> Stored<Vec<LeasedRun>>;

    /// Notes that a replica has had the leased runs for a while: from now on the loss of the server
    /// counts. Rides in the next batch; nobody waits.
    fn started(&self, leases: Vec<Lease>);

    /// Keeps what a leased run tells on its way, as a delivery for each of its endpoints. Rides in the next
    /// batch; nobody waits; under pressure, and for an endpoint that does not keep up, it is dropped.
    fn progress(&self, progress: Progress);

    /// Ends a run: state, result and deliveries in one transaction, guarded by the lease.
    async fn finish(&self, finish: Finish) -> Stored<Finished>;

    /// Cancels a queued run at once, and keeps the wish for one that is executed.
    async fn cancel(&self, project: &ProjectId, run: RunId) -> Stored<Cancellation>;

    /// Ends queued runs whose time to start is over at `now`.
    async fn expire(&self, now: Timestamp) -> Stored<Expired>;

    /// Lets the queued runs be claimed whose time to wait is over at `now`.
    async fn ready(&self, now: Timestamp) -> Stored<Ready>;

    /// Gives a run back, or ends it when it has no chances left or was cancelled meanwhile.
    async fn release(&self, lease: Lease, release: Release) -> Stored<Released>;

    /// Ends an attempt that failed, of a run that is to be executed again: it is queued again, after a
    /// pause. Its webhooks are not told. A run that was cancelled meanwhile, or whose app is gone, ends.
    async fn retry(&self, lease: Lease, error: RunError) -> Stored<Released>;

    /// Records a synchronous call that ended. Rides in the next batch; nobody waits; under pressure
    /// the record is dropped and counted, never the call.
    fn record_call(&self, call: CallRecord);

    /// One run of a project, with attempts, deliveries and result.
    async fn run(&self, project: &ProjectId, run: RunId) -> Stored<Option<RunView>>;

    /// The body of a run of a project. One that is larger than [`KEPT_INPUT_BYTES_MAX`](crate::limits::KEPT_INPUT_BYTES_MAX)
    /// goes when the run ends, and that of a synchronous call was never kept.
    async fn input(&self, project: &ProjectId, run: RunId) -> Stored<Option<Bytes>>;

    /// When a run of a project was removed with age, as long as that is remembered.
    async fn removed(&self, project: &ProjectId, run: RunId) -> Stored<Option<Timestamp>>;

    /// Runs of a project, newest first, without attempts, deliveries and results. A search looks at
    /// [`RUNS_SEARCHED_MAX`](crate::limits::RUNS_SEARCHED_MAX) of them and says where it stopped.
    async fn runs(&self, filter: RunFilter) -> Stored<RunList>;

    /// Waits until the run has ended and its end is durable, or `wait` has passed. Returns at once
    /// for a run that has ended or that nobody knows.
    async fn wait_for_end(&self, run: RunId, wait: Duration);

    /// Apps with queued runs that may start, and how many: what a starting worker looks at.
    async fn backlog(&self) -> Stored<Vec<(AppId, u64)>>;
}

/// How many deliveries may begin.
#[derive(Clone, Debug)]
pub struct Room {
    /// In all.
    pub total: usize,
    /// To a receiver not named in `receivers`.
    pub per_receiver: usize,
    /// To these receivers, which have attempts under way: places left.
    pub receivers: std::collections::HashMap<Receiver, usize>,
    /// Bytes of results that are kept as files; other results are not counted.
    pub bytes: usize,
}

impl Default for Room {
    /// No place, and no bound on bytes.
    fn default() -> Self {
        Self { total: 0, per_receiver: 0, receivers: std::collections::HashMap::new(), bytes: usize::MAX }
    }
}

/// Deliveries: begun when due, and ended.
#[async_trait]
pub trait Deliveries: Send + Sync {
    /// Records an attempt for deliveries due at `now`, oldest first per receiver, receivers in fair
    /// turn, as far as there is room, and returns them once the records are durable. A large result for
    /// which there are no bytes left comes before all other large ones in the next call, and smaller
    /// ones do not wait for it.
    async fn begin(&self, now: Timestamp, room: Room) -> Stored<Vec<DueDelivery>>;

    /// Completes an attempt's record and moves the delivery on. Rides in the next batch; nobody
    /// waits. A 410 also disables the endpoint.
    fn complete(&self, end: AttemptEnd);

    /// When the next pending delivery is due, among receivers that `room` has a place for.
    async fn next_due(&self, room: Room) -> Stored<Option<Timestamp>>;

    /// One delivery of a project, with all its attempts.
    async fn delivery(&self, project: &ProjectId, id: DeliveryId) -> Stored<Option<DeliveryView>>;

    /// Deliveries of a project, newest run first, each with its last attempt.
    async fn deliveries(&self, filter: DeliveryFilter) -> Stored<Vec<DeliveryView>>;

    /// Makes a delivery due now, whatever became of it: same id, same body, its schedule anew.
    async fn redeliver(&self, project: &ProjectId, id: DeliveryId) -> Stored<Redelivered>;

    /// The same for every delivery to `endpoints` whose last attempt failed at `since` or later, but
    /// for those that wait for a disabled endpoint. Returns how many.
    async fn redeliver_failed(
        &self,
        project: &ProjectId,
        endpoints: Endpoints,
        since: Timestamp,
    ) -> Stored<u64>;

    /// Sets the most bytes of a body that an endpoint takes: what is larger is told in the thin form. `false`
    /// when the project has set as much for other endpoints as it may.
    async fn set_body_limit(
        &self,
        project: &ProjectId,
        url: EndpointUrl,
        bytes_max: Option<u64>,
    ) -> Stored<bool>;

    /// A project's endpoints that were disabled once, or for which something was set, by address.
    async fn endpoints(&self, project: &ProjectId) -> Stored<Vec<EndpointView>>;

    /// How the endpoints do that the project's newest deliveries went to, the last used first: up to
    /// [`ENDPOINTS_SHOWN_MAX`](crate::limits::ENDPOINTS_SHOWN_MAX) of them.
    async fn endpoint_figures(&self, _project: &ProjectId) -> Stored<Vec<EndpointFigures>> {
        Ok(Vec::new())
    }

    /// Disables an endpoint: what is due there waits for the enabling. `false` when it is disabled already.
    async fn disable(&self, project: &ProjectId, url: EndpointUrl) -> Stored<bool>;

    /// Enables an endpoint and makes the deliveries due that wait for it.
    async fn enable(&self, project: &ProjectId, endpoint: &EndpointId) -> Stored<Enabled>;
}

/// Projects, keys, apps and builds.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Makes a project, unless one of this id is there.
    async fn create_project(&self, project: NewProject) -> Stored<()>;

    /// Every project, oldest first. The first is the default project of the legacy paths.
    async fn projects(&self) -> Stored<Vec<Project>>;

    /// One project.
    async fn project(&self, id: &ProjectId) -> Stored<Option<Project>>;

    /// Who holds the key with this hash; nobody once it is revoked or has expired.
    async fn identify(&self, key: &KeyHash) -> Stored<Option<Identity>>;

    /// The named keys of a project, newest first.
    async fn keys(&self, _project: &ProjectId) -> Stored<Vec<KeyView>> {
        Ok(Vec::new())
    }

    /// Keeps a named key, known by its hash.
    async fn create_key(&self, _project: &ProjectId, _key: KeyView, _hash: KeyHash) -> Stored<KeyMade> {
        Ok(KeyMade::Unknown)
    }

    /// Revokes a named key: it opens nothing any more when this returns. Returns whether it was there.
    async fn revoke_key(&self, _project: &ProjectId, _id: &str) -> Stored<bool> {
        Ok(false)
    }

    /// Replaces keys and secrets of a project, all in one write. Signing ones that are replaced go on until
    /// the overlap is over.
    async fn rotate_keys(&self, project: &ProjectId, fresh: FreshKeys) -> Stored<Rotated>;

    /// Switches the `v1a` signature of a project's deliveries; `key` is put in force when it has none yet.
    /// Returns whether there is such a project.
    async fn sign_v1a(&self, project: &ProjectId, on: bool, key: String) -> Stored<bool>;

    /// One app. Answered from memory on the hot path.
    async fn app(&self, id: &AppId) -> Stored<Option<Arc<App>>>;

    /// A project's apps, by name; every app when `project` is `None`.
    async fn apps(&self, project: Option<&ProjectId>) -> Stored<Vec<Arc<App>>>;

    /// Registers a build as `pending`, with its app if that is new. An older build of the app that
    /// is not final yet is cancelled.
    async fn register_build(&self, build: NewBuild) -> Stored<Build>;

    /// One build.
    async fn build(&self, id: &BuildId) -> Stored<Option<Build>>;

    /// Moves a build on, unless it is final. `prepared` is kept when given. Returns whether it moved.
    async fn set_build_status(
        &self,
        id: &BuildId,
        status: BuildStatus,
        prepared: Option<Prepared>,
    ) -> Stored<bool>;

    /// Makes a build live, unless it is final already: status `success`, its functions known, the
    /// app pointing at it. `None` when it was cancelled or its app deleted meanwhile.
    async fn activate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>>;

    /// Replaces the live build's configuration, for scaling changes. `None` when there is no such
    /// app or it has no live build.
    async fn reconfigure(&self, app: &AppId, config: AppConfig) -> Stored<Option<Arc<App>>>;

    /// Removes an app and its builds; its queued runs end as `cancelled`, their webhooks are told.
    /// Returns whether it was there.
    async fn delete_app(&self, id: &AppId) -> Stored<bool>;

    /// Makes a build live again that was live before. `None` when it never was, or its app was deleted.
    async fn reactivate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>>;

    /// Builds of an app, the newest first, up to `limit`.
    async fn builds(&self, app: &AppId, limit: usize) -> Stored<Vec<Build>>;

    /// Builds that a former process of this node left unfinished.
    async fn unfinished_builds(&self) -> Stored<Vec<Build>>;
}

/// Secrets of projects and apps: environment variables of replicas, told to nobody else.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The names of a project's secrets, or of those of one of its apps, in order.
    async fn secret_names(&self, project: &ProjectId, app: Option<&AppId>) -> Stored<Vec<String>>;

    /// Changes some of them. `false` when there would be too many; nothing changes then.
    async fn change_secrets(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        change: SecretChange,
    ) -> Stored<bool>;

    /// What a replica of the app finds in its environment: the project's secrets, and over them the app's.
    async fn secrets_of(&self, app: &AppId) -> Stored<BTreeMap<String, String>>;
}

/// A project's keys as people hold them: made, told once, written into their owner's file.
#[async_trait]
pub trait Keyring: Send + Sync {
    /// Makes a named key, and tells it this once.
    async fn create(&self, project: &ProjectId, wish: KeyWish) -> Stored<CreatedKey>;

    /// Replaces keys of a project by newly made ones. `None` when there is no such project.
    async fn rotate(
        &self,
        project: &ProjectId,
        kinds: &[KeyKind],
        overlap: Duration,
    ) -> Stored<Option<Result<NewKeys, TooManySecrets>>>;

    /// Switches the `v1a` signature; the first time makes the key. Returns whether there is such a project.
    async fn sign_v1a(&self, project: &ProjectId, on: bool) -> Stored<bool>;
}

/// As many replaced secrets as there may be still sign, the first of them until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets(pub Timestamp);

/// Inboxes and what they recorded.
#[async_trait]
pub trait Inboxes: Send + Sync {
    /// Makes an inbox.
    async fn create_inbox(&self, inbox: Inbox) -> Stored<()>;

    /// One inbox. Answered from memory where possible: the guard asks for each delivery.
    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>>;

    /// A project's inboxes, newest first.
    async fn inboxes(&self, project: &ProjectId) -> Stored<Vec<Inbox>>;

    /// Changes what is set of an inbox, and returns it as it is then; `None` when there is no such one.
    async fn change_inbox(&self, id: &InboxId, change: InboxChange) -> Stored<Option<Inbox>>;

    /// Ends an inbox: from now on nobody finds it, and what it recorded is removed in its own time. Says whether
    /// there was one.
    async fn delete_inbox(&self, id: &InboxId) -> Stored<bool>;

    /// Records a request, and says which one it is once it is durable.
    async fn record(&self, inbox: &InboxId, request: CapturedRequest) -> Stored<Recorded>;

    /// Recorded requests with a sequence above `after`, oldest first.
    async fn requests(&self, inbox: &InboxId, after: i64, limit: usize) -> Stored<Vec<CapturedRequest>>;

    /// Recorded requests with a sequence below `before` (`i64::MAX` for the newest), newest first: up
    /// to `limit`, at least one if any, and no more than fit `bytes_max` of bodies beyond the first.
    async fn requests_before(
        &self,
        inbox: &InboxId,
        before: i64,
        limit: usize,
        bytes_max: usize,
    ) -> Stored<Vec<CapturedRequest>>;
}

/// What user code and builds print. Never waited for, never in the way of a run.
#[async_trait]
pub trait Logs: Send + Sync {
    /// Keeps lines; drops and counts them when the writer is far behind.
    fn append(&self, lines: Vec<LogLine>);

    /// Reads lines, after all that was appended before the call.
    async fn read(&self, query: LogQuery) -> Stored<Vec<StoredLine>>;
}

/// What happened to apps, and why. Never waited for, never in the way of a run.
#[async_trait]
pub trait AppEvents: Send + Sync {
    /// Keeps an event, if its app is there; the oldest of the app makes room. Rides in the next batch; under
    /// pressure it is dropped and counted.
    fn note(&self, event: AppEvent);

    /// Events of an app, oldest first: up to `limit` after the cursor, or without one the newest.
    async fn events(&self, app: &AppId, after: Option<i64>, limit: usize) -> Stored<Vec<StoredEvent>>;
}

/// Figures of what happened, and of what is to be done.
#[async_trait]
pub trait Traffic: Send + Sync {
    /// What happened in a project, or with one of its apps, slice by slice up to `now`, oldest first. Deliveries are
    /// counted for the whole project only.
    async fn traffic(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        span: Span,
        now: Timestamp,
    ) -> Stored<Vec<Slice>>;

    /// How a project stands at the moment.
    async fn standing(&self, project: &ProjectId) -> Stored<Standing>;
}

/// What became of a value that a caller was to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is on its way.
    Yes,
    /// The caller takes less than the function yields; nothing more can be kept for it.
    Behind,
    /// Nobody listens any more.
    Gone,
}

/// A caller that is told what a generator yields as it comes.
pub trait Listener: std::fmt::Debug + Send + Sync {
    /// The next value as text; the first is empty and says that values come.
    fn tell(&self, text: Bytes) -> Heard;
}

/// A synchronous call on its way to a replica.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its id.
    pub id: RunId,
    /// The app, with the live build it was checked against.
    pub app: Arc<App>,
    /// The function it calls.
    pub function: Arc<str>,
    /// The generation of the API it came through.
    pub generation: Generation,
    /// The raw JSON body.
    pub input: Bytes,
    /// Limit from acceptance to answer.
    pub limit: Duration,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// What the caller wants to be told back.
    pub metadata: Option<Metadata>,
    /// Gets what a generator yields as it comes; the result is `null` then.
    pub listener: Option<Arc<dyn Listener>>,
    /// Sends a request to an app that is a web server, and gets its answer as it comes; the result is `null` then.
    pub visitor: Option<Arc<dyn Visitor>>,
}

/// Why a synchronous call was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Too many calls of the app wait already.
    #[error(
        "too many calls of this app are waiting; try again, or send a `webhook_endpoint` and be called back"
    )]
    Busy,
    /// The server is stopping.
    #[error("the server is shutting down; try again")]
    Stopping,
}

/// How runs get to replicas.
#[async_trait]
pub trait Dispatch: Send + Sync {
    /// A place in memory for a run about to be accepted; `None` when it must wait in the store.
    fn reserve(&self, app: &Arc<App>, bytes: usize) -> Option<Box<dyn Slot>>;

    /// There is queued work for the app in the store, of this priority at most.
    fn wake(&self, app: &AppId, priority: i8);

    /// The run is to be cancelled, and the store knows: wherever it is on its way to a replica it goes
    /// back, and a replica that works on it is told to let go, or loses its process tree after
    /// [`CANCEL_GRACE`](crate::limits::CANCEL_GRACE).
    fn cancel(&self, app: &AppId, run: RunId);

    /// Executes a synchronous call and waits for its outcome. Every ending is an [`Outcome`],
    /// `timeout` included; the record of the call is written by the worker.
    async fn call(&self, call: Call) -> Result<Outcome, Refused>;
}

/// Calls of functions, as requests from outside make them.
#[async_trait]
pub trait Calls: Send + Sync {
    /// Calls a function as a request with a key of the app's project would, and waits for the answer.
    async fn call(&self, request: FunctionRequest) -> FunctionAnswer;
}

/// Changes of apps that need no new build.
#[async_trait]
pub trait Settings: Send + Sync {
    /// Changes the scaling of an app's live build: keys of the control plane with what was written for each.
    async fn rescale(&self, app: &AppId, wanted: &[(&str, &str)]) -> Result<(), SettingRefused>;
}

/// Why nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SettingRefused {
    /// The key whose value is refused, as the control plane or the config file spells it.
    pub key: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// A reserved place. Dropping it gives the place back.
pub trait Slot: Send {
    /// Puts the run into its place.
    fn hand_over(self: Box<Self>, run: LeasedRun);
}

/// Why a build's first replica did not start.
#[derive(Clone, Debug)]
pub struct StartFailure {
    /// `init_failure` or `init_timeout`.
    pub status: BuildStatus,
    /// The import error with its traceback, or how the process ended.
    pub error: RunError,
}

/// The replicas of builds.
#[async_trait]
pub trait Replicas: Send + Sync {
    /// Starts a replica of a prepared build that is not live yet, printing to the build's log, and
    /// returns the functions its code offers. The replica is kept for [`Replicas::switch`].
    async fn start_first(&self, build: &Build) -> Result<Vec<Function>, StartFailure>;

    /// The app's live build or configuration changed: new work goes to replicas of it, the old
    /// ones finish what they have and stop.
    fn switch(&self, app: &Arc<App>);

    /// The build will not become live: its first replica stops.
    fn discard(&self, build: &BuildId);

    /// New replicas take the places of those that run, one of them first; the old ones finish what they have
    /// and stop. When none starts, the old ones stay.
    fn restart(&self, app: &AppId);

    /// The app is gone: its replicas finish what they have and stop.
    fn retire(&self, app: &AppId);

    /// Replicas of an app that are ready or starting.
    fn count(&self, app: &AppId) -> usize;

    /// The replicas of an app as they are at this moment, the oldest first.
    async fn list(&self, _app: &AppId) -> Vec<ReplicaView> {
        Vec::new()
    }

    /// The builds of an app of which there are replicas, be it that they finish what they have.
    fn builds_in_use(&self, app: &AppId) -> Vec<BuildId>;
    /// What replicas can be given here. A node says so if it has more than CPUs.
    fn hardware(&self) -> Hardware {
        Hardware::default()
    }

    /// What replicas of the app are waiting for before they can start, if anything.
    fn waits_for(&self, _app: &AppId) -> Option<String> {
        None
    }
}

/// The way from outcomes to deliveries.
pub trait Outbox: Send + Sync {
    /// A place for an attempt that is about to be recorded, with a result of so many bytes; `None` when
    /// the receiver has enough under way, or all have too much, and the delivery must wait its turn in the
    /// store.
    fn reserve(&self, url: &EndpointUrl, result_bytes: usize) -> Option<Box<dyn Departure>>;

    /// There are due deliveries in the store.
    fn wake(&self);

    /// How a receiver stands at the moment.
    fn standing(&self, _receiver: &Receiver) -> ReceiverStanding {
        ReceiverStanding::default()
    }
}

/// A reserved place for one attempt. Dropping it gives the place back.
pub trait Departure: Send {
    /// Makes the recorded attempt.
    fn send(self: Box<Self>, due: DueDelivery);
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// More than an archive may have.
    #[error("the archive is larger than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The build already has its archive, or is final.
    #[error("this build has been uploaded already; deploy again for a new one")]
    AlreadyUploaded,
    /// The body ended early or the disk refused it.
    #[error("the archive could not be received: {0}")]
    Io(#[from] std::io::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an app did not go back to a former build.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is none.
    #[error("there is no former build of this app to go back to")]
    NoFormerBuild,
    /// It is not a build of the app.
    #[error("this app has no build `{0}`")]
    Unknown(BuildId),
    /// Nothing to do.
    #[error("build `{0}` is live already")]
    AlreadyLive(BuildId),
    /// It never started.
    #[error("build `{0}` never was live: it ended as `{end}`", end = .1.as_str())]
    NeverLive(BuildId, BuildStatus),
    /// It was removed with age.
    #[error("the files of build `{0}` are not kept any more; deploy that version again")]
    Gone(BuildId),
    /// Somebody else does it.
    #[error("build `{0}` is being started already")]
    UnderWay(BuildId),
    /// The server stops, the app was deleted, or a newer deploy came.
    #[error("it was stopped before the build was live again")]
    Stopped,
    /// Its code does not start any more.
    #[error("{}", .0.error.message)]
    Start(StartFailure),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Builds: from an uploaded archive to a live app.
#[async_trait]
pub trait Builds: Send + Sync {
    /// Receives a build's archive and starts the build. Returns when the archive is safe on disk;
    /// the build goes on by itself and its status tells the rest.
    async fn upload(
        &self,
        build: &BuildId,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), UploadError>;

    /// Stops a build that is not final. Returns whether there was something to stop.
    async fn cancel(&self, build: &BuildId) -> Stored<bool>;

    /// Makes a former build of an app live again, the last one before the live one when none is named: a replica
    /// of it starts first, then traffic moves. Returns which it was, once it is live. A build under way is stopped.
    async fn roll_back(&self, app: &AppId, build: Option<&BuildId>) -> Result<BuildId, RollbackError>;

    /// Whether a build can still be started.
    fn is_kept(&self, build: &Build) -> bool;
}
