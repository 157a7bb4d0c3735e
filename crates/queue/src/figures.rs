//! How endpoints do: counted from the attempts that are kept, within a bounded look at the newest ones.

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::delivery::DeliveryAttemptView;
use crate::id::RunId;
use crate::run::EndpointUrl;

/// How an endpoint does, by its last attempts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointFigures {
    /// Its address.
    #[serde(skip)]
    pub url: EndpointUrl,
    /// The oldest attempt that is counted here began then.
    pub since: Timestamp,
    /// Attempts that ended …
    pub attempts: u64,
    /// … of which so many were taken.
    pub succeeded: u64,
    /// Half of the answers came within this …
    #[serde(rename = "p50Ms", serialize_with = "crate::delivery::as_optional_millis")]
    pub p50: Option<Duration>,
    /// … and nineteen of twenty within this.
    #[serde(rename = "p95Ms", serialize_with = "crate::delivery::as_optional_millis")]
    pub p95: Option<Duration>,
    /// Deliveries that wait for their next attempt, as far as was looked …
    pub pending: u64,
    /// … and whether there may be more.
    pub pending_more: bool,
    /// The next of them, the earliest first.
    pub next: Vec<NextAttempt>,
    /// Its last attempts, the newest first.
    pub last: Vec<LastAttempt>,
}

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NextAttempt {
    /// Which delivery …
    pub delivery_id: String,
    /// … of which run …
    pub run_id: RunId,
    /// … and when it is tried, if there is a place for it.
    pub at: Timestamp,
}

/// An attempt that was made, or is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastAttempt {
    /// Of which delivery …
    pub delivery_id: String,
    /// … of which run.
    pub run_id: RunId,
    /// What was seen.
    #[serde(flatten)]
    pub attempt: DeliveryAttemptView,
}

/// How a receiver stands with this server at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverStanding {
    /// Attempts under way.
    pub under_way: usize,
    /// As many may be.
    pub places: usize,
    /// It could not be reached, and is left alone until then: one attempt finds out whether it is back.
    pub paused_until: Option<Timestamp>,
}

impl EndpointFigures {
    /// Of an endpoint of which nothing was seen yet.
    pub const fn none(url: EndpointUrl, now: Timestamp) -> Self {
        Self {
            url,
            since: now,
            attempts: 0,
            succeeded: 0,
            p50: None,
            p95: None,
            pending: 0,
            pending_more: false,
            next: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Of a hundred attempts so many were taken; nothing before the first one ended. Never rounded up to all.
    pub fn success_percent(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a look counts thousands")]
        let percent = (self.attempts > 0).then(|| self.succeeded as f64 * 100.0 / self.attempts as f64)?;
        Some((percent * 10.0).floor() / 10.0)
    }

    /// Sets the times within which answers came.
    pub fn measure(&mut self, mut answers: Vec<Duration>) {
        answers.sort_unstable();
        let at = |percent: usize| answers.get((answers.len() * percent).div_ceil(100).max(1) - 1).copied();
        (self.p50, self.p95) = (at(50), at(95));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> EndpointFigures {
        EndpointFigures::none(EndpointUrl::checked("https://a.example/"), Timestamp::from_millis(0))
    }

    #[test]
    fn the_times_are_those_within_which_so_many_answers_came() {
        let of = |count: u64| {
            let mut figures = figures();
            figures.measure((1..=count).rev().map(Duration::from_millis).collect());
            (figures.p50, figures.p95)
        };
        let millis = |count| Some(Duration::from_millis(count));
        assert_eq!(of(0), (None, None));
        assert_eq!(of(1), (millis(1), millis(1)));
        assert_eq!(of(2), (millis(1), millis(2)));
        assert_eq!(of(100), (millis(50), millis(95)));
    }

    #[test]
    fn one_failure_among_many_is_seen() {
        let percent =
            |succeeded, attempts| EndpointFigures { succeeded, attempts, ..figures() }.success_percent();
        assert_eq!(percent(0, 0), None);
        assert_eq!(percent(9_999, 10_000), Some(99.9));
        assert_eq!(percent(2, 3), Some(66.6));
        assert_eq!(percent(7, 7), Some(100.0));
    }
}
