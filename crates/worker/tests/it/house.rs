//! A worker in its house: a folder with an app's code, a store in memory, and what a test says.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use queue::app::{AppConfig, Function};
use queue::lease::Lease;
use queue::outcome::Outcome;
use queue::port::{Call, Dispatch as _, Replicas as _, Runs, StartFailure};
use queue::registry::{App, Build, BuildStatus, Prepared};
use queue::run::{EndpointUrl, Generation, LeasedRun};
use queue::{AppId, BuildId, Clock as _, LeaseToken, RunId, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::{Handle, Lifeline, Options, Worker};

use crate::store::{Counting, Memory, SystemClock, Tray};

pub(crate) const APP: &str = "p-1234abcd-model";
/// Far longer than anything takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct House {
    pub(crate) memory: Arc<Memory>,
    pub(crate) handle: Handle,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) app: Arc<App>,
    shutdown: CancellationToken,
    worker: Option<JoinHandle<()>>,
    runs: AtomicU64,
    _lifeline: Arc<Lifeline>,
}

/// What differs from test to test.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    pub(crate) config: AppConfig,
    pub(crate) adjust: Option<fn(&mut Options)>,
    /// Do not start the first replica and make the build live.
    pub(crate) not_deployed: bool,
}

impl Plan {
    /// So many calls on a replica.
    pub(crate) fn at_once(concurrency: u32) -> Self {
        let config = AppConfig { replica_concurrency: Some(concurrency), ..AppConfig::default() };
        Self { config, ..Self::default() }
    }

    /// One call, on the only replica. A call that lets go when it is told to has all the time it needs, whatever else
    /// the machine is doing; one that does not is in the way of the next.
    pub(crate) fn patient() -> Self {
        let config =
            AppConfig { replica_concurrency: Some(1), max_replicas: Some(1), ..AppConfig::default() };
        Self { config, adjust: Some(|options| options.cancel_grace = PATIENCE), ..Self::default() }
    }
}

pub(crate) fn python() -> String {
    let paths = std::env::var("PATH").unwrap();
    let found =
        paths.split(':').map(|folder| format!("{folder}/python3")).find(|path| PathBuf::from(path).exists());
    found.expect("python3 is on the PATH")
}

pub(crate) fn supervisor(lifeline: &Lifeline) -> Vec<std::ffi::OsString> {
    lifeline.prefix(env!("CARGO_BIN_EXE_postback-supervise").as_ref())
}

/// Options as the binary sets them, but for shorter waits.
fn options(lifeline: &Lifeline) -> Options {
    let mut options = Options::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../runner"));
    options.supervisor = supervisor(lifeline);
    options.environment = ["PATH", "HOME"]
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect();
    options.cancel_grace = Duration::from_millis(300);
    options.restart_pause = Duration::from_millis(100);
    options.restart_pause_max = Duration::from_millis(400);
    options
}

pub(crate) fn build(number: u8, folder: &std::path::Path, config: AppConfig) -> Build {
    Build {
        id: format!("b-{number:016x}").parse::<BuildId>().unwrap(),
        app: APP.parse().unwrap(),
        status: BuildStatus::Initializing,
        config,
        prepared: Some(Prepared { folder: folder.to_str().unwrap().to_owned(), python: python() }),
        functions: Vec::new(),
        upload_token_hash: [0; 32],
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
}

pub(crate) fn app_of(mut live: Build, functions: Vec<Function>) -> Arc<App> {
    live.functions = functions;
    live.status = BuildStatus::Success;
    Arc::new(App {
        id: live.app.clone(),
        latest_build: live.id.clone(),
        latest_status: BuildStatus::Success,
        created_at: live.created_at,
        updated_at: live.updated_at,
        live: Some(live),
    })
}

impl House {
    /// Deploys `code` and waits until it is live.
    pub(crate) async fn of(code: &str) -> Self {
        Self::with(code, Plan::default()).await
    }

    pub(crate) async fn with(code: &str, plan: Plan) -> Self {
        let memory = Arc::new(Memory::default());
        Self::on(memory, code, plan).await
    }

    /// On a store that holds something already.
    pub(crate) async fn on(memory: Arc<Memory>, code: &str, plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("main.py"), code).unwrap();
        let lifeline = Arc::new(Lifeline::open().unwrap());
        let mut options = options(&lifeline);
        if let Some(adjust) = plan.adjust {
            adjust(&mut options);
        }
        let worker = Worker::new(
            options,
            Arc::clone(&memory) as Arc<dyn Runs>,
            memory.clone(),
            memory.clone(),
            memory.clone(),
            memory.clone(),
            Arc::new(Tray(Arc::clone(&memory))),
            Arc::new(SystemClock),
            Arc::new(Counting::default()),
        );
        let handle = worker.handle();
        let first = build(1, folder.path(), plan.config);
        let shutdown = CancellationToken::new();
        // A house that is not deployed knows its app's functions from an earlier life.
        let known = functions_named(code);
        let mut house = Self {
            app: app_of(first.clone(), known),
            memory,
            handle,
            folder,
            shutdown: shutdown.clone(),
            worker: None,
            runs: AtomicU64::new(0),
            _lifeline: lifeline,
        };
        house.memory.put_app(Arc::clone(&house.app));
        house.worker = Some(tokio::spawn(worker.run(shutdown)));
        if !plan.not_deployed {
            house.deploy(&first).await.expect("the app starts");
        }
        house
    }

    /// Starts a build's first replica and makes it live.
    pub(crate) async fn deploy(&mut self, build: &Build) -> Result<Vec<Function>, StartFailure> {
        let started = tokio::time::timeout(PATIENCE, self.handle.start_first(build));
        let functions = started.await.expect("the start ends")?;
        self.app = app_of(build.clone(), functions.clone());
        self.memory.put_app(Arc::clone(&self.app));
        self.handle.switch(&self.app);
        Ok(functions)
    }

    pub(crate) fn id(&self) -> AppId {
        self.app.id.clone()
    }

    pub(crate) fn run(&self, function: &str, input: &str) -> LeasedRun {
        let number = 1 + self.runs.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        LeasedRun {
            lease: Lease { run: RunId::from_bytes(id), token: LeaseToken::from_bytes([0; 16]), attempt: 0 },
            app: self.id(),
            function: function.into(),
            generation: Generation::V4,
            input: Bytes::from(input.to_owned()),
            webhooks: Vec::new(),
            events: queue::webhook::EventFilter::default(),
            limit: Duration::from_secs(20),
            accepted_at: SystemClock.now(),
            crashes: 0,
            priority: 0,
            retry: None,
            failures: 0,
            last_attempt: false,
        }
    }

    /// Hands a run over as the gateway does: through memory if there is a place, else by the store.
    pub(crate) fn submit(&self, run: LeasedRun) -> RunId {
        let (id, priority) = (run.lease.run, run.priority);
        match self.handle.reserve(&self.app, run.input.len()) {
            Some(slot) => slot.hand_over(self.memory.lease(run)),
            None => {
                self.memory.queue(run);
                self.handle.wake(&self.app.id, priority);
            }
        }
        id
    }

    pub(crate) async fn outcome(&self, run: RunId) -> Outcome {
        until("the run ends", || self.memory.outcome(run)).await
    }

    pub(crate) async fn result(&self, run: RunId) -> String {
        text(&self.outcome(run).await)
    }

    pub(crate) fn new_call(&self, function: &str, input: &str, limit: Duration) -> Call {
        let run = self.run(function, input);
        Call {
            id: run.lease.run,
            app: Arc::clone(&self.app),
            function: run.function,
            generation: Generation::V4,
            input: run.input,
            limit,
            accepted_at: run.accepted_at,
            metadata: None,
            listener: None,
            visitor: None,
        }
    }

    pub(crate) async fn call(&self, function: &str, input: &str) -> Outcome {
        self.handle.call(self.new_call(function, input, Duration::from_secs(20))).await.unwrap()
    }

    pub(crate) fn replicas(&self) -> usize {
        self.handle.count(&self.app.id)
    }

    /// Asks the worker to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.begin_stop();
        if let Some(worker) = self.worker.take() {
            tokio::time::timeout(PATIENCE, worker).await.expect("the worker stops").unwrap();
        }
    }

    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// A file that the app's code writes beside itself, once it is there and complete.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        until(name, || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))).await
    }
}

pub(crate) fn webhook(url: &str) -> Vec<EndpointUrl> {
    vec![EndpointUrl::checked(url)]
}

pub(crate) fn text(outcome: &Outcome) -> String {
    let result = outcome.result.as_ref().unwrap_or_else(|| panic!("no result: {:?}", outcome.error));
    String::from_utf8(result.to_vec()).unwrap()
}

fn functions_named(code: &str) -> Vec<Function> {
    let names = code.lines().filter_map(|line| line.strip_prefix("def ")?.split_once('('));
    names
        .map(|(name, _)| Function {
            name: name.to_owned(),
            contract: queue::app::Contract::Keywords,
            parameters: Vec::new(),
            takes_any: true,
            streams: false,
        })
        .collect()
}

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not seen in time: {what}"))
}

/// Whether a process is there and not merely unreaped.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
