//! Caps, shares and what is remembered.

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

const START: usize = DELIVERIES_PER_RECEIVER_START;

fn receiver(number: usize) -> Receiver {
    Receiver::stored(&format!("https://{number}.example.com"))
}

fn places() -> Arc<Places> {
    Places::new(Caps::default(), HashSet::new())
}

fn fill(places: &Arc<Places>, receiver: &Receiver, now: Instant) -> Vec<Place> {
    std::iter::from_fn(|| places.reserve(receiver.clone(), 0, now)).collect()
}

#[test]
fn a_quarter_is_left_to_those_that_wait() {
    let (places, now) = (places(), Instant::now());
    let mut held = fill(&places, &receiver(1), now);
    assert_eq!(held.len(), START);
    held.pop();
    held.pop();
    assert!(places.reserve(receiver(1), 0, now).is_none(), "two of eight are for the store");
    assert_eq!(places.room(now).unwrap().receivers[&receiver(1)], 1, "half of what is free");
    // The store has nothing: the whole cap is there for fresh outcomes again.
    places.take(Vec::new(), now);
    assert!(places.reserve(receiver(1), 0, now).is_some());
    assert!(places.reserve(receiver(1), 0, now).is_some());
}

#[test]
fn a_cap_follows_how_the_receiver_answers() {
    let (places, now) = (places(), Instant::now());
    let caps = |health, times| {
        for _ in 0..times {
            places.reserve(receiver(1), 0, now).unwrap().give_back(health);
        }
        let held = fill(&places, &receiver(1), now).len();
        places.take(places.room(now).map(|_| Vec::new()).unwrap(), now);
        held
    };
    assert_eq!(caps(Health::Good, 1), 9);
    assert_eq!(caps(Health::Answered, 5), 9);
    assert_eq!(caps(Health::Unknown, 5), 9);
    assert_eq!(caps(Health::Good, 100), 64);
    assert_eq!(caps(Health::Strained, 1), 32);
    assert_eq!(caps(Health::Outage, 9), 1);
}

#[test]
fn caps_are_what_the_server_was_told() {
    let now = Instant::now();
    let places = Places::new(Caps { in_flight: 5, per_receiver: 3, ..Caps::default() }, HashSet::new());
    let held = fill(&places, &receiver(1), now);
    assert_eq!(held.len(), 3);
    assert_eq!(fill(&places, &receiver(2), now).len(), 2);
    for place in held {
        place.give_back(Health::Good);
    }
    assert_eq!(fill(&places, &receiver(1), now).len(), 3);
    let room = places.room(now).unwrap();
    assert_eq!((room.total, room.per_receiver), (3, 2), "half of either, rounded up");
}

#[test]
fn a_blocked_receiver_has_no_place_until_one_probe() {
    let (places, now) = (places(), Instant::now());
    for _ in 0..10 {
        places.reserve(receiver(1), 0, now).unwrap().give_back(Health::Outage);
    }
    assert!(places.reserve(receiver(1), 0, now).is_none());
    assert_eq!(places.room(now).unwrap().receivers[&receiver(1)], 0);
    places.take(Vec::new(), now);
    let later = places.next_probe(now).unwrap();
    assert_eq!(places.room(later).unwrap().receivers[&receiver(1)], 1);
    let probe = places.take(vec![(receiver(1), 0)], later).remove(0);
    assert!(places.reserve(receiver(1), 0, later).is_none(), "one probe, not two");
    probe.give_back(Health::Good);
    places.room(later).unwrap();
    places.take(Vec::new(), later);
    assert_eq!(fill(&places, &receiver(1), later).len(), 2, "it begins anew, carefully");
}

#[test]
fn an_inbox_that_plays_dead_blocks_nobody() {
    let (places, now) = (Places::new(Caps::default(), HashSet::from([receiver(1)])), Instant::now());
    for _ in 0..100 {
        places.reserve(receiver(1), 0, now).unwrap().give_back(Health::Outage);
    }
    assert_eq!(fill(&places, &receiver(1), now).len(), DELIVERIES_PER_RECEIVER_DEFAULT);
}

#[test]
fn what_is_remembered_is_bounded() {
    let (places, now) = (places(), Instant::now());
    for number in 0..3 * RECEIVERS_MAX {
        places.reserve(receiver(number), 0, now).unwrap().give_back(Health::Outage);
    }
    assert!(places.lock().receivers.len() <= RECEIVERS_MAX);
    places.room(now + REMEMBERED + Duration::from_secs(60)).unwrap();
    assert_eq!(places.lock().receivers.len(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Reserve(usize),
    Ask,
    /// How many of each receiver's deliveries wait.
    Answer(Vec<usize>),
    Fail,
    GiveBack(usize, bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..9_usize).prop_map(Act::Reserve),
        2 => Just(Act::Ask),
        2 => proptest::collection::vec(0..80_usize, 9).prop_map(Act::Answer),
        1 => Just(Act::Fail),
        6 => (0..512_usize, any::<bool>()).prop_map(|(which, good)| Act::GiveBack(which, good)),
    ]
}

#[test]
fn large_results_are_bounded_in_bytes_and_small_ones_do_not_wait_for_them() {
    const MIB: usize = 1 << 20;
    let (places, now) = (places(), Instant::now());
    let large = |number| places.reserve(receiver(number), 40 * MIB, now);
    let held: Vec<_> = (0..9).map_while(large).collect();
    assert_eq!(held.len(), 3, "half of 256 MiB is for the store");
    assert!(places.reserve(receiver(9), INLINE_RESULT_BYTES_MAX - 1, now).is_some());
    let room = places.room(now).unwrap();
    assert_eq!(room.bytes, 136 * MIB);
    // While the store is asked, all that is left is promised to it.
    assert!(places.reserve(receiver(9), 4 * MIB, now).is_none());
    let taken = places.take(vec![(receiver(5), 100 * MIB), (receiver(6), 0)], now);
    assert_eq!(places.room(now).unwrap().bytes, 36 * MIB);
    drop(taken);
    places.take(Vec::new(), now);
    // The end of a large one is always told: some may wait for its bytes.
    let is_wanted = || places.wanted.notified().now_or_never().is_some();
    is_wanted();
    assert!(!is_wanted());
    drop(held);
    assert!(is_wanted());
    assert_eq!(places.lock().bytes, 0);
    assert!(places.reserve(receiver(9), 4 * MIB, now).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of reservations, questions to the store and ends of attempts.
    #[test]
    fn no_cap_is_ever_exceeded_and_no_place_is_lost(acts in proptest::collection::vec(act(), 1..400)) {
        let (places, now) = (places(), Instant::now());
        let mut held: Vec<Place> = Vec::new();
        let mut asked = None;
        for act in acts {
            match act {
                Act::Reserve(number) => held.extend(places.reserve(receiver(number), 0, now)),
                Act::Ask if asked.is_none() => asked = places.room(now),
                Act::Answer(waiting) => {
                    let Some(room) = asked.take() else { continue };
                    let answer = waiting.iter().enumerate().flat_map(|(number, count)| {
                        let receiver = receiver(number);
                        let places = room.receivers.get(&receiver).copied().unwrap_or(room.per_receiver);
                        std::iter::repeat_n(receiver, places.min(*count))
                    });
                    let answer = answer.take(room.total).map(|receiver| (receiver, 0));
                    held.extend(places.take(answer.collect(), now));
                }
                Act::Fail if asked.take().is_some() => places.withdraw(),
                Act::GiveBack(which, good) if !held.is_empty() => {
                    let place = held.swap_remove(which % held.len());
                    place.give_back(if good { Health::Good } else { Health::Answered });
                }
                _ => {}
            }
            prop_assert!(held.len() <= DELIVERIES_IN_FLIGHT_DEFAULT);
            let inner = places.lock();
            prop_assert_eq!(inner.in_flight, held.len());
            for (receiver, lane) in &inner.receivers {
                let mine = held.iter().filter(|place| place.receiver == *receiver).count();
                prop_assert_eq!(lane.in_flight, mine);
                prop_assert!(mine <= lane.cap && lane.cap <= DELIVERIES_PER_RECEIVER_DEFAULT);
            }
        }
        held.clear();
        prop_assert_eq!(places.lock().in_flight, 0);
    }
}
