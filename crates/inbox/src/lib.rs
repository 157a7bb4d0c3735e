//! Receive: records what arrives at a temporary endpoint and shows it live.
//!
//! Two faces on one router:
//!
//! | path | who comes | what happens |
//! |---|---|---|
//! | `/inbox/{id}` and below, any method | webhook senders | recorded, then answered |
//! | `/inboxes/{id}?token=…` | the person who made the inbox | a page, live by server-sent events |
//!
//! Promises:
//! - a request is answered only after the store has it, as the inbox's reply settings say, or with 200;
//! - what strangers send is shown as inert text: no markup, no script, no control character of it
//!   reaches a browser as such;
//! - without the inbox's view token, a page looks exactly like one that does not exist;
//! - pages read without a script: search, comparison and every form of a request are addresses;
//! - however large a body is, laying it out, comparing and searching hold up no other connection;
//! - an open page misses nothing: events come from the store, a broadcast only says when to look.

mod assets;
mod capture;
mod curl;
mod difference;
mod door;
mod image;
mod live;
mod page;
mod reply;
mod search;
mod single;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{any, get};
use pages::Hosts;
use queue::limits::INBOX_WAITS_MAX;
use queue::port::{Inboxes, Registry};
use queue::{Clock, Entropy, InboxId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::live::Hub;

/// Bytes of bodies being received at once, over all inboxes; beyond it senders get 503 and try again.
const BYTES_IN_FLIGHT_MAX: usize = 256 << 20;
/// Pages and bodies being read from the store at once; others wait their turn.
const READS_AT_ONCE_MAX: usize = 4;

/// What the room is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where people and senders reach this server.
    pub public_url: Url,
    /// Names besides the public one, `localhost` and IP addresses under which pages may be opened.
    pub allowed_hosts: Vec<String>,
    /// Ends the live pages when the server stops, so that they do not hold it up.
    pub shutdown: CancellationToken,
}

/// The room: built by the binary, and merged into its router.
#[derive(Clone)]
pub struct InboxRoom {
    shared: Arc<Shared>,
}

/// What every handler needs.
struct Shared {
    inboxes: Arc<dyn Inboxes>,
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: Options,
    hub: Arc<Hub>,
    bytes_in_flight: Arc<Semaphore>,
    reads: Semaphore,
    /// Requests that may wait for their answer at once.
    waits: Semaphore,
}

impl InboxRoom {
    /// The room over these ports.
    pub fn new(
        inboxes: Arc<dyn Inboxes>,
        registry: Arc<dyn Registry>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: Options,
    ) -> Self {
        let shared = Shared {
            inboxes,
            registry,
            clock,
            entropy,
            options,
            hub: Arc::new(Hub::default()),
            bytes_in_flight: Arc::new(Semaphore::new(BYTES_IN_FLIGHT_MAX)),
            reads: Semaphore::new(READS_AT_ONCE_MAX),
            waits: Semaphore::new(INBOX_WAITS_MAX),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The routes, state inside.
    pub fn router(&self) -> Router {
        let pages = Router::new()
            .route("/inboxes/{id}", get(page::show))
            .route("/inboxes/{id}/events", get(live::events))
            .route("/inboxes/{id}/compare", get(single::compare))
            .route("/inboxes/{id}/requests/{sequence}", get(single::show))
            .route("/inboxes/{id}/requests/{sequence}/body", get(page::body))
            .route("/inboxes/{id}/requests/{sequence}/image", get(single::picture))
            .route("/inboxes/assets/{name}", get(assets::serve))
            .layer(middleware::map_response(page::in_words))
            .layer(middleware::map_response(pages::lock_down_to_forms))
            .layer(middleware::from_fn_with_state(self.shared.hosts(), pages::check_host));
        Router::new()
            .route("/inbox/{id}", any(capture::receive))
            .route("/inbox/{id}/", any(capture::receive))
            .route("/inbox/{id}/{*rest}", any(capture::receive))
            .merge(pages)
            .with_state(Arc::clone(&self.shared))
    }
}

/// Work on bodies, which may be large: beside the threads that serve connections.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Shared {
    fn hosts(&self) -> Hosts {
        Hosts::new(&self.options.public_url, self.options.allowed_hosts.clone())
    }

    /// The address that senders post to.
    fn address(&self, inbox: &InboxId) -> String {
        format!("{}/inbox/{inbox}", self.options.public_url.as_str().trim_end_matches('/'))
    }
}
