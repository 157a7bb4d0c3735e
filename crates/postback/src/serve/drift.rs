//! Notices when the machine's clock is set. Deadlines of what runs are counted on a clock that cannot be
//! set; schedules and ages follow the one that can, and a wrong minute of it must not cost anybody data.

use std::time::{Duration, Instant};

use queue::Timestamp;

/// Differences up to here are corrections of a clock that is right.
const TOLERANCE: Duration = Duration::from_secs(30);
/// After the clock was set, nothing is removed by its age for so long: somebody may set it again.
const SETTLING: Duration = Duration::from_secs(3600);

/// Compares the clock that can be set with the one that cannot.
pub(super) struct Drift {
    seen: (Timestamp, Instant),
    set_at: Option<Instant>,
}

/// What happened to the clock since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It was set forward, or the machine slept.
    Forward(Duration),
    /// It was set back.
    Back(Duration),
}

impl Drift {
    pub(super) fn new(wall: Timestamp, now: Instant) -> Self {
        Self { seen: (wall, now), set_at: None }
    }

    /// Looks at both clocks.
    pub(super) fn look(&mut self, wall: Timestamp, now: Instant) -> Change {
        let (wall_then, then) = self.seen;
        self.seen = (wall, now);
        let expected = wall_then.plus(now.saturating_duration_since(then));
        let (ahead, behind) = (wall.since(expected), expected.since(wall));
        let change = match () {
            () if ahead > TOLERANCE => Change::Forward(ahead),
            () if behind > TOLERANCE => Change::Back(behind),
            () => return Change::None,
        };
        self.set_at = Some(now);
        change
    }

    /// Whether the clock has been left alone for long enough to remove things by their age.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.set_at.is_none_or(|at| now.saturating_duration_since(at) >= SETTLING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECADE: Duration = Duration::from_secs(10 * 365 * 86_400);

    #[test]
    fn a_clock_that_is_set_is_noticed_and_nothing_ages_until_it_has_settled() {
        let (wall, start) = (Timestamp::from_millis(1_800_000_000_000), Instant::now());
        let after = |secs: u64| start + Duration::from_secs(secs);
        let mut drift = Drift::new(wall, start);
        assert_eq!(drift.look(wall.plus(Duration::from_secs(5)), after(5)), Change::None);
        // A correction.
        assert_eq!(drift.look(wall.plus(Duration::from_secs(12)), after(10)), Change::None);
        assert!(drift.is_settled(after(10)));
        let ahead = wall.plus(Duration::from_secs(17) + DECADE);
        assert_eq!(drift.look(ahead, after(15)), Change::Forward(DECADE));
        assert!(!drift.is_settled(after(15)) && !drift.is_settled(after(3_600)));
        assert_eq!(drift.look(wall.plus(Duration::from_secs(22)), after(20)), Change::Back(DECADE));
        assert!(!drift.is_settled(after(3_619)));
        assert!(drift.is_settled(after(3_620)));
        assert_eq!(
            drift.look(Timestamp::from_millis(0), after(25)),
            Change::Back(wall.plus(Duration::from_secs(27)).since(Timestamp::from_millis(0)))
        );
    }
}
