//! The writer thread: takes everything that waits, applies it in one transaction, syncs once, answers
//! all. Nothing that somebody waits for is delayed to make batches larger, unless [`crate::Options::batch_fill`]
//! asks for it; while one batch syncs, the next one gathers. What nobody waits for stays a moment for company,
//! since a sync costs as much for one as for hundreds.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use queue::port::StoreError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::batch::{Batch, Books, Effects, Setting};
use crate::chores::NextStep;
use crate::committer::{Health, Job, Message, Place};
use crate::connection;
use crate::fault::Fault;
use crate::lock::DirLock;
use crate::memory::Memory;
use crate::reserve::{Reserve, Spent};

/// Jobs in one transaction at most.
const BATCH_JOBS_MAX: usize = 512;
/// Bytes of payload from which a transaction takes no more jobs.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// New pages in the write-ahead log after which it is written back into the database: 16 MiB.
const CHECKPOINT_PAGES: i32 = 4_096;
/// Pages in the write-ahead log from which it is made to begin anew, and again after each so many more:
/// 64 MiB. While reads overlap without a gap it never does so by itself.
const RESTART_PAGES: i32 = 16_384;
/// The first of these while the disk is full: the log is not to grow then.
const CHECKPOINT_PAGES_FULL: i32 = 256;
/// How long commits may wait for that.
const RESTART_PATIENCE: Duration = Duration::from_millis(100);
/// How long a batch that is to have a certain size waits for its next job.
const FILL_PATIENCE: Duration = Duration::from_millis(20);
/// How long notes wait for others when nobody waits for any of them.
const NOTES_LINGER: Duration = Duration::from_millis(10);
/// How often a full disk is looked at, and what waits for it tried again, while nothing else is written.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);

/// The thread's own things.
pub(crate) struct Writer {
    conn: Connection,
    books: Books,
    setting: Setting,
    memory: Arc<Memory>,
    receiver: Receiver<Message>,
    health: Arc<Health>,
    /// Pages in the write-ahead log, as its hook last said.
    wal_pages: Arc<AtomicI32>,
    /// How many of them were written back already.
    written_back: i32,
    /// How many there were when the log was last made to begin anew, and did not.
    restart_tried: i32,
    reserve: Reserve,
    /// Notes that wait for space on the disk.
    held: Vec<Box<dyn Job>>,
    failed: Option<Arc<str>>,
    /// Held until the last write is done, whoever else has let go of the store.
    _lock: Arc<DirLock>,
}

/// Where an attempt to commit ended.
enum Ending {
    /// Durable; this is to happen now.
    Committed(Effects),
    /// The transaction could not be begun.
    NotBegun(Fault),
    /// Rolled back: a job could not be applied.
    Refused(Fault),
    /// The commit failed. Unless the disk was just full, nobody can say what it left behind.
    Uncommitted(Fault),
}

impl Writer {
    pub(crate) fn new(
        mut conn: Connection,
        setting: Setting,
        memory: Arc<Memory>,
        reserve: Reserve,
        receiver: Receiver<Message>,
        health: Arc<Health>,
        lock: Arc<DirLock>,
    ) -> Result<Self, Fault> {
        let books = Books::load(&conn)?;
        // The hook takes the place of SQLite's own checkpoints, which would run before the waiters are
        // told and hide their errors.
        let wal_pages = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&wal_pages);
        conn.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            seen.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            conn,
            books,
            setting,
            memory,
            receiver,
            health,
            wal_pages,
            written_back: 0,
            restart_tried: 0,
            reserve,
            held: Vec::new(),
            failed: None,
            _lock: lock,
        })
    }

    /// Works until the store is closed or dropped.
    pub(crate) fn run(mut self) {
        let _alarm = Alarm(Arc::clone(&self.health));
        let mut closing = None;
        while closing.is_none() {
            let Some(jobs) = self.gather(&mut closing) else { break };
            self.commit(jobs);
            self.checkpoint_if_due();
        }
        self.finish(closing);
    }

    /// Waits for work and takes all of it that fits one batch. `None` when the store was dropped.
    fn gather(&mut self, closing: &mut Option<oneshot::Sender<()>>) -> Option<Vec<Box<dyn Job>>> {
        let mut jobs = std::mem::take(&mut self.held);
        let (patience, chore) = if jobs.is_empty() && !self.reserve.is_spent() {
            self.next_chore()
        } else {
            (FULL_DISK_RETRY, None)
        };
        let first = if patience == Duration::MAX {
            Some(self.receiver.recv().ok()?)
        } else {
            match self.receiver.recv_timeout(patience) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        let (mut bytes, mut awaited, mut lingers_until) = (0, false, None);
        let mut next = first.or_else(|| self.receiver.try_recv().ok());
        while let Some(message) = next {
            match message {
                Message::Job(job) => {
                    bytes += job.bytes();
                    awaited |= job.place() == Place::Write;
                    jobs.push(job);
                }
                Message::Close(waiter) => {
                    *closing = Some(waiter);
                    break;
                }
            }
            if jobs.len() >= BATCH_JOBS_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
            next = match self.setting.batch_fill {
                Some(fill) if jobs.len() < fill => self.receiver.recv_timeout(FILL_PATIENCE).ok(),
                Some(_) => break,
                None => self.receiver.try_recv().ok(),
            };
            if next.is_none() && !awaited {
                let until = *lingers_until.get_or_insert_with(|| Instant::now() + NOTES_LINGER);
                next = self.health.rest.until(until, || self.receiver.try_recv().ok());
            }
        }
        // After those who wait: what one of them just did may be a part of it.
        jobs.extend(chore.map(|number| -> Box<dyn Job> {
            Box::new(NextStep { number, health: Arc::clone(&self.health) })
        }));
        Some(jobs)
    }

    /// The chore whose turn it is, and how long to wait for other work before it.
    fn next_chore(&self) -> (Duration, Option<i64>) {
        if self.books.chores.is_empty() || self.failed.is_some() {
            return (Duration::MAX, None);
        }
        match self.health.trouble.next(&self.books.chores, Instant::now()) {
            Ok(number) => (Duration::ZERO, Some(number)),
            Err(pause) => (pause, None),
        }
    }

    fn commit(&mut self, jobs: Vec<Box<dyn Job>>) {
        if jobs.is_empty() {
            if self.reserve.is_spent() {
                self.reserve.take_back();
            }
            return;
        }
        let held = |kind| jobs.iter().filter(|job| job.place() == kind).count();
        let (writes, records) = (held(Place::Write), held(Place::Record));
        metrics::histogram!("postback_store_batch_jobs").record(jobs.len() as f64);
        let jobs = self.admit(jobs);
        if !jobs.is_empty() {
            self.settle(jobs);
        }
        self.health.places.add_permits(writes);
        self.health.record_places.add_permits(records);
    }

    /// On a full disk what is new is refused, and what ends goes on.
    fn admit(&mut self, jobs: Vec<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        if !self.reserve.is_spent() || self.reserve.take_back() {
            return jobs;
        }
        let (ends, others): (_, Vec<_>) = jobs.into_iter().partition(|job| job.may_draw());
        answer(others, &Err(Spent::told()));
        ends
    }

    /// Brings every job to its end.
    fn settle(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        if let Some(why) = self.failed.clone() {
            return answer(jobs, &Err(StoreError::Unavailable(why.as_ref().to_owned())));
        }
        match self.attempt(&mut jobs) {
            Ending::Committed(effects) => match self.publish(effects) {
                Ok(()) => {
                    answer(jobs, &Ok(()));
                    if crate::mutant::shows("ack-before-commit")
                        && let Err(error) = self.conn.execute_batch("COMMIT")
                    {
                        self.roll_back();
                        self.fail(&error.into());
                    }
                }
                Err(fault) => {
                    self.fail(&fault);
                    answer(jobs, &Err(StoreError::Unknown(fault.to_string())));
                }
            },
            Ending::NotBegun(fault) | Ending::Refused(fault) if fault.is_fatal() => {
                self.fail(&fault);
                answer(jobs, &Err(fault.told()));
            }
            Ending::Refused(fault) if jobs.len() > 1 => {
                // One of them is poison, or too large for the disk. Each alone harms only itself.
                tracing::debug!(error = %fault, store.jobs = jobs.len(), "runs the jobs of a batch one by one");
                metrics::counter!("postback_store_batches_rerun_total").increment(1);
                self.reload_books();
                for job in jobs {
                    self.settle(vec![job]);
                }
            }
            Ending::NotBegun(fault) => self.turn_down(jobs, &fault),
            Ending::Refused(fault) => {
                self.reload_books();
                self.turn_down(jobs, &fault);
            }
            Ending::Uncommitted(fault) if fault.passes() => {
                self.reload_books();
                self.turn_down(jobs, &fault);
            }
            Ending::Uncommitted(fault) => {
                self.fail(&fault);
                answer(jobs, &Err(StoreError::Unknown(fault.to_string())));
            }
        }
    }

    /// One transaction over all jobs.
    fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Ending {
        let mut effects = Effects::default();
        let begun = self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        if let Err(error) = begun {
            return Ending::NotBegun(error.into());
        }
        let mut batch =
            Batch { conn: &self.conn, books: &mut self.books, effects: &mut effects, setting: &self.setting };
        if let Err(fault) = jobs.iter_mut().try_for_each(|job| job.apply(&mut batch)) {
            self.roll_back();
            return Ending::Refused(fault);
        }
        let start = Instant::now();
        let committed = if crate::mutant::shows("ack-before-commit") {
            Ok(0)
        } else {
            self.conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]))
        };
        metrics::histogram!("postback_store_commit_seconds").record(start.elapsed().as_secs_f64());
        match committed {
            Ok(_) => Ending::Committed(effects),
            Err(error) => {
                self.roll_back();
                Ending::Uncommitted(error.into())
            }
        }
    }

    /// SQLite may have rolled back by itself.
    fn roll_back(&self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "could not roll back");
        }
    }

    /// Lets everybody see what is durable now.
    fn publish(&mut self, effects: Effects) -> Result<(), Fault> {
        self.memory.ended(&effects.ended);
        self.memory.unwritten().add(effects.tally);
        if effects.registry {
            self.memory.reload_registry(&self.conn)?;
        }
        self.memory.change_inboxes(effects.inboxes);
        for file in effects.files {
            if let Err(error) = std::fs::remove_file(&file) {
                tracing::warn!(%error, store.file = %file.display(), "could not remove a result that is out of date");
            }
        }
        if effects.books {
            self.reload_books();
        }
        Ok(())
    }

    /// What the books say may have been rolled back.
    fn reload_books(&mut self) {
        let turn = std::mem::take(&mut self.books.turn);
        match Books::load(&self.conn) {
            Ok(books) => self.books = Books { turn, ..books },
            Err(fault) => self.fail(&fault),
        }
    }

    /// Nothing of these jobs happened. On a full disk, ends get what was kept for them; notes are tried again
    /// when that may help.
    fn turn_down(&mut self, mut jobs: Vec<Box<dyn Job>>, fault: &Fault) {
        if fault.is_full() && jobs.iter().any(|job| job.may_draw()) {
            let (ends, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.may_draw());
            // Without the others they may fit.
            if !others.is_empty() || self.reserve.spend() {
                answer(others, &Err(fault.told()));
                return self.settle(ends);
            }
            if ends.len() > 1 {
                return ends.into_iter().for_each(|end| self.settle(vec![end]));
            }
            jobs = ends;
        }
        for job in jobs {
            if fault.passes() && job.place() == Place::None {
                self.held.push(job);
            } else {
                job.answer(Err(fault.told()));
            }
        }
    }

    /// After an error of the device nobody can say what is on the disk. Nothing more is promised, and
    /// whoever listens ends the process; the next start reads what is really there.
    fn fail(&mut self, fault: &Fault) {
        let why: Arc<str> = format!("the database failed and the server must restart ({fault})").into();
        tracing::error!(error = %fault, "the database failed; nothing more is accepted");
        self.failed = Some(Arc::clone(&why));
        self.health.failure.send_replace(Some(why));
    }

    /// Writes the log back into the database, after the waiters were told.
    fn checkpoint_if_due(&mut self) {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages < self.written_back {
            // The log began anew at its head.
            self.written_back = 0;
            self.restart_tried = 0;
        }
        let due = if self.reserve.is_spent() { CHECKPOINT_PAGES_FULL } else { CHECKPOINT_PAGES };
        if pages - self.written_back < due || self.failed.is_some() {
            return;
        }
        let start = Instant::now();
        // Those that a read still needs where they are stay; they are tried again with what follows.
        let mut done = self.checkpoint("PASSIVE");
        if done.is_ok() && pages - self.restart_tried >= RESTART_PAGES {
            self.restart_tried = pages;
            done = self.restart_log();
        }
        metrics::histogram!("postback_store_checkpoint_seconds").record(start.elapsed().as_secs_f64());
        match done.map_err(Fault::from) {
            Ok(()) => self.written_back = pages,
            Err(fault) if fault.is_fatal() => self.fail(&fault),
            Err(fault) => tracing::warn!(error = %fault, "could not write the log back into the database"),
        }
    }

    fn checkpoint(&self, kind: &str) -> rusqlite::Result<()> {
        self.conn.query_row(&format!("PRAGMA wal_checkpoint({kind})"), [], |_| Ok(()))
    }

    /// Waits a moment for the reads that hold on to the log, so that the next commit begins at its head. New
    /// reads do not need the log meanwhile, since all of it has been written back.
    fn restart_log(&self) -> rusqlite::Result<()> {
        self.conn.busy_timeout(RESTART_PATIENCE)?;
        let done = self.checkpoint("RESTART");
        self.conn.busy_timeout(connection::BUSY_TIMEOUT)?;
        done
    }

    /// Does what still waits, and leaves one tidy file.
    fn finish(mut self, closing: Option<oneshot::Sender<()>>) {
        self.health.places.close();
        self.health.record_places.close();
        let mut closing = closing;
        loop {
            let jobs: Vec<_> = self
                .receiver
                .try_iter()
                .take(BATCH_JOBS_MAX)
                .filter_map(|message| match message {
                    Message::Job(job) => Some(job),
                    Message::Close(waiter) => {
                        closing.get_or_insert(waiter);
                        None
                    }
                })
                .collect();
            if jobs.is_empty() {
                break;
            }
            self.commit(jobs);
        }
        self.memory.close();
        if self.failed.is_none()
            && let Err(error) = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        {
            tracing::warn!(%error, "could not write the log back into the database; the next start does it");
        }
        // What comes from here on is let go unseen: it did not happen.
        self.health.ended.store(true, Ordering::Release);
        drop(self);
        if let Some(waiter) = closing {
            // Whoever closed the store may have stopped waiting for it.
            let _ = waiter.send(());
        }
    }
}

fn answer(jobs: Vec<Box<dyn Job>>, result: &Result<(), StoreError>) {
    for job in jobs {
        job.answer(result.clone());
    }
}

/// A panic of the writer is a failure like that of the device.
struct Alarm(Arc<Health>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.places.close();
            self.0.record_places.close();
            self.0.failure.send_replace(Some("the writer of the database panicked".into()));
        }
    }
}
