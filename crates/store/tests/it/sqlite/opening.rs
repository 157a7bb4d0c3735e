//! Who may open, and what closing means.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use queue::port::{Claim, Registry as _, Runs as _, StoreError};
use store::{OpenError, Store};

use super::{again, dir, fresh, options};
use crate::world::{app, clock, entropy, project};

#[tokio::test]
async fn a_second_server_is_refused_by_name_and_leaves_the_first_alone() {
    let world = fresh();
    let run = world.queued(&app("a"), &[]).await;
    let refused = again(&world).err().expect("the directory is held");
    let pid = std::process::id();
    assert!(matches!(&refused, OpenError::Locked { holder, .. } if holder.pid() == Some(pid)));
    let said = refused.to_string();
    assert!(said.contains(&pid.to_string()) && said.contains(dir(&world).to_str().unwrap()), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
    assert_eq!(world.claim_one(&app("a")).await.lease.run, run);
}

#[tokio::test]
async fn the_directory_is_free_after_a_close_and_nothing_is_lost() {
    let world = fresh();
    world.store.create_project(world.new_project(1)).await.unwrap();
    let run = world.queued(&app("a"), &[]).await;
    world.store.close().await;
    world.store.close().await;
    let reopened = again(&world).unwrap();
    assert_eq!(reopened.claim(&app("a"), 1, usize::MAX).await.unwrap()[0].lease.run, run);
    assert!(reopened.project(&project(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn the_directory_is_free_after_the_last_clone_was_dropped() {
    let world = fresh();
    let run = world.queued(&app("a"), &[]).await;
    drop(world.store.clone());
    assert!(again(&world).is_err());
    let crate::world::World { store, clock, entropy, ground } = world;
    drop(store);
    let dir = ground.downcast::<tempfile::TempDir>().unwrap();
    let mut options = options(dir.path());
    options.lock_patience = std::time::Duration::from_secs(10);
    let reopened = Store::open(options, clock, entropy).unwrap();
    assert!(reopened.run(&project(1), run).await.unwrap().is_some());
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let world = fresh();
    let late = world.new_run(&app("a"), &[]);
    world.store.close().await;
    let refused = world.store.accept(late.clone(), Claim::Later).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let refused = world.store.run(&project(1), late.id).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn all_that_was_handed_over_before_the_close_is_kept() {
    let world = fresh();
    let runs: Vec<_> =
        (0..200).map(|number| world.new_run(&app(&format!("a{}", number % 50)), &[])).collect();
    let accepts = runs.iter().map(|run| world.store.accept(run.clone(), Claim::Later));
    let (accepted, ()) = tokio::join!(futures_util::future::join_all(accepts), world.store.close());
    assert!(accepted.iter().all(Result::is_ok));
    let reopened = again(&world).unwrap();
    for run in runs {
        assert!(reopened.run(&project(1), run.id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let world = fresh();
    world.store.close().await;
    let path = dir(&world).join("postback.db");
    let set = |version: i64| {
        let conn = rusqlite::Connection::open(&path).unwrap();
        let before: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        conn.pragma_update(None, "user_version", version).unwrap();
        before
    };
    let known = set(99);
    let refused = again(&world).err().expect("the schema is unknown");
    assert!(matches!(refused, OpenError::NewerSchema { found: 99, .. }));
    assert!(refused.to_string().contains("newer postback"), "{refused}");
    set(known);
    again(&world).unwrap();
}

#[test]
fn the_data_directory_is_made_for_its_owner_only() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep/data");
    let _store = Store::open(options(&dir), clock(), entropy()).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let refused = Store::open(options("/proc/no/such".as_ref()), clock(), entropy()).err().unwrap();
    assert!(refused.to_string().contains("/proc/no/such"), "{refused}");
}

#[tokio::test]
async fn a_write_that_cannot_be_applied_harms_only_itself() {
    let world = fresh();
    let mut runs: Vec<_> =
        (0..100).map(|number| world.new_run(&app(&format!("a{}", number % 25)), &[])).collect();
    // The same id twice: the second cannot be kept.
    runs[60].id = runs[40].id;
    runs[61].input = Vec::new().into();
    let accepts = runs.iter().map(|run| world.store.accept(run.clone(), Claim::Later));
    let accepted = futures_util::future::join_all(accepts).await;
    let refused: Vec<_> = (0..100).filter(|at| accepted[*at].is_err()).collect();
    assert_eq!(refused, [60]);
    // The queue was counted right although the batch ran twice.
    assert_eq!(world.store.backlog().await.unwrap().iter().map(|(_, count)| count).sum::<u64>(), 99);
    let backlog = world.store.backlog().await.unwrap();
    assert_eq!(backlog.iter().find(|(id, _)| *id == app("a0")).unwrap().1, 4);
}

/// A page of the database, by SQLite's default.
const PAGE: usize = 4_096;

#[tokio::test]
async fn a_damaged_page_is_named_and_never_read_as_something_else() {
    let world = fresh();
    let mut runs = Vec::new();
    for _ in 0..60 {
        runs.push(world.succeeded(&app("a"), &[]).await);
    }
    let mut written = Vec::new();
    for run in &runs {
        written.push(format!("{:?}", world.view(*run).await));
    }
    world.store.close().await;
    let file = dir(&world).join("postback.db");
    let whole = fs::read(&file).unwrap();
    assert_eq!(whole.len() % PAGE, 0);
    let (mut refused, mut failed, mut unharmed) = (0, 0, 0);
    for page in 0..whole.len() / PAGE {
        let mut damaged = whole.clone();
        damaged[page * PAGE..(page + 1) * PAGE].fill(0xa5);
        fs::write(&file, damaged).unwrap();
        for beside in ["postback.db-wal", "postback.db-shm"] {
            let _ = fs::remove_file(dir(&world).join(beside));
        }
        let store = match again(&world) {
            Ok(store) => store,
            Err(error) => {
                let said = error.to_string();
                assert!(matches!(error, OpenError::Damaged { .. }), "page {page}: {said}");
                assert!(said.contains(file.to_str().unwrap()) && said.contains(".recover"), "{said}");
                refused += 1;
                continue;
            }
        };
        let mut all_there = true;
        for (run, written) in runs.iter().zip(&written) {
            match store.run(&project(1), *run).await {
                Ok(Some(view)) => assert_eq!(format!("{view:?}"), *written, "page {page}"),
                Ok(None) => panic!("page {page}: a run is gone in silence"),
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt(_)), "page {page}: {error}");
                    all_there = false;
                }
            }
        }
        *(if all_there { &mut unharmed } else { &mut failed }) += 1;
        store.close().await;
    }
    println!("pages: {refused} refused at the start, {failed} found by a read, {unharmed} that no run needs");
    assert!(refused > 3 && failed > 1, "{refused} refused, {failed} found by a read");
}
