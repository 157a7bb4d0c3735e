//! Runs that wait in the store: when some of them are claimed, how many, and how they come in.

use queue::limits::{BUFFERED_BYTES_PER_APP_MAX, BUFFERED_RUNS_PER_APP_MAX, URGENT_RUNS_PER_APP_MAX};
use queue::run::LeasedRun;

use super::{Inner, ORDINARY_RUNS_MAX, Waiting};

/// Runs are claimed when no more than this many wait in memory.
const CLAIM_AT: usize = BUFFERED_RUNS_PER_APP_MAX / 2;

impl Waiting {
    /// There may be queued runs in the store, of this priority at most.
    pub(crate) fn wake(&self, priority: i8) {
        let mut inner = self.lock();
        inner.backlog = true;
        inner.woken = true;
        if inner.ready.back().is_some_and(|last| last.priority() < priority) {
            inner.urgent = (inner.urgent + 1).min(URGENT_RUNS_PER_APP_MAX);
        }
        self.attention.notify_one();
    }

    /// Begins a claim when there is reason and room: how many runs, and bytes.
    pub(crate) fn begin_claim(&self) -> Option<(usize, usize)> {
        let mut inner = self.lock();
        if !inner.wants_claim() || inner.closed.is_some() {
            return None;
        }
        inner.claiming = true;
        inner.woken = false;
        let bytes = BUFFERED_BYTES_PER_APP_MAX.saturating_sub(inner.held_bytes);
        let urgent = std::mem::take(&mut inner.urgent);
        inner.urgent_claimed = urgent;
        let ordinary = if inner.held <= CLAIM_AT { ORDINARY_RUNS_MAX - inner.held } else { 0 };
        Some((ordinary.max(urgent.min(BUFFERED_RUNS_PER_APP_MAX - inner.held)), bytes))
    }

    /// Ends a claim; `None` when it failed. Gives back what came too late or was cancelled.
    pub(crate) fn end_claim(&self, claimed: Option<Vec<LeasedRun>>) -> Vec<LeasedRun> {
        let mut inner = self.lock();
        inner.claiming = false;
        inner.backlog = inner.woken || claimed.as_ref().is_none_or(|runs| !runs.is_empty());
        if claimed.is_none() {
            inner.urgent = (inner.urgent + inner.urgent_claimed).min(URGENT_RUNS_PER_APP_MAX);
        }
        let runs = claimed.unwrap_or_default();
        if inner.closed.is_some() {
            return runs;
        }
        let mut turned_back = Vec::new();
        for run in runs {
            if inner.turns_back(run.lease.run) {
                turned_back.push(run);
                continue;
            }
            inner.held += 1;
            inner.held_bytes += run.input.len();
            inner.push_run(run);
        }
        self.announce(&mut inner);
        self.announce_alone(&inner);
        turned_back
    }
}

impl Inner {
    pub(super) fn wants_claim(&self) -> bool {
        let room = self.held <= CLAIM_AT || (self.urgent > 0 && self.held < BUFFERED_RUNS_PER_APP_MAX);
        // A claim brings one run at least, whatever its size.
        self.backlog && !self.claiming && room && self.held_bytes < BUFFERED_BYTES_PER_APP_MAX
    }
}
