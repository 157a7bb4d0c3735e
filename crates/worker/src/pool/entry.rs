//! The way to a pool, for the ports: what it is told, and what everybody may know of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use queue::lease::Release;
use queue::outcome::Outcome;
use queue::registry::{App, Build};
use queue::run::LeasedRun;
use queue::{BuildId, RunId};
use tokio::sync::mpsc;

use super::bench::WaitsFor;
use super::list::Listing;
use crate::member::Reply;
use crate::record::Recorder;
use crate::waiting::{Closed, Waiting};

/// What a pool is told.
#[derive(Debug)]
pub(crate) enum Message {
    StartFirst { build: Arc<Build>, reply: Reply },
    Switch(Arc<App>),
    Discard(BuildId),
    Cancel(RunId),
    Restart,
    Retire,
    List(Listing),
}

/// The way to a pool, for the ports.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) waiting: Arc<Waiting>,
    pub(super) recorder: Recorder,
    pub(super) mailbox: mpsc::UnboundedSender<Message>,
    pub(super) published: Arc<Published>,
    pub(super) waits_for: WaitsFor,
}

/// What everybody may know about the replicas of an app.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Those that serve or start.
    pub(super) count: AtomicUsize,
    /// Of which builds there are any.
    pub(super) builds: Mutex<Vec<BuildId>>,
}

impl Entry {
    pub(crate) fn mailbox(&self) -> mpsc::UnboundedSender<Message> {
        self.mailbox.clone()
    }

    pub(crate) fn tell(&self, message: Message) {
        // A pool that has ended needs no telling.
        let _ = self.mailbox.send(message);
    }

    /// Puts a run into its reserved place; `ended` makes the outcome in case the app is gone.
    pub(crate) fn fill(&self, run: LeasedRun, reserved: usize, ended: impl FnOnce() -> Outcome) {
        if let Err(refused) = self.waiting.fill(run, reserved) {
            match *refused {
                (run, Some(Closed::Retired)) => self.recorder.finish(run, ended()),
                // A run that was cancelled on its way ends in the store, which knows of the wish.
                (run, Some(Closed::Stopping) | None) => self.recorder.release(run.lease, Release::Drained),
            }
        }
    }

    /// Gives a run back that no replica has begun.
    pub(crate) fn give_back(&self, run: RunId) {
        if let Some(run) = self.waiting.take_run(run) {
            self.recorder.release(run.lease, Release::Drained);
        }
    }

    /// Takes the run from wherever it is; the store ends what comes back to it.
    pub(crate) fn cancel(&self, run: RunId) {
        match self.waiting.cancel(run) {
            Some(run) => self.recorder.release(run.lease, Release::Drained),
            None => self.tell(Message::Cancel(run)),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.published.count.load(Ordering::Relaxed)
    }

    pub(crate) fn builds(&self) -> Vec<BuildId> {
        self.published.builds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What replicas wait for before they start.
    pub(crate) fn waits_for(&self) -> Option<String> {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
