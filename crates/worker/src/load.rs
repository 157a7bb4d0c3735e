//! How busy a replica is: written by its task, read by its pool.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How busy a replica is, for the pool to look at.
#[derive(Debug)]
pub(crate) struct Load {
    calls: AtomicUsize,
    origin: Instant,
    /// Milliseconds from `origin` to the end of its last call.
    idle_since: AtomicUsize,
    /// The root of its processes; 0 before there is one.
    root: AtomicU32,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self {
            calls: AtomicUsize::new(0),
            origin: Instant::now(),
            idle_since: AtomicUsize::new(0),
            root: AtomicU32::new(0),
        }
    }

    /// Its processes descend from this one.
    pub(crate) fn set_root(&self, root: Option<u32>) {
        self.root.store(root.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn root(&self) -> Option<u32> {
        Some(self.root.load(Ordering::Relaxed)).filter(|root| *root > 0)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Since when it has had no calls; `None` while it has some.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let millis = u64::try_from(self.idle_since.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
        (self.calls() == 0).then(|| self.origin + Duration::from_millis(millis))
    }

    pub(crate) fn set(&self, calls: usize) {
        if calls == 0 && self.calls() > 0 {
            self.idle_from_now();
        }
        self.calls.store(calls, Ordering::Relaxed);
    }

    pub(crate) fn idle_from_now(&self) {
        let millis = self.origin.elapsed().as_millis();
        self.idle_since.store(usize::try_from(millis).unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}
