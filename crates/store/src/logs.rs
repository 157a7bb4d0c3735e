//! The port `Logs`: what user code and builds print, in a file and with a writer of its own.
//!
//! A power cut may take the last lines (`synchronous=NORMAL`), a full queue drops lines and counts
//! them; neither is ever felt by a run.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use queue::Timestamp;
use queue::log::{LogLine, LogQuery, LogScope, StoredLine, Stream};
use queue::port::{Logs, Stored};
use rusqlite::types::ToSql;
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use crate::committer::closed;
use crate::connection::{self, Durability};
use crate::fault::Fault;
use crate::lock::DirLock;
use crate::readers::Pool;
use crate::reserve::Spent;
use crate::{OpenError, Store, migrate, row};

const FILE: &str = "logs.db";
/// Connections that read.
const READERS: usize = 2;
/// Lines that may wait for the writer.
const WAITING_LINES_MAX: usize = 65_536;
/// Lines in one transaction at most.
const BATCH_LINES_MAX: usize = 8_192;
/// Lines removed in one transaction.
const PRUNED_PER_BATCH: i64 = 2_000;

#[async_trait]
impl Logs for Store {
    fn append(&self, lines: Vec<LogLine>) {
        self.inner.logs.append(lines);
    }

    async fn read(&self, query: LogQuery) -> Stored<Vec<StoredLine>> {
        self.inner.logs.read(query).await
    }
}

enum Message {
    Lines(Vec<LogLine>),
    /// Answered when all that came before is there to be read.
    Flush(oneshot::Sender<()>),
    Prune(Timestamp, Vec<String>, oneshot::Sender<Stored<u64>>),
    Close,
}

/// The callers' end.
pub(crate) struct LogFile {
    sender: Sender<Message>,
    /// Lines on their way.
    waiting: Arc<AtomicUsize>,
    readers: Pool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LogFile {
    pub(crate) fn open(dir: &Path, lock: &Arc<DirLock>, disk_full: Spent) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let conn = connection::writer(&path, Durability::Normal)?;
        migrate::run(&conn, &path, migrate::LOGS)?;
        let readers = Pool::new(&path, READERS, None);
        let (sender, receiver) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (counter, lock) = (Arc::clone(&waiting), Arc::clone(lock));
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                write_all(&conn, &receiver, &counter, &disk_full);
                drop(conn);
                drop(lock);
            })
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        Ok(Self { sender, waiting, readers, thread: Mutex::new(Some(thread)) })
    }

    fn append(&self, lines: Vec<LogLine>) {
        let count = lines.len();
        if count == 0 {
            return;
        }
        if self.waiting.fetch_add(count, Ordering::Relaxed) + count > WAITING_LINES_MAX {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
            metrics::counter!("postback_store_log_lines_dropped_total").increment(count as u64);
            return;
        }
        if self.sender.send(Message::Lines(lines)).is_err() {
            self.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }

    async fn read(&self, query: LogQuery) -> Stored<Vec<StoredLine>> {
        let (waiter, flushed) = oneshot::channel();
        self.sender.send(Message::Flush(waiter)).map_err(|_| closed())?;
        flushed.await.map_err(|_| closed())?;
        self.readers.read(move |conn| select(conn, &query)).await
    }

    /// Removes lines printed before `before`, but for those of the builds in `keep`.
    pub(crate) async fn prune(&self, before: Timestamp, keep: Vec<String>) -> Stored<u64> {
        let (waiter, done) = oneshot::channel();
        self.sender.send(Message::Prune(before, keep, waiter)).map_err(|_| closed())?;
        done.await.map_err(|_| closed())?
    }

    pub(crate) async fn close(&self) {
        if self.sender.send(Message::Close).is_err() {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && !tokio::task::spawn_blocking(move || thread.join().is_ok()).await.unwrap_or(false)
        {
            tracing::error!("the writer of the logs panicked");
        }
        self.readers.close();
    }
}

/// The writer: all lines that wait in one transaction.
///
/// On a full disk they are dropped: what is left of it is kept for the ends of runs.
fn write_all(conn: &Connection, receiver: &Receiver<Message>, waiting: &AtomicUsize, disk_full: &Spent) {
    let mut next = receiver.recv().ok();
    while let Some(message) = next.take() {
        match message {
            Message::Lines(lines) => {
                let mut all = lines;
                while all.len() < BATCH_LINES_MAX {
                    match receiver.try_recv() {
                        Ok(Message::Lines(more)) => all.extend(more),
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                if disk_full.is_spent() {
                    metrics::counter!("postback_store_log_lines_dropped_total").increment(all.len() as u64);
                } else if let Err(fault) = insert(conn, &all) {
                    metrics::counter!("postback_store_log_lines_dropped_total").increment(all.len() as u64);
                    tracing::warn!(error = %fault, log.lines = all.len(), "log lines were lost");
                }
                waiting.fetch_sub(all.len(), Ordering::Relaxed);
            }
            Message::Flush(waiter) => {
                // Whoever stopped waiting needs no answer.
                let _ = waiter.send(());
            }
            Message::Prune(before, keep, waiter) => {
                let pruned = prune(conn, before, &keep).map_err(|fault| fault.told());
                let _ = waiter.send(pruned);
            }
            Message::Close => break,
        }
        if next.is_none() {
            next = receiver.recv().ok();
        }
    }
    if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "could not write the log of the logs back into their database");
    }
}

fn insert(conn: &Connection, lines: &[LogLine]) -> Result<(), Fault> {
    let transaction = conn.unchecked_transaction()?;
    let mut statement = conn.prepare_cached(
        "INSERT INTO lines (at, app, build, run, replica, stream, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for line in lines {
        statement.execute(params![
            line.at.as_millis(),
            line.app.as_str(),
            line.build.as_ref().map(AsRef::<str>::as_ref),
            line.run.map(queue::RunId::into_bytes),
            line.replica.as_ref().map(AsRef::<str>::as_ref),
            line.stream.as_str(),
            line.text,
        ])?;
    }
    drop(statement);
    Ok(transaction.commit()?)
}

fn select(conn: &Connection, query: &LogQuery) -> Result<Vec<StoredLine>, Fault> {
    let after = query.after.unwrap_or(i64::MIN);
    let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let run;
    let (scope, key): (_, &dyn ToSql) = match &query.scope {
        LogScope::Run(id) => {
            run = id.into_bytes();
            ("run = ?1", &run)
        }
        LogScope::Build(id) => ("build = ?1", &id.as_str()),
        LogScope::App(id) => ("app = ?1 AND build IS NULL", &id.as_str()),
    };
    let order = if query.newest { "DESC" } else { "ASC" };
    let mut statement = conn.prepare_cached(&format!(
        "SELECT id, at, app, build, run, replica, stream, text FROM lines
         WHERE {scope} AND id > ?2 AND at > ?3 ORDER BY id {order} LIMIT ?4"
    ))?;
    let mut rows = statement.query(params![key, after, since, limit])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let run = match row.get_ref(4)?.as_blob_or_null()? {
            None => None,
            Some(_) => Some(row::run_id(row, 4)?),
        };
        let line = LogLine {
            at: row::time(row, 1)?,
            app: row::parsed(row, 2)?,
            build: row::optional_parsed(row, 3)?,
            run,
            replica: row::optional_parsed(row, 5)?,
            stream: row::word(row, 6, [Stream::Stdout, Stream::Stderr, Stream::System], Stream::as_str)?,
            text: row.get(7)?,
        };
        lines.push(StoredLine { id: row.get(0)?, line });
    }
    if query.newest {
        lines.reverse();
    }
    Ok(lines)
}

/// Ids grow with time, so the old lines are the first ones.
fn prune(conn: &Connection, before: Timestamp, keep: &[String]) -> Result<u64, Fault> {
    let keep = row::to_json(&keep);
    let (mut at, mut pruned) = (i64::MIN, 0);
    loop {
        let end: Option<i64> = conn
            .prepare_cached(
                "SELECT max(id) FROM (SELECT id, at FROM lines WHERE id > ?1 ORDER BY id LIMIT ?2) WHERE at < ?3",
            )?
            .query_row(params![at, PRUNED_PER_BATCH, before.as_millis()], |row| row.get(0))?;
        let Some(end) = end else { return Ok(pruned) };
        pruned += conn
            .prepare_cached(
                "DELETE FROM lines WHERE id > ?1 AND id <= ?2 AND at < ?3
                     AND (build IS NULL OR build NOT IN (SELECT value FROM json_each(?4)))",
            )?
            .execute(params![at, end, before.as_millis(), keep])? as u64;
        at = end;
    }
}
