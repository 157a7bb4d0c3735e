//! The engine: takes due deliveries from outcomes and from the store, makes their attempts, and
//! records what came of them.
//!
//! Promises: every request on the wire is an attempt that the store knew before; caps hold exactly;
//! a receiver that hangs costs others nothing; an idle engine sleeps.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use queue::clock::{Clock, Entropy, Timestamp};
use queue::delivery::{AttemptEnd, AttemptReport, DueDelivery, Verdict};
use queue::figures::ReceiverStanding;
use queue::limits::{DELIVERY_CONNECT_LIMIT, DELIVERY_LIMIT, REPLAYS_AT_ONCE_MAX};
use queue::port::{
    AddressGuard, AddressRefused, Admitted, Deliveries, Departure, Inboxes, Outbox, Registry, Stored,
};
use queue::retry::SCHEDULE;
use queue::run::{EndpointUrl, Receiver};
use queue::webhook::Schedule;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connect::Connector;
use crate::failure::Failure;
use crate::guard::Guard;
use crate::keys::Keys;
use crate::places::{Caps, Health, Place, Places};
use crate::pool::Pool;
use crate::resolve::{Resolve, SystemResolver};
use crate::rules::Rules;
use crate::send::Sender;
use crate::verdict::{Seen, verdict};

/// How deliveries are made. The default is the product's.
#[derive(Clone)]
pub struct Options {
    /// Which addresses may be called.
    pub rules: Rules,
    /// How many attempts may be under way at once.
    pub caps: Caps,
    /// Waits before each attempt, from the first, of runs that have no schedule of their own.
    pub schedule: Arc<[Duration]>,
    /// One attempt: connect and TLS.
    pub connect_limit: Duration,
    /// One attempt in all.
    pub attempt_limit: Duration,
    /// Replaces the machine's resolver.
    pub resolver: Option<Arc<dyn Resolve>>,
    /// Replaces the machine's roots of trust.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            caps: Caps::default(),
            schedule: Arc::new(SCHEDULE),
            connect_limit: DELIVERY_CONNECT_LIMIT,
            attempt_limit: DELIVERY_LIMIT,
            resolver: None,
            tls: None,
        }
    }
}

/// The store is looked at again after this long even when nothing was announced.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
/// The pause after the store said that something is due which it then did not give.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The pause after an error of the store, doubled up to the second.
const STORE_PAUSE_FIRST: Duration = Duration::from_millis(250);
const STORE_PAUSE_MAX: Duration = Duration::from_secs(10);

/// No retry is expected.
const NO_RETRY: i64 = i64::MAX;

pub(crate) struct Shared {
    pub(crate) sender: Sender,
    pub(crate) guard: Arc<Guard>,
    /// Places for recorded requests that are sent once more.
    pub(crate) replays: Semaphore,
    places: Arc<Places>,
    deliveries: Arc<dyn Deliveries>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    schedule: Arc<[Duration]>,
    attempts: TaskTracker,
    /// The earliest retry decided here that the loop has not looked for yet, in milliseconds.
    retry_at: AtomicI64,
}

/// The other rooms' way to the engine: their outbox, their address guard, and what sends recorded requests once more.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// The loop that must run for deliveries to be retried.
pub struct Engine {
    shared: Arc<Shared>,
    store_pause: Duration,
}

impl Engine {
    /// An engine and its handle. Nothing happens before [`Engine::run`], but for attempts handed to
    /// the outbox.
    pub fn new(
        options: Options,
        deliveries: Arc<dyn Deliveries>,
        registry: Arc<dyn Registry>,
        inboxes: Arc<dyn Inboxes>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> (Self, Handle) {
        let own = options.rules.own_receivers();
        let resolver = options.resolver.unwrap_or_else(|| Arc::new(SystemResolver::default()));
        let guard = Arc::new(Guard::new(options.rules, resolver, inboxes));
        let shared = Arc::new(Shared {
            sender: Sender {
                guard: Arc::clone(&guard),
                connector: Connector::new(Arc::clone(&guard), options.tls, options.connect_limit),
                pool: Arc::new(Pool::new(options.caps)),
                keys: Keys::new(registry),
                limit: options.attempt_limit,
            },
            guard,
            replays: Semaphore::new(REPLAYS_AT_ONCE_MAX),
            places: Places::new(options.caps, own),
            deliveries,
            clock,
            entropy,
            schedule: options.schedule,
            attempts: TaskTracker::new(),
            retry_at: AtomicI64::new(NO_RETRY),
        });
        (Self { shared: Arc::clone(&shared), store_pause: STORE_PAUSE_FIRST }, Handle { shared })
    }

    /// Delivers until `shutdown`, then lets the attempts under way end, which takes no longer than
    /// one attempt may.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            match self.look(&shutdown).await {
                Ok(next) => {
                    self.store_pause = STORE_PAUSE_FIRST;
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => break,
                        () = self.shared.places.wanted.notified() => {}
                        () = sleep_until(next) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "waiting webhooks cannot be read; trying again");
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = sleep(self.store_pause) => {}
                    }
                    self.store_pause = (self.store_pause * 2).min(STORE_PAUSE_MAX);
                }
            }
        }
        self.shared.places.close();
        self.shared.attempts.close();
        let patience = self.shared.sender.limit + Duration::from_secs(1);
        if timeout(patience, self.shared.attempts.wait()).await.is_err() {
            tracing::warn!(
                attempts = self.shared.attempts.len(),
                "webhook attempts did not end in time; they are made again after the next start"
            );
        }
        self.shared.sender.pool.clear();
    }

    /// Begins what is due and has a place. Returns when to look again if nobody calls before.
    async fn look(&self, shutdown: &CancellationToken) -> Stored<Instant> {
        let shared = &self.shared;
        shared.expect_retries_after(shared.clock.now());
        while !shutdown.is_cancelled() {
            let Some(room) = shared.places.room(Instant::now()) else { break };
            let due = match shared.deliveries.begin(shared.clock.now(), room.clone()).await {
                Ok(due) => due,
                Err(error) => {
                    shared.places.withdraw();
                    return Err(error);
                }
            };
            let large = due.iter().map(|due| (due.url.receiver(), due.large_bytes)).collect();
            let places = shared.places.take(large, Instant::now());
            if due.is_empty() {
                return Ok(self.wake_up_time(shared.deliveries.next_due(room).await?));
            }
            for (due, place) in due.into_iter().zip(places) {
                shared.start(due, place);
            }
        }
        Ok(self.wake_up_time(None))
    }

    fn wake_up_time(&self, next_due: Option<Timestamp>) -> Instant {
        let (now, instant) = (self.shared.clock.now(), Instant::now());
        let noted = self.shared.retry_at.load(Ordering::Relaxed);
        let noted = (noted != NO_RETRY).then(|| Timestamp::from_millis(noted));
        let due = [next_due, noted].into_iter().flatten().min();
        let mut wake_up = instant + LOOK_ANYWAY;
        if let Some(due) = due {
            wake_up = wake_up.min(instant + due.since(now).max(LOOK_AGAIN));
        }
        self.shared.places.next_probe(instant).map_or(wake_up, |probe| wake_up.min(probe))
    }
}

impl Shared {
    fn start(self: &Arc<Self>, due: DueDelivery, place: Place) {
        let shared = Arc::clone(self);
        self.attempts.spawn(async move { shared.deliver(due, place).await });
    }

    async fn deliver(&self, due: DueDelivery, place: Place) {
        metrics::gauge!("postback_deliveries_in_flight").increment(1.0);
        let started = Instant::now();
        let attempt = self.sender.attempt(&due, &place.receiver, self.clock.now());
        // A bug must not leave the record of the attempt open until the next start. What was caught is dropped,
        // and what it may have left half done is this attempt's own.
        let seen = AssertUnwindSafe(attempt).catch_unwind().await;
        let seen = seen.unwrap_or_else(|_| Seen::failed(Failure::OutcomeUnknown));
        let duration = started.elapsed();
        metrics::gauge!("postback_deliveries_in_flight").decrement(1.0);
        metrics::histogram!("postback_delivery_attempt_seconds").record(duration.as_secs_f64());

        let now = self.clock.now();
        let chance = if seen.failure.is_some() { self.entropy.fraction() } else { 0.0 };
        let schedule = due.schedule.as_ref().map_or(&*self.schedule, Schedule::waits);
        let verdict = verdict(due.id, schedule, due.step, due.attempt, &seen, now, chance);
        report(&due, &place.receiver, &seen, verdict, duration);
        let health = health(&seen);
        self.deliveries.complete(AttemptEnd {
            id: due.id,
            project: Some(due.project),
            url: due.url,
            attempt: due.attempt,
            ended_at: now,
            verdict,
            report: AttemptReport {
                status_code: seen.status,
                reason: seen.failure.map(|failure| failure.reason().into_owned()),
                response: seen.response,
                duration,
                timings: seen.timings,
                thin: due.thin,
            },
        });
        place.give_back(health);
        if let Some(at) = verdict.again_at() {
            self.note_retry(at);
        }
    }

    /// Retries due until `now` are found in the store by the look that follows: it asks behind all
    /// that was written before.
    fn expect_retries_after(&self, now: Timestamp) {
        let due = self.retry_at.load(Ordering::Relaxed);
        if due <= now.as_millis() {
            // One that was noted in between is looked for in its turn.
            let _ = self.retry_at.compare_exchange(due, NO_RETRY, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The loop must know of a retry that is due before it would look next.
    fn note_retry(&self, at: Timestamp) {
        let at = at.as_millis();
        if self.retry_at.fetch_min(at, Ordering::Relaxed) > at {
            self.places.wanted.notify_one();
        }
    }
}

fn report(due: &DueDelivery, receiver: &Receiver, seen: &Seen, verdict: Verdict, duration: Duration) {
    let outcome = seen.failure.map_or("delivered".into(), Failure::reason);
    metrics::counter!("postback_delivery_attempts_total", "outcome" => outcome.clone()).increment(1);
    if seen.failure.is_none() {
        return;
    }
    let next = verdict.again_at().map(Timestamp::to_rfc3339);
    tracing::info!(
        delivery.id = %due.id,
        attempt = due.attempt,
        receiver = receiver.as_str(),
        reason = outcome.as_ref(),
        http.status = seen.status,
        duration_ms = duration.as_millis(),
        delivery.state = verdict.state().as_str(),
        next_attempt = next,
        "webhook attempt failed"
    );
}

fn health(seen: &Seen) -> Health {
    match (seen.failure, seen.status) {
        (None, _) => Health::Good,
        (
            Some(
                Failure::AddressNotAllowed
                | Failure::NoSigningKey
                | Failure::Shortage
                | Failure::OutcomeUnknown,
            ),
            _,
        ) => Health::Unknown,
        (Some(failure), _) if failure.is_outage() => Health::Outage,
        (Some(_), Some(429 | 500..)) | (Some(Failure::Reset), _) => Health::Strained,
        (Some(_), _) => Health::Answered,
    }
}

impl Outbox for Handle {
    fn reserve(&self, url: &EndpointUrl, result_bytes: usize) -> Option<Box<dyn Departure>> {
        let place = self.shared.places.reserve(url.receiver(), result_bytes, Instant::now())?;
        Some(Box::new(Reserved { shared: Arc::clone(&self.shared), place }))
    }

    fn wake(&self) {
        self.shared.places.wanted.notify_one();
    }

    fn standing(&self, receiver: &Receiver) -> ReceiverStanding {
        let (under_way, places, left_alone) = self.shared.places.standing(receiver, Instant::now());
        let now = self.shared.clock.now();
        ReceiverStanding { under_way, places, paused_until: left_alone.map(|time| now.plus(time)) }
    }
}

struct Reserved {
    shared: Arc<Shared>,
    place: Place,
}

impl Departure for Reserved {
    fn send(self: Box<Self>, due: DueDelivery) {
        let Self { shared, place } = *self;
        shared.start(due, place);
    }
}

#[async_trait]
impl AddressGuard for Handle {
    async fn check(&self, url: &str) -> Result<Admitted, AddressRefused> {
        self.shared.guard.admit(url).await
    }
}

impl Rules {
    /// The origins of this server, which get no breaker and the full cap: an inbox that plays dead
    /// on purpose must not keep others waiting.
    fn own_receivers(&self) -> HashSet<Receiver> {
        let Some(own) = &self.own else { return HashSet::new() };
        own.origins().into_iter().map(|origin| EndpointUrl::checked(&origin).receiver()).collect()
    }
}
