//! How much a replica has written to the folders that are its own, looked at every few seconds.
//!
//! Files are counted by the room they take. What is in more folders and files than [`ENTRIES_MAX`] is not
//! counted: looking costs more than it saves.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::memory::Excess;

pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(3);
const ENTRIES_MAX: u32 = 20_000;
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Resolves when the folders hold `limit` bytes more than they did at first. Looks after each pause.
pub(crate) async fn beyond(folders: Vec<PathBuf>, limit: u64, pause: Duration) -> Excess {
    if folders.is_empty() {
        return std::future::pending().await;
    }
    let first = look(folders.clone()).await;
    loop {
        tokio::time::sleep(pause).await;
        let found = look(folders.clone()).await.saturating_sub(first);
        if found > limit {
            return Excess::Disk { found, limit };
        }
    }
}

async fn look(folders: Vec<PathBuf>) -> u64 {
    let count = move || {
        let mut entries = 0;
        folders.iter().map(|folder| held_in(folder, &mut entries)).sum()
    };
    tokio::task::spawn_blocking(count).await.unwrap_or(0)
}

fn held_in(folder: &Path, entries: &mut u32) -> u64 {
    let mut held = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        *entries += 1;
        if *entries > ENTRIES_MAX {
            break;
        }
        // Of links, themselves.
        let Ok(about) = entry.metadata() else { continue };
        held += about.blocks() * BLOCK;
        if about.is_dir() {
            held += held_in(&entry.path(), entries);
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_there_at_first_does_not_count_and_what_comes_does() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("before"), vec![1; 4 << 20]).unwrap();
        let watched = beyond(vec![folder.path().to_owned()], 1 << 20, Duration::from_millis(1));
        tokio::pin!(watched);
        let some_looks = Duration::from_millis(100);
        assert!(tokio::time::timeout(some_looks, &mut watched).await.is_err(), "nothing was written");
        fs::write(folder.path().join("deep/after"), vec![1; 2 << 20]).unwrap();
        let Excess::Disk { found, limit } = watched.await else { panic!("no excess") };
        // The system may not have given all of them a place yet.
        assert!(found > 1 << 20 && found < 4 << 20 && limit == 1 << 20, "{found}");
    }
}
