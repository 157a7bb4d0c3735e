//! What callers read without asking the database: the registry, the inboxes, and who waits for the end
//! of which run. Changed by the writer alone, after a commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use queue::inbox::Inbox;
use queue::{InboxId, RunId};
use rusqlite::Connection;
use tokio::sync::Notify;

use crate::fault::Fault;
use crate::readers::Readers;
use crate::snapshot::Snapshot;
use crate::traffic::Unwritten;
use crate::vault::Vault;

/// Shared by the writer and all clones of the store.
pub(crate) struct Memory {
    registry: RwLock<Arc<Snapshot>>,
    inboxes: RwLock<HashMap<InboxId, Inbox>>,
    waiting: Mutex<HashMap<RunId, Waiting>>,
    unwritten: Unwritten,
    readers: Readers,
    vault: Vault,
}

struct Waiting {
    waiters: usize,
    ended: Arc<Notify>,
}

impl Memory {
    pub(crate) fn load(conn: &Connection, readers: Readers, vault: Vault) -> Result<Self, Fault> {
        Ok(Self {
            registry: RwLock::new(Arc::new(Snapshot::load(conn, &vault)?)),
            inboxes: RwLock::new(crate::inboxes::load(conn, &vault)?),
            waiting: Mutex::default(),
            unwritten: Unwritten::default(),
            readers,
            vault,
        })
    }

    /// The registry as of the last commit that changed it.
    pub(crate) fn registry(&self) -> Arc<Snapshot> {
        Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn reload_registry(&self, conn: &Connection) -> Result<(), Fault> {
        let fresh = Arc::new(Snapshot::load(conn, &self.vault)?);
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(crate) fn inbox(&self, id: &InboxId) -> Option<Inbox> {
        self.inboxes.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn inboxes(&self, keep: impl Fn(&Inbox) -> bool) -> Vec<Inbox> {
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        inboxes.values().filter(|inbox| keep(inbox)).cloned().collect()
    }

    pub(crate) fn change_inboxes(&self, changes: Vec<(InboxId, Option<Inbox>)>) {
        if changes.is_empty() {
            return;
        }
        let mut inboxes = self.inboxes.write().unwrap_or_else(PoisonError::into_inner);
        for (id, inbox) in changes {
            match inbox {
                Some(inbox) => inboxes.insert(id, inbox),
                None => inboxes.remove(&id),
            };
        }
    }

    /// Wakes whoever waits for one of these runs.
    pub(crate) fn ended(&self, runs: &[RunId]) {
        if runs.is_empty() {
            return;
        }
        let waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        for run in runs {
            if let Some(entry) = waiting.get(run) {
                entry.ended.notify_waiters();
            }
        }
    }

    /// Waits for the end of `run` unless `has_ended` says that it is past. The question is asked after
    /// the wait began, so that an end in between is not missed.
    pub(crate) async fn wait_for_end(
        &self,
        run: RunId,
        wait: Duration,
        has_ended: impl Future<Output = bool>,
    ) {
        let place = WaitingPlace::take(self, run);
        let ended = place.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        if !has_ended.await {
            // Running out of time is one of the two ways this may end.
            let _ = tokio::time::timeout(wait, ended).await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RunId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Figures that are to be written down.
    pub(crate) fn unwritten(&self) -> &Unwritten {
        &self.unwritten
    }

    pub(crate) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// The store is closed: readers let go of their connections, waiters go on.
    pub(crate) fn close(&self) {
        self.readers.close();
        for entry in self.waiting().values() {
            entry.ended.notify_waiters();
        }
    }
}

/// One waiter. Its place is cleared when it stops waiting, whatever the reason.
struct WaitingPlace<'a> {
    memory: &'a Memory,
    run: RunId,
    ended: Arc<Notify>,
}

impl<'a> WaitingPlace<'a> {
    fn take(memory: &'a Memory, run: RunId) -> Self {
        let mut waiting = memory.waiting();
        let entry =
            waiting.entry(run).or_insert_with(|| Waiting { waiters: 0, ended: Arc::new(Notify::new()) });
        entry.waiters += 1;
        Self { memory, run, ended: Arc::clone(&entry.ended) }
    }
}

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        let mut waiting = self.memory.waiting();
        if let Some(entry) = waiting.get_mut(&self.run) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                waiting.remove(&self.run);
            }
        }
    }
}
