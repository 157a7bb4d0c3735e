//! How much happened, over time: what overviews are drawn from.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::outcome::Ending;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happened {
    /// A run succeeded; its time is that from acceptance to end, as for the next three.
    Succeeded,
    /// A run failed.
    Failed,
    /// A run was cancelled.
    Cancelled,
    /// A run did not start in time.
    Expired,
    /// A delivery reached its receiver; its time is that of the attempt.
    Delivered,
    /// An attempt at a receiver came to nothing.
    NotDelivered,
}

impl Happened {
    /// Every kind, in the order of [`Slice::counts`].
    pub const ALL: [Self; 6] =
        [Self::Succeeded, Self::Failed, Self::Cancelled, Self::Expired, Self::Delivered, Self::NotDelivered];

    /// Its place in [`Slice::counts`], and its number in the store.
    pub const fn place(self) -> usize {
        self as usize
    }
}

impl From<Ending> for Happened {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Succeeded => Self::Succeeded,
            Ending::Failed => Self::Failed,
            Ending::Cancelled => Self::Cancelled,
            Ending::Expired => Self::Expired,
        }
    }
}

/// How far back to look, and how finely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// An hour, by the minute.
    Hour,
    /// A day, by the quarter of an hour.
    Day,
    /// A week, by two hours.
    Week,
}

impl Span {
    /// Every span, shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Week];

    /// What one slice covers.
    pub const fn step(self) -> Duration {
        match self {
            Self::Hour => Duration::from_secs(60),
            Self::Day => Duration::from_secs(15 * 60),
            Self::Week => Duration::from_secs(2 * 3_600),
        }
    }

    /// Slices of a whole span.
    pub const fn slices(self) -> usize {
        match self {
            Self::Hour => 60,
            Self::Day => 96,
            Self::Week => 84,
        }
    }

    /// The number of the slice that holds `at`, counted from 1970.
    pub fn slice_of(self, at: Timestamp) -> i64 {
        at.as_secs().div_euclid(i64::try_from(self.step().as_secs()).unwrap_or(i64::MAX))
    }

    /// When a slice begins.
    pub fn begin_of(self, slice: i64) -> Timestamp {
        Timestamp::from_millis(slice.saturating_mul(i64::try_from(self.step().as_millis()).unwrap_or(0)))
    }

    /// The word in addresses: `1h`, `24h`, `7d`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }
}

/// How often something happened, and how long it took altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How often.
    pub times: u64,
    /// Milliseconds, summed.
    pub millis: u64,
}

impl Count {
    /// Both, added.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self { times: self.times.saturating_add(more.times), millis: self.millis.saturating_add(more.millis) }
    }
}

/// What happened in one step of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// When it begins.
    pub at: Timestamp,
    /// By [`Happened::place`].
    pub counts: [Count; Happened::ALL.len()],
}

impl Slice {
    /// How often this happened, and how long it took.
    pub const fn of(&self, what: Happened) -> Count {
        self.counts[what.place()]
    }
}

/// A number that is counted no further than to a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtLeast {
    /// What was counted.
    pub count: u64,
    /// There is more.
    pub more: bool,
}

/// How a project stands at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Runs that wait for a replica, delayed ones included.
    pub queued: AtLeast,
    /// Since when the first in line of some app waits.
    pub queued_since: Option<Timestamp>,
    /// Asynchronous runs that are executed.
    pub running: u64,
    /// Deliveries that are due or wait for their next attempt.
    pub pending: AtLeast,
    /// Endpoints that get nothing until somebody enables them.
    pub disabled_endpoints: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_covered_by_its_slices() {
        for (span, hours) in Span::ALL.into_iter().zip([1, 24, 7 * 24]) {
            assert_eq!(span.step().as_secs() * span.slices() as u64, hours * 3_600, "{}", span.as_str());
            let at = Timestamp::from_millis(1_800_000_000_123);
            let slice = span.slice_of(at);
            assert!(span.begin_of(slice) <= at && at < span.begin_of(slice + 1));
        }
        assert_eq!(Happened::ALL.map(Happened::place), [0, 1, 2, 3, 4, 5]);
    }
}
