//! The crash points of what a store does beside its daily work: bringing an older schema forward, putting
//! in order what a former process left, keeping a large result as a file, removing what is old.
//!
//! The same test binary is run again as a child under strace, which kills it at its Nth sync, write, rename
//! or removal, for every N until the child outlives the work. After each death the store must open, hold
//! what the child was told is kept, and own every file.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use queue::outcome::{Finish, Finished, Outcome};
use queue::port::{Registry as _, Runs as _};
use queue::run::{RunState, RunView};
use queue::{RunId, limits};
use store::Store;
use testkit::checker::{damage, integrity};

use super::{dir, fresh, options};
use crate::world::{BEGINNING, INLINE_RESULT_BYTES_MAX, World, app, clock, entropy, project};

const FOLDER: &str = "POSTBACK_CRASH_POINTS_FOLDER";
const CHILD: &str = "sqlite::crash_points::the_child_that_dies";
const SIGKILL: i32 = 9;
/// No piece of work makes so many calls of a kind.
const POINTS_MAX: usize = 400;

const A: &str = "https://a.example/hook";
const OLD_RUNS: usize = 3;

fn large() -> Bytes {
    Bytes::from(format!("\"{}\"", "x".repeat(INLINE_RESULT_BYTES_MAX)))
}

/// What a former process left: a run it worked on, a delivery on the wire, a file of a stale attempt, and
/// runs that are past their keeping by the time the child looks.
async fn left_behind() -> (World<Store>, RunId) {
    let world = fresh();
    world.store.create_project(world.new_project(1)).await.unwrap();
    for _ in 0..OLD_RUNS {
        let lease = world.leased(&app("old"), &[]).await;
        world.finish(lease, Outcome::succeeded(large(), 200, 1.0, world.now()), &[]).await;
    }
    world.succeeded(&app("a"), &[A]).await;
    assert_eq!(world.begin().await.len(), 1);
    let orphan = world.leased(&app("a"), &[A]).await.run;
    world.settled().await;
    fs::write(dir(&world).join("results").join(format!("{orphan}-9.json")), "stale").unwrap();
    (world, orphan)
}

/// A database of the first schema, with a run in its queue.
fn of_the_first_schema(folder: &Path, run: RunId) {
    fs::create_dir_all(folder).unwrap();
    let conn = rusqlite::Connection::open(folder.join("postback.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/0001_initial.sql")).unwrap();
    conn.execute_batch("PRAGMA user_version = 1").unwrap();
    conn.execute(
        "INSERT INTO projects VALUES (?1, ?2, ?3, 'whsec_1', ?4, 1)",
        rusqlite::params![project(1).as_str(), [1u8; 32], [101u8; 32], [1u8; 32]],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO app_numbers VALUES (1, ?1, ?2, NULL)",
        [app("a").as_str(), project(1).as_str()],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO runs (id, app, function, generation, mode, state, accepted_at, limit_ms)
         VALUES (?1, 1, 'predict', 'v3', 'async', 'queued', 1769860800001, 900000)",
        [run.into_bytes()],
    )
    .unwrap();
    conn.execute("INSERT INTO inputs (run, body) VALUES (?1, x'7b7d')", [run.into_bytes()]).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            // With its mode: a key file that others may read is refused.
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(folder: &Path) -> Store {
    let mut options = options(folder);
    // The child's end may lie a moment back.
    options.lock_patience = Duration::from_secs(10);
    Store::open(options, clock(), entropy()).unwrap()
}

/// Says what is kept, so that it outlives the process at once.
fn keep(folder: &Path, what: &str) {
    let mut told = fs::File::options().create(true).append(true).open(folder.with_extension("told")).unwrap();
    writeln!(told, "{what}").unwrap();
}

#[test]
#[ignore = "the other side of the tests below, which start it"]
fn the_child_that_dies() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (clock, entropy) = (clock(), entropy());
        let store = Store::open(options(folder), clock.clone(), entropy.clone()).unwrap();
        keep(folder, "opened");
        let world = World { store, clock, entropy, ground: Box::new(()) };
        world.pass(Duration::from_secs(1));
        let lease = world.claim_one(&app("a")).await.lease;
        let outcome = Outcome::succeeded(large(), 200, 1.0, world.now());
        let finish = Finish { lease, outcome, first_attempts: Vec::new() };
        assert!(matches!(world.store.finish(finish).await.unwrap(), Finished::Recorded(_)));
        keep(folder, "finished");
        let old = limits::RESULT_RETENTION - Duration::from_millis(1);
        world.store.prune(world.now().plus(old)).await.unwrap();
        keep(folder, "pruned");
        world.store.close().await;
        keep(folder, "closed");
    });
}

/// Starts the child to die at its `number`th `call`. `false` when it outlived its work; `Err` when there is
/// no strace.
fn dies_at(folder: &Path, call: &str, number: usize) -> Result<bool, String> {
    let status = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={number}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("strace cannot be started: {error}"))?;
    if status.success() {
        return Ok(false);
    }
    // strace ends as its child did.
    assert_eq!(status.signal(), Some(SIGKILL), "{call} {number}: the child ended in another way: {status}");
    Ok(true)
}

/// Kills the child at each of its calls, on a fresh copy of `ground` each time, and looks at what it leaves.
async fn every_death(ground: &Path, calls: &[(&str, usize)], run: RunId) {
    let mut points = 0;
    for (call, step) in calls {
        for number in (1..POINTS_MAX).step_by(*step) {
            let place = tempfile::tempdir().unwrap();
            let folder = place.path().join("data");
            copy(ground, &folder);
            match dies_at(&folder, call, number) {
                Err(reason) => return say(&format!("SKIP: {reason}")),
                Ok(false) => break,
                Ok(true) => points += 1,
            }
            let told = fs::read_to_string(folder.with_extension("told")).unwrap_or_default();
            let at = format!("{call} {number}, after {:?}", told.lines().last());
            if told.contains("opened") {
                assert_eq!(integrity(&folder), [""; 0], "{at}");
            }
            after_a_death(&folder, &told, run, &at).await;
        }
    }
    say(&format!("{points} crash points"));
    assert!(points >= 20, "the work has fewer calls than were ever counted");
}

async fn after_a_death(folder: &Path, told: &str, run: RunId, at: &str) {
    let store = open(folder);
    let view = store.run(&project(1), run).await.unwrap().unwrap_or_else(|| panic!("{at}: the run is lost"));
    let RunView { state, result, .. } = view;
    if told.contains("finished") {
        assert_eq!((state, &result), (RunState::Succeeded, &Some(large())), "{at}");
    }
    match state {
        // Nobody was told, and it may have been kept all the same.
        RunState::Succeeded => assert_eq!(result, Some(large()), "{at}"),
        RunState::Queued => {
            let claimed = store.claim(&app("a"), 8, usize::MAX).await.unwrap();
            assert!(claimed.iter().any(|leased| leased.lease.run == run), "{at}: nobody can claim it");
        }
        state => panic!("{at}: the run is {state}"),
    }
    assert!(store.project(&project(1)).await.unwrap().is_some(), "{at}");
    store.close().await;
    drop(store);
    assert_eq!(damage(folder), [""; 0], "{at}");
}

#[expect(clippy::print_stdout, reason = "a test says what it did")]
fn say(what: &str) {
    println!("{what}");
}

const CALLS: [(&str, usize); 6] =
    [("fsync", 1), ("fdatasync", 1), ("rename", 1), ("unlink", 1), ("ftruncate", 1), ("pwrite64", 7)];

#[tokio::test]
async fn recovery_large_results_and_removal_survive_a_death_at_any_syscall() {
    let (world, orphan) = left_behind().await;
    let ground = tempfile::tempdir().unwrap();
    copy(dir(&world), ground.path());
    drop(world);
    every_death(ground.path(), &CALLS, orphan).await;
}

#[tokio::test]
async fn a_migration_survives_a_death_at_any_syscall() {
    let ground = tempfile::tempdir().unwrap();
    let run = RunId::generate(BEGINNING, entropy().as_ref());
    of_the_first_schema(ground.path(), run);
    every_death(ground.path(), &CALLS, run).await;
}
