//! When a failed delivery is tried again: the schedule, its jitter, and `Retry-After`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::DeliveryId;

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

/// Waits before each attempt, from the first. The steps that Standard Webhooks gives as its example,
/// then seven more a day apart: 17 attempts over about ten days.
pub const SCHEDULE: [Duration; 17] = [
    Duration::from_secs(0),
    Duration::from_secs(5 * SECOND),
    Duration::from_secs(5 * MINUTE),
    Duration::from_secs(30 * MINUTE),
    Duration::from_secs(2 * HOUR),
    Duration::from_secs(5 * HOUR),
    Duration::from_secs(10 * HOUR),
    Duration::from_secs(14 * HOUR),
    Duration::from_secs(20 * HOUR),
    Duration::from_secs(24 * HOUR),
    Duration::from_secs(DAY),
    Duration::from_secs(DAY),
    Duration::from_secs(DAY),
    Duration::from_secs(DAY),
    Duration::from_secs(DAY),
    Duration::from_secs(DAY),
    Duration::from_secs(DAY),
];

/// The same for what a run tells on its way: it is soon out of date.
pub const PROGRESS_SCHEDULE: [Duration; 3] =
    [Duration::from_secs(0), Duration::from_secs(5 * SECOND), Duration::from_secs(5 * MINUTE)];

/// The schedule of a delivery, where that of outcomes is `outcomes`.
pub const fn schedule_of(id: DeliveryId, outcomes: &[Duration]) -> &[Duration] {
    if id.is_progress() { &PROGRESS_SCHEDULE } else { outcomes }
}

/// Jitter at most, as a part of the step. Added, never subtracted.
pub const JITTER_MAX: f64 = 0.2;

/// `Retry-After` is honoured up to here.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(DAY);

/// No wait between two attempts is longer, whatever the schedule; a later time was made by a wrong clock.
pub const WAIT_MAX: Duration = Duration::from_secs(10 * DAY);

/// When to try again after `attempt` (from 1) failed at `now`; `None` when it was the last.
///
/// `chance` in `0.0..1.0` places the jitter. A receiver's `retry_after` makes the wait longer, never
/// shorter than the schedule's step.
pub fn next_attempt(
    schedule: &[Duration],
    attempt: u32,
    now: Timestamp,
    chance: f64,
    retry_after: Option<Duration>,
) -> Option<Timestamp> {
    let step = *schedule.get(usize::try_from(attempt).ok()?)?;
    let wait = step.mul_f64(1.0 + JITTER_MAX * chance.clamp(0.0, 1.0));
    Some(now.plus(wait.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))))
}

/// The schedule as the page `docs/reference/retries.md`.
pub fn page() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# When a webhook is tried again\n\nEverything but 2xx is tried again, but for 410, which disables the \
         endpoint. Up to 20 % of each wait is added by chance, never subtracted; `Retry-After` makes a wait longer, \
         up to a day, never shorter. The `webhook-id` and the body stay the same; timestamp and signature are fresh. \
         An app sets waits of its own with `webhook_schedule`, a call with `X-Webhook-Schedule`. This page is made from `crates/queue/src/retry.rs`.\n\n| attempt | waits at least | since the outcome |\n|---|---|---|\n",
    );
    let mut total = Duration::ZERO;
    for (attempt, wait) in (1..).zip(SCHEDULE) {
        total += wait;
        let _ = writeln!(page, "| {attempt} | {} | {} |", spoken(wait), spoken(total));
    }
    let short: Vec<_> = PROGRESS_SCHEDULE.iter().map(|wait| spoken(*wait)).collect();
    let _ = writeln!(
        page,
        "\nWhat a run tells on its way (`start`, `output`, `logs`) is tried {} times only, after {}; it never disables \
         an endpoint, a 410 included.",
        short.len(),
        short.join(", ")
    );
    page
}

/// `2 d 3 h 35 min 5 s`, without the parts that are zero.
fn spoken(duration: Duration) -> String {
    let secs = duration.as_secs();
    let parts =
        [(secs / DAY, "d"), (secs % DAY / HOUR, "h"), (secs % HOUR / MINUTE, "min"), (secs % MINUTE, "s")];
    let said: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count} {unit}")).collect();
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    #[test]
    fn seventeen_attempts_over_ten_days() {
        let total: Duration = SCHEDULE.iter().sum();
        assert_eq!(total, Duration::from_secs(243 * HOUR + 35 * MINUTE + 5));
        assert_eq!(next_attempt(&SCHEDULE, 17, NOW, 0.0, None), None);
        assert!(next_attempt(&SCHEDULE, 16, NOW, 0.0, None).is_some());
    }

    #[test]
    fn jitter_only_adds() {
        let at = |chance| next_attempt(&SCHEDULE, 1, NOW, chance, None).unwrap().as_millis();
        assert_eq!(at(0.0), 5_000);
        assert_eq!(at(1.0), 6_000);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_but_not_for_less_nor_for_ever() {
        let at = |secs| {
            let asked = Some(Duration::from_secs(secs));
            next_attempt(&SCHEDULE, 1, NOW, 0.0, asked).unwrap().as_millis()
        };
        assert_eq!(at(1), 5_000);
        assert_eq!(at(60), 60_000);
        assert_eq!(at(10 * 365 * DAY), 86_400_000);
    }
}
