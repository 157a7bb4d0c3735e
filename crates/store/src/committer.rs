//! The way to the writer: every write of the node is a job in one queue, and is answered after the
//! sync of the commit that holds it.
//!
//! Jobs that somebody waits for take a place, of which there are [`PLACES`]: a full queue is felt by
//! the callers and not by the memory. Notes are jobs nobody waits for. Their number is bounded by what
//! they report about (leases and deliveries under way), but for records of synchronous calls, which
//! have places of their own and are dropped without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use queue::port::{StoreError, Stored};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::batch::Batch;
use crate::chores::Trouble;
use crate::fault::Fault;
use crate::rest::Rest;

/// Writes that may wait at once.
const PLACES: usize = 4_096;
/// Records of synchronous calls that may wait at once.
const RECORD_PLACES: usize = 4_096;

/// Runs that may wait to be accepted, each with its body: those that have one of [`PLACES`], and those that
/// wait for one.
pub(crate) const ACCEPTS_WAITING_MAX: usize = 4 * PLACES;

/// A run that waits to be accepted. Counted until it is dropped.
pub(crate) struct Waiting(Arc<Health>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Which kind of place a job holds until its batch is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// None: a note.
    None,
    /// One of [`PLACES`].
    Write,
    /// One of [`RECORD_PLACES`].
    Record,
    /// None: the writer's own.
    Own,
}

/// One change, together with whoever waits for it.
pub(crate) trait Job: Send {
    /// Makes the change within the open transaction. Called again when the batch was rolled back
    /// because of another job, so it must not remember having been called.
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault>;
    /// Tells the waiter. `Ok` only after the sync.
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
    /// What it holds while it waits.
    fn place(&self) -> Place;
    /// Bytes of payload it brings, for the bound of a batch.
    fn bytes(&self) -> usize;
    /// Whether it may draw on what is kept for a full disk.
    fn may_draw(&self) -> bool;
}

/// What a write is for, which matters on a full disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It brings something new: refused.
    Ordinary,
    /// It ends, or removes, what is there: it may draw on the reserve.
    End,
}

/// What travels to the writer.
pub(crate) enum Message {
    /// A change.
    Job(Box<dyn Job>),
    /// No more changes: finish what waits, checkpoint, answer, end.
    Close(oneshot::Sender<()>),
}

/// What the writer and its callers both know about how it is.
pub(crate) struct Health {
    pub(crate) places: Semaphore,
    pub(crate) record_places: Semaphore,
    /// Runs that wait to be accepted.
    accepting: AtomicUsize,
    pub(crate) failure: watch::Sender<Option<Arc<str>>>,
    /// Long work that does not go on.
    pub(crate) trouble: Trouble,
    /// How the writer is called back when somebody begins to wait.
    pub(crate) rest: Rest,
    /// The writer did all that it had taken on, and ended.
    pub(crate) ended: AtomicBool,
}

/// The callers' end of the queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Committer {
    sender: Sender<Message>,
    health: Arc<Health>,
}

impl Committer {
    /// A queue, its end for the writer, and what both know.
    pub(crate) fn new() -> (Self, Receiver<Message>, Arc<Health>) {
        let (sender, receiver) = channel();
        let health = Arc::new(Health {
            places: Semaphore::new(PLACES),
            record_places: Semaphore::new(RECORD_PLACES),
            accepting: AtomicUsize::new(0),
            failure: watch::Sender::new(None),
            trouble: Trouble::default(),
            rest: Rest::default(),
            ended: AtomicBool::new(false),
        });
        (Self { sender, health: Arc::clone(&health) }, receiver, health)
    }

    /// Makes a change and returns what it found once the change is durable.
    pub(crate) async fn write<T, F>(&self, bytes: usize, apply: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.submit(Need::Ordinary, bytes, apply, None).await
    }

    /// Like [`Committer::write`], for a change that a full disk must not hold up.
    pub(crate) async fn end<T, F>(&self, apply: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.submit(Need::End, 0, apply, None).await
    }

    /// Like [`Committer::write`], for a change that puts something into the caller's hands: when the
    /// caller went away meanwhile, `give_back` gets what nobody took.
    pub(crate) async fn lend<T, F>(
        &self,
        need: Need,
        bytes: usize,
        apply: F,
        give_back: fn(&Self, T),
    ) -> Stored<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.submit(need, bytes, apply, Some((self.clone(), give_back))).await
    }

    /// A place among the runs that wait to be accepted; there are [`ACCEPTS_WAITING_MAX`].
    pub(crate) fn queue_up(&self) -> Stored<Waiting> {
        let waiting = Waiting(Arc::clone(&self.health));
        if self.health.accepting.fetch_add(1, Ordering::Relaxed) >= ACCEPTS_WAITING_MAX {
            return Err(StoreError::Unavailable("too many runs wait to be written; try again".to_owned()));
        }
        Ok(waiting)
    }

    /// Returns when all that was handed over before is committed.
    pub(crate) async fn barrier(&self) -> Stored<()> {
        self.end(|_| Ok(())).await
    }

    async fn submit<T, F>(
        &self,
        need: Need,
        bytes: usize,
        apply: F,
        give_back: Option<GiveBack<T>>,
    ) -> Stored<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.health.places.acquire().await.map_err(|_| closed())?.forget();
        let (waiter, answer) = oneshot::channel();
        let job = Waited { apply, found: None, waiter, give_back, bytes, need };
        self.sender.send(Message::Job(Box::new(job))).map_err(|_| closed())?;
        self.health.rest.disturb();
        match answer.await {
            Ok(result) => result.map(Loan::take),
            Err(_) => Err(self.lost()),
        }
    }

    /// Makes a change that nobody waits for and that must not be lost while the process lives.
    pub(crate) fn note<F>(&self, apply: F)
    where
        F: FnMut(&mut Batch<'_>) -> Result<(), Fault> + Send + 'static,
    {
        let job = Note { apply, place: Place::None };
        if self.sender.send(Message::Job(Box::new(job))).is_err() {
            tracing::debug!("a note came after the store was closed");
        }
    }

    /// Makes a change that nobody waits for, if there is a place; else returns `false`.
    pub(crate) fn record<F>(&self, apply: F) -> bool
    where
        F: FnMut(&mut Batch<'_>) -> Result<(), Fault> + Send + 'static,
    {
        let Ok(place) = self.health.record_places.try_acquire() else { return false };
        place.forget();
        self.sender.send(Message::Job(Box::new(Note { apply, place: Place::Record }))).is_ok()
    }

    /// Ends the writer after all that waits, and returns when it is done.
    pub(crate) async fn close(&self) {
        let (waiter, done) = oneshot::channel();
        if self.sender.send(Message::Close(waiter)).is_ok() {
            self.health.rest.disturb();
            // An error means that the writer ended before it got to answer: it is done as well.
            let _ = done.await;
        }
    }

    /// Why the store failed, when it did.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.health.failure.subscribe()
    }

    /// Long work that does not go on.
    pub(crate) fn trouble(&self) -> &Trouble {
        &self.health.trouble
    }

    /// The writer let go of a job without an answer.
    fn lost(&self) -> StoreError {
        if self.health.ended.load(Ordering::Acquire) {
            return closed();
        }
        StoreError::Unknown("the writer of the database ended in the middle of its work".to_owned())
    }
}

/// What is said after [`Committer::close`].
pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".to_owned())
}

type GiveBack<T> = (Committer, fn(&Committer, T));

struct Waited<T, F> {
    apply: F,
    found: Option<T>,
    waiter: oneshot::Sender<Stored<Loan<T>>>,
    give_back: Option<GiveBack<T>>,
    bytes: usize,
    need: Need,
}

impl<T, F> Job for Waited<T, F>
where
    T: Send,
    F: FnMut(&mut Batch<'_>) -> Result<T, Fault> + Send,
{
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        self.found = Some((self.apply)(batch)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let this = *self;
        let answer = result.and_then(|()| {
            let found = this.found.ok_or_else(|| StoreError::Unknown("the job never ran".to_owned()))?;
            Ok(Loan { value: Some(found), give_back: this.give_back })
        });
        // Whoever stopped waiting does not want to know; a loan finds its own way back.
        let _ = this.waiter.send(answer);
    }

    fn place(&self) -> Place {
        Place::Write
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn may_draw(&self) -> bool {
        self.need == Need::End
    }
}

/// A value on its way to its waiter. Dropped on the way, it is given back.
struct Loan<T> {
    value: Option<T>,
    give_back: Option<GiveBack<T>>,
}

impl<T> Loan<T> {
    fn take(mut self) -> T {
        self.value.take().expect("a loan is taken once")
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        if let (Some(value), Some((committer, give_back))) = (self.value.take(), self.give_back.take()) {
            give_back(&committer, value);
        }
    }
}

struct Note<F> {
    apply: F,
    place: Place,
}

impl<F> Job for Note<F>
where
    F: FnMut(&mut Batch<'_>) -> Result<(), Fault> + Send,
{
    fn apply(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        (self.apply)(batch)
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "a note about a run, a call or a delivery was lost");
        }
    }

    fn place(&self) -> Place {
        self.place
    }

    fn bytes(&self) -> usize {
        0
    }

    /// What must not be lost may; a record may be.
    fn may_draw(&self) -> bool {
        self.place == Place::None
    }
}
