//! Runs from their acceptance to their end.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Stored;
use crate::clock::Timestamp;
use crate::id::{AppId, LeaseToken, ProjectId, RunId};
use crate::lease::{Lease, Release, Released};
use crate::outcome::{Cancellation, Expired, Finish, Finished, RunError};
use crate::progress::Progress;
use crate::run::{CallRecord, LeasedRun, NewRun, Ready, RunFilter, RunList, RunView};

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
