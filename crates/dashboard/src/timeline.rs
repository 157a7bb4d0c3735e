//! What happened to a run, from its acceptance to the last attempt at its receivers, in one order.
//!
//! A pure function of what the store knows; the page only draws it.

use std::time::Duration;

use pages::inert::visible;
use queue::Timestamp;
use queue::delivery::{DeliveryAttemptView, DeliveryState, DeliveryView};
use queue::run::{Mode, RunState, RunView};

use crate::{shape, words};

/// How a moment is to be felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    /// It is going on, or still to come.
    Open,
}

impl Tone {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Open => "open",
        }
    }
}

/// Something that happened, or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) at: Timestamp,
    pub(crate) tone: Tone,
    pub(crate) title: String,
    /// More about it, in a line.
    pub(crate) detail: String,
    /// What the receiver said.
    pub(crate) response: Option<String>,
    /// How long it took.
    pub(crate) took: Option<Duration>,
}

impl Moment {
    fn new(at: Timestamp, tone: Tone, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { at, tone, title: title.into(), detail: detail.into(), response: None, took: None }
    }

    /// When it was, for the eye.
    pub(crate) fn clock(&self) -> String {
        shape::moment(self.at)
    }

    /// How long it took, in words; empty when nothing is known.
    pub(crate) fn took_words(&self) -> String {
        self.took.map(shape::duration).unwrap_or_default()
    }
}

/// All of it, in the order in which it happened.
pub(crate) fn of(run: &RunView, now: Timestamp) -> Vec<Moment> {
    let mut moments = vec![accepted(run)];
    let mut queued_since = run.accepted_at;
    if let Some(not_before) = run.not_before {
        moments.push(Moment::new(not_before, Tone::Plain, "may start", "the call asked for a delay"));
        queued_since = not_before;
    }
    for attempt in &run.attempts {
        moments.push(started(queued_since, attempt.started_at, attempt.number));
        let (Some(at), Some(code)) = (attempt.ended_at, &attempt.end) else { continue };
        queued_since = at;
        // The end of the run says it better.
        if run.ended_at != Some(at) {
            let why = attempt.error.as_ref().map_or_else(String::new, |error| error.message.clone());
            let title = format!("attempt {} ended: {code}; it is executed again", attempt.number);
            moments.push(Moment {
                took: Some(at.since(attempt.started_at)),
                ..Moment::new(at, Tone::Bad, title, why)
            });
        }
    }
    match (run.state, run.ended_at) {
        (RunState::Queued, _) => {
            moments.push(Moment::new(now, Tone::Open, "waits for a replica", waited(queued_since, now)));
        }
        (RunState::Running, _) => {
            let since = run.started_at.unwrap_or(run.accepted_at);
            moments.push(Moment::new(
                now,
                Tone::Open,
                "is running",
                format!("for {}", shape::duration(now.since(since))),
            ));
        }
        (_, Some(at)) => moments.push(ended(run, at)),
        (_, None) => {}
    }
    for delivery in &run.deliveries {
        told(delivery, now, &mut moments);
    }
    // Titles are ours; the rest may be what an app, a caller or a receiver wrote.
    for moment in &mut moments {
        moment.detail = visible(&moment.detail).into_owned();
        moment.response = moment.response.as_deref().map(|response| visible(response).into_owned());
    }
    // Stable: what happened within one millisecond stays in the order of the path.
    moments.sort_by_key(|moment| moment.at);
    moments
}

fn accepted(run: &RunView) -> Moment {
    let how = match run.mode {
        Mode::Sync => "the caller waits for the answer",
        Mode::Async => "on the disk before the caller was told",
    };
    Moment::new(run.accepted_at, Tone::Plain, "accepted", how)
}

fn waited(since: Timestamp, until: Timestamp) -> String {
    format!("for {}", shape::duration(until.since(since)))
}

fn started(queued_since: Timestamp, at: Timestamp, number: u32) -> Moment {
    let which = if number > 1 { format!("started, attempt {number}") } else { "started".to_owned() };
    let mut moment = Moment::new(at, Tone::Plain, which, "after waiting for a replica");
    moment.took = Some(at.since(queued_since));
    moment
}

fn ended(run: &RunView, at: Timestamp) -> Moment {
    let tone = if run.state == RunState::Succeeded { Tone::Good } else { Tone::Bad };
    let detail = match (&run.error, run.status_code) {
        (Some(error), _) => format!("{}: {}", error.kind, error.message),
        (None, Some(status)) => format!("status {status}"),
        (None, None) => String::new(),
    };
    let mut moment = Moment::new(at, tone, run.state.as_str(), detail);
    moment.took = run.run_time_ms.map(|millis| Duration::from_secs_f64((millis / 1e3).clamp(0.0, 1e9)));
    moment
}

/// The attempts at one receiver, and what is to come.
fn told(delivery: &DeliveryView, now: Timestamp, moments: &mut Vec<Moment>) {
    let to = delivery.url.as_str();
    for attempt in &delivery.attempts {
        moments.push(attempted(attempt, to, now));
    }
    match (delivery.state, delivery.next_attempt_at) {
        (DeliveryState::Pending, Some(at)) => {
            let title =
                if delivery.attempts.is_empty() { "webhook is due" } else { "webhook is tried again" };
            moments.push(Moment::new(at, Tone::Open, title, format!("{to}, {}", shape::relative(at, now))));
        }
        (DeliveryState::Exhausted, _) => {
            let at = delivery.attempts.last().and_then(|last| last.ended_at).unwrap_or(now);
            moments.push(Moment::new(
                at,
                Tone::Bad,
                "webhook was given up",
                format!("{to}: the whole schedule failed; deliver it once more when the receiver is well"),
            ));
        }
        (DeliveryState::Disabled, _) => {
            moments.push(Moment::new(
                now,
                Tone::Open,
                "webhook waits for its endpoint",
                format!("{to} is disabled; enabling it delivers what waits"),
            ));
        }
        _ => {}
    }
}

fn attempted(attempt: &DeliveryAttemptView, to: &str, now: Timestamp) -> Moment {
    let Some(report) = &attempt.report else {
        return Moment::new(
            attempt.started_at,
            Tone::Open,
            format!("webhook attempt {}", attempt.number),
            format!("{to}, for {}", shape::duration(now.since(attempt.started_at))),
        );
    };
    let status = report.status_code.map_or_else(String::new, |status| format!(" with {status}"));
    let (tone, title) = match &report.reason {
        None => (Tone::Good, format!("webhook delivered{status}")),
        Some(word) => {
            (Tone::Bad, format!("webhook attempt {} failed{status}: {}", attempt.number, words::reason(word)))
        }
    };
    let timings = &report.timings;
    let parts = [
        ("name", timings.dns),
        ("connect", timings.connect),
        ("TLS", timings.tls),
        ("first byte", timings.first_byte),
    ];
    let parts =
        parts.into_iter().filter_map(|(what, took)| Some(format!("{what} {}", shape::duration(took?))));
    let reused = timings.reused_connection.then(|| "on an open connection".to_owned());
    let detail = std::iter::once(to.to_owned()).chain(parts).chain(reused).collect::<Vec<_>>().join(" · ");
    let mut moment = Moment::new(attempt.started_at, tone, title, detail);
    moment.took = Some(report.duration);
    moment.response = report.response.clone().filter(|response| !response.is_empty());
    moment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn titles(run: &RunView, now: i64) -> Vec<(i64, &'static str, String)> {
        let moments = of(run, Timestamp::from_millis(now));
        moments
            .into_iter()
            .map(|moment| (moment.at.as_millis(), moment.tone.as_str(), moment.title))
            .collect()
    }

    #[test]
    fn a_run_is_told_from_its_acceptance_to_its_receiver() {
        let told = titles(&sample::delivered(), 60_000);
        let expected = [
            (1_000, "plain", "accepted"),
            (1_002, "plain", "started"),
            (1_500, "good", "succeeded"),
            (1_501, "bad", "webhook attempt 1 failed with 503: the receiver answered with an error"),
            (6_600, "good", "webhook delivered with 200"),
        ];
        assert_eq!(told, expected.map(|(at, tone, title)| (at, tone, title.to_owned())));
    }

    #[test]
    fn what_is_still_to_come_is_told_as_well() {
        let queued = sample::run(RunState::Queued);
        assert_eq!(
            titles(&queued, 4_000).last().unwrap(),
            &(4_000, "open", "waits for a replica".to_owned())
        );
        let mut failing = sample::delivered();
        failing.deliveries[0].state = DeliveryState::Pending;
        failing.deliveries[0].next_attempt_at = Some(Timestamp::from_millis(90_000));
        failing.deliveries[0].attempts.truncate(1);
        let last = of(&failing, Timestamp::from_millis(60_000)).pop().unwrap();
        assert_eq!((last.at.as_millis(), last.title.as_str()), (90_000, "webhook is tried again"));
        assert!(last.detail.ends_with("in 30 s"), "{}", last.detail);
    }

    #[test]
    fn an_attempt_that_came_to_nothing_says_what_followed() {
        let told = titles(&sample::crashed_once(), 60_000);
        let titles: Vec<_> = told.iter().map(|(_, _, title)| title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "accepted",
                "started",
                "attempt 1 ended: worker_crashed; it is executed again",
                "started, attempt 2",
                "succeeded"
            ]
        );
    }
}
