//! A receiver that cannot be reached is left alone for a while. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Consecutive outages that open a breaker.
const OUTAGES_MAX: u32 = 10;
/// How long a breaker stays open at first; doubled by each probe that fails.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Counts outages of one receiver: failed connections, TLS, timeouts. Any HTTP answer closes it.
///
/// ```text
/// closed ──10 outages──► open ──pause over──► half-open: one probe ──answer──► closed
///                          ▲                          │
///                          └───────outage, pause × 2──┘
/// ```
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    outages: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Instant,
    pause: Duration,
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Free,
    OneProbe,
    Blocked,
}

impl Breaker {
    pub(crate) fn passage(&self, now: Instant) -> Passage {
        match self.open {
            None => Passage::Free,
            Some(open) if now >= open.until => Passage::OneProbe,
            Some(_) => Passage::Blocked,
        }
    }

    /// When a probe may go; `None` unless blocked.
    pub(crate) fn opens_at(&self, now: Instant) -> Option<Instant> {
        self.open.map(|open| open.until).filter(|until| *until > now)
    }

    pub(crate) fn is_pristine(&self) -> bool {
        self.outages == 0 && self.open.is_none()
    }

    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// Counts an outage. Attempts that began before the breaker opened change nothing any more.
    /// Returns whether the breaker opened, or opened again.
    pub(crate) fn outage(&mut self, now: Instant) -> bool {
        self.outages = self.outages.saturating_add(1);
        let pause = match self.open {
            None if self.outages >= OUTAGES_MAX => PAUSE_FIRST,
            Some(open) if now >= open.until => (open.pause * 2).min(PAUSE_MAX),
            _ => return false,
        };
        self.open = Some(Open { until: now + pause, pause });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..OUTAGES_MAX {
            breaker.outage(now);
        }
        breaker
    }

    #[test]
    fn ten_outages_in_a_row_open_it_and_an_answer_between_them_does_not_let_it() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..9 {
            assert!(!breaker.outage(now));
        }
        breaker.answered();
        for _ in 0..9 {
            assert!(!breaker.outage(now));
        }
        assert_eq!(breaker.passage(now), Passage::Free);
        assert!(breaker.outage(now));
        assert_eq!(breaker.passage(now), Passage::Blocked);
    }

    #[test]
    fn a_probe_that_fails_doubles_the_pause_up_to_a_bound_and_an_answer_ends_it() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            now += pause;
            assert_eq!(breaker.passage(now - Duration::from_millis(1)), Passage::Blocked);
            assert_eq!(breaker.passage(now), Passage::OneProbe);
            assert!(breaker.outage(now));
            pause = (pause * 2).min(PAUSE_MAX);
        }
        now += PAUSE_MAX;
        breaker.answered();
        assert_eq!(breaker.passage(now), Passage::Free);
    }

    #[test]
    fn stragglers_do_not_prolong_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let until = breaker.opens_at(now);
        assert!(!breaker.outage(now + Duration::from_secs(5)));
        assert_eq!(breaker.opens_at(now), until);
    }
}
