//! Accept: the HTTP API. Authenticates, validates, enqueues, answers.
//!
//! The promises of this room:
//!
//! - An acknowledgement leaves only after [`Runs::accept`] returned, that is after the run was synced.
//! - A request is refused before anything is kept, with a status, a code and a way out.
//! - A body reaches the model byte for byte; it is scanned once, never parsed into a tree.
//! - Foreign content (what models return) is inert in a browser.
//!
//! [`Gateway`] is the state of every handler; [`Gateway::surface`] the HTTP surface; [`listener::serve`]
//! the accept loop that bounds what a connection may cost.

mod auth;
mod control;
mod edge;
mod health;
mod inference;
mod inside;
pub mod listener;
mod meter;
mod peer;
mod problem;
mod rate;
mod reserved;
mod scan;
mod surface;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use ipnet::IpNet;
use queue::actions::Actions;
use queue::link::ResultLinks;
use queue::port::{
    AddressGuard, AppEvents, Builds, Deliveries, Dispatch, Inboxes, Keyring, Logs, Outbox, Registry, Replays,
    Replicas, Runs, Secrets, Stored,
};
use queue::{Clock, Entropy, ProjectId, RunId};
use tokio::sync::{OnceCell, Semaphore};

use meter::Meter;
use rate::Rate;

pub use inside::Inside;
pub use rate::RateLimits;
pub use reserved::RESERVED_APP_NAMES;
pub use surface::Surface;

/// Renders the metrics as Prometheus text.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the gateway asks of the other rooms.
#[expect(missing_docs, reason = "each field is the port of its type, described there")]
pub struct Ports {
    pub actions: Actions,
    pub runs: Arc<dyn Runs>,
    pub deliveries: Arc<dyn Deliveries>,
    pub registry: Arc<dyn Registry>,
    pub inboxes: Arc<dyn Inboxes>,
    pub logs: Arc<dyn Logs>,
    pub events: Arc<dyn AppEvents>,
    pub dispatch: Arc<dyn Dispatch>,
    pub replicas: Arc<dyn Replicas>,
    pub outbox: Arc<dyn Outbox>,
    pub guard: Arc<dyn AddressGuard>,
    pub replays: Arc<dyn Replays>,
    pub builds: Arc<dyn Builds>,
    pub keyring: Arc<dyn Keyring>,
    pub secrets: Arc<dyn Secrets>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: RenderMetrics,
}

/// Which web origins may call inference from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Any; calls need a key anyway, and no cookie opens anything here.
    #[default]
    Any,
    /// Exactly these, as browsers write them: `https://app.example`.
    These(Vec<String>),
}

/// How the gateway behaves where users may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where clients reach this server: scheme, host and port, without a slash at the end.
    pub public_url: String,
    /// Apps that say `disable_auth` may be called without a key.
    pub allow_open_apps: bool,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Checks the links to results that deliveries carry.
    pub result_links: ResultLinks,
    /// Which web origins may call inference.
    pub cors_origins: CorsOrigins,
    /// How often one caller may ask.
    pub rates: RateLimits,
    /// The product's version, as `/healthz` says it.
    pub version: String,
}

/// The state of every handler. Cloning it costs one reference count.
#[derive(Clone)]
pub struct Gateway(Arc<Parts>);

/// Reads of what inboxes recorded that are done at once; others wait for their turn.
const RECORDED_READS_AT_ONCE: usize = 4;

/// What a [`Gateway`] holds; reached through it (`gateway.options`), and through that the ports
/// (`gateway.registry`).
#[doc(hidden)]
pub struct Parts {
    ports: Ports,
    pub(crate) options: Options,
    pub(crate) ready: AtomicBool,
    pub(crate) meter: Meter,
    pub(crate) rate_of_address: Option<Rate>,
    pub(crate) rate_of_key: Option<Rate>,
    pub(crate) bodies: inference::Budget,
    /// Turns for reading what inboxes recorded, since a body may have 100 MiB.
    pub(crate) recorded_reads: Semaphore,
    default_project: OnceCell<ProjectId>,
}

impl Deref for Parts {
    type Target = Ports;

    fn deref(&self) -> &Ports {
        &self.ports
    }
}

impl Deref for Gateway {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Gateway {
    /// Puts the parts together; ready from the start. Install the metrics recorder before: the
    /// counters are made here.
    pub fn new(ports: Ports, options: Options) -> Self {
        Self(Arc::new(Parts {
            ports,
            rate_of_address: Rate::new(options.rates.per_address),
            rate_of_key: Rate::new(options.rates.per_key),
            options,
            ready: AtomicBool::new(true),
            meter: Meter::new(),
            bodies: inference::Budget::new(),
            recorded_reads: Semaphore::new(RECORDED_READS_AT_ONCE),
            default_project: OnceCell::new(),
        }))
    }

    /// What `/readyz` says: `false` while the server drains.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// The whole HTTP surface of this room.
    pub fn surface(self) -> Surface {
        self.surface_with(Router::new())
    }

    /// The same, with the routes of other rooms (inbox pages, dashboard) under the same roof: one
    /// fallback, one place where panics end.
    pub fn surface_with(self, others: Router) -> Surface {
        let router = Router::new()
            .merge(inference::routes(&self.options.cors_origins))
            .merge(control::routes())
            .merge(health::routes())
            .with_state(self.clone())
            .merge(others)
            .fallback(edge::nothing_here)
            .method_not_allowed_fallback(edge::not_this_method);
        Surface::new(self, router)
    }

    /// The same surface for other rooms of this process, without theirs.
    pub fn inside(&self) -> Inside {
        Inside::new(self.clone())
    }

    /// The id of a run that is accepted now.
    pub(crate) fn new_run_id(&self) -> RunId {
        RunId::generate(self.clock.now(), &*self.entropy)
    }

    /// The project of the paths that name none: the oldest.
    pub(crate) async fn default_project(&self) -> Stored<Option<ProjectId>> {
        if let Some(project) = self.default_project.get() {
            return Ok(Some(project.clone()));
        }
        let Some(first) = self.registry.projects().await?.into_iter().next() else { return Ok(None) };
        // Projects are never removed, so the oldest stays the oldest.
        Ok(Some(self.default_project.get_or_init(|| async { first.id }).await.clone()))
    }
}
