//! What is particular to SQLite: files, the lock, restarts, and what is removed with age.

use std::ffi::OsString;
use std::fs::{self, DirEntry, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use store::{Bounds, OpenError, Options, Store};
use tempfile::TempDir;

use crate::conformance::conformance;
use crate::world::{
    INBOX_BYTES_MAX, INBOX_REQUESTS_MAX, INLINE_RESULT_BYTES_MAX, QUEUED_MAX, World, clock, entropy,
};

mod chores;
#[cfg(target_os = "linux")]
mod crash_points;
mod large;
mod model;
mod opening;
mod restart;
mod thin;
mod traffic;
mod unreadable;
mod upkeep;
mod vault;

conformance!(crate::sqlite::fresh);

/// A store in a folder of its own.
pub(crate) fn fresh() -> World<Store> {
    let dir = tempfile::tempdir().unwrap();
    open_in(dir)
}

/// The same, made of the files of another one. All of these have the same keys.
fn copied_to(dir: TempDir) -> World<Store> {
    for (name, bytes) in EMPTY.iter() {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.path().join(name));
        file.unwrap().write_all(bytes).unwrap();
    }
    open_in(dir)
}

fn open_in(dir: TempDir) -> World<Store> {
    let (clock, entropy) = (clock(), entropy());
    let store = Store::open(options(dir.path()), clock.clone(), entropy.clone()).unwrap();
    World { store, clock, entropy, ground: Box::new(dir) }
}

/// The files of a store with nothing in it. To write them is quicker than to bring the schema forward once more.
static EMPTY: LazyLock<Vec<(OsString, Vec<u8>)>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(options(dir.path()), clock(), entropy()).unwrap());
    // Both writers hold it until they have tidied up.
    fs::File::open(dir.path().join("lock")).unwrap().lock().unwrap();
    let files = fs::read_dir(dir.path()).unwrap().map(Result::unwrap);
    let files = files.filter(|file| file.file_type().unwrap().is_file() && !is_reserve(file));
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect()
});

/// Each start makes it anew.
fn is_reserve(file: &DirEntry) -> bool {
    file.file_name() == "reserve"
}

fn options(dir: &Path) -> Options {
    let bounds = Bounds {
        queued_runs_per_app: QUEUED_MAX,
        inbox_requests: INBOX_REQUESTS_MAX,
        inbox_bytes: INBOX_BYTES_MAX,
        inline_result_bytes: INLINE_RESULT_BYTES_MAX,
    };
    // A connection that reads the schema at its first question costs more than most questions.
    Options { bounds, readers: 1, lock_patience: std::time::Duration::from_millis(50), ..Options::new(dir) }
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
    for entry in fs::read_dir(dir(world)).unwrap().map(Result::unwrap).filter(|entry| !is_reserve(entry)) {
        let (from, name) = (entry.path(), entry.file_name());
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
