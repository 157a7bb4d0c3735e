//! The wiring: every room, and which port of it fulfils what the others ask.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use builder::Builder;
use dashboard::{Dashboard, Node, Space};
use delivery::{Engine, OwnServer, Rules};
use gateway::{CorsOrigins, Gateway, Surface};
use inbox::InboxRoom;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use queue::actions::Actions;
use queue::contain::Policy;
use queue::hardware::Gpu;
use queue::port::{
    AddressGuard, AppEvents, Builds, Deliveries, Dispatch, Inboxes, Logs, Outbox, Registry, Replays,
    Replicas, Runs, Secrets, Traffic,
};
use queue::{Clock, Entropy};
use store::Store;
use tokio_util::sync::CancellationToken;
use url::Url;
use worker::gpus::{NoGpus, Nvml};
use worker::{Groups, Lifeline, Worker};

use super::launch::Launch;
use super::{Options, upkeep};
use crate::credentials::{self, Credentials};
use crate::embedded;
use crate::keyring::Keyring;
use crate::system::{OsEntropy, SystemClock};

/// Buckets of every histogram of seconds: from a fast acknowledgement to a long run.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 180.0, 900.0];

/// What replicas find in their environment as the server has it. Folders of CUDA's libraries are among it.
const INHERITED: &[&str] =
    &["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "HF_HOME", "LD_LIBRARY_PATH", VISIBLE_DEVICES];
const VISIBLE_DEVICES: &str = "CUDA_VISIBLE_DEVICES";

/// Every room of a running server.
pub(super) struct Rooms {
    pub(super) store: Store,
    pub(super) builder: Builder,
    gateway: Gateway,
    inbox: InboxRoom,
    dashboard: Dashboard,
    metrics: PrometheusHandle,
    outbox: Arc<dyn Outbox>,
    groups: Option<Groups>,
    /// Kept for as long as the server lives: replicas and build commands end when it closes.
    _lifeline: Lifeline,
}

/// The room that a data directory has. What its folders hold would take long to count: the databases are files in it.
fn space(data_dir: &Path) -> Option<Space> {
    let room = rustix::fs::statvfs(data_dir).ok()?;
    let files = std::fs::read_dir(data_dir).ok()?.flatten().filter_map(|entry| entry.metadata().ok());
    Some(Space {
        used: files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum(),
        free: room.f_bavail.saturating_mul(room.f_frsize),
        total: room.f_blocks.saturating_mul(room.f_frsize),
    })
}

/// Opens the store of a data directory.
///
/// # Errors
/// When another server has the directory, or it cannot be opened.
pub(super) async fn open_store(options: &Options) -> anyhow::Result<Store> {
    let store_options = options.store.clone();
    let opening = tokio::task::spawn_blocking(move || {
        Store::open(store_options, Arc::new(SystemClock), Arc::new(OsEntropy))
    });
    Ok(opening.await??)
}

impl Rooms {
    /// Builds the rooms over `store` and ties them together.
    ///
    /// # Errors
    /// When the runner cannot be unpacked, or TLS cannot be set up.
    pub(super) fn wire(
        options: &Options,
        store: Store,
        address: SocketAddr,
        public_url: &str,
        launch: Launch,
        stop_accepting: CancellationToken,
    ) -> anyhow::Result<(Self, Worker, Engine)> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
        let metrics = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
            .context("the histograms' buckets are malformed")?
            .install_recorder()
            .context("failed to set up the metrics")?;
        let node = Node {
            version: env!("CARGO_PKG_VERSION"),
            started_at: clock.now(),
            containment: launch.summary(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            data_dir: options.data_dir.clone(),
            space,
        };
        let Launch { lifeline, supervisor, containment } = launch;
        let policy = Policy {
            write: texts(&options.shared_with_apps)?,
            network: containment.network(vec![address.port()]),
            ..containment.template()
        };
        let scratch = options.data_dir.join("tmp");
        clear(&scratch);

        let result_links = store.result_links(public_url);
        let shared = Arc::new(store.clone());
        let runs: Arc<dyn Runs> = shared.clone();
        let registry: Arc<dyn Registry> = shared.clone();
        let deliveries: Arc<dyn Deliveries> = shared.clone();
        let inboxes: Arc<dyn Inboxes> = shared.clone();
        let secrets: Arc<dyn Secrets> = shared.clone();
        let events: Arc<dyn AppEvents> = shared.clone();
        let traffic: Arc<dyn Traffic> = shared.clone();
        let logs: Arc<dyn Logs> = shared;

        let public = Url::parse(public_url).context("the public address is no URL")?;
        let own = OwnServer { listen: address, public_url: Some(public.clone()) };
        let rules = Rules {
            allow_private: options.allow_private_webhooks.clone(),
            allow_http: options.allow_http_webhooks,
            allow_ports: options.allow_webhook_ports.clone(),
            own: Some(own),
        };
        let (delivery, handle) = Engine::new(
            delivery::Options { rules, caps: options.delivery_caps, ..delivery::Options::default() },
            deliveries.clone(),
            registry.clone(),
            inboxes.clone(),
            clock.clone(),
            entropy.clone(),
        );
        let outbox: Arc<dyn Outbox> = Arc::new(handle.clone());
        let own_outbox = Arc::clone(&outbox);
        let replays: Arc<dyn Replays> = Arc::new(handle.clone());
        let guard: Arc<dyn AddressGuard> = Arc::new(handle);

        let runner = embedded::unpack_runner(&options.data_dir)?;
        let mut worker_options = worker::Options::new(&runner);
        worker_options.supervisor = supervisor.clone();
        worker_options.policy.clone_from(&policy);
        worker_options.groups.clone_from(&containment.groups);
        worker_options.identities = containment.identities;
        worker_options.scratch.clone_from(&scratch);
        worker_options.drain_timeout = options.drain_timeout;
        worker_options.environment = inherited(INHERITED);
        worker_options.gpus = gpus();
        worker_options.cpu_fallback = options.cpu_fallback;
        worker_options.storage = Some(options.data_dir.join("storage"));
        let worker = Worker::new(
            worker_options,
            runs.clone(),
            registry.clone(),
            secrets.clone(),
            logs.clone(),
            events.clone(),
            outbox.clone(),
            clock.clone(),
            entropy.clone(),
        );
        let dispatch: Arc<dyn Dispatch> = Arc::new(worker.handle());
        let replicas: Arc<dyn Replicas> = Arc::new(worker.handle());

        let builder = Builder::new(
            builder::Options {
                policy: Policy { network: policy.network.clone(), ..containment.template() },
                scratch,
                runner: Some(runner),
                ..builder_options(options, supervisor)
            },
            registry.clone(),
            logs.clone(),
            events.clone(),
            replicas.clone(),
            clock.clone(),
        );
        let builds: Arc<dyn Builds> = Arc::new(builder.clone());

        let inbox = InboxRoom::new(
            inboxes.clone(),
            registry.clone(),
            clock.clone(),
            entropy.clone(),
            inbox::Options {
                public_url: public.clone(),
                allowed_hosts: Vec::new(),
                shutdown: stop_accepting,
            },
        );
        let keyring: Arc<dyn queue::port::Keyring> = Arc::new(Keyring::new(
            options.data_dir.clone(),
            registry.clone(),
            clock.clone(),
            entropy.clone(),
        ));
        let render = metrics.clone();
        let actions = Actions {
            runs: runs.clone(),
            deliveries: deliveries.clone(),
            registry: registry.clone(),
            builds: builds.clone(),
            replicas: replicas.clone(),
            dispatch: dispatch.clone(),
            outbox: outbox.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
        };
        let ports = gateway::Ports {
            actions: actions.clone(),
            runs: runs.clone(),
            deliveries: deliveries.clone(),
            registry: registry.clone(),
            inboxes: inboxes.clone(),
            logs: logs.clone(),
            events: events.clone(),
            dispatch,
            replicas: replicas.clone(),
            outbox: outbox.clone(),
            guard,
            replays: replays.clone(),
            builds: builds.clone(),
            keyring: keyring.clone(),
            secrets: secrets.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: Arc::new(move || render.render()),
        };
        let cors_origins = match options.cors_origins.as_slice() {
            [] => CorsOrigins::Any,
            origins => CorsOrigins::These(origins.to_vec()),
        };
        let gateway = Gateway::new(
            ports,
            gateway::Options {
                public_url: public_url.to_owned(),
                allow_open_apps: options.allow_open_apps,
                trusted_proxies: options.trusted_proxies.clone(),
                result_links,
                cors_origins,
                rates: options.rates,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        );
        gateway.set_ready(false);
        let dashboard = Dashboard::new(
            dashboard::Ports {
                actions,
                runs,
                deliveries,
                registry,
                events,
                traffic,
                logs,
                api: Arc::new(gateway.inside()),
                calls: Arc::new(gateway.clone()),
                settings: Arc::new(gateway.clone()),
                replicas,
                builds,
                outbox,
                inboxes,
                replays,
                secrets,
                keyring,
                clock,
                entropy,
            },
            dashboard::Options { public_url: public, allowed_hosts: Vec::new(), node },
        );
        let rooms = Self {
            store,
            builder,
            gateway,
            inbox,
            dashboard,
            metrics,
            outbox: own_outbox,
            groups: containment.groups,
            _lifeline: lifeline,
        };
        Ok((rooms, worker, delivery))
    }

    /// Everything that can be asked over HTTP.
    pub(super) fn surface(&self) -> Surface {
        self.gateway.clone().surface_with(self.inbox.router().merge(self.dashboard.router()))
    }

    /// What `/readyz` says.
    pub(super) fn set_ready(&self, ready: bool) {
        self.gateway.set_ready(ready);
    }

    /// The first project's keys, made if need be.
    ///
    /// # Errors
    /// When store or file refuse.
    pub(super) async fn ensure_credentials(&self, data_dir: &Path) -> anyhow::Result<Option<Credentials>> {
        credentials::ensure(data_dir, &self.store, &SystemClock, &OsEntropy).await
    }

    /// Leaves nothing behind in the system, once no replica is left.
    pub(super) fn leave(&self) {
        if let Some(groups) = &self.groups {
            groups.remove();
        }
    }

    /// What upkeep works on.
    pub(super) fn upkeep(&self) -> upkeep::Upkeep {
        upkeep::Upkeep {
            store: self.store.clone(),
            builder: self.builder.clone(),
            metrics: self.metrics.clone(),
            outbox: Arc::clone(&self.outbox),
        }
    }
}

/// The GPUs that replicas can be given.
fn gpus() -> Vec<Gpu> {
    let visible = std::env::var(VISIBLE_DEVICES).ok();
    match worker::gpus::look_up(&Nvml, visible.as_deref()) {
        Ok(gpus) => {
            for gpu in &gpus {
                let (id, compute, mib) = (&gpu.uuid, gpu.compute(), gpu.memory_bytes >> 20);
                tracing::info!(gpu.id = %id, gpu.compute = %compute, gpu.memory_mib = mib, "found a {}", gpu.name);
            }
            gpus
        }
        Err(NoGpus::NoDriver) => Vec::new(),
        Err(error) => {
            tracing::warn!("no GPU can be given to replicas: {error}");
            Vec::new()
        }
    }
}

fn texts(folders: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let text = |folder: &PathBuf| folder.to_str().map(str::to_owned);
    let texts = folders
        .iter()
        .map(|folder| text(folder).with_context(|| format!("{} is not UTF-8", folder.display())));
    texts.collect()
}

/// Empties the folder of what replicas and builds of an earlier process left in it.
fn clear(scratch: &Path) {
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, folder = %scratch.display(), "old temporary files could not be removed");
        }
        _ => {}
    }
}

/// The variables of these names that are set.
fn inherited(names: &[&str]) -> Vec<(OsString, OsString)> {
    names.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect()
}

/// What builds are told: everything the server has but what is its own.
fn builder_options(options: &Options, supervisor: Vec<OsString>) -> builder::Options {
    let environment =
        std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("POSTBACK_")).collect();
    builder::Options {
        supervisor,
        environment,
        install_apt_packages: options.install_apt_packages,
        ..builder::Options::new(options.data_dir.clone(), options.cache_dir.clone())
    }
}
