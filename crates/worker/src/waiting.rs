//! An app's work that waits in memory for a replica: claimed runs and synchronous calls, the highest
//! priority first, first in, first out among equals, and bounded. A few places are for runs that are more
//! urgent than what waits here, so that they need not wait in the store behind it.
//!
//! Replicas take from here by themselves, so that a run passes no task between its acceptance and
//! its replica. The pool is told ([`Waiting::attention`]) when there is something to decide: work
//! beyond the free places, or room for runs that wait in the store.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue::RunId;
use queue::limits::{
    BUFFERED_BYTES_PER_APP_MAX, BUFFERED_RUNS_PER_APP_MAX, PRIORITY_MAX, URGENT_RUNS_PER_APP_MAX,
    WAITING_CALLS_PER_APP_MAX,
};
use queue::port::Refused;
use queue::run::LeasedRun;
use queue::scaling::Balancing;
use tokio::sync::Notify;
use tokio::time::Instant;

mod claiming;
mod closing;
mod places;
mod work;

pub(crate) use closing::Closed;
use places::Places;
pub(crate) use work::{WaitingCall, Work};

/// Runs that wait here at most when none of them is urgent.
const ORDINARY_RUNS_MAX: usize = BUFFERED_RUNS_PER_APP_MAX - URGENT_RUNS_PER_APP_MAX;
/// The priority of runs about which nothing is known: they are no reason for haste.
pub(crate) const LOWEST: i8 = -PRIORITY_MAX;
/// Runs remembered as suspects of a crash; beyond it nobody is added.
const SUSPECTS_MAX: usize = 10_000;
/// How long a cancelled run may be on its way from the store.
const ON_ITS_WAY: Duration = Duration::from_secs(60);
/// While a suspect waits, replicas take nothing new for this long, so that one of them becomes empty; then
/// work goes on for as long, and so in turns. Each stretch without new work is twice as long as the one
/// before: however long calls take, one of them outlasts those that began before it.
const HOLD: Duration = Duration::from_secs(30);

/// A replica's seat at the queue: what it last said about itself.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Where it sits, once work is granted to seats.
    number: Option<u64>,
    bell: Arc<Notify>,
    free: usize,
    /// Calls in its hands.
    under_way: usize,
    /// It works on a suspect, and on nothing else.
    exclusive: bool,
}

impl Seat {
    /// Rings when the replica was granted work; see [`Waiting::grants`].
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }
}

#[derive(Debug, Default)]
struct Inner {
    closed: Option<Closed>,
    /// The highest priority in front.
    ready: VecDeque<Work>,
    /// Suspects: each is run alone, so that the one that kills its replica is found.
    alone: VecDeque<Work>,
    alone_since: Option<Instant>,
    suspects: HashSet<RunId>,
    /// Runs that may be on their way here and are not to be executed, and since when.
    cancelled: HashMap<RunId, Instant>,
    /// Waiting runs and reserved places.
    held: usize,
    held_bytes: usize,
    calls: usize,
    calls_bytes: usize,
    /// Free places of the replicas that serve.
    free: usize,
    /// Calls in their hands …
    under_way: usize,
    /// … the most at once since the pool looked …
    peak: usize,
    /// … and all that began so far.
    begun: u64,
    can_grow: bool,
    /// Work is granted to seats, by the rule of the app; else any replica that is awake takes what there is.
    places: Option<Places>,
    /// Seats that were taken so far.
    seats: u64,
    /// There may be runs in the store that came before any new one.
    backlog: bool,
    woken: bool,
    /// Runs in the store that are more urgent than some that wait here.
    urgent: usize,
    /// So many of them are being claimed.
    urgent_claimed: usize,
    claiming: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    inner: Mutex<Inner>,
    /// Whether replicas listen to the bells of their seats.
    grants: AtomicBool,
    /// For replicas, as long as work is not granted to seats: there is some.
    pub(crate) work: Notify,
    /// For the pool: there is something to decide.
    pub(crate) attention: Notify,
}

/// What the pool decides by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) waiting: usize,
    pub(crate) backlog: bool,
    /// Calls in the hands of replicas that take more, …
    pub(crate) under_way: usize,
    /// … the most at once since the last look, …
    pub(crate) peak: usize,
    /// … and all that began so far.
    pub(crate) begun: u64,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics between two states that do not fit together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether replicas wait at the bells of their seats, not for [`Waiting::work`].
    pub(crate) fn grants(&self) -> bool {
        self.grants.load(Ordering::Relaxed)
    }

    /// From now on work is granted by this rule, or taken by whoever is awake.
    pub(crate) fn balance(&self, way: Option<Balancing>, seed: impl FnOnce() -> u64) {
        let mut inner = self.lock();
        if inner.places.as_ref().map(Places::way) == way {
            return;
        }
        if let Some(former) = inner.places.take() {
            former.ring_all();
        }
        inner.places = way.map(|way| Places::new(way, seed()));
        self.grants.store(way.is_some(), Ordering::Relaxed);
        // Everybody has a look, and listens to what is to ring from now on.
        self.work.notify_waiters();
    }

    /// Keeps a place for a run of so many bytes; not while older ones wait in the store.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let mut inner = self.lock();
        let fits = inner.held < ORDINARY_RUNS_MAX && inner.held_bytes + bytes <= BUFFERED_BYTES_PER_APP_MAX;
        let granted = fits && inner.closed.is_none() && !inner.backlog;
        if granted {
            inner.held += 1;
            inner.held_bytes += bytes;
        }
        granted
    }

    /// Gives a place back.
    pub(crate) fn give_back(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.held -= 1;
        inner.held_bytes -= bytes;
        self.announce_room(&inner);
    }

    /// Puts a run into its reserved place, unless no more work comes in or, the reason being `None`, the
    /// run was cancelled on its way.
    pub(crate) fn fill(
        &self,
        run: LeasedRun,
        reserved: usize,
    ) -> Result<(), Box<(LeasedRun, Option<Closed>)>> {
        let mut inner = self.lock();
        inner.held_bytes = inner.held_bytes - reserved + run.input.len();
        let closed = inner.closed;
        if closed.is_some() || inner.turns_back(run.lease.run) {
            inner.held -= 1;
            inner.held_bytes -= run.input.len();
            self.announce_room(&inner);
            return Err(Box::new((run, closed)));
        }
        inner.push_run(run);
        self.announce(&mut inner);
        self.announce_alone(&inner);
        Ok(())
    }

    /// Puts work back in front of its equals, which a replica had taken and not begun.
    pub(crate) fn put_back(&self, work: Work) {
        let mut inner = self.lock();
        match &work {
            Work::Run(run) => {
                inner.held += 1;
                inner.held_bytes += run.input.len();
            }
            Work::Call(waiting) => {
                inner.calls += 1;
                inner.calls_bytes += waiting.call.input.len();
            }
        }
        let priority = work.priority();
        let at = inner.ready.partition_point(|waiting| waiting.priority() > priority);
        inner.ready.insert(at, work);
        self.announce(&mut inner);
        // The pool ends what nobody is to take any more.
        self.attention.notify_one();
    }

    /// Adds a synchronous call.
    pub(crate) fn push_call(&self, call: WaitingCall) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed.is_some() {
            return Err(Refused::Stopping);
        }
        let bytes = inner.calls_bytes + call.call.input.len();
        if inner.calls >= WAITING_CALLS_PER_APP_MAX || bytes > BUFFERED_BYTES_PER_APP_MAX {
            return Err(Refused::Busy);
        }
        inner.calls += 1;
        inner.calls_bytes = bytes;
        inner.push(Work::Call(call));
        self.announce(&mut inner);
        Ok(())
    }

    /// Takes a call back that has not been taken by a replica.
    pub(crate) fn remove_call(&self, id: RunId) -> Option<WaitingCall> {
        let mut inner = self.lock();
        let at = inner.ready.iter().position(|work| matches!(work, Work::Call(w) if w.call.id == id))?;
        let work = inner.ready.remove(at)?;
        inner.left(&work);
        match work {
            Work::Call(call) => Some(call),
            Work::Run(_) => None,
        }
    }

    /// Takes out a run that is to be cancelled. One that is not here may be on its way; it is turned
    /// back when it comes.
    pub(crate) fn cancel(&self, id: RunId) -> Option<LeasedRun> {
        let mut inner = self.lock();
        let found = self.take_out(&mut inner, id);
        if found.is_none() {
            let now = Instant::now();
            inner.cancelled.retain(|_, since| now.duration_since(*since) < ON_ITS_WAY);
            inner.cancelled.insert(id, now);
        }
        found
    }

    /// Takes out a run that no replica has begun.
    pub(crate) fn take_run(&self, id: RunId) -> Option<LeasedRun> {
        self.take_out(&mut self.lock(), id)
    }

    fn take_out(&self, inner: &mut Inner, id: RunId) -> Option<LeasedRun> {
        let is_it = |work: &Work| matches!(work, Work::Run(run) if run.lease.run == id);
        let found = if let Some(at) = inner.ready.iter().position(is_it) {
            inner.ready.remove(at)
        } else if let Some(at) = inner.alone.iter().position(is_it) {
            let found = inner.alone.remove(at);
            inner.alone_since = inner.alone_since.filter(|_| !inner.alone.is_empty());
            if inner.alone.is_empty() {
                // Those that were held back may go on.
                self.ring_all(inner);
            }
            found
        } else {
            None
        };
        match found? {
            Work::Run(run) => {
                inner.held -= 1;
                inner.held_bytes -= run.input.len();
                self.announce_room(inner);
                Some(run)
            }
            Work::Call(_) => None,
        }
    }

    /// Gives a replica work for up to `places`, none beyond `bytes_max` of bodies, and notes how many places
    /// it has left. `under_way` is what it has already. Returns whether it is held back and
    /// should ask again soon.
    pub(crate) fn take(
        &self,
        seat: &mut Seat,
        under_way: usize,
        places: usize,
        bytes_max: usize,
        batch: &mut Vec<Work>,
    ) -> bool {
        let mut inner = self.lock();
        inner.free -= seat.free;
        seat.free = 0;
        seat.exclusive &= under_way > 0;
        let held_back = under_way > 0 && inner.holds();
        let had = batch.len();
        let granted = inner.come(seat);
        if !seat.exclusive && !held_back && places > 0 {
            if let Some(suspect) = if under_way == 0 { inner.pop_alone() } else { None } {
                batch.push(suspect);
                seat.exclusive = true;
                if inner.alone.is_empty() {
                    // Those that were held back may go on.
                    self.ring_all(&inner);
                }
            } else {
                let (mut taken, mut bytes) = (0, 0);
                while taken < places.min(granted) {
                    let Some(work) = inner.ready.pop_front() else { break };
                    taken += 1;
                    bytes += work.input_bytes();
                    inner.left(&work);
                    batch.push(work);
                    if bytes >= bytes_max {
                        break;
                    }
                }
                // With its hands full it hears of nothing more until they are empty.
                seat.free = if bytes < bytes_max { places - taken } else { 0 };
                inner.free += seat.free;
            }
        }
        let taken = batch.len() - had;
        inner.go(seat, under_way + taken);
        inner.under_way = inner.under_way - seat.under_way + under_way + taken;
        inner.peak = inner.peak.max(inner.under_way);
        inner.begun += taken as u64;
        seat.under_way = under_way + taken;
        self.announce(&mut inner);
        self.announce_room(&inner);
        held_back
    }

    /// The replica takes no more.
    pub(crate) fn leave(&self, seat: &mut Seat) {
        let mut inner = self.lock();
        inner.free -= seat.free;
        inner.under_way -= seat.under_way;
        (seat.free, seat.under_way) = (0, 0);
        if let (Some(places), Some(number)) = (&mut inner.places, seat.number.take()) {
            places.leave(number);
        }
        // It may have been the one that was told of the newest work.
        self.announce(&mut inner);
        self.announce_alone(&inner);
        self.attention.notify_one();
    }

    /// A replica with free places hears of work, and the pool of work beyond all free places.
    fn announce(&self, inner: &mut Inner) {
        if inner.free > 0 && !inner.ready.is_empty() {
            match &mut inner.places {
                Some(places) => places.assign(inner.ready.len()),
                None => self.work.notify_one(),
            }
        }
        if inner.ready.len() + inner.alone.len() > inner.free && inner.can_grow {
            self.attention.notify_one();
        }
    }

    /// Only an empty replica may take a suspect, so every one has a look.
    fn announce_alone(&self, inner: &Inner) {
        if !inner.alone.is_empty() {
            self.ring_all(inner);
        }
    }

    /// The pool hears of room for runs that wait in the store.
    fn announce_room(&self, inner: &Inner) {
        if inner.wants_claim() {
            self.attention.notify_one();
        }
    }

    /// Every replica has a look: those that took nothing since too many ends were pending may go on.
    pub(crate) fn rouse(&self) {
        self.ring_all(&self.lock());
    }

    fn ring_all(&self, inner: &Inner) {
        self.work.notify_waiters();
        if let Some(places) = &inner.places {
            places.ring_all();
        }
    }

    /// The run shared its replica with whatever killed it: next time it runs alone.
    pub(crate) fn suspect(&self, run: RunId) {
        let mut inner = self.lock();
        if inner.suspects.len() < SUSPECTS_MAX {
            inner.suspects.insert(run);
        }
    }

    /// The run ended.
    pub(crate) fn forget(&self, run: RunId) {
        let mut inner = self.lock();
        if !inner.suspects.is_empty() {
            inner.suspects.remove(&run);
        }
        if !inner.cancelled.is_empty() {
            inner.cancelled.remove(&run);
        }
    }

    /// What there is to do, and whether the pool could start more replicas for it.
    pub(crate) fn demand(&self, can_grow: bool) -> Demand {
        let mut inner = self.lock();
        inner.can_grow = can_grow;
        let under_way = inner.under_way;
        Demand {
            waiting: inner.ready.len() + inner.alone.len(),
            backlog: inner.backlog && inner.closed.is_none(),
            under_way,
            peak: std::mem::replace(&mut inner.peak, under_way),
            begun: inner.begun,
        }
    }
}

impl Inner {
    /// How much of the waiting work the replica on this seat may take.
    fn come(&mut self, seat: &mut Seat) -> usize {
        let Some(places) = &mut self.places else { return usize::MAX };
        let number = *seat.number.get_or_insert_with(|| {
            self.seats += 1;
            self.seats
        });
        places.come(number, &seat.bell, self.ready.len())
    }

    fn go(&mut self, seat: &Seat, under_way: usize) {
        if let (Some(places), Some(number)) = (&mut self.places, seat.number) {
            places.go(number, under_way, seat.free);
        }
    }

    fn push_run(&mut self, run: LeasedRun) {
        if run.crashes > 0 || self.suspects.contains(&run.lease.run) {
            self.alone_since.get_or_insert_with(Instant::now);
            self.alone.push_back(Work::Run(run));
        } else {
            self.push(Work::Run(run));
        }
    }

    /// Behind all that are as urgent.
    fn push(&mut self, work: Work) {
        let priority = work.priority();
        if self.ready.back().is_none_or(|last| last.priority() >= priority) {
            self.ready.push_back(work);
        } else {
            let at = self.ready.partition_point(|waiting| waiting.priority() >= priority);
            self.ready.insert(at, work);
        }
    }

    /// Whether the run is to go back. Once is enough: the store does not give it out again.
    fn turns_back(&mut self, run: RunId) -> bool {
        !self.cancelled.is_empty() && self.cancelled.remove(&run).is_some()
    }

    fn pop_alone(&mut self) -> Option<Work> {
        let work = self.alone.pop_front()?;
        self.left(&work);
        self.alone_since = (!self.alone.is_empty()).then(Instant::now);
        Some(work)
    }

    fn left(&mut self, work: &Work) {
        match work {
            Work::Run(run) => {
                self.held -= 1;
                self.held_bytes -= run.input.len();
            }
            Work::Call(waiting) => {
                self.calls -= 1;
                self.calls_bytes -= waiting.call.input.len();
            }
        }
    }

    fn holds(&self) -> bool {
        self.alone_since.is_some_and(|since| holds_after(since.elapsed()))
    }
}

/// Whether replicas are held back when a suspect has waited for so long.
fn holds_after(waited: Duration) -> bool {
    let (mut hold, mut rest) = (HOLD, waited);
    while rest >= hold + HOLD {
        rest -= hold + HOLD;
        hold *= 2;
    }
    rest < hold
}

#[cfg(test)]
mod tests;
