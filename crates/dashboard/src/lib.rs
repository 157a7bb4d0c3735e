//! Watch: pages that show every run from its request to its receiver.
//!
//! | path below `/dashboard` | what it shows |
//! |---|---|
//! | `/` | how it goes: what waits, what happened lately, what failed last |
//! | `/sign-in` | asks for the private key once, and keeps a signed cookie instead of it |
//! | `/apps`, `/apps/{app}` | the project's apps, and one: traffic, events, builds, settings, functions, log |
//! | `/apps/{app}/try/{function}` | a call made from a form: its answer, and the code that makes it |
//! | `/apps/{app}/log`, `/apps/{app}/builds/{build}` | what an app and a build printed: searched, and followed |
//! | `/apps/{app}/scaling` | how many replicas it has and why, to be changed |
//! | `/runs` | the project's runs, by app, state, time, text and metadata, page by page |
//! | `/runs/{run}` | one run: its timeline, input, result, log, and what can be done about it |
//! | `/shared/{link}` | one run for whoever has the link, until a time, without buttons |
//! | `/deliveries` | what was told to receivers, and what still is to be |
//! | `/endpoints`, `/endpoints/{endpoint}` | how endpoints do, and one: its attempts, those to come, switching it off and on |
//! | `/inboxes`, `/inboxes/{inbox}` | temporary endpoints of our own, and what is set of one |
//! | `/inboxes/{inbox}/requests/{sequence}/replay` | a recorded request, sent once more to an address, and its answer |
//! | `/api`, `/api/{operation}` | what can be asked over HTTP, from the server's own OpenAPI document: to fill in and send, with a curl line |
//! | `/settings` | this node: what it is, what it has, how long things are kept, every bound |
//! | `/keys` | the project's keys: making, revoking and replacing them |
//!
//! Promises:
//! - whoever is not signed in sees nothing but the sign-in page, and the runs that were shared by a link;
//! - a change happens only when one of our own pages asks for it;
//! - what models, callers and receivers wrote is shown as inert text;
//! - everything can be read without a script.

mod answer;
mod api;
mod apps;
mod assets;
mod chart;
mod code;
mod deliveries;
mod endpoints;
mod error;
mod inboxes;
mod json;
mod keys;
mod link;
mod log;
mod logs;
mod overview;
mod replay;
mod run_list;
mod runs;
#[cfg(test)]
mod sample;
mod scaling;
mod sent;
mod session;
mod settings;
mod shape;
mod share;
mod timeline;
mod try_it;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use pages::Hosts;
use queue::actions::Actions;
use queue::limits::TRIED_INPUT_BYTES_MAX;
use queue::port::{
    Api, AppEvents, Builds, Calls, Deliveries, Inboxes, Keyring, Logs, Outbox, Registry, Replays, Replicas,
    Runs, Secrets, Settings, Traffic,
};
use queue::{Clock, Entropy};
use tokio::sync::Semaphore;
use url::Url;

pub use settings::{Node, Space};

/// What the dashboard asks of the other rooms.
#[expect(missing_docs, reason = "each field is the port of its type, described there")]
pub struct Ports {
    pub actions: Actions,
    pub runs: Arc<dyn Runs>,
    pub deliveries: Arc<dyn Deliveries>,
    pub registry: Arc<dyn Registry>,
    pub events: Arc<dyn AppEvents>,
    pub traffic: Arc<dyn Traffic>,
    pub logs: Arc<dyn Logs>,
    pub api: Arc<dyn Api>,
    pub calls: Arc<dyn Calls>,
    pub settings: Arc<dyn Settings>,
    pub replicas: Arc<dyn Replicas>,
    pub builds: Arc<dyn Builds>,
    pub outbox: Arc<dyn Outbox>,
    pub inboxes: Arc<dyn Inboxes>,
    pub replays: Arc<dyn Replays>,
    pub secrets: Arc<dyn Secrets>,
    pub keyring: Arc<dyn Keyring>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// What the room is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where people reach this server.
    pub public_url: Url,
    /// Names besides the public one, `localhost` and IP addresses under which pages may be opened.
    pub allowed_hosts: Vec<String>,
    /// What is to be told of this node.
    pub node: Node,
}

/// The room: built by the binary, and merged into its router.
#[derive(Clone)]
pub struct Dashboard {
    shared: Arc<Shared>,
}

/// Reads of what inboxes recorded that are done at once; others wait for their turn.
const RECORDED_READS_AT_ONCE: usize = 4;

/// What every handler needs.
struct Shared {
    ports: Ports,
    options: Options,
    /// Turns for reading what inboxes recorded, since a body may have 100 MiB.
    recorded_reads: Semaphore,
}

impl Dashboard {
    /// The room over these ports.
    pub fn new(ports: Ports, options: Options) -> Self {
        let recorded_reads = Semaphore::new(RECORDED_READS_AT_ONCE);
        Self { shared: Arc::new(Shared { ports, options, recorded_reads }) }
    }

    /// The routes, state inside.
    pub fn router(&self) -> Router {
        let Options { public_url, allowed_hosts, .. } = &self.shared.options;
        let hosts = Hosts::new(public_url, allowed_hosts.clone());
        let large = DefaultBodyLimit::max(TRIED_INPUT_BYTES_MAX);
        Router::new()
            .route("/dashboard", get(overview::show))
            .route("/dashboard/sign-in", get(session::ask).post(session::sign_in))
            .route("/dashboard/sign-out", post(session::sign_out))
            .route("/dashboard/apps", get(apps::list))
            .route("/dashboard/apps/{app}", get(apps::show))
            .route("/dashboard/apps/{app}/scaling", get(scaling::show).post(scaling::change))
            .route("/dashboard/apps/{app}/log", get(logs::of_app))
            .route("/dashboard/apps/{app}/builds/{build}", get(logs::of_build))
            .route("/dashboard/apps/{app}/restart", post(apps::restart))
            .route("/dashboard/apps/{app}/rollback", post(apps::roll_back))
            .route("/dashboard/apps/{app}/delete", post(apps::delete))
            .route("/dashboard/apps/{app}/try/{function}", get(try_it::show).post(try_it::send).layer(large))
            .route("/dashboard/runs", get(run_list::show))
            .route("/dashboard/runs/{run}", get(runs::show))
            .route("/dashboard/runs/{run}/share", post(share::make))
            .route("/dashboard/shared/{link}", get(share::show))
            .route("/dashboard/runs/{run}/cancel", post(runs::cancel))
            .route("/dashboard/runs/{run}/deliveries/{delivery}/redeliver", post(runs::redeliver))
            .route("/dashboard/deliveries", get(deliveries::list))
            .route("/dashboard/deliveries/redeliver", post(deliveries::redeliver))
            .route("/dashboard/endpoints", get(endpoints::list))
            .route("/dashboard/endpoints/{endpoint}", get(endpoints::show))
            .route("/dashboard/endpoints/{endpoint}/enable", post(endpoints::enable))
            .route("/dashboard/endpoints/{endpoint}/disable", post(endpoints::disable))
            .route("/dashboard/endpoints/{endpoint}/test", post(endpoints::test))
            .route("/dashboard/endpoints/{endpoint}/redeliver", post(endpoints::redeliver))
            .route("/dashboard/inboxes", get(inboxes::list).post(inboxes::create))
            .route("/dashboard/inboxes/{inbox}", get(inboxes::show).post(inboxes::set))
            .route("/dashboard/inboxes/{inbox}/reply", post(inboxes::reply))
            .route("/dashboard/inboxes/{inbox}/share", post(inboxes::share))
            .route("/dashboard/inboxes/{inbox}/links", post(inboxes::link))
            .route("/dashboard/inboxes/{inbox}/delete", post(inboxes::delete))
            .route(
                "/dashboard/inboxes/{inbox}/requests/{sequence}/replay",
                get(replay::show).post(replay::send),
            )
            .route("/dashboard/api", get(api::show))
            .route("/dashboard/api/{operation}", get(api::one).post(api::send).layer(large))
            .route("/dashboard/settings", get(settings::show))
            .route("/dashboard/keys", get(keys::show).post(keys::rotate))
            .route("/dashboard/keys/named", post(keys::create))
            .route("/dashboard/keys/named/{key}/revoke", post(keys::revoke))
            .route("/dashboard/assets/{name}", get(assets::serve))
            .layer(middleware::map_response(error::in_words))
            .layer(middleware::from_fn(session::refuse_foreign_changes))
            .layer(middleware::map_response(pages::lock_down_to_forms))
            .layer(middleware::from_fn_with_state(hosts, pages::check_host))
            .with_state(Arc::clone(&self.shared))
    }
}
