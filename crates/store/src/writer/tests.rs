//! A full disk, a failed commit, a panic: what must be seen, and what must not.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use queue::port::{Claim, Runs as _};
use queue::run::{Generation, Mode, NewRun, RunOptions};
use queue::{AppId, Clock, Entropy, RunId, Timestamp};

use super::*;
use crate::chores;
use crate::committer::ACCEPTS_WAITING_MAX;
use crate::{Options, Store};

struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}
impl Entropy for Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Options::new(dir.path()), Arc::new(Fixed), Arc::new(Fixed)).unwrap();
    (dir, store)
}

fn insert(batch: &Batch<'_>, bytes: usize) -> Result<(), Fault> {
    batch.sql("INSERT INTO results (run, body) VALUES (randomblob(16), zeroblob(?1))")?.execute([bytes])?;
    Ok(())
}

async fn count(store: &Store) -> u64 {
    let count = |conn: &Connection| Ok(conn.query_row("SELECT count(*) FROM results", [], |row| row.get(0))?);
    store.inner.memory.readers().read(count).await.unwrap()
}

/// The disk has room for no more pages than there are now.
async fn set_disk(store: &Store, full: bool) {
    let commit = store.inner.committer.end(move |batch| {
        let pages: i64 = batch.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let max = if full { pages } else { 1 << 30 };
        batch.conn.query_row(&format!("PRAGMA max_page_count = {max}"), [], |_| Ok(()))?;
        Ok(())
    });
    commit.await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_what_does_not_fit_holds_the_notes_and_heals_by_itself() {
    let (_dir, store) = open();
    set_disk(&store, true).await;
    let refused = store.inner.committer.write(0, |batch| insert(batch, 1 << 20)).await;
    assert!(matches!(&refused, Err(StoreError::Full(_))), "{refused:?}");
    store.inner.committer.note(|batch| insert(batch, 1 << 20));
    store.inner.committer.barrier().await.unwrap();
    assert_eq!(count(&store).await, 0);
    set_disk(&store, false).await;
    store.inner.committer.barrier().await.unwrap();
    assert_eq!(count(&store).await, 1);
    let began = Instant::now();
    while let Err(refused) = store.inner.committer.write(0, |batch| insert(batch, 1 << 20)).await {
        assert!(matches!(&refused, StoreError::Full(_)), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "it does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_failed_commit_is_unknown_to_all_of_its_batch_and_ends_the_store() {
    let (_dir, store) = open();
    let poison = store.inner.committer.write(0, |batch| {
        // A constraint that is checked by COMMIT itself; the schema has none.
        batch.conn.execute_batch(
            "CREATE TEMP TABLE parent (id PRIMARY KEY);
             CREATE TEMP TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO child VALUES (1);",
        )?;
        insert(batch, 1)
    });
    let other = store.inner.committer.write(0, |batch| insert(batch, 1));
    let (poison, other) = tokio::join!(poison, other);
    assert!(matches!(poison, Err(StoreError::Unknown(_))), "{poison:?}");
    assert!(other.is_err());
    assert!(store.failed().await.contains("restart"));
    let late = store.inner.committer.write(0, |batch| insert(batch, 1)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    store.close().await;
}

#[tokio::test]
async fn a_panic_of_a_job_is_a_failure_of_the_store() {
    let (_dir, store) = open();
    let lost = store.inner.committer.write(0, |_| -> Result<(), Fault> { panic!("a bug") }).await;
    assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
    assert!(store.failed().await.contains("panicked"));
    assert!(store.inner.committer.barrier().await.is_err());
}

#[tokio::test]
async fn jobs_that_wait_share_a_commit_and_a_poisoned_one_runs_alone() {
    let (_dir, store) = open();
    let runs = Arc::new(AtomicU64::new(0));
    let jobs = (0..100).map(|number| {
        let runs = Arc::clone(&runs);
        store.inner.committer.write(0, move |batch| {
            runs.fetch_add(1, Ordering::Relaxed);
            if number == 50 { Err(Fault::Refused("poison".to_owned())) } else { insert(batch, 1) }
        })
    });
    let answers = futures_util::future::join_all(jobs).await;
    let refused: Vec<_> = (0..100).filter(|at| answers[*at].is_err()).collect();
    assert_eq!(refused, [50]);
    assert_eq!(count(&store).await, 99);
    assert!(runs.load(Ordering::Relaxed) > 100, "no batch was run again");
}

#[tokio::test]
async fn the_log_is_written_back_before_it_grows_without_end() {
    let (dir, store) = open();
    for _ in 0..40 {
        store.inner.committer.write(0, |batch| insert(batch, 2 << 20)).await.unwrap();
    }
    let wal = std::fs::metadata(dir.path().join("postback.db-wal")).unwrap().len();
    assert!(wal < 40 << 20, "{wal} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_begins_anew_although_reads_overlap_without_a_gap() {
    let (dir, store) = open();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut reading = Vec::new();
    for _ in 0..3 {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        reading.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let read = |conn: &Connection| {
                    // Begins the read of this transaction; the others begin theirs before it ends.
                    conn.query_row("SELECT count(*) FROM node", [], |_| Ok(()))?;
                    std::thread::sleep(Duration::from_millis(20));
                    Ok(())
                };
                store.inner.memory.readers().read(read).await.unwrap();
            }
        }));
    }
    for _ in 0..100 {
        store.inner.committer.write(0, |batch| insert(batch, 2 << 20)).await.unwrap();
    }
    let wal = std::fs::metadata(dir.path().join("postback.db-wal")).unwrap().len();
    stop.store(true, Ordering::Relaxed);
    for task in reading {
        task.await.unwrap();
    }
    assert!(wal < 120 << 20, "{wal} bytes");
}

fn new_run(number: usize) -> NewRun {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    NewRun {
        id: RunId::from_bytes(id),
        app: "p-1-app".parse().unwrap(),
        function: "predict".into(),
        generation: Generation::V3,
        mode: Mode::Async,
        input: Bytes::from_static(b"{}"),
        webhooks: Vec::new(),
        limit: Duration::from_secs(900),
        accepted_at: Timestamp::from_millis(0),
        warning: None,
        options: RunOptions::default(),
    }
}

/// However slow the disk is: what waits for it is bounded, and whoever comes later hears so at once.
#[tokio::test]
async fn so_many_runs_wait_for_a_slow_disk_and_the_next_is_refused_at_once() {
    const MORE: usize = 100;
    let (_dir, store) = open();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    store.inner.committer.note(move |_| {
        // The sync that does not end.
        let _ = ended.recv();
        Ok(())
    });
    let mut answers: FuturesUnordered<_> =
        (0..ACCEPTS_WAITING_MAX + MORE).map(|number| store.accept(new_run(number), Claim::Later)).collect();
    for _ in 0..MORE {
        let refused = tokio::time::timeout(Duration::from_secs(60), answers.next()).await.unwrap().unwrap();
        assert!(matches!(&refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    assert!(
        futures_util::poll!(answers.next()).is_pending(),
        "accepted before the sync, or refused too early"
    );
    drop(end);
    answers.next().await.unwrap().unwrap();
    // Whoever stops waiting makes room.
    drop(answers);
    store.accept(new_run(usize::MAX), Claim::Later).await.unwrap();
}

/// Has an app with one queued run that calls `function`, and deletes it. Returns the chore that ends the run.
async fn deleted_app(store: &Store, number: usize, function: &str) -> i64 {
    let mut run = new_run(number);
    let app: AppId = format!("p-1-app{number}").parse().unwrap();
    (run.app, run.function) = (app.clone(), function.into());
    store.accept(run, Claim::Later).await.unwrap();
    let delete = move |batch: &mut Batch<'_>| {
        let known = batch.app(&app)?.number;
        batch.sql("UPDATE app_numbers SET deleted_at = 0 WHERE number = ?1")?.execute([known])?;
        batch.books.deleted.insert(known);
        chores::add(batch, chores::Work::Cancel(known))
    };
    store.inner.committer.write(0, delete).await.unwrap()
}

#[tokio::test]
async fn long_work_that_fails_is_said_so_and_goes_on_later_and_nothing_waits_for_it() {
    let (_dir, store) = open();
    let spoil = |batch: &mut Batch<'_>| {
        batch.conn.execute_batch(
            "CREATE TEMP TRIGGER spoilt BEFORE UPDATE ON main.runs WHEN old.function = 'spoilt'
             BEGIN SELECT RAISE(ABORT, 'spoilt'); END",
        )?;
        Ok(())
    };
    store.inner.committer.write(0, spoil).await.unwrap();
    let spoilt = deleted_app(&store, 1, "spoilt").await;
    let error = store.done(vec![spoilt]).await.unwrap_err();
    assert!(error.to_string().contains("spoilt"), "{error}");
    let other = deleted_app(&store, 2, "predict").await;
    store.done(vec![other]).await.unwrap();
    store.inner.committer.write(0, |batch| insert(batch, 1)).await.unwrap();
    assert_eq!(store.backlog().await.unwrap().len(), 1);
    let mend = |batch: &mut Batch<'_>| Ok(batch.conn.execute_batch("DROP TRIGGER spoilt")?);
    store.inner.committer.write(0, mend).await.unwrap();
    let began = Instant::now();
    while let Err(error) = store.done(vec![spoilt]).await {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not go on: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.backlog().await.unwrap(), []);
}
