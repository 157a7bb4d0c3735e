//! Who may have how many attempts under way: a cap over all, a cap per receiver that follows how the
//! receiver answers, and its breaker.
//!
//! Attempts come from two sides: fresh outcomes take a place from memory ([`Places::reserve`]), and
//! the store is asked for waiting ones as far as there is room ([`Places::room`]). While the store
//! is being asked, the free places are shared, half for each side, so that no cap is ever exceeded
//! and neither side starves the other.
//!
//! Large results are bounded in bytes as well. Fresh ones leave half of these to the store's, so that the
//! largest that waits there has its turn; small ones are bounded by their number alone, and wait for none.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::limits::{
    DELIVERIES_IN_FLIGHT_DEFAULT, DELIVERIES_PER_RECEIVER_DEFAULT, DELIVERIES_PER_RECEIVER_START,
    DELIVERY_BYTES_IN_FLIGHT_MAX, INLINE_RESULT_BYTES_MAX, RESULT_BYTES_MAX,
};
use queue::port::Room;
use queue::run::Receiver;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::breaker::{Breaker, Passage};

/// What is remembered of receivers without an attempt under way, and for how long.
const RECEIVERS_MAX: usize = 10_000;
const REMEMBERED: Duration = Duration::from_secs(600);

/// What an attempt says about its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It took the delivery.
    Good,
    /// Nothing: no request went out.
    Unknown,
    /// It answered, in a way that says nothing about its load.
    Answered,
    /// It answered that it has too much, or broke off.
    Strained,
    /// It could not be reached in time.
    Outage,
}

/// How many attempts may be under way at once. The default is the product's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// In all; at least 1.
    pub in_flight: usize,
    /// To one receiver that answers well; at least 1. It begins with 8, or with this where it is less.
    pub per_receiver: usize,
    /// Bytes of large results in all; half of it must hold the largest.
    pub bytes: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            in_flight: DELIVERIES_IN_FLIGHT_DEFAULT,
            per_receiver: DELIVERIES_PER_RECEIVER_DEFAULT,
            bytes: DELIVERY_BYTES_IN_FLIGHT_MAX,
        }
    }
}

impl Caps {
    /// What a receiver begins with of which nothing is known.
    fn at_first(self) -> usize {
        self.per_receiver.min(DELIVERIES_PER_RECEIVER_START)
    }
}

pub(crate) struct Places {
    caps: Caps,
    inner: Mutex<Inner>,
    /// Origins of our own: no breaker, and the full cap from the start.
    own: HashSet<Receiver>,
    /// Woken when a place is free that a waiting delivery may use.
    pub(crate) wanted: Notify,
}

#[derive(Default)]
struct Inner {
    in_flight: usize,
    granted: usize,
    /// Of large results under way …
    bytes: usize,
    /// … of those among them that came from memory.
    fresh_bytes: usize,
    receivers: HashMap<Receiver, Lane>,
    /// The last question to the store could not be put: nothing was free.
    starved: bool,
    asking: bool,
    closed: bool,
}

/// One receiver.
struct Lane {
    cap: usize,
    in_flight: usize,
    /// Promised to the store's answer while it is being asked.
    granted: usize,
    /// Deliveries may wait in the store for a place here.
    waiting: bool,
    breaker: Breaker,
    last_used: Instant,
}

impl Lane {
    fn new(cap: usize, now: Instant) -> Self {
        Self { cap, in_flight: 0, granted: 0, waiting: false, breaker: Breaker::default(), last_used: now }
    }

    fn free(&self, now: Instant) -> usize {
        match self.breaker.passage(now) {
            Passage::Free => self.cap.saturating_sub(self.in_flight + self.granted),
            Passage::OneProbe => 1_usize.saturating_sub(self.in_flight + self.granted),
            Passage::Blocked => 0,
        }
    }

    fn is_forgettable(&self, caps: Caps, now: Instant) -> bool {
        self.in_flight == 0
            && self.granted == 0
            && (self.is_pristine(caps) || now.duration_since(self.last_used) > REMEMBERED)
            && self.breaker.opens_at(now).is_none()
    }

    fn is_pristine(&self, caps: Caps) -> bool {
        self.cap == caps.at_first() && self.breaker.is_pristine()
    }
}

const _: () = assert!(RESULT_BYTES_MAX <= DELIVERY_BYTES_IN_FLIGHT_MAX / 2, "the largest result must fit");

/// What counts of a result.
const fn large(bytes: usize) -> usize {
    if bytes < INLINE_RESULT_BYTES_MAX { 0 } else { bytes }
}

/// Half, rounded up: one free place is worth asking for.
fn share(free: usize) -> usize {
    free.div_ceil(2)
}

impl Places {
    pub(crate) fn new(caps: Caps, own: HashSet<Receiver>) -> Arc<Self> {
        Arc::new(Self { caps, inner: Mutex::default(), own, wanted: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane<'a>(&self, inner: &'a mut Inner, receiver: &Receiver, now: Instant) -> &'a mut Lane {
        if inner.receivers.len() >= RECEIVERS_MAX && !inner.receivers.contains_key(receiver) {
            inner.receivers.retain(|_, lane| lane.in_flight + lane.granted > 0);
        }
        let granted = if inner.asking { share(self.caps.at_first()) } else { 0 };
        inner.receivers.entry(receiver.clone()).or_insert_with(|| {
            let cap = if self.own.contains(receiver) { self.caps.per_receiver } else { self.caps.at_first() };
            Lane { granted, ..Lane::new(cap, now) }
        })
    }

    /// A place for a fresh outcome. Where deliveries of the receiver wait already, a quarter of its
    /// places is left to them.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        receiver: Receiver,
        result_bytes: usize,
        now: Instant,
    ) -> Option<Place> {
        let bytes = large(result_bytes);
        let mut inner = self.lock();
        let is_too_much = bytes > 0
            && (inner.asking
                || inner.fresh_bytes + bytes > self.caps.bytes / 2
                || inner.bytes + bytes > self.caps.bytes);
        if is_too_much {
            return None;
        }
        if inner.closed || inner.in_flight + inner.granted >= self.caps.in_flight {
            inner.starved = true;
            return None;
        }
        let lane = self.lane(&mut inner, &receiver, now);
        let kept = if lane.waiting { lane.cap.div_ceil(4) } else { 0 };
        if lane.free(now) <= kept {
            lane.waiting = true;
            return None;
        }
        lane.in_flight += 1;
        inner.in_flight += 1;
        inner.bytes += bytes;
        inner.fresh_bytes += bytes;
        Some(Place { places: Arc::clone(self), receiver, bytes, is_fresh: true, health: Health::Unknown })
    }

    /// What the store may begin now; `None` when nothing is free. Must be followed by
    /// [`Places::take`] or [`Places::withdraw`].
    pub(crate) fn room(&self, now: Instant) -> Option<Room> {
        let mut inner = self.lock();
        let total = share(self.caps.in_flight.saturating_sub(inner.in_flight));
        if total == 0 || inner.closed {
            inner.starved = true;
            return None;
        }
        inner.starved = false;
        inner.asking = true;
        inner.granted = total;
        inner.receivers.retain(|_, lane| !lane.is_forgettable(self.caps, now));
        let per_receiver = share(self.caps.at_first());
        let bytes = self.caps.bytes.saturating_sub(inner.bytes);
        let receivers = HashMap::with_capacity(inner.receivers.len());
        let mut room = Room { total, per_receiver, receivers, bytes };
        for (receiver, lane) in &mut inner.receivers {
            lane.granted = share(lane.free(now));
            if lane.granted != per_receiver {
                room.receivers.insert(receiver.clone(), lane.granted);
            }
        }
        Some(room)
    }

    /// The store's answer to the last [`Places::room`]: a place for each receiver in it, and the bytes that it
    /// takes of those for large results.
    pub(crate) fn take(self: &Arc<Self>, due: Vec<(Receiver, usize)>, now: Instant) -> Vec<Place> {
        let mut counts: HashMap<&Receiver, usize> = HashMap::new();
        for (receiver, _) in &due {
            *counts.entry(receiver).or_default() += 1;
        }
        let mut inner = self.lock();
        let total_used_up = due.len() >= inner.granted;
        inner.granted = 0;
        inner.asking = false;
        inner.in_flight += due.len();
        inner.bytes += due.iter().map(|(_, bytes)| bytes).sum::<usize>();
        for (receiver, lane) in &mut inner.receivers {
            let granted = std::mem::take(&mut lane.granted);
            let count = counts.remove(receiver).unwrap_or(0);
            lane.in_flight += count;
            lane.last_used = if count > 0 { now } else { lane.last_used };
            // Fewer than there was room for: nothing waits. No room at all: nobody knows.
            if !(total_used_up && lane.waiting) {
                lane.waiting = count >= granted;
            }
        }
        for (receiver, count) in counts {
            let lane = self.lane(&mut inner, receiver, now);
            lane.in_flight += count;
            lane.waiting = count >= share(self.caps.at_first());
        }
        drop(inner);
        let place = |(receiver, bytes)| Place {
            places: Arc::clone(self),
            receiver,
            bytes,
            is_fresh: false,
            health: Health::Unknown,
        };
        due.into_iter().map(place).collect()
    }

    /// The store did not answer the last [`Places::room`].
    pub(crate) fn withdraw(&self) {
        let mut inner = self.lock();
        inner.granted = 0;
        inner.asking = false;
        for lane in inner.receivers.values_mut() {
            lane.granted = 0;
        }
    }

    /// When the next breaker lets a probe through.
    pub(crate) fn next_probe(&self, now: Instant) -> Option<Instant> {
        self.lock().receivers.values().filter_map(|lane| lane.breaker.opens_at(now)).min()
    }

    /// How a receiver stands: attempts under way, how many may be, and for how long it is left alone.
    pub(crate) fn standing(&self, receiver: &Receiver, now: Instant) -> (usize, usize, Option<Duration>) {
        match self.lock().receivers.get(receiver) {
            Some(lane) => {
                let left_alone = lane.breaker.opens_at(now).map(|at| at.duration_since(now));
                (lane.in_flight, lane.cap, left_alone)
            }
            None if self.own.contains(receiver) => (0, self.caps.per_receiver, None),
            None => (0, self.caps.at_first(), None),
        }
    }

    /// No more places from now on.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    fn give_back(&self, place: &Place) {
        let (receiver, health, now) = (&place.receiver, place.health, Instant::now());
        let mut inner = self.lock();
        inner.in_flight = inner.in_flight.saturating_sub(1);
        inner.bytes = inner.bytes.saturating_sub(place.bytes);
        if place.is_fresh {
            inner.fresh_bytes = inner.fresh_bytes.saturating_sub(place.bytes);
        }
        // Who waits for bytes is known to the store alone.
        let starved = inner.starved || place.bytes > 0;
        let Some(lane) = inner.receivers.get_mut(receiver) else { return };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.last_used = now;
        if !self.own.contains(receiver) {
            lane.learn(receiver, health, self.caps, now);
        }
        let wanted = starved || (lane.waiting && lane.free(now) > 0);
        if lane.in_flight == 0 && lane.granted == 0 && lane.is_pristine(self.caps) && !inner.asking {
            inner.receivers.remove(receiver);
        }
        drop(inner);
        if wanted {
            self.wanted.notify_one();
        }
    }
}

impl Lane {
    fn learn(&mut self, receiver: &Receiver, health: Health, caps: Caps, now: Instant) {
        match health {
            Health::Good => {
                self.cap = (self.cap + 1).min(caps.per_receiver);
                self.breaker.answered();
            }
            Health::Unknown => {}
            Health::Answered => self.breaker.answered(),
            Health::Strained => {
                self.cap = (self.cap / 2).max(1);
                self.breaker.answered();
            }
            Health::Outage => {
                self.cap = (self.cap / 2).max(1);
                if self.breaker.outage(now) {
                    metrics::counter!("postback_delivery_breaker_opened_total").increment(1);
                    tracing::warn!(
                        receiver = receiver.as_str(),
                        "receiver cannot be reached; its deliveries wait for a probe"
                    );
                }
            }
        }
    }
}

/// A place for one attempt. Dropping it gives it back.
pub(crate) struct Place {
    places: Arc<Places>,
    pub(crate) receiver: Receiver,
    /// Of its result, when that is large.
    bytes: usize,
    /// It was taken from memory.
    is_fresh: bool,
    health: Health,
}

impl Place {
    /// Gives the place back together with what the attempt said about the receiver.
    pub(crate) fn give_back(mut self, health: Health) {
        self.health = health;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self);
    }
}

#[cfg(test)]
mod tests;
