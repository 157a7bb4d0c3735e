//! The queue in memory: order, bounds, and who takes what.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use queue::lease::Lease;
use queue::run::Generation;
use queue::{LeaseToken, Timestamp};

use super::*;

fn run(number: u8, priority: i8) -> LeasedRun {
    LeasedRun {
        lease: Lease {
            run: RunId::from_bytes([number; 16]),
            token: LeaseToken::from_bytes([0; 16]),
            attempt: 1,
        },
        app: "p-1234abcd-a".parse().unwrap(),
        function: Arc::from("predict"),
        generation: Generation::V4,
        input: Bytes::new(),
        webhooks: vec![],
        events: queue::webhook::EventFilter::default(),
        limit: Duration::from_secs(1),
        accepted_at: Timestamp::default(),
        crashes: 0,
        priority,
        retry: None,
        failures: 0,
        last_attempt: false,
    }
}

fn add(waiting: &Waiting, number: u8, priority: i8) {
    assert!(waiting.reserve(0));
    assert!(waiting.fill(run(number, priority), 0).is_ok());
}

fn taken(waiting: &Waiting, places: usize) -> Vec<u8> {
    let mut batch = Vec::new();
    waiting.take(&mut Seat::default(), 0, places, usize::MAX, &mut batch);
    batch.iter().map(|work| work.id().into_bytes()[0]).collect()
}

#[test]
fn a_replica_takes_no_more_bytes_than_it_may_hold() {
    let waiting = Waiting::default();
    for number in 1..=5 {
        assert!(waiting.reserve(40));
        let large = LeasedRun { input: Bytes::from(vec![b' '; 40]), ..run(number, 0) };
        assert!(waiting.fill(large, 40).is_ok());
    }
    let (mut seat, mut batch) = (Seat::default(), Vec::new());
    waiting.take(&mut seat, 0, 10, 100, &mut batch);
    assert_eq!((batch.len(), seat.free), (3, 0), "the third reaches the bound");
    waiting.take(&mut seat, 3, 7, 100, &mut batch);
    assert_eq!((batch.len(), seat.free), (5, 5));
}

#[test]
fn holds_grow_until_they_outlast_every_call() {
    let stretches = |from: u64, to: u64, held| {
        (from..to).step_by(15).all(|second| holds_after(Duration::from_secs(second)) == held)
    };
    assert!(stretches(0, 30, true) && stretches(30, 60, false));
    assert!(stretches(60, 120, true) && stretches(120, 150, false));
    assert!(stretches(150, 270, true) && stretches(270, 300, false));
    let longest = queue::limits::RESPONSE_GRACE_PERIOD_MAX.as_secs();
    let begins = (0..2 * longest).step_by(30).find(|from| stretches(*from, from + longest, true));
    assert!(begins.is_some(), "before as much time has passed again, a hold outlasts the longest call");
}

#[test]
fn higher_priorities_go_first_and_the_oldest_among_equals() {
    let waiting = Waiting::default();
    for (number, priority) in [(1, 0), (2, -5), (3, 7), (4, 0), (5, 7), (6, 100)] {
        add(&waiting, number, priority);
    }
    assert_eq!(taken(&waiting, 4), [6, 3, 5, 1]);
    assert_eq!(taken(&waiting, 4), [4, 2]);
}

#[test]
fn a_run_more_urgent_than_those_in_a_full_memory_is_claimed_at_once_and_goes_first() {
    let waiting = Waiting::default();
    waiting.wake(0);
    let (count, _) = waiting.begin_claim().unwrap();
    assert_eq!(count, ORDINARY_RUNS_MAX);
    let claimed = (0..count).map(|number| run(u8::try_from(number).unwrap(), 0)).collect();
    assert!(waiting.end_claim(Some(claimed)).is_empty());

    assert!(!waiting.reserve(0), "others wait in the store, perhaps more urgent ones");
    waiting.wake(0);
    assert!(waiting.begin_claim().is_none(), "it is no more urgent than what is here");
    waiting.wake(1);
    assert!(waiting.begin_claim().is_some());
    assert!(waiting.end_claim(None).is_empty());
    let (count, _) = waiting.begin_claim().expect("a claim that failed made it no less urgent");
    assert_eq!(count, 1, "only the urgent one is claimed");
    assert!(waiting.end_claim(Some(vec![run(255, 1)])).is_empty());
    assert_eq!(taken(&waiting, 2), [255, 0]);
}

#[test]
fn urgent_runs_do_not_break_the_bound_of_the_memory() {
    let waiting = Waiting::default();
    for number in 0..ORDINARY_RUNS_MAX {
        add(&waiting, u8::try_from(number).unwrap(), 0);
    }
    assert!(!waiting.reserve(0));
    for round in 0..URGENT_RUNS_PER_APP_MAX + 1 {
        waiting.wake(5);
        let claim = waiting.begin_claim();
        assert_eq!(claim.map(|(count, _)| count), (round < URGENT_RUNS_PER_APP_MAX).then_some(1));
        if claim.is_some() {
            waiting.end_claim(Some(vec![run(250, 5)]));
        }
    }
    assert_eq!(taken(&waiting, 1), [250]);
    assert_eq!(waiting.begin_claim().map(|(count, _)| count), Some(1), "there is a place again");
}

#[test]
fn no_more_is_claimed_than_memory_has_bytes_for() {
    let waiting = Waiting::default();
    let body = Bytes::from(vec![0; 100 << 20]);
    waiting.wake(0);
    for number in 0.. {
        let Some((_, bytes)) = waiting.begin_claim() else { break };
        assert!(bytes > 0, "{number} runs of 100 MiB are here, and another one is claimed");
        // A store gives one run at least, whatever its size.
        let large = LeasedRun { input: body.clone(), ..run(number, 0) };
        assert!(waiting.end_claim(Some(vec![large])).is_empty());
    }
    assert_eq!(waiting.lock().held, 3);
    waiting.wake(1);
    assert!(waiting.begin_claim().is_none(), "nor an urgent one");
    assert_eq!(taken(&waiting, 1), [0]);
    assert!(waiting.begin_claim().is_some(), "there is room again");
}

#[test]
fn the_pool_hears_of_room_however_it_came_about() {
    let hears = |waiting: &Waiting| waiting.attention.notified().now_or_never().is_some();
    let full = || {
        let waiting = Waiting::default();
        assert!(waiting.reserve(BUFFERED_BYTES_PER_APP_MAX));
        waiting.wake(0);
        assert!(hears(&waiting) && waiting.begin_claim().is_none());
        waiting
    };
    let (given_back, cancelled) = (full(), full());
    given_back.give_back(BUFFERED_BYTES_PER_APP_MAX);
    // It is cancelled on its way into its place.
    assert!(cancelled.cancel(run(1, 0).lease.run).is_none());
    assert!(cancelled.fill(run(1, 0), BUFFERED_BYTES_PER_APP_MAX).is_err());
    assert_eq!((hears(&given_back), hears(&cancelled)), (true, true));
}

#[test]
fn whoever_waits_at_a_bell_is_roused_too() {
    for way in [None, Some(Balancing::FirstAvailable)] {
        let waiting = Waiting::default();
        waiting.balance(way, || 1);
        let mut seat = Seat::default();
        // It has a place, and takes nothing.
        waiting.take(&mut seat, 0, 0, 0, &mut Vec::new());
        let bell = seat.bell();
        let mut news = pin!(if waiting.grants() { bell.notified() } else { waiting.work.notified() });
        assert!(news.as_mut().now_or_never().is_none());
        add(&waiting, 1, 0);
        assert!(news.as_mut().now_or_never().is_none());
        waiting.rouse();
        assert!(news.now_or_never().is_some(), "{way:?}");
    }
}

#[test]
fn work_goes_to_the_seats_that_the_rule_names_and_none_is_left_behind() {
    let waiting = Waiting::default();
    waiting.balance(Some(Balancing::FirstAvailable), || 1);
    let (mut old, mut young) = (Seat::default(), Seat::default());
    let take = |seat: &mut Seat, under_way, places| {
        let mut batch = Vec::new();
        waiting.take(seat, under_way, places, usize::MAX, &mut batch);
        batch.iter().map(|work| work.id().into_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!((take(&mut old, 0, 1), take(&mut young, 0, 1)), (vec![], vec![]));
    add(&waiting, 1, 0);
    assert_eq!(take(&mut young, 0, 1), [0; 0], "it was granted to the older one");
    assert_eq!(take(&mut old, 0, 1), [1]);
    add(&waiting, 2, 0);
    add(&waiting, 3, 0);
    assert_eq!(take(&mut young, 0, 1), [2], "it alone has a place");
    assert_eq!(take(&mut old, 0, 1), [3], "nobody had a place for it");
    // One that goes leaves what it was granted to the others.
    assert_eq!((take(&mut old, 0, 1), take(&mut young, 0, 1)), (vec![], vec![]));
    add(&waiting, 4, 0);
    waiting.leave(&mut old);
    assert_eq!(take(&mut young, 0, 1), [4]);
    // With the rule gone, whoever is awake takes what there is.
    add(&waiting, 5, 0);
    waiting.balance(None, || 1);
    assert_eq!(take(&mut Seat::default(), 0, 1), [5]);
}

#[test]
fn the_pool_is_told_how_busy_the_replicas_were() {
    let waiting = Waiting::default();
    let (mut seat, mut batch) = (Seat::default(), Vec::new());
    for number in 1..=3 {
        add(&waiting, number, 0);
    }
    waiting.take(&mut seat, 0, 10, usize::MAX, &mut batch);
    waiting.take(&mut seat, 1, 9, usize::MAX, &mut Vec::new());
    let demand = waiting.demand(false);
    assert_eq!((demand.under_way, demand.peak, demand.begun), (1, 3, 3));
    let demand = waiting.demand(false);
    assert_eq!((demand.under_way, demand.peak, demand.begun), (1, 1, 3));
    waiting.leave(&mut seat);
    assert_eq!(waiting.demand(false).under_way, 0);
}
