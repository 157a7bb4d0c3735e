//! Disk space that is kept for the ends of runs: a file that holds nothing. When the disk is full it is given
//! away but for a little that the next start may need, and from then on only ends are written, until there is so much
//! free space again.
//!
//! Without it a disk that is full to the last byte would keep a finished run from being recorded, and a server
//! from being started, although neither needs more than a few kilobytes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use queue::limits::RESERVE_BYTES;
use queue::port::StoreError;

const FILE: &str = "reserve";
/// What is kept on a full disk, too, for the next start: SQLite's log and its index are made anew then.
const START_BYTES: u64 = 1 << 20;
/// How often it is tried to have the space back.
const TAKE_BACK_EVERY: Duration = Duration::from_secs(1);

/// The file, in the writer's hands.
pub(crate) struct Reserve {
    /// `None` when there is no room even for a name.
    file: Option<File>,
    spent: Spent,
    tried_at: Option<Instant>,
}

/// Whether the reserve was given away: the disk is full.
#[derive(Clone)]
pub(crate) struct Spent(Arc<AtomicBool>);

impl Spent {
    pub(crate) fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What somebody is told whose write may not draw on the reserve.
    pub(crate) fn told() -> StoreError {
        let mib = RESERVE_BYTES >> 20;
        StoreError::Full(format!("less than {mib} MiB are free, which are kept for the ends of runs"))
    }
}

impl Reserve {
    /// Gives away what a former process kept, since a start may need it.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(dir.join(FILE));
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => None,
            file => Some(file?),
        };
        Ok(Self { file, spent: Spent(Arc::new(AtomicBool::new(true))), tried_at: None })
    }

    pub(crate) fn spent(&self) -> Spent {
        self.spent.clone()
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.spent.is_spent()
    }

    /// Gives it away, but for what a start needs. `false` when that has happened already.
    pub(crate) fn spend(&mut self) -> bool {
        if self.is_spent() {
            return false;
        }
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.set_len(START_BYTES)) {
            tracing::error!(%error, "could not give away the space that was kept for a full disk");
        }
        self.spent.0.store(true, Ordering::Relaxed);
        self.tried_at = Some(Instant::now());
        tracing::warn!(
            store.reserve = RESERVE_BYTES,
            "the disk is full: ends of runs are recorded, and nothing else is written until that much is free"
        );
        true
    }

    /// Has it back, if there is so much space. Looks once a second at most.
    pub(crate) fn take_back(&mut self) -> bool {
        if self.tried_at.is_some_and(|tried_at| tried_at.elapsed() < TAKE_BACK_EVERY) {
            return false;
        }
        let is_start = self.tried_at.is_none();
        self.tried_at = Some(Instant::now());
        let Some(file) = &self.file else { return false };
        match allocate(file, RESERVE_BYTES) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                keep_for_a_start(file);
                if is_start {
                    tracing::warn!(
                        store.reserve = RESERVE_BYTES,
                        "the disk is full: nothing is accepted until that much is free"
                    );
                }
                return false;
            }
            // It is a precaution: without it everything goes on as long as there is space.
            Err(error) => tracing::warn!(%error, "no space can be kept for a full disk"),
        }
        self.spent.0.store(false, Ordering::Relaxed);
        if !is_start {
            tracing::info!("the disk has space again");
        }
        true
    }
}

/// Lets go of all but what the next start may need, or of as much of that as there is.
fn keep_for_a_start(file: &File) {
    if let Err(error) = file.set_len(0) {
        tracing::error!(%error, "could not let go of space on a full disk");
    }
    let kept = [START_BYTES, START_BYTES / 2, START_BYTES / 4].into_iter();
    if !kept.map(|bytes| allocate(file, bytes)).any(|kept| kept.is_ok()) {
        // What an attempt had before it failed is for the ends of runs.
        let _ = file.set_len(0);
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(file, bytes),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    fill(file, bytes)
}

/// Where space is had by writing only.
fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    const PART: usize = 1 << 20;
    file.set_len(0)?;
    io::Seek::rewind(&mut file)?;
    let part = vec![0; PART];
    for _ in 0..bytes.div_ceil(PART as u64) {
        file.write_all(&part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_had_by_writing_where_it_cannot_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("x")).unwrap();
        fill(&file, 3 << 20).unwrap();
        fill(&file, 3 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 << 20);
    }

    #[test]
    fn what_is_kept_is_on_the_disk_and_what_is_given_away_is_not() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let held = || dir.path().join(FILE).metadata().unwrap().blocks() * 512;
        let mut reserve = Reserve::open(dir.path()).unwrap();
        assert!(reserve.is_spent());
        assert!(reserve.take_back());
        assert!(held() >= RESERVE_BYTES && !reserve.is_spent());
        assert!(reserve.spend());
        assert!(reserve.is_spent());
        assert_eq!(held(), START_BYTES, "the next start finds so much");
        assert!(!reserve.spend() && !reserve.take_back(), "a second has not passed");
        // What a former process kept is there for the start of the next.
        reserve.tried_at = None;
        assert!(reserve.take_back());
        drop(reserve);
        assert!(held() >= RESERVE_BYTES);
        Reserve::open(dir.path()).unwrap();
        assert_eq!(held(), 0);
    }
}
