//! A registry, logs and replicas in memory, around a real builder.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use builder::{Builder, Config, Options, archive};
use bytes::Bytes;
use futures_util::StreamExt as _;
use queue::app::{AppConfig, Contract, Function};
use queue::event::{AppEvent, StoredEvent};
use queue::log::{LogLine, LogQuery, StoredLine};
use queue::outcome::{Code, RunError};
use queue::port::{AppEvents, Builds as _, Logs, Registry, Replicas, StartFailure, Stored, UploadError};
use queue::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, NewBuild, NewProject, Prepared, Project, Rotated,
};
use queue::{AppId, BuildId, Clock, ProjectId, Timestamp};

/// Longest wait for a build here; the first of a fresh machine downloads uv and packages.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) const DELAY_CONFIG: &str = "%YAML 1.2\n---\nhardware: CPU\ncpu: 2\nmemory: 5\ndisable_animation: false\n\
    exclude: '[./.*, ./__*]'\ninclude: '[./*, main.py, requirements.txt, pkglist.txt, conda_pkglist.txt]'\n\
    log_level: INFO\n";

pub(crate) struct World {
    pub(crate) builder: Builder,
    pub(crate) registry: Arc<Memory>,
    pub(crate) replicas: Arc<Importer>,
    pub(crate) options: Options,
    _data: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// The cache is kept between runs of the tests, as a user's is.
    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builder-cache");
        let mut options = Options::new(data.path().to_owned(), cache);
        options.environment = std::env::vars_os().collect();
        change(&mut options);
        let registry = Arc::new(Memory::default());
        let replicas = Arc::new(Importer::default());
        let builder = build_over(&options, &registry, &replicas);
        Self { builder, registry, replicas, options, _data: data }
    }

    /// Another process over the same data.
    pub(crate) fn restart(&mut self) {
        self.builder = build_over(&self.options, &self.registry, &self.replicas);
    }

    pub(crate) fn register(&self, app: &str, config: AppConfig) -> BuildId {
        self.registry.add(app, config)
    }

    pub(crate) async fn upload(&self, build: &BuildId, bytes: Vec<u8>) -> Result<(), UploadError> {
        let chunks: Vec<_> = bytes.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        self.builder.upload(build, futures_util::stream::iter(chunks).boxed()).await
    }

    /// Packs, registers and uploads a folder, and waits for the build's end.
    pub(crate) async fn deploy(
        &self,
        app: &str,
        files: &[(&str, &str)],
        change: fn(&mut AppConfig),
    ) -> BuildId {
        let build = self.begin(app, files, change).await;
        self.end_of(&build).await;
        build
    }

    pub(crate) async fn begin(
        &self,
        app: &str,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut AppConfig),
    ) -> BuildId {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut config = match folder.path().join("config.yaml").is_file() {
            true => Config::read(folder.path(), "config.yaml").unwrap(),
            false => Config::without_file(),
        };
        change(&mut config.app);
        let mut packed = archive::pack(folder.path(), &config, &config.file).unwrap();
        let mut bytes = Vec::new();
        packed.file.read_to_end(&mut bytes).unwrap();
        let build = self.register(app, config.app);
        self.upload(&build, bytes).await.unwrap();
        build
    }

    pub(crate) async fn end_of(&self, build: &BuildId) -> BuildStatus {
        self.until(|| Some(self.status(build)).filter(|status| status.is_final())).await
    }

    pub(crate) async fn until<T>(&self, mut seen: impl FnMut() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(seen) = seen() {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(seen) => seen,
            Err(_) => panic!("not seen in {PATIENCE:?}; the log:\n{}", self.log()),
        }
    }

    pub(crate) fn status(&self, build: &BuildId) -> BuildStatus {
        self.registry.builds.lock().unwrap()[build].status
    }

    pub(crate) fn build(&self, build: &BuildId) -> Build {
        self.registry.builds.lock().unwrap()[build].clone()
    }

    pub(crate) fn live(&self, app: &str) -> Option<BuildId> {
        self.registry.live.lock().unwrap().get(&app_id(app)).cloned()
    }

    /// Everything that was logged.
    pub(crate) fn log(&self) -> String {
        let lines = self.registry.lines.lock().unwrap();
        lines.iter().map(|line| format!("{}| {}\n", line.stream.as_str(), line.text)).collect()
    }

    /// Waits for a line of the log that begins so, and returns the rest of it.
    pub(crate) async fn printed(&self, beginning: &str) -> String {
        self.until(|| {
            let log = self.log();
            let line = log.lines().find_map(|line| line.strip_prefix(&format!("stdout| {beginning}")));
            line.map(str::to_owned)
        })
        .await
    }

    /// Whether a build that failed did so because this machine reaches no package index.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
    pub(crate) fn is_offline(&self, build: &BuildId) -> bool {
        let failed = self.status(build) == BuildStatus::BuildFailure;
        let unreachable =
            ["could not be installed", "Could not fetch", "Failed to fetch", "error sending request"];
        let offline =
            failed && unreachable.iter().any(|sign| self.log().contains(sign)) && !reaches_an_index();
        if offline {
            eprintln!("skipped: this machine reaches no package index");
        }
        offline
    }

    pub(crate) fn folder(&self, build: &BuildId) -> PathBuf {
        self.options.data_dir.join("builds").join(build.as_str())
    }
}

fn reaches_an_index() -> bool {
    use std::net::{TcpStream, ToSocketAddrs as _};
    let addresses = ("pypi.org", 443).to_socket_addrs().into_iter().flatten();
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok())
}

fn build_over(options: &Options, registry: &Arc<Memory>, replicas: &Arc<Importer>) -> Builder {
    let (store, logs, events, importer) =
        (registry.clone(), registry.clone(), registry.clone(), replicas.clone());
    Builder::new(options.clone(), store, logs, events, importer, Arc::new(Wall))
}

pub(crate) fn app_id(name: &str) -> AppId {
    format!("p-00000001-{name}").parse().unwrap()
}

/// Variables without those of the real environment that `names` says.
pub(crate) fn set(options: &mut Options, name: &str, value: impl Into<OsString>) {
    options.environment.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    options.environment.push((name.into(), value.into()));
}

struct Wall;

impl Clock for Wall {
    #[expect(clippy::disallowed_methods, reason = "files on disk have the real time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
    }
}

/// Builds and log lines in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) builds: Mutex<HashMap<BuildId, Build>>,
    pub(crate) live: Mutex<HashMap<AppId, BuildId>>,
    /// The newest builds, where they are not the live ones.
    pub(crate) latest: Mutex<HashMap<AppId, BuildId>>,
    pub(crate) lines: Mutex<Vec<LogLine>>,
    pub(crate) events: Mutex<Vec<AppEvent>>,
}

impl Memory {
    fn add(&self, app: &str, config: AppConfig) -> BuildId {
        let mut builds = self.builds.lock().unwrap();
        let id: BuildId = format!("b-{:016x}", builds.len() + 1).parse().unwrap();
        let at = Timestamp::from_millis(Wall.now().as_millis());
        let build = Build {
            id: id.clone(),
            app: app_id(app),
            status: BuildStatus::Pending,
            config,
            prepared: None,
            functions: Vec::new(),
            upload_token_hash: [0; 32],
            created_at: at,
            updated_at: at,
        };
        builds.insert(id.clone(), build);
        id
    }

    fn app(&self, id: &AppId) -> Option<Arc<App>> {
        let live = self.live.lock().unwrap().get(id)?.clone();
        let live = self.builds.lock().unwrap()[&live].clone();
        let latest = self.latest.lock().unwrap().get(id).cloned();
        let latest =
            latest.map_or_else(|| live.clone(), |latest| self.builds.lock().unwrap()[&latest].clone());
        Some(Arc::new(App {
            id: id.clone(),
            latest_build: latest.id,
            latest_status: latest.status,
            created_at: live.created_at,
            updated_at: live.updated_at,
            live: Some(live),
        }))
    }
}

#[async_trait]
impl Registry for Memory {
    async fn build(&self, id: &BuildId) -> Stored<Option<Build>> {
        Ok(self.builds.lock().unwrap().get(id).cloned())
    }

    async fn set_build_status(
        &self,
        id: &BuildId,
        status: BuildStatus,
        prepared: Option<Prepared>,
    ) -> Stored<bool> {
        let mut builds = self.builds.lock().unwrap();
        let Some(build) = builds.get_mut(id).filter(|build| !build.status.is_final()) else {
            return Ok(false);
        };
        build.status = status;
        build.prepared = prepared.or(build.prepared.take());
        Ok(true)
    }

    async fn activate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>> {
        let app = {
            let mut builds = self.builds.lock().unwrap();
            let Some(build) = builds.get_mut(id).filter(|build| !build.status.is_final()) else {
                return Ok(None);
            };
            build.functions = functions;
            self.live.lock().unwrap().insert(build.app.clone(), id.clone());
            build.status = BuildStatus::Success;
            build.app.clone()
        };
        Ok(Memory::app(self, &app))
    }

    async fn reactivate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>> {
        let app = {
            let mut builds = self.builds.lock().unwrap();
            let Some(build) = builds.get_mut(id).filter(|build| build.status == BuildStatus::Success) else {
                return Ok(None);
            };
            build.functions = functions;
            self.live.lock().unwrap().insert(build.app.clone(), id.clone());
            build.app.clone()
        };
        Ok(Memory::app(self, &app))
    }

    async fn builds(&self, app: &AppId, limit: usize) -> Stored<Vec<Build>> {
        let builds = self.builds.lock().unwrap();
        let mut of_app: Vec<_> = builds.values().filter(|build| build.app == *app).cloned().collect();
        of_app.sort_by(|a, b| b.id.cmp(&a.id));
        of_app.truncate(limit);
        Ok(of_app)
    }

    async fn unfinished_builds(&self) -> Stored<Vec<Build>> {
        let builds = self.builds.lock().unwrap();
        Ok(builds.values().filter(|build| !build.status.is_final()).cloned().collect())
    }

    async fn apps(&self, _project: Option<&ProjectId>) -> Stored<Vec<Arc<App>>> {
        let apps: Vec<_> = self.live.lock().unwrap().keys().cloned().collect();
        Ok(apps.iter().filter_map(|app| Memory::app(self, app)).collect())
    }

    async fn create_project(&self, _project: NewProject) -> Stored<()> {
        panic!("builder makes no projects")
    }

    async fn projects(&self) -> Stored<Vec<Project>> {
        panic!("builder asks for no projects")
    }

    async fn project(&self, _id: &ProjectId) -> Stored<Option<Project>> {
        panic!("builder asks for no projects")
    }

    async fn identify(&self, _key: &KeyHash) -> Stored<Option<Identity>> {
        panic!("builder knows no keys")
    }

    async fn rotate_keys(&self, _: &ProjectId, _: FreshKeys) -> Stored<Rotated> {
        panic!("builder knows no keys")
    }
    async fn sign_v1a(&self, _: &ProjectId, _: bool, _: String) -> Stored<bool> {
        panic!("builder knows no keys")
    }

    async fn app(&self, id: &AppId) -> Stored<Option<Arc<App>>> {
        Ok(Memory::app(self, id))
    }

    async fn register_build(&self, _build: NewBuild) -> Stored<Build> {
        panic!("builder registers nothing")
    }

    async fn reconfigure(&self, _app: &AppId, _config: AppConfig) -> Stored<Option<Arc<App>>> {
        panic!("builder reconfigures nothing")
    }

    async fn delete_app(&self, _id: &AppId) -> Stored<bool> {
        panic!("builder deletes no apps")
    }
}

#[async_trait]
impl Logs for Memory {
    fn append(&self, lines: Vec<LogLine>) {
        self.lines.lock().unwrap().extend(lines);
    }

    async fn read(&self, _query: LogQuery) -> Stored<Vec<StoredLine>> {
        panic!("builder reads no logs")
    }
}

#[async_trait]
impl AppEvents for Memory {
    fn note(&self, event: AppEvent) {
        self.events.lock().unwrap().push(event);
    }

    async fn events(&self, _: &AppId, _: Option<i64>, _: usize) -> Stored<Vec<StoredEvent>> {
        panic!("builder reads no events")
    }
}

/// A replica that only imports: `main.py` decides whether the build can be live.
#[derive(Default)]
pub(crate) struct Importer {
    pub(crate) discarded: Mutex<Vec<BuildId>>,
    pub(crate) switched: Mutex<Vec<BuildId>>,
    /// Builds of which there are replicas.
    pub(crate) in_use: Mutex<Vec<BuildId>>,
}

#[async_trait]
impl Replicas for Importer {
    async fn start_first(&self, build: &Build) -> Result<Vec<Function>, StartFailure> {
        let Prepared { folder, python } = build.prepared.clone().expect("the build is prepared");
        let output = tokio::process::Command::new(python)
            .args(["-c", "import main; assert callable(main.predict)"])
            .current_dir(folder)
            .output()
            .await
            .expect("the interpreter starts");
        if output.status.success() {
            let name = "predict".to_owned();
            let contract = Contract::Item;
            return Ok(vec![Function {
                name,
                contract,
                parameters: vec![],
                takes_any: false,
                streams: false,
            }]);
        }
        let error = RunError {
            code: Code::UserError,
            kind: "ImportError".into(),
            message: "main.py could not be imported".into(),
            traceback: Some(String::from_utf8(output.stderr).unwrap()),
        };
        Err(StartFailure { status: BuildStatus::InitFailure, error })
    }

    fn switch(&self, app: &Arc<App>) {
        self.switched.lock().unwrap().push(app.live.as_ref().expect("it is live").id.clone());
    }

    fn discard(&self, build: &BuildId) {
        self.discarded.lock().unwrap().push(build.clone());
    }

    fn restart(&self, _: &AppId) {}

    fn retire(&self, _app: &AppId) {}

    fn count(&self, _app: &AppId) -> usize {
        0
    }

    fn builds_in_use(&self, _: &AppId) -> Vec<BuildId> {
        self.in_use.lock().unwrap().clone()
    }
}
