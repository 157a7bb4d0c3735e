//! Outcomes on their way to the store. A replica hands them over and takes its next call; the
//! commit is waited for here, many at a time.
//!
//! Promise: a result is not lost while the process lives. What the store refuses is tried again
//! until it is recorded or the lease turns out to be lost. What is pending is bounded: beyond it
//! replicas take no new work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use queue::lease::{LEASE_LOST, Lease, Release, Released};
use queue::outcome::{Finish, Finished, Outcome, RunError};
use queue::port::{Departure, StoreError, Stored};
use queue::run::{CallRecord, EndpointUrl, LeasedRun};
use queue::{AppId, RunId, Timestamp, rerun};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::waiting::{LOWEST, Waiting, WaitingCall};
use crate::{Ports, meters};

/// Ends that may be pending for one app.
const PENDING_MAX: usize = 4_096;
/// Bytes of results that may be pending for one app, beyond the last.
const PENDING_BYTES_MAX: usize = 256 << 20;
/// Taken from the replicas at once.
const BATCH: usize = 256;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The end of an attempt.
#[derive(Debug)]
enum End {
    Outcome {
        lease: Lease,
        webhooks: Vec<EndpointUrl>,
        outcome: Outcome,
    },
    /// It failed, and the run is to be executed again.
    Failed {
        lease: Lease,
        error: RunError,
    },
    Release {
        lease: Lease,
        release: Release,
    },
}

impl End {
    fn run(&self) -> RunId {
        match self {
            Self::Outcome { lease, .. } | Self::Failed { lease, .. } | Self::Release { lease, .. } => {
                lease.run
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Outcome { outcome, .. } => outcome.result.as_ref().map_or(0, bytes::Bytes::len),
            Self::Failed { .. } | Self::Release { .. } => 0,
        }
    }
}

/// An app's way to the store. Cloned freely; when the last clone is gone and everything is
/// recorded, its task ends.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    ends: mpsc::UnboundedSender<End>,
    pending: Arc<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    ends: AtomicUsize,
    bytes: AtomicUsize,
}

impl Pending {
    fn has_room(&self) -> bool {
        self.ends.load(Ordering::Relaxed) < PENDING_MAX
            && self.bytes.load(Ordering::Relaxed) < PENDING_BYTES_MAX
    }
}

/// The task behind a [`Recorder`].
#[derive(Debug)]
pub(crate) struct RecorderTask {
    ends: mpsc::UnboundedReceiver<End>,
    pending: Arc<Pending>,
}

impl Recorder {
    pub(crate) fn new() -> (Self, RecorderTask) {
        let (sender, ends) = mpsc::unbounded_channel();
        let pending = Arc::new(Pending::default());
        (Self { ends: sender, pending: Arc::clone(&pending) }, RecorderTask { ends, pending })
    }

    /// Whether more work may be begun.
    pub(crate) fn has_room(&self) -> bool {
        self.pending.has_room()
    }

    /// The run ended, unless its caller wants it executed again after such a failure.
    pub(crate) fn finish(&self, run: LeasedRun, outcome: Outcome) {
        let retried = run.retry.as_ref().zip(outcome.error.as_ref());
        let allowed = |code| !(run.last_attempt && rerun::is_execution(code));
        if retried
            .is_some_and(|(policy, error)| policy.allows(run.failures, error.code) && allowed(error.code))
            && let Some(error) = outcome.error
        {
            return self.send(End::Failed { lease: run.lease, error });
        }
        self.send(End::Outcome { lease: run.lease, webhooks: run.webhooks, outcome });
    }

    /// The attempt ended, the run did not.
    pub(crate) fn release(&self, lease: Lease, release: Release) {
        self.send(End::Release { lease, release });
    }

    fn send(&self, end: End) {
        self.pending.ends.fetch_add(1, Ordering::Relaxed);
        self.pending.bytes.fetch_add(end.bytes(), Ordering::Relaxed);
        if self.ends.send(end).is_err() {
            tracing::warn!("a run ended after its recorder: the next start runs it again");
        }
    }
}

impl RecorderTask {
    /// Records until every [`Recorder`] is gone, or `done`, and nothing is pending.
    pub(crate) async fn run(
        mut self,
        app: AppId,
        ports: Arc<Ports>,
        waiting: Arc<Waiting>,
        done: CancellationToken,
    ) {
        let mut under_way = FuturesUnordered::new();
        let mut batch = Vec::with_capacity(BATCH);
        let mut open = true;
        while open || !under_way.is_empty() {
            tokio::select! {
                count = self.ends.recv_many(&mut batch, BATCH), if open => {
                    open = count > 0;
                    for end in batch.drain(..) {
                        let bytes = end.bytes();
                        let (app, ports, waiting) = (&app, &*ports, &*waiting);
                        under_way.push(async move {
                            record(app, ports, waiting, end).await;
                            bytes
                        });
                    }
                }
                () = done.cancelled(), if !self.ends.is_closed() => self.ends.close(),
                Some(bytes) = under_way.next() => {
                    let had_room = self.pending.has_room();
                    self.pending.ends.fetch_sub(1, Ordering::Relaxed);
                    self.pending.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    if !had_room && self.pending.has_room() {
                        waiting.rouse();
                    }
                }
            }
        }
    }
}

async fn record(app: &AppId, ports: &Ports, waiting: &Waiting, end: End) {
    let run = end.run();
    match end {
        End::Outcome { lease, webhooks, outcome } => {
            finish(ports, lease, &webhooks, outcome).await;
            waiting.forget(run);
        }
        End::Failed { lease, error } => {
            let released = insist(run, || ports.runs.retry(lease, error.clone())).await;
            // What is queued waits for a while; whoever looks after that finds it.
            gave_back(ports, waiting, run, &released);
        }
        End::Release { lease, release } => {
            let released = insist(run, || ports.runs.release(lease, release)).await;
            if released == Released::Queued {
                if waiting.is_closed() {
                    // When the server stops nobody listens, and the next start finds the run.
                    let _ = ports.returned.send(app.clone());
                } else {
                    waiting.wake(LOWEST);
                }
            }
            gave_back(ports, waiting, run, &released);
        }
    }
}

fn gave_back(ports: &Ports, waiting: &Waiting, run: RunId, released: &Released) {
    match released {
        Released::Queued => {}
        Released::Ended(code) => {
            meters::ended_in_store(*code);
            waiting.forget(run);
            ports.outbox.wake();
        }
        Released::Stale => meters::stale(),
    }
}

async fn finish(ports: &Ports, lease: Lease, webhooks: &[EndpointUrl], outcome: Outcome) {
    let mut pause = Pause::new(lease.run);
    let result_bytes = outcome.result.as_ref().map_or(0, bytes::Bytes::len);
    let mut departures: Vec<Option<Box<dyn Departure>>> =
        webhooks.iter().map(|url| ports.outbox.reserve(url, result_bytes)).collect();
    loop {
        let first_attempts = departures.iter().map(Option::is_some).collect();
        match ports.runs.finish(Finish { lease, outcome: outcome.clone(), first_attempts }).await {
            Ok(Finished::Recorded(due)) => {
                meters::run_ended(&outcome);
                if departures.iter().any(Option::is_none) {
                    ports.outbox.wake();
                }
                for due in due {
                    let place = departures.get_mut(usize::from(due.id.index)).and_then(Option::take);
                    match place {
                        Some(departure) => departure.send(due),
                        None => tracing::error!(
                            delivery.id = %due.id,
                            "the store recorded an attempt that nobody has a place for"
                        ),
                    }
                }
                return;
            }
            Ok(Finished::Stale) => {
                meters::stale();
                tracing::info!(
                    run.id = %lease.run, run.attempt = lease.attempt, reason = LEASE_LOST,
                    "discarded a result, since the run's lease is no longer ours"
                );
                return;
            }
            Err(error) => {
                // The places go to others meanwhile. A commit that may have happened must not record
                // a first attempt twice either, so the store's own schedule takes over.
                departures.iter_mut().for_each(|departure| *departure = None);
                pause.after(&error).await;
            }
        }
    }
}

/// Writes until it is written.
async fn insist<F: Future<Output = Stored<Released>>>(run: RunId, write: impl Fn() -> F) -> Released {
    let mut pause = Pause::new(run);
    loop {
        match write().await {
            Ok(released) => return released,
            Err(error) => pause.after(&error).await,
        }
    }
}

/// Ever longer waits between attempts to write.
struct Pause {
    run: RunId,
    next: Duration,
}

impl Pause {
    fn new(run: RunId) -> Self {
        Self { run, next: FIRST_PAUSE }
    }

    async fn after(&mut self, error: &StoreError) {
        tracing::warn!(run.id = %self.run, %error, "could not record a run's end; trying again");
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}

/// Answers a synchronous caller and notes the call.
pub(crate) fn answer(ports: &Ports, waiting: WaitingCall, outcome: Outcome, started_at: Option<Timestamp>) {
    let WaitingCall { call, reply, .. } = waiting;
    ports.runs.record_call(CallRecord {
        id: call.id,
        app: call.app.id.clone(),
        function: call.function,
        generation: call.generation,
        build: outcome.build.clone(),
        ending: outcome.ending,
        error: outcome.error.clone(),
        status_code: outcome.status_code,
        run_time_ms: outcome.run_time_ms,
        accepted_at: call.accepted_at,
        started_at,
        ended_at: outcome.ended_at,
        metadata: call.metadata,
    });
    meters::run_ended(&outcome);
    // A caller that went away is no failure of the call.
    let _ = reply.send(outcome);
}
