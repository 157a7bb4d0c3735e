//! What follows from an attempt. Pure: time and chance are arguments.

use std::time::{Duration, SystemTime};

use queue::clock::Timestamp;
use queue::delivery::{Timings, Verdict};
use queue::id::DeliveryId;
use queue::retry::{next_attempt, schedule_of};

use crate::failure::Failure;

/// What an attempt saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The status, if one came.
    pub(crate) status: Option<u16>,
    /// `Retry-After` as it came.
    pub(crate) retry_after: Option<String>,
    /// The first bytes of the answer's body, as text.
    pub(crate) response: Option<String>,
    /// Why it failed; `None` when the receiver has the delivery.
    pub(crate) failure: Option<Failure>,
    /// Where the time went.
    pub(crate) timings: Timings,
}

impl Seen {
    /// Nothing but a failure.
    pub(crate) fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }
}

const GONE: u16 = 410;
/// The wait after an attempt that this server could not make; doubled by each further one …
const POSTPONED_FIRST: Duration = Duration::from_secs(5);
/// … up to this.
const POSTPONED_MAX: Duration = Duration::from_secs(300);

/// What follows from step `step` (from 1) of the schedule, which was attempt number `attempt` of its
/// delivery and ended at `now`.
pub(crate) fn verdict(
    id: DeliveryId,
    schedule: &[Duration],
    step: u32,
    attempt: u32,
    seen: &Seen,
    now: Timestamp,
    chance: f64,
) -> Verdict {
    if seen.failure.is_none() {
        return Verdict::Delivered;
    }
    if seen.status == Some(GONE) {
        // Whether the endpoint wants outcomes is for an outcome to find out.
        return if id.is_progress() { Verdict::Exhausted } else { Verdict::Disabled };
    }
    if seen.failure == Some(Failure::Shortage) {
        let doublings = attempt.saturating_sub(step).min(16);
        let wait = (POSTPONED_FIRST * 2_u32.pow(doublings)).min(POSTPONED_MAX);
        return Verdict::Postponed(now.plus(wait.mul_f64(1.0 + chance.clamp(0.0, 1.0))));
    }
    let asked = seen.retry_after.as_deref().and_then(|value| retry_after(value, now));
    next_attempt(schedule_of(id, schedule), step, now, chance, asked)
        .map_or(Verdict::Exhausted, Verdict::Retry)
}

/// Reads `Retry-After`: seconds, or a date. Anything else is not there; a past date asks for nothing.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).ok()?).since(now))
}

#[cfg(test)]
mod tests {
    use queue::retry::SCHEDULE;

    use super::*;

    /// 1994-11-06T08:49:37Z, the date that RFC 9110 uses.
    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);
    const OUTCOME: DeliveryId = DeliveryId::outcome(queue::RunId::from_bytes([0; 16]), 0);
    const SECOND: i64 = 1_000;
    const DAY: i64 = 86_400 * SECOND;

    fn answered(status: u16, failure: Option<Failure>, retry_after: Option<&str>) -> Seen {
        Seen { status: Some(status), retry_after: retry_after.map(Into::into), failure, ..Seen::default() }
    }

    #[test]
    fn only_2xx_delivers_only_410_disables_and_all_else_is_retried() {
        let retry = Verdict::Retry(NOW.plus(SCHEDULE[1]));
        let http = Some(Failure::HttpStatus);
        for (seen, expected) in [
            (answered(200, None, None), Verdict::Delivered),
            (answered(204, None, Some("60")), Verdict::Delivered),
            (answered(410, http, None), Verdict::Disabled),
            (answered(410, http, Some("60")), Verdict::Disabled),
            (answered(302, Some(Failure::Redirect), None), retry),
            (answered(400, http, None), retry),
            (answered(404, http, None), retry),
            (answered(500, http, None), retry),
            (answered(200, Some(Failure::Reset), None), retry),
            (Seen::failed(Failure::Refused), retry),
            (Seen::failed(Failure::AddressNotAllowed), retry),
        ] {
            assert_eq!(verdict(OUTCOME, &SCHEDULE, 1, 1, &seen, NOW, 0.0), expected, "{seen:?}");
        }
    }

    #[test]
    fn what_is_told_on_the_way_is_tried_three_times_and_disables_nothing() {
        let id = DeliveryId { event: 1, ..OUTCOME };
        let refused = Seen::failed(Failure::Refused);
        let verdict = |attempt, seen: &Seen| verdict(id, &SCHEDULE, attempt, attempt, seen, NOW, 0.0);
        assert_eq!(verdict(1, &refused), Verdict::Retry(NOW.plus(Duration::from_secs(5))));
        assert_eq!(verdict(2, &refused), Verdict::Retry(NOW.plus(Duration::from_secs(300))));
        assert_eq!(verdict(3, &refused), Verdict::Exhausted);
        assert_eq!(verdict(1, &answered(410, Some(Failure::HttpStatus), None)), Verdict::Exhausted);
    }

    #[test]
    fn each_attempt_waits_its_own_step_and_the_last_one_exhausts() {
        let seen = Seen::failed(Failure::Reset);
        for attempt in 1..17 {
            let step = SCHEDULE[usize::try_from(attempt).unwrap()];
            let earliest = verdict(OUTCOME, &SCHEDULE, attempt, attempt, &seen, NOW, 0.0);
            assert_eq!(earliest, Verdict::Retry(NOW.plus(step)), "{attempt}");
            let latest = verdict(OUTCOME, &SCHEDULE, attempt, attempt, &seen, NOW, 1.0);
            assert_eq!(latest, Verdict::Retry(NOW.plus(step.mul_f64(1.2))), "{attempt}");
        }
        assert_eq!(verdict(OUTCOME, &SCHEDULE, 17, 17, &seen, NOW, 0.5), Verdict::Exhausted);
    }

    #[test]
    fn what_this_server_could_not_send_takes_no_step_of_the_schedule() {
        let seen = Seen::failed(Failure::Shortage);
        for (attempt, secs) in [(17, 5), (18, 10), (19, 20), (40, 300)] {
            let verdict = verdict(OUTCOME, &SCHEDULE, 17, attempt, &seen, NOW, 0.0);
            assert_eq!(verdict, Verdict::Postponed(NOW.plus(Duration::from_secs(secs))), "{attempt}");
        }
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        for (value, wait) in [
            ("60", 60 * SECOND),
            (" 60 ", 60 * SECOND),
            ("0", 5 * SECOND),
            ("1", 5 * SECOND),
            ("-5", 5 * SECOND),
            ("1.5", 5 * SECOND),
            ("soon", 5 * SECOND),
            ("", 5 * SECOND),
            ("315360000", DAY),
            ("99999999999999999999999999", DAY),
            ("Sun, 06 Nov 1994 08:51:37 GMT", 120 * SECOND),
            ("Sunday, 06-Nov-94 08:51:37 GMT", 120 * SECOND),
            ("Sun Nov  6 08:51:37 1994", 120 * SECOND),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 5 * SECOND),
            ("Sat, 05 Nov 1994 08:49:37 GMT", 5 * SECOND),
            ("Wed, 06 Nov 2030 08:49:37 GMT", DAY),
        ] {
            let seen = answered(503, Some(Failure::HttpStatus), Some(value));
            let expected = Verdict::Retry(Timestamp::from_millis(NOW.as_millis() + wait));
            assert_eq!(verdict(OUTCOME, &SCHEDULE, 1, 1, &seen, NOW, 0.0), expected, "{value:?}");
        }
    }
}
