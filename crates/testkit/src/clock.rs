//! The real clock and real chance, for tests and measurements that run rooms without the server around them.

use queue::{Clock, Entropy, Timestamp};
use rand::RngCore as _;

/// The time by the machine's clock, in the form in which the server tells it.
pub fn wall_clock() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        wall_clock()
    }
}

/// Real chance: no two runs of a test have the same ids.
#[derive(Clone, Copy, Debug)]
pub struct Chance;

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}
