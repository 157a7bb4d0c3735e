//! Requests per second of one caller, where the operator wants a bound: off unless asked for.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::problem::Problem;

/// Callers remembered at once; whoever has been quiet is forgotten first.
const CALLERS_MAX: usize = 65_536;
/// So much may come at once after a pause: as much as one second allows.
const BURST: Duration = Duration::from_secs(1);

/// Requests per second, and where they count. `None` is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimits {
    /// Of one address; of IPv6, of one /64.
    pub per_address: Option<NonZeroU32>,
    /// Of one key or token, wherever it is used.
    pub per_key: Option<NonZeroU32>,
}

/// A bound on each of many callers: the moment at which each will have used up what it was given
/// (generic cell rate algorithm), so that a caller costs two words.
pub(crate) struct Rate {
    interval: Duration,
    hasher: RandomState,
    used_until: Mutex<HashMap<u64, Instant>>,
}

impl Rate {
    pub(crate) fn new(per_second: Option<NonZeroU32>) -> Option<Self> {
        let interval = Duration::from_secs(1) / per_second?.get();
        Some(Self { interval, hasher: RandomState::new(), used_until: Mutex::default() })
    }

    /// Counts a request of `caller`, or says that it is one too many.
    pub(crate) fn count(&self, caller: impl Hash, now: Instant) -> Result<(), Problem> {
        let caller = self.hasher.hash_one(caller);
        let mut all = self.used_until.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CALLERS_MAX && !all.contains_key(&caller) {
            all.retain(|_, until| *until > now);
        }
        let until = all.get(&caller).map_or(now, |until| (*until).max(now));
        let wait = (until + self.interval).saturating_duration_since(now + BURST);
        if wait.is_zero() {
            // With so many callers at once that none can be forgotten, a new one is let through.
            if all.len() < CALLERS_MAX || all.contains_key(&caller) {
                all.insert(caller, until + self.interval);
            }
            return Ok(());
        }
        let secs = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        let allowed = 1.0 / self.interval.as_secs_f64();
        let message = format!(
            "more than {allowed:.0} requests a second, which this server allows one caller; slow down"
        );
        Err(Problem::too_many("too_many_requests", message, secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_allows_its_number_and_a_pause_gives_it_back() {
        let rate = Rate::new(NonZeroU32::new(5)).unwrap();
        let start = Instant::now();
        let taken = |at: Instant| (0..20).filter(|_| rate.count("a", at).is_ok()).count();
        assert_eq!(taken(start), 5);
        let problem = rate.count("a", start).unwrap_err();
        assert_eq!(
            (problem.status.as_u16(), &*problem.code, problem.retry_after),
            (429, "too_many_requests", Some(1))
        );
        assert!(problem.message.contains("more than 5 requests"), "{}", problem.message);
        assert!(rate.count("b", start).is_ok(), "another caller is not concerned");
        assert_eq!(taken(start + Duration::from_millis(400)), 2);
        assert_eq!(taken(start + Duration::from_secs(60)), 5, "quiet time is not saved up");
    }

    #[test]
    fn memory_is_bounded_and_the_quiet_are_forgotten() {
        let rate = Rate::new(NonZeroU32::new(1)).unwrap();
        let start = Instant::now();
        for caller in 0..CALLERS_MAX + 10 {
            assert!(rate.count(caller, start).is_ok());
        }
        assert_eq!(rate.used_until.lock().unwrap().len(), CALLERS_MAX);
        assert!(rate.count(7_usize, start).is_err(), "those who are known stay bounded");
        assert!(rate.count("later", start + Duration::from_secs(10)).is_ok());
        assert_eq!(rate.used_until.lock().unwrap().len(), 1);
    }

    #[test]
    fn no_number_is_no_bound() {
        assert!(Rate::new(None).is_none());
    }
}
