//! What is particular to SQLite: files, the lock, restarts, and what is removed with age.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use store::{Bounds, OpenError, Options, Store};
use tempfile::TempDir;

use crate::conformance::conformance;
use crate::world::{INBOX_REQUESTS_MAX, INLINE_RESULT_BYTES_MAX, QUEUED_MAX, World, clock, entropy};

mod chores;
#[cfg(target_os = "linux")]
mod crash_points;
mod large;
mod model;
mod opening;
mod restart;
mod thin;
mod unreadable;
mod upkeep;
mod vault;

conformance!(crate::sqlite::fresh);

/// A store in a folder of its own.
pub(crate) fn fresh() -> World<Store> {
    let dir = tempfile::tempdir().unwrap();
    open_in(dir)
}

fn open_in(dir: TempDir) -> World<Store> {
    let (clock, entropy) = (clock(), entropy());
    let store = Store::open(options(dir.path()), clock.clone(), entropy.clone()).unwrap();
    World { store, clock, entropy, ground: Box::new(dir) }
}

fn options(dir: &Path) -> Options {
    let bounds = Bounds {
        queued_runs_per_app: QUEUED_MAX,
        inbox_requests: INBOX_REQUESTS_MAX,
        inline_result_bytes: INLINE_RESULT_BYTES_MAX,
    };
    Options { bounds, lock_patience: std::time::Duration::from_millis(50), ..Options::new(dir) }
}

fn dir(world: &World<Store>) -> &Path {
    world.ground.downcast_ref::<TempDir>().expect("the ground of this world is a folder").path()
}

/// Opens the store of a world once more in the same folder.
fn again(world: &World<Store>) -> Result<Store, OpenError> {
    Store::open(options(dir(world)), Arc::clone(&world.clock) as _, Arc::clone(&world.entropy) as _)
}

/// The world as it would be found after the process was killed at this moment: a store opened on what
/// is in the files now, while the old process goes nowhere near it.
fn after_a_kill(world: &World<Store>) -> World<Store> {
    let copy = TempDir::new_in(dir(world).parent().unwrap()).unwrap();
    for entry in fs::read_dir(dir(world)).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if from.is_dir() {
            fs::create_dir(copy.path().join(&name)).unwrap();
            for file in fs::read_dir(&from).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), copy.path().join(&name).join(file.file_name())).unwrap();
            }
        } else {
            fs::copy(&from, copy.path().join(&name)).unwrap();
        }
    }
    let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
    let store = Store::open(options(copy.path()), clock.clone(), entropy.clone()).unwrap();
    World { store, clock, entropy, ground: Box::new(copy) }
}
