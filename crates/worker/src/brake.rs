//! When the next replica may be started, after those that failed or died. Pure decisions.

use std::time::Duration;

use queue::limits;
use tokio::time::Instant;

/// Failed starts in a row after which waiting work is told.
const GIVE_UP_AFTER: u32 = 3;
/// The same for starts that were killed from outside, by somebody or by a system without memory. Each says little
/// about the code; a code that brings it about each time must not keep its runs for ever.
const GIVE_UP_AFTER_KILLED: u32 = limits::SERVER_LOSSES_MAX;

/// The brake on starts: none while all is well, one start per pause after a replica died, ever
/// longer pauses after failed starts.
#[derive(Debug)]
pub(crate) struct Brake {
    pause: Duration,
    pause_max: Duration,
    failures: u32,
    /// Starts since the last success that were killed from outside.
    killed: u32,
    not_before: Option<Instant>,
}

impl Brake {
    pub(crate) fn new(pause: Duration, pause_max: Duration) -> Self {
        Self { pause, pause_max, failures: 0, killed: 0, not_before: None }
    }

    /// A replica became ready, or there is new code to start.
    pub(crate) fn release(&mut self) {
        self.failures = 0;
        self.killed = 0;
        self.not_before = None;
    }

    /// A replica that was ready died; it had been started at `started`.
    pub(crate) fn died(&mut self, started: Instant) {
        self.not_before = self.not_before.max(Some(started + self.pause));
    }

    /// A start failed.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.pause_longer(now);
        self.failures += 1;
    }

    /// A start was killed from outside. The pauses grow as after others: a machine without memory needs them.
    pub(crate) fn killed(&mut self, now: Instant) {
        self.pause_longer(now);
        self.killed += 1;
    }

    fn pause_longer(&mut self, now: Instant) {
        let doublings = (self.failures + self.killed).min(16);
        self.not_before = Some(now + (self.pause * 2_u32.pow(doublings)).min(self.pause_max));
    }

    /// A start could not even be tried, for reasons of this machine; it says nothing about the code.
    pub(crate) fn hindered(&mut self, now: Instant) {
        self.not_before = self.not_before.max(Some(now + self.pause));
    }

    /// When the next start may be, if not now.
    pub(crate) fn holds_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|moment| *moment > now)
    }

    /// The last start failed: the next one is a trial, and alone.
    pub(crate) fn on_trial(&self) -> bool {
        self.failures + self.killed > 0
    }

    /// So many starts failed that waiting work must be told.
    pub(crate) fn given_up(&self) -> bool {
        self.failures >= GIVE_UP_AFTER || self.killed >= GIVE_UP_AFTER_KILLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_bound_and_end_with_a_success() {
        let mut brake = Brake::new(Duration::from_secs(1), Duration::from_secs(30));
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            brake.failed(now);
            pauses.push((brake.holds_until(now).unwrap() - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(brake.given_up());
        brake.release();
        assert!(!brake.given_up() && brake.holds_until(now).is_none());
    }

    #[test]
    fn starts_that_were_killed_from_outside_are_given_up_late_and_do_not_count_with_others() {
        let mut brake = Brake::new(Duration::from_secs(1), Duration::from_secs(30));
        let now = Instant::now();
        brake.failed(now);
        brake.failed(now);
        for number in 0..GIVE_UP_AFTER_KILLED {
            assert!(!brake.given_up(), "after {number}");
            brake.killed(now);
            assert!(brake.on_trial() && brake.holds_until(now).is_some());
        }
        assert_eq!(brake.holds_until(now), Some(now + Duration::from_secs(30)));
        assert!(brake.given_up());
        brake.release();
        assert!(!brake.given_up() && !brake.on_trial());
    }

    #[test]
    fn starts_that_the_machine_hinders_never_give_up() {
        let mut brake = Brake::new(Duration::from_secs(1), Duration::from_secs(30));
        let now = Instant::now();
        for _ in 0..10 {
            brake.hindered(now);
        }
        assert_eq!(brake.holds_until(now), Some(now + Duration::from_secs(1)));
        assert!(!brake.given_up() && !brake.on_trial());
    }

    #[test]
    fn a_death_costs_at_most_one_pause_since_the_start() {
        let mut brake = Brake::new(Duration::from_secs(1), Duration::from_secs(30));
        let started = Instant::now();
        brake.died(started);
        assert_eq!(brake.holds_until(started), Some(started + Duration::from_secs(1)));
        assert_eq!(brake.holds_until(started + Duration::from_secs(2)), None);
    }
}
