//! Keeping a run, and saying so.
//!
//! The acknowledgement is written only after [`Runs::accept`](queue::port::Runs::accept) returned. From
//! there on nothing that happens to the caller's connection can lose the run.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderValue, StatusCode};
use queue::answer::Named;
use queue::app::Function;
use queue::lease::{Lease, Release, Released};
use queue::port::{Accepted, Claim, Slot, StoreError};
use queue::registry::{App, Build};
use queue::run::{Generation, LeasedRun, Mode, NewRun, RunOptions};
use queue::unstoppable::Unstoppable;
use queue::{AppName, LeaseToken, RunId, answer};
use tokio::time::Instant;

use super::body::Received;
use super::queueing::Queueing;
use super::target::Target;
use super::webhook::Told;
use super::{idempotency, respond};
use crate::Gateway;
use crate::problem::{Answer, Problem};

/// How often a run whose acceptance is unknown is looked for, a second apart and more.
const SETTLE_TRIES: u32 = 10;

/// A checked call of a function.
pub(crate) struct Order<'a> {
    pub(crate) target: &'a Target,
    pub(crate) build: &'a Build,
    pub(crate) function: &'a Function,
    pub(crate) input: Received,
    /// The caller's own name for it.
    pub(crate) key: Option<&'a str>,
    /// When it is to start.
    pub(crate) queueing: Queueing,
}

/// A run that is safe.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) run: RunId,
    /// An earlier request started it.
    pub(crate) replayed: bool,
}

impl Kept {
    /// Says on the answer that it is about an earlier request's run.
    pub(crate) fn mark(self, response: &mut Response) {
        if self.replayed {
            response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
        }
    }
}

/// Keeps the run, then answers with its id.
pub(crate) async fn acknowledge(
    gateway: &Gateway,
    order: Order<'_>,
    told: Told,
    began: Instant,
) -> Answer<Response> {
    let generation = order.target.generation;
    let (endpoints, listed) = (told.endpoints.clone(), told.listed);
    let webhook = if listed { Some(Named::List(&endpoints)) } else { endpoints.first().map(Named::One) };
    let target = order.target;
    let message = if endpoints.is_empty() { answer::ASYNC_ACKNOWLEDGEMENT } else { &target.acknowledgement };
    let kept = keep(gateway, order, Mode::Async, told).await?;
    let status = if generation == Generation::V4 { StatusCode::ACCEPTED } else { StatusCode::OK };
    let body = answer::acknowledgement(kept.run, generation, webhook, message);
    gateway.meter.acknowledged(began.elapsed());
    let mut response = respond(status, kept.run, body);
    kept.mark(&mut response);
    Ok(response)
}

/// Accepts a durable run and sends it on its way. Returns when it is safe.
pub(crate) async fn keep(gateway: &Gateway, order: Order<'_>, mode: Mode, told: Told) -> Answer<Kept> {
    let mut options = RunOptions {
        caller_secret: told.secret,
        webhook_headers: told.headers,
        events: told.events,
        schedule: told.schedule,
        metadata: told.metadata,
        ..RunOptions::default()
    };
    if let Some(key) = order.key {
        // What the app's configuration adds is not part of the call: it may change before the call is
        // sent again.
        let own = if told.of_app { &[][..] } else { &told.endpoints };
        let bound = idempotency::bind(key, order.target.generation, own, &order.input.bytes).await;
        options.idempotency = Some(bound);
    }
    let (input, share) = order.input.split();
    let accepted_at = gateway.clock.now();
    order.queueing.apply(&mut options, accepted_at, &order.build.config);
    let run = NewRun {
        id: RunId::generate(accepted_at, &*gateway.entropy),
        app: order.target.app.id.clone(),
        function: order.function.name.as_str().into(),
        generation: order.target.generation,
        mode,
        input,
        webhooks: told.endpoints,
        limit: order.build.config.response_grace_period(),
        accepted_at,
        warning: told.warning,
        options,
    };
    let (id, generation) = (run.id, run.generation);
    let app = Arc::clone(&order.target.app);
    // A run that is to start later waits in the store, not in memory.
    let at_once = run.options.not_before.is_none();
    let slot = at_once.then(|| gateway.dispatch.reserve(&app, run.input.len())).flatten();
    let accepting = gateway.clone();
    let accepted = Unstoppable::new(async move {
        let accepted = accept(accepting, app, run, slot).await;
        // The store has the body, or nobody; a caller that hangs up does not free the memory before that.
        drop(share);
        accepted
    });
    let accepted = accepted.await;
    match accepted.map_err(|problem| problem.about(id))? {
        Accepted::Replayed(first) => Ok(Kept { run: first, replayed: true }),
        Accepted::KeyTaken(first) => Err(idempotency::mismatch(first)),
        Accepted::QueueFull => Err(queue_full(&order.target.app.id.name()).about(id)),
        Accepted::Queued | Accepted::Leased(_) => {
            gateway.meter.accepted(generation, mode);
            Ok(Kept { run: id, replayed: false })
        }
    }
}

async fn accept(
    gateway: Gateway,
    app: Arc<App>,
    run: NewRun,
    slot: Option<Box<dyn Slot>>,
) -> Answer<Accepted> {
    let priority = run.options.priority;
    let Some(slot) = slot else {
        let waits = run.options.not_before.is_some();
        let accepted = gateway.runs.accept(run, Claim::Later).await?;
        if matches!(accepted, Accepted::Queued) && !waits {
            gateway.dispatch.wake(&app.id, priority);
        }
        return Ok(accepted);
    };
    let token = LeaseToken::generate(&*gateway.entropy);
    let accepted = gateway.runs.accept(run.clone(), Claim::Now(token)).await;
    match accepted {
        Ok(Accepted::Leased(lease)) => {
            slot.hand_over(leased(run, lease));
            Ok(Accepted::Leased(lease))
        }
        Ok(Accepted::Queued) => {
            drop(slot);
            gateway.dispatch.wake(&app.id, priority);
            Ok(Accepted::Queued)
        }
        Ok(kept_nothing) => Ok(kept_nothing),
        Err(error) => {
            if matches!(error, StoreError::Unknown(_)) {
                tokio::spawn(settle(gateway, app, Lease { run: run.id, token, attempt: 1 }, priority));
            }
            Err(error.into())
        }
    }
}

fn leased(run: NewRun, lease: Lease) -> LeasedRun {
    LeasedRun {
        lease,
        app: run.app,
        function: run.function,
        generation: run.generation,
        input: run.input,
        webhooks: run.webhooks,
        events: run.options.events,
        limit: run.limit,
        accepted_at: run.accepted_at,
        crashes: 0,
        priority: run.options.priority,
        retry: run.options.retry,
        failures: 0,
        last_attempt: run.options.max_attempts == Some(1),
    }
}

fn queue_full(app: &AppName) -> Problem {
    Problem::too_many(
        "queue_full",
        format!("the queue of `{app}` is full; nothing was kept, try again later"),
        5,
    )
}

/// A run whose acceptance is unknown may stand in the store, leased to this node with nobody working on
/// it: gives it back, if it is there.
async fn settle(gateway: Gateway, app: Arc<App>, lease: Lease, priority: i8) {
    for attempt in 1..=SETTLE_TRIES {
        tokio::time::sleep(Duration::from_secs(attempt.into())).await;
        match gateway.runs.release(lease, Release::Drained).await {
            Ok(Released::Queued) => {
                tracing::info!(run.id = %lease.run, "a run of unknown acceptance was found and queued");
                gateway.dispatch.wake(&app.id, priority);
                return;
            }
            Ok(Released::Ended(_) | Released::Stale) => return,
            Err(_) => {}
        }
    }
    tracing::error!(run.id = %lease.run, "a run of unknown acceptance could not be looked for; a restart will");
}
