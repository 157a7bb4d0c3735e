//! Read-only connections. A read never waits for a write, nor a write for a read, nor what must not wait for
//! what may take long: deliveries, single look-ups and lists have connections of their own.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use queue::port::{StoreError, Stored};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::committer::closed;
use crate::connection;
use crate::fault::Fault;

/// Connections for what the delivery engine reads.
const DELIVERY_READERS: usize = 1;
/// Connections for lists.
const LIST_READERS: usize = 2;
/// How long a list may take. Its filter may fit few of the rows it has to look at.
const LIST_LIMIT: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the clock: well under a millisecond.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// The connections of a store.
#[derive(Clone)]
pub(crate) struct Readers {
    look_ups: Pool,
    lists: Pool,
    deliveries: Pool,
}

impl Readers {
    /// `count` connections for look-ups, and some for lists and deliveries.
    pub(crate) fn new(path: &Path, count: usize) -> Self {
        Self {
            look_ups: Pool::new(path, count.max(1), None),
            lists: Pool::new(path, LIST_READERS, Some(LIST_LIMIT)),
            deliveries: Pool::new(path, DELIVERY_READERS, None),
        }
    }

    /// Reads something that is found by its key.
    pub(crate) async fn read<T, F>(&self, read: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.look_ups.read(read).await
    }

    /// Reads a list, which may take longer than anybody should wait for: then it is an error.
    pub(crate) async fn list<T, F>(&self, read: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.lists.read(read).await
    }

    /// Reads what a delivery needs.
    pub(crate) async fn deliver<T, F>(&self, read: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.deliveries.read(read).await
    }

    /// Closes them all.
    pub(crate) fn close(&self) {
        for pool in [&self.look_ups, &self.lists, &self.deliveries] {
            pool.close();
        }
    }
}

/// A few connections, lent to one read each. Each knows the whole schema (some 270 KB), so it is opened by the first
/// read that finds none free.
#[derive(Clone)]
pub(crate) struct Pool {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
    limit: Option<Duration>,
}

impl Pool {
    pub(crate) fn new(path: &Path, count: usize, limit: Option<Duration>) -> Self {
        Self { path: Arc::from(path), idle: Arc::default(), places: Arc::new(Semaphore::new(count)), limit }
    }

    /// Reads on a thread that may block.
    pub(crate) async fn read<T, F>(&self, read: F) -> Stored<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let pool = self.clone();
        let reading = move || {
            let conn = pool.take()?;
            let lent = Lent { conn: Some(conn), pool: pool.clone(), _place: place };
            lent.with(read).map_err(|fault| pool.told(&fault))
        };
        match tokio::task::spawn_blocking(reading).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Unavailable(format!("a read ended early: {error}"))),
        }
    }

    /// A connection that nobody has, or a new one. Whoever has a place has a right to one.
    fn take(&self) -> Stored<Connection> {
        if self.places.is_closed() {
            return Err(closed());
        }
        if let Some(conn) = self.idle().pop() {
            return Ok(conn);
        }
        connection::reader(&self.path).map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    fn told(&self, fault: &Fault) -> StoreError {
        match (fault, self.limit) {
            (Fault::Sql(error), Some(limit))
                if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
            {
                StoreError::Unavailable(format!(
                    "the list was not complete after {} s; narrow it by app, or ask without a filter",
                    limit.as_secs()
                ))
            }
            _ => fault.told(),
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
    pool: Pool,
    _place: OwnedSemaphorePermit,
}

impl Lent {
    fn with<T>(mut self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let conn = self.conn.as_mut().expect("the connection leaves only when this is dropped");
        if let Some(limit) = self.pool.limit {
            let deadline = Instant::now() + limit;
            conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || Instant::now() > deadline))?;
        }
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
        if !self.pool.places.is_closed()
            && let Some(conn) = self.conn.take()
        {
            self.pool.idle().push(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::connection::{Durability, writer};

    /// Without end.
    const ENDLESS: &str =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";

    fn endless(conn: &Connection) -> Result<i64, Fault> {
        Ok(conn.query_row(ENDLESS, [], |row| row.get(0))?)
    }

    fn one(conn: &Connection) -> Result<i64, Fault> {
        Ok(conn.query_row("SELECT 1", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn lists_stop_neither_look_ups_nor_deliveries() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let _writer = writer(&path, Durability::Full).unwrap();
        let readers = Readers::new(&path, 4);
        let mut held = Vec::new();
        for _ in 0..8 {
            let (go, gone) = channel::<()>();
            let reading = readers.clone();
            let list = tokio::spawn(async move { reading.list(move |_| Ok(gone.recv().is_err())).await });
            held.push((go, list));
        }
        while readers.lists.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let soon = Duration::from_secs(10);
        assert_eq!(tokio::time::timeout(soon, readers.read(one)).await.unwrap().unwrap(), 1);
        assert_eq!(tokio::time::timeout(soon, readers.deliver(one)).await.unwrap().unwrap(), 1);
        for (go, list) in held {
            drop(go);
            assert!(list.await.unwrap().unwrap());
        }
    }

    #[tokio::test]
    async fn a_list_without_end_is_cut_and_its_connection_serves_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let _writer = writer(&path, Durability::Full).unwrap();
        let lists = Pool::new(&path, 1, Some(Duration::from_millis(50)));
        let error = lists.read(endless).await.unwrap_err();
        assert!(error.to_string().contains("the list was not complete"), "{error}");
        assert_eq!(lists.read(one).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn connections_are_opened_when_reads_meet_and_never_more_than_there_are_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let _writer = writer(&path, Durability::Full).unwrap();
        let pool = Pool::new(&path, 3, None);
        for _ in 0..4 {
            assert_eq!(pool.read(one).await.unwrap(), 1);
        }
        assert_eq!(pool.idle().len(), 1, "reads one after another need one");

        let mut held = Vec::new();
        for _ in 0..9 {
            let (go, gone) = channel::<()>();
            let reading = pool.clone();
            held.push((
                go,
                tokio::spawn(async move { reading.read(move |_| Ok(gone.recv().is_err())).await }),
            ));
        }
        while pool.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for (go, read) in held {
            drop(go);
            assert!(read.await.unwrap().unwrap());
        }
        assert_eq!(pool.idle().len(), 3);

        pool.close();
        assert!(pool.read(one).await.is_err(), "nothing is opened after the end");
        assert!(pool.idle().is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_cannot_be_opened_is_that_reads_error_and_leaves_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let _writer = writer(&path, Durability::Full).unwrap();
        let pool = Pool::new(&path, 1, None);
        let elsewhere = dir.path().join("y.db");
        std::fs::rename(&path, &elsewhere).unwrap();
        let error = pool.read(one).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("x.db")), "{error}");
        std::fs::rename(&elsewhere, &path).unwrap();
        assert_eq!(pool.read(one).await.unwrap(), 1);
    }
}
