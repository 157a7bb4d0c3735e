//! Connections that wait for their receiver's next delivery.
//!
//! Each was opened to an address that the guard judged. A connection leaves the pool after four
//! seconds, since the commonest servers close theirs after five: a request sent into a connection
//! that is just being closed would count as a failed attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::run::Receiver;
use tokio::time::{Instant, sleep};

use crate::places::Caps;
use crate::wire::Wire;

const IDLE_MAX: Duration = Duration::from_secs(4);
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Pool {
    caps: Caps,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Newest last, so that a burst's surplus grows old.
    idle: HashMap<Receiver, Vec<Idle>>,
    count: usize,
    sweeping: bool,
}

struct Idle {
    wire: Wire,
    since: Instant,
}

impl Pool {
    /// Keeps no more connections than there may be attempts.
    pub(crate) fn new(caps: Caps) -> Self {
        Self { caps, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is fit for use, as far as can be seen.
    pub(crate) fn take(&self, receiver: &Receiver) -> Option<Wire> {
        loop {
            let mut idle = {
                let mut inner = self.lock();
                let idle = inner.idle.get_mut(receiver)?.pop()?;
                inner.count -= 1;
                idle
            };
            if idle.since.elapsed() < IDLE_MAX && idle.wire.is_ready() {
                return Some(idle.wire);
            }
        }
    }

    /// Keeps a connection, if it can be used again and there is room.
    pub(crate) fn keep(self: &Arc<Self>, receiver: &Receiver, mut wire: Wire) {
        if !wire.is_ready() {
            return;
        }
        let mut inner = self.lock();
        if inner.count >= self.caps.in_flight {
            return;
        }
        let waiting = match inner.idle.get_mut(receiver) {
            Some(waiting) => waiting,
            None => inner.idle.entry(receiver.clone()).or_default(),
        };
        if waiting.len() >= self.caps.per_receiver {
            return;
        }
        waiting.push(Idle { wire, since: Instant::now() });
        inner.count += 1;
        if !std::mem::replace(&mut inner.sweeping, true) {
            drop(inner);
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                while pool.sweep() {
                    sleep(SWEEP_EVERY).await;
                }
            });
        }
    }

    /// Closes what is too old. Returns whether something is left to sweep.
    fn sweep(&self) -> bool {
        let mut inner = self.lock();
        inner.idle.retain(|_, waiting| {
            waiting.retain(|idle| idle.since.elapsed() < IDLE_MAX);
            !waiting.is_empty()
        });
        inner.count = inner.idle.values().map(Vec::len).sum();
        inner.sweeping = inner.count > 0;
        inner.sweeping
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.idle.clear();
        inner.count = 0;
    }
}
