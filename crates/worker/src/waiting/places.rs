//! Which of several replicas with a free place gets the next work, where the app says so or has few calls at once.
//!
//! Work stays in one queue, in one order; a replica is granted so many of what is in front, and hears of it. What
//! is granted to nobody, since nobody had a place, belongs to whoever comes first.

use std::sync::Arc;

use queue::scaling::Balancing;
use tokio::sync::Notify;

/// The seats of the replicas that serve.
#[derive(Debug)]
pub(super) struct Places {
    way: Balancing,
    /// The oldest first.
    seats: Vec<Place>,
    /// The one that had the last turn.
    turn: u64,
    chance: u64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    free: usize,
    under_way: usize,
    granted: usize,
    bell: Arc<Notify>,
}

impl Places {
    pub(super) fn new(way: Balancing, seed: u64) -> Self {
        Self { way, seats: Vec::new(), turn: 0, chance: seed | 1 }
    }

    pub(super) const fn way(&self) -> Balancing {
        self.way
    }

    /// What the replica on this seat may take of so much waiting work. It has no free place until it says so again.
    pub(super) fn come(&mut self, number: u64, bell: &Arc<Notify>, waiting: usize) -> usize {
        let granted = self.seats.iter().map(|place| place.granted).sum::<usize>();
        let place = match self.seats.iter_mut().position(|place| place.number == number) {
            Some(at) => &mut self.seats[at],
            None => {
                let at = self.seats.partition_point(|place| place.number < number);
                let bell = Arc::clone(bell);
                self.seats.insert(at, Place { number, free: 0, under_way: 0, granted: 0, bell });
                &mut self.seats[at]
            }
        };
        place.free = 0;
        std::mem::take(&mut place.granted) + waiting.saturating_sub(granted)
    }

    /// It goes back to work with so many calls, and has so many places left.
    pub(super) fn go(&mut self, number: u64, under_way: usize, free: usize) {
        if let Some(place) = self.seats.iter_mut().find(|place| place.number == number) {
            (place.under_way, place.free) = (under_way, free);
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.seats.retain(|place| place.number != number);
    }

    /// Grants what nobody was granted, as long as there are free places.
    pub(super) fn assign(&mut self, waiting: usize) {
        let granted = self.seats.iter().map(|place| place.granted).sum::<usize>();
        for _ in granted..waiting {
            let Some(at) = self.choose() else { return };
            let place = &mut self.seats[at];
            place.granted += 1;
            self.turn = place.number;
            place.bell.notify_one();
        }
    }

    pub(super) fn ring_all(&self) {
        self.seats.iter().for_each(|place| place.bell.notify_one());
    }

    fn choose(&mut self) -> Option<usize> {
        let has_room = |place: &Place| place.free > place.granted;
        let calls = |place: &Place| place.under_way + place.granted;
        let free = || self.seats.iter().enumerate().filter(move |(_, place)| has_room(place));
        match self.way {
            Balancing::FirstAvailable => free().next().map(|(at, _)| at),
            Balancing::MinConnections => free().min_by_key(|(_, place)| calls(place)).map(|(at, _)| at),
            Balancing::RoundRobin => {
                let next = free().find(|(_, place)| place.number > self.turn);
                next.or_else(|| free().next()).map(|(at, _)| at)
            }
            Balancing::RandomChoice2 => {
                let free: Vec<_> = free().map(|(at, _)| at).collect();
                if free.is_empty() {
                    return None;
                }
                let first = free[self.draw(free.len())];
                let others: Vec<_> = free.into_iter().filter(|at| *at != first).collect();
                if others.is_empty() {
                    return Some(first);
                }
                let second = others[self.draw(others.len())];
                let fewer = calls(&self.seats[second]) < calls(&self.seats[first]);
                Some(if fewer { second } else { first })
            }
        }
    }

    /// A number below `count` (xorshift64): fairness needs no better chance.
    fn draw(&mut self, count: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        usize::try_from(self.chance % u64::try_from(count).unwrap_or(1)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three replicas with this many calls and free places; who is granted work that comes one by one.
    fn granted(way: Balancing, seats: [(usize, usize); 3], work: usize) -> Vec<usize> {
        let mut places = Places::new(way, 7);
        for (number, (under_way, free)) in (1..).zip(seats) {
            assert_eq!(places.come(number, &Arc::default(), 0), 0);
            places.go(number, under_way, free);
        }
        let mut before = vec![0; 3];
        let mut order = Vec::new();
        for waiting in 1..=work {
            places.assign(waiting);
            let now: Vec<_> = places.seats.iter().map(|place| place.granted).collect();
            order.extend((0..3).find(|at| now[*at] > before[*at]));
            before = now;
        }
        order
    }

    #[test]
    fn work_is_granted_by_the_rule_of_the_app() {
        let even = [(0, 2), (0, 2), (0, 2)];
        assert_eq!(granted(Balancing::FirstAvailable, even, 7), [0, 0, 1, 1, 2, 2]);
        assert_eq!(granted(Balancing::RoundRobin, even, 7), [0, 1, 2, 0, 1, 2]);
        assert_eq!(granted(Balancing::RoundRobin, [(0, 2), (2, 0), (0, 2)], 4), [0, 2, 0, 2]);
        assert_eq!(granted(Balancing::MinConnections, [(3, 9), (1, 9), (2, 9)], 4), [1, 1, 2, 0]);
        assert_eq!(granted(Balancing::RandomChoice2, [(9, 1), (9, 0), (0, 1)], 3), [2, 0]);
        // Two of three are drawn, and the busiest of all loses against either of the others.
        let drawn = granted(Balancing::RandomChoice2, [(0, 50), (0, 50), (100, 50)], 60);
        assert!(drawn.len() == 60 && !drawn.contains(&2), "{drawn:?}");
        assert!(drawn.contains(&0) && drawn.contains(&1), "{drawn:?}");
    }

    #[test]
    fn what_one_was_granted_nobody_else_takes_and_what_nobody_was_granted_is_for_all() {
        let bell = Arc::default();
        let mut places = Places::new(Balancing::FirstAvailable, 1);
        assert_eq!(places.come(1, &bell, 0), 0);
        places.go(1, 0, 1);
        places.assign(3);
        assert_eq!(places.come(2, &bell, 3), 2, "one of three is granted to the first");
        places.go(2, 2, 0);
        assert_eq!(places.come(1, &bell, 1), 1);
        // It went without having come for what it was granted: somebody else gets it.
        places.go(1, 0, 1);
        places.go(2, 0, 1);
        places.assign(1);
        places.leave(1);
        places.assign(1);
        assert_eq!(places.come(2, &bell, 1), 1);
    }
}
