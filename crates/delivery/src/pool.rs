//! Connections that wait for their receiver's next delivery.
//!
//! Each was opened to an address that the guard judged, and is used for its receiver alone and not for long:
//! after a minute the name is looked up and judged anew, so that a busy receiver that moves is followed like
//! others. One that nobody uses leaves the pool after four seconds, since the commonest servers close theirs
//! after five: a request sent into a connection that is just being closed would count as a failed attempt.
//! There are never more than there may be attempts, to a receiver and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::run::Receiver;
use tokio::time::{Instant, sleep};

use crate::places::Caps;
use crate::wire::Wire;

/// How long a connection waits for its receiver's next delivery.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How long it is used, however busy it is.
const LIFE_MAX: Duration = Duration::from_secs(60);
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

impl Idle {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= IDLE_MAX || is_old(&self.wire, now)
    }
}

fn is_old(wire: &Wire, now: Instant) -> bool {
    now.duration_since(wire.opened_at) >= LIFE_MAX
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
    pub(crate) fn take(&self, receiver: &Receiver, now: Instant) -> Option<Wire> {
        loop {
            let mut idle = {
                let mut inner = self.lock();
                let idle = inner.idle.get_mut(receiver)?.pop()?;
                inner.count -= 1;
                idle
            };
            if !idle.is_over(now) && idle.wire.is_ready() {
                return Some(idle.wire);
            }
        }
    }

    /// Keeps a connection, if it can be used again and there is room.
    pub(crate) fn keep(self: &Arc<Self>, receiver: &Receiver, mut wire: Wire, now: Instant) {
        if is_old(&wire, now) || !wire.is_ready() {
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
        waiting.push(Idle { wire, since: now });
        inner.count += 1;
        if !std::mem::replace(&mut inner.sweeping, true) {
            drop(inner);
            let pool = Arc::clone(self);
            tokio::spawn(async move {
                while pool.sweep(Instant::now()) {
                    sleep(SWEEP_EVERY).await;
                }
            });
        }
    }

    /// Closes what is too old. Returns whether something is left to sweep.
    fn sweep(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.idle.retain(|_, waiting| {
            waiting.retain(|idle| !idle.is_over(now));
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

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::either::Either;

    use super::*;

    const A: &str = "https://a.example";

    /// A connection, and its other end.
    async fn wire() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::new(Either::Left(stream)).await.unwrap(), listener.accept().await.unwrap().0)
    }

    fn receiver(number: usize) -> Receiver {
        Receiver::stored(&format!("https://{number}.example"))
    }

    #[tokio::test]
    async fn a_connection_is_used_for_its_own_receiver_while_it_is_fresh() {
        let pool = Arc::new(Pool::new(Caps::default()));
        let (own, now) = (Receiver::stored(A), Instant::now());
        let ((wire, other_end), soon) = (wire().await, now + IDLE_MAX / 2);
        pool.keep(&own, wire, now);
        assert!(pool.take(&receiver(1), soon).is_none(), "another receiver's, whatever its address");
        let wire = pool.take(&own, soon).expect("it is fresh");
        pool.keep(&own, wire, soon);
        assert!(pool.take(&own, soon + IDLE_MAX).is_none(), "its receiver may have closed it");
        drop(other_end);
    }

    #[tokio::test]
    async fn a_connection_that_is_always_busy_is_closed_all_the_same() {
        let pool = Arc::new(Pool::new(Caps::default()));
        let (own, began) = (Receiver::stored(A), Instant::now());
        let (mut wire, _other_end) = wire().await;
        let mut now = began;
        loop {
            now += Duration::from_secs(1);
            pool.keep(&own, wire, now);
            let Some(kept) = pool.take(&own, now) else { break };
            wire = kept;
            assert!(now < began + 2 * LIFE_MAX, "it is used for ever");
        }
        assert!(now >= began + LIFE_MAX - Duration::from_secs(1), "{:?}", now - began);
    }

    #[tokio::test]
    async fn no_more_are_kept_than_there_may_be_attempts() {
        let pool = Arc::new(Pool::new(Caps { in_flight: 5, per_receiver: 3, ..Caps::default() }));
        let (now, mut other_ends) = (Instant::now(), Vec::new());
        for number in [1, 1, 1, 1, 2, 2, 2, 3] {
            let (wire, other_end) = wire().await;
            other_ends.push(other_end);
            pool.keep(&receiver(number), wire, now);
        }
        let kept = |number| std::iter::from_fn(|| pool.take(&receiver(number), now)).count();
        assert_eq!([1, 2, 3].map(kept), [3, 2, 0]);
    }

    #[tokio::test]
    async fn one_that_its_receiver_closed_is_not_used() {
        let pool = Arc::new(Pool::new(Caps::default()));
        let (own, now) = (Receiver::stored(A), Instant::now());
        let (wire, other_end) = wire().await;
        pool.keep(&own, wire, now);
        drop(other_end);
        let began = std::time::Instant::now();
        // The news takes a moment.
        while let Some(wire) = pool.take(&own, now) {
            assert!(began.elapsed() < Duration::from_secs(20), "it is used");
            pool.keep(&own, wire, now);
            tokio::task::yield_now().await;
        }
    }
}
