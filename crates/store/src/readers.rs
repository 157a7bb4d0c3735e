//! Read-only connections. A read never waits for a write, nor a write for a read.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use queue::port::{StoreError, Stored};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::committer::closed;
use crate::fault::Fault;
use crate::{OpenError, connection};

/// A few connections, lent to one read each.
#[derive(Clone)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn open(path: &Path, count: usize) -> Result<Self, OpenError> {
        let count = count.max(1);
        let idle = (0..count).map(|_| connection::reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), places: Arc::new(Semaphore::new(count)) })
    }

    /// Reads on a thread that may block.
    pub(crate) async fn read<T, F>(&self, read: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let conn = self.idle().pop().ok_or_else(closed)?;
        let lent = Lent { conn: Some(conn), readers: self.clone(), _place: place };
        let result = tokio::task::spawn_blocking(move || lent.with(read)).await;
        match result {
            Ok(result) => result.map_err(|fault| fault.told()),
            Err(error) => Err(StoreError::Unavailable(format!("a read ended early: {error}"))),
        }
    }

    /// Lets go of the connections; reads under way let go of theirs when they are done.
    pub(crate) fn close(&self) {
        self.places.close();
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan. It comes back even when the read panics.
struct Lent {
    conn: Option<Connection>,
    readers: Readers,
    _place: OwnedSemaphorePermit,
}

impl Lent {
    fn with<T>(self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let conn = self.conn.as_ref().expect("the connection leaves only when this is dropped");
        // One transaction, so that a view of several tables is of one moment.
        let transaction = conn.unchecked_transaction()?;
        let found = read(&transaction);
        // Nothing was written; ending a read cannot fail in a way that matters.
        let _ = transaction.finish();
        found
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.readers.places.is_closed()
            && let Some(conn) = self.conn.take()
        {
            self.readers.idle().push(conn);
        }
    }
}
