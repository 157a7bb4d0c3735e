//! Tables of what is seen and what is decided.

use super::*;

fn rules() -> Rules {
    Rules {
        concurrency: 1,
        least: 0,
        most: 10,
        buffer: 0,
        metric: Metric::ConcurrencyUtilization,
        target: 100,
        interval: Duration::from_secs(30),
        cooldown: Duration::from_secs(10),
    }
}

fn seen(active: u32, waiting: usize, under_way: usize) -> Seen {
    Seen { active, waiting, under_way, peak: under_way, begun: 0, used: None, idle_since: None }
}

/// What is wanted at the first look.
fn wanted(rules: &Rules, seen: &Seen) -> u32 {
    Scaler::default().look(rules, seen, Instant::now()).wanted
}

#[test]
fn calls_ask_for_places_at_once_between_least_and_most() {
    for (concurrency, least, most, buffer, waiting, under_way, expected) in [
        (1, 0, 5, 0, 0, 0, 0),
        (1, 0, 5, 0, 1, 0, 1),
        (100, 0, 5, 0, 1, 0, 1),
        (100, 0, 5, 0, 1, 100, 2),
        (100, 0, 9, 0, 412, 0, 5),
        (1, 0, 5, 0, 1_000_000, 0, 5),
        (1, 2, 5, 0, 0, 0, 2),
        (1, 2, 5, 0, 1, 2, 3),
        // The buffer stands beside the load, and beside the least.
        (1, 0, 5, 2, 0, 0, 2),
        (1, 0, 5, 2, 1, 0, 3),
        (1, 1, 5, 2, 0, 0, 3),
        (1, 0, 5, 9, 1, 0, 5),
    ] {
        let rules = Rules { concurrency, least, most, buffer, ..rules() };
        let case = (concurrency, least, most, buffer, waiting, under_way);
        assert_eq!(wanted(&rules, &seen(0, waiting, under_way)), expected, "{case:?}");
    }
}

#[test]
fn reasons_are_told_in_words() {
    let load = |metric, average, target| Reason::Load { metric, average, target };
    for (reason, words) in [
        (Reason::Calls { waiting: 412, under_way: 0, concurrency: 100 }, "412 calls wait, 100 at once each"),
        (Reason::Calls { waiting: 1, under_way: 0, concurrency: 1 }, "1 call waits, 1 at once each"),
        (
            Reason::Calls { waiting: 3, under_way: 1, concurrency: 1 },
            "3 calls wait and 1 runs, 1 at once each",
        ),
        (Reason::Least(2), "`min_replicas` is 2"),
        (Reason::Quiet(Duration::from_secs(10)), "fewer would have done for 10 s"),
        (load(Metric::RequestsPerSecond, 12.34, 5), "12.3 requests a second, 5 to a replica"),
        (load(Metric::ConcurrencyUtilization, 83.4, 70), "the replicas are 83 % in use, 70 % is the target"),
        (load(Metric::CpuUtilization, 91.0, 70), "the CPU is 91 % in use, 70 % is the target"),
        (load(Metric::MemoryUtilization, 91.0, 70), "the memory is 91 % in use, 70 % is the target"),
    ] {
        assert_eq!(reason.to_string(), words);
    }
    let told = Scaler::default().look(&Rules { least: 2, ..rules() }, &seen(0, 0, 0), Instant::now());
    assert_eq!(told.reason, Reason::Least(2));
}

/// Looks once a second, and returns what is wanted and kept at each.
fn over_time(rules: &Rules, looks: &[Seen]) -> Vec<(u32, u32)> {
    let (mut scaler, began) = (Scaler::default(), Instant::now());
    let look = |(second, seen): (u64, &Seen)| {
        let verdict = scaler.look(rules, seen, began + Duration::from_secs(second));
        (verdict.wanted, verdict.kept)
    };
    (0..).zip(looks).map(look).collect()
}

#[test]
fn fewer_are_wanted_when_fewer_would_have_done_for_the_cooldown() {
    let rules = Rules { cooldown: Duration::from_secs(3), ..rules() };
    let looks = [seen(0, 4, 0), seen(4, 0, 4), seen(4, 0, 1), seen(4, 0, 1), seen(4, 0, 1), seen(1, 0, 1)];
    assert_eq!(over_time(&rules, &looks), [(4, 4), (4, 4), (1, 4), (1, 4), (1, 1), (1, 1)]);
}

#[test]
fn calls_that_came_and_went_between_two_looks_count_as_of_their_end() {
    let rules = Rules { cooldown: Duration::from_secs(10), ..rules() };
    let (mut scaler, began) = (Scaler::default(), Instant::now());
    let at = |second| began + Duration::from_secs(second);
    scaler.note(3, at(0));
    // Two at once were worked on meanwhile, and the last of them ended a second ago.
    let look = Seen { peak: 2, idle_since: Some(at(9)), ..seen(3, 0, 0) };
    let verdict = scaler.look(&rules, &look, at(10));
    assert_eq!((verdict.wanted, verdict.kept, verdict.look_at), (0, 2, Some(at(19))));
    let later = scaler.look(&rules, &Seen { peak: 0, ..look }, at(19));
    assert_eq!(later.kept, 0);
}

#[test]
fn a_replica_that_was_started_stays_for_the_cooldown_and_is_not_looked_at_before() {
    let (mut scaler, now) = (Scaler::default(), Instant::now());
    scaler.note(1, now);
    let verdict = scaler.look(&rules(), &seen(1, 0, 0), now);
    assert_eq!((verdict.kept, verdict.look_at), (1, Some(now + Duration::from_secs(10))));
    let over = scaler.look(&rules(), &seen(1, 0, 0), now + Duration::from_secs(10));
    assert_eq!(over.kept, 0);
    // What must be there anyway is never looked at.
    let least = Scaler::default().look(&Rules { least: 1, ..rules() }, &seen(1, 0, 0), now);
    assert_eq!(least.look_at, None);
}

#[test]
fn metrics_decide_at_the_end_of_each_interval() {
    let of = |metric, target, concurrency| Rules {
        metric,
        target,
        concurrency,
        interval: Duration::from_secs(6),
        least: 1,
        ..rules()
    };
    let used = |percent| Seen { used: Some(percent), ..seen(2, 0, 0) };
    let rate = |second: u64, per_second: u64| Seen { begun: second * per_second, ..seen(2, 0, 0) };
    for (rules, look, expected) in [
        // Ten of ten places are used, and 70 % are to be.
        (of(Metric::ConcurrencyUtilization, 70, 10), (|_| seen(1, 0, 10)) as fn(u64) -> Seen, 2),
        (of(Metric::ConcurrencyUtilization, 70, 10), |_| seen(1, 0, 7), 1),
        (of(Metric::ConcurrencyUtilization, 70, 1), |_| seen(3, 0, 3), 5),
    ] {
        check(&rules, look, expected);
    }
    for (per_second, expected) in [(0, 1), (5, 1), (11, 3), (1_000, 10)] {
        check(&of(Metric::RequestsPerSecond, 5, 100), |second| rate(second, per_second), expected);
    }
    for metric in [Metric::CpuUtilization, Metric::MemoryUtilization] {
        for (percent, expected) in [(10.0, 1), (80.0, 2), (90.0, 3), (100.0, 3), (5.0, 1)] {
            check(&of(metric, 80, 100), |_| used(percent), expected);
        }
    }
}

fn check(rules: &Rules, look: impl Fn(u64) -> Seen, expected: u32) {
    let looks: Vec<_> = (0..=6).map(&look).collect();
    let (before, after) = (looks[0], over_time(rules, &looks));
    assert!(after[..6].iter().all(|(wanted, _)| *wanted <= expected), "{rules:?}: {after:?}");
    assert_eq!(after[6].0, expected, "{rules:?} {before:?}: {after:?}");
}

#[test]
fn calls_that_wait_are_not_averaged_whatever_the_metric_is() {
    for metric in Metric::ALL {
        let rules = Rules { metric, target: 90, least: 1, ..rules() };
        assert_eq!(wanted(&rules, &seen(1, 3, 1)), 4, "{metric:?}");
    }
}

#[test]
fn an_app_without_replicas_is_not_sampled() {
    let rules = Rules { metric: Metric::RequestsPerSecond, target: 5, ..rules() };
    let (mut scaler, now) = (Scaler::default(), Instant::now());
    assert_eq!(scaler.look(&rules, &seen(0, 0, 0), now).look_at, None);
    assert_eq!(scaler.look(&rules, &seen(1, 0, 1), now).look_at, Some(now + Duration::from_secs(1)));
}
