//! How many replicas an app should have, and why: decided from what was seen, and from nothing else.
//!
//! Three things ask for replicas, and the most of them counts:
//! - calls that wait or run, against the places of a replica: at once, from zero as well;
//! - the metric of the app against its target, averaged over its interval;
//! - `min_replicas`; and `scaling_buffer` comes on top.
//!
//! Fewer are wanted only when fewer would have done for the whole cooldown.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use queue::registry::Build;
use queue::scaling::Metric;
use tokio::time::Instant;

use crate::FAR;

/// Between two looks at an app whose metric is averaged.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at busy replicas that may be spare, at least and at most.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// What an app says about the number of its replicas.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) concurrency: u32,
    pub(crate) least: u32,
    pub(crate) most: u32,
    pub(crate) buffer: u32,
    pub(crate) metric: Metric,
    pub(crate) target: u32,
    pub(crate) interval: Duration,
    pub(crate) cooldown: Duration,
}

impl Rules {
    pub(crate) fn of(build: &Build) -> Self {
        let config = &build.config;
        Self {
            concurrency: build.concurrency().max(1),
            least: config.min_replicas,
            most: config.replicas_max(),
            buffer: config.scaling_buffer.unwrap_or(0),
            metric: config.metric(),
            target: config.target(),
            interval: config.evaluation_interval(),
            cooldown: config.cooldown().min(FAR),
        }
    }

    /// The same for a build of which there can be one replica at a time.
    pub(crate) fn for_one_at_a_time(self) -> Self {
        Self { least: self.least.min(1), most: 1, buffer: 0, ..self }
    }

    /// The same when no more work comes: what is left asks for replicas, and nothing else does.
    pub(crate) fn for_what_is_left(self) -> Self {
        Self { least: 0, buffer: 0, metric: Metric::ConcurrencyUtilization, target: 100, ..self }
    }

    /// The same where there is hardware for so many, and somebody else may wait for what is idle.
    pub(crate) fn on_hardware(self, room: Option<u32>, is_waited_for: bool) -> Self {
        let most = room.map_or(self.most, |room| self.most.min(room));
        let cooldown = if is_waited_for { Duration::ZERO } else { self.cooldown };
        Self { most, least: self.least.min(most), cooldown, ..self }
    }

    /// The places of the replicas say it all.
    fn follows_places_alone(&self) -> bool {
        self.metric == Metric::ConcurrencyUtilization && self.target >= 100
    }

    /// Replicas with places for so many calls at once.
    fn for_places(&self, calls: usize) -> u32 {
        let replicas = calls.div_ceil(usize::try_from(self.concurrency).unwrap_or(1));
        u32::try_from(replicas).unwrap_or(u32::MAX)
    }

    /// Never fewer than asked for, and never more.
    fn within(&self, load: u32) -> u32 {
        load.max(self.least).saturating_add(self.buffer).min(self.most.max(self.least))
    }
}

/// One look at an app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Replicas that serve or start.
    pub(crate) active: u32,
    /// Calls that wait in memory, and one more when there are some in the store.
    pub(crate) waiting: usize,
    /// Calls that replicas work on.
    pub(crate) under_way: usize,
    /// The most calls they worked on at once since the look before.
    pub(crate) peak: usize,
    /// Calls that began so far.
    pub(crate) begun: u64,
    /// What the replicas use of their CPU or memory, in percent, where the app is scaled by it.
    pub(crate) used: Option<f64>,
    /// When the last call ended; `None` while one is under way, or before there was one.
    pub(crate) idle_since: Option<Instant>,
}

/// What asks for the replicas that are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reason {
    /// Calls, and the places of a replica.
    Calls { waiting: usize, under_way: usize, concurrency: u32 },
    /// The metric, averaged, and its target.
    Load { metric: Metric, average: f64, target: u32 },
    /// `min_replicas`.
    Least(u32),
    /// Nothing asked for more for so long.
    Quiet(Duration),
    /// Another app has a use for what is idle here.
    WaitedFor,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = |count: usize| if count == 1 { "call" } else { "calls" };
        match self {
            Self::Calls { waiting, under_way: 0, concurrency } => {
                let (waits, calls) = (if *waiting == 1 { "waits" } else { "wait" }, calls(*waiting));
                write!(f, "{waiting} {calls} {waits}, {concurrency} at once each")
            }
            Self::Calls { waiting, under_way, concurrency } => {
                let (calls, wait) = (calls(*waiting), if *waiting == 1 { "waits" } else { "wait" });
                let run = if *under_way == 1 { "runs" } else { "run" };
                write!(f, "{waiting} {calls} {wait} and {under_way} {run}, {concurrency} at once each")
            }
            Self::Load { metric: Metric::RequestsPerSecond, average, target } => {
                write!(f, "{average:.1} requests a second, {target} to a replica")
            }
            Self::Load { metric, average, target } => {
                let what = match metric {
                    Metric::CpuUtilization => "the CPU is",
                    Metric::MemoryUtilization => "the memory is",
                    _ => "the replicas are",
                };
                write!(f, "{what} {average:.0} % in use, {target} % is the target")
            }
            Self::Least(least) => write!(f, "`min_replicas` is {least}"),
            Self::WaitedFor => f.write_str("idle, and another app waits for the GPU"),
            Self::Quiet(cooldown) => write!(f, "fewer would have done for {} s", cooldown.as_secs()),
        }
    }
}

/// What is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Replicas that there should be at least, now.
    pub(crate) wanted: u32,
    /// Why.
    pub(crate) reason: Reason,
    /// Replicas beyond these may go.
    pub(crate) kept: u32,
    /// When to look again, if nothing happens before.
    pub(crate) look_at: Option<Instant>,
}

/// What was seen over time.
#[derive(Debug, Default)]
pub(crate) struct Scaler {
    average: Option<Average>,
    /// What the metric asked for at the end of the last interval.
    steady: Option<(u32, Reason)>,
    /// What was wanted and when, for as long as the cooldown: each less than the one before it.
    past: VecDeque<(Instant, u32)>,
}

/// The metric since the beginning of an interval.
#[derive(Debug)]
struct Average {
    since: Instant,
    begun: u64,
    /// Value times seconds.
    area: f64,
    value: f64,
    until: Instant,
}

impl Scaler {
    /// So many replicas are there for a reason of their own: none of them is spare before the cooldown is over.
    pub(crate) fn note(&mut self, replicas: u32, now: Instant) {
        if replicas == 0 {
            return;
        }
        while self.past.back().is_some_and(|(_, less)| *less <= replicas) {
            self.past.pop_back();
        }
        self.past.push_back((now, replicas));
    }

    /// Decides.
    pub(crate) fn look(&mut self, rules: &Rules, seen: &Seen, now: Instant) -> Verdict {
        let calls = seen.waiting + seen.under_way;
        let for_calls = rules.for_places(calls);
        let sampling = self.sample(rules, seen, now);
        let (load, mut reason) = match self.steady {
            Some((steady, reason)) if steady > for_calls => (steady, reason),
            _ => {
                let Seen { waiting, under_way, .. } = *seen;
                (for_calls, Reason::Calls { waiting, under_way, concurrency: rules.concurrency })
            }
        };
        if load < rules.least {
            reason = Reason::Least(rules.least);
        }
        let wanted = rules.within(load);

        let last_used = if calls > 0 { now } else { seen.idle_since.unwrap_or(now).min(now) };
        let peak = rules.for_places(seen.peak.max(calls));
        if peak > 0 {
            self.note(rules.within(peak.max(load)), last_used);
        }
        if wanted > rules.within(0) {
            self.note(wanted, now);
        }
        while self.past.front().is_some_and(|(at, _)| *at + rules.cooldown <= now) {
            self.past.pop_front();
        }
        let kept =
            self.past.front().map_or(0, |(_, most)| *most).max(wanted).min(rules.most.max(rules.least));
        let look_at = if seen.active > rules.within(0) {
            let over = self.past.front().map(|(at, _)| (*at + rules.cooldown).max(now + LOOK_MIN));
            let soon = now + (rules.cooldown / 4).clamp(LOOK_MIN, LOOK_MAX);
            if calls > 0 {
                Some(over.map_or(soon, |over| over.min(soon)))
            } else {
                Some(over.unwrap_or(soon))
            }
        } else {
            None
        };
        Verdict { wanted, reason, kept, look_at: [look_at, sampling].into_iter().flatten().min() }
    }

    /// Averages the metric, and decides by it at the end of each interval. When to sample again.
    fn sample(&mut self, rules: &Rules, seen: &Seen, now: Instant) -> Option<Instant> {
        if rules.follows_places_alone() || seen.active == 0 {
            (self.average, self.steady) = (None, None);
            return None;
        }
        let value = match rules.metric {
            Metric::ConcurrencyUtilization => (seen.waiting + seen.under_way) as f64,
            Metric::RequestsPerSecond => 0.0,
            Metric::CpuUtilization | Metric::MemoryUtilization => seen.used.unwrap_or(0.0),
        };
        let fresh = || Average { since: now, begun: seen.begun, area: 0.0, value, until: now };
        let average = self.average.get_or_insert_with(fresh);
        average.area += average.value * now.duration_since(average.until).as_secs_f64();
        (average.value, average.until) = (value, now);
        let seconds = now.duration_since(average.since).as_secs_f64();
        if seconds < rules.interval.as_secs_f64() {
            return Some((now + SAMPLE_EVERY).min(average.since + rules.interval));
        }
        let target = f64::from(rules.target);
        let (average, replicas) = match rules.metric {
            Metric::ConcurrencyUtilization => {
                let calls = average.area / seconds;
                let places = f64::from(rules.concurrency);
                (calls / (places * f64::from(seen.active)) * 100.0, calls * 100.0 / (places * target))
            }
            Metric::RequestsPerSecond => {
                let rate = seen.begun.saturating_sub(average.begun) as f64 / seconds;
                (rate, rate / target)
            }
            Metric::CpuUtilization | Metric::MemoryUtilization => {
                let used = average.area / seconds;
                (used, f64::from(seen.active) * used / target)
            }
        };
        // Sampling is not so exact that a hundredth of a replica would be worth one.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let replicas = (replicas - 0.01).ceil().max(0.0) as u32;
        self.steady = Some((replicas, Reason::Load { metric: rules.metric, average, target: rules.target }));
        self.average = Some(fresh());
        Some(now + SAMPLE_EVERY.min(rules.interval))
    }
}

#[cfg(test)]
mod tests;
