//! The data directory belongs to one server at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::OpenError;

const FILE: &str = "lock";
const POLL: Duration = Duration::from_millis(20);

/// Held as long as this process may write below the directory. The descriptor is close-on-exec, as
/// all that `std` opens, so no child keeps the lock when the server dies.
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes the lock, waiting up to `patience` for a server that is going away.
    pub(crate) fn take(dir: &Path, patience: Duration) -> Result<Self, OpenError> {
        let path = dir.join(FILE);
        let io = |source| OpenError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => thread::sleep(POLL),
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::Locked { dir: dir.to_owned(), holder: Holder::read(&path) });
                }
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
        }
        match note_pid(&mut file) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(io(error)),
            _ => {}
        }
        Ok(Self { _file: file })
    }
}

/// The pid is for people; the lock is what counts.
fn note_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

/// Who holds the lock, as far as the lock file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(Option<u32>);

impl Holder {
    fn read(path: &Path) -> Self {
        Self(fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()))
    }

    /// The process id, when it is known.
    pub const fn pid(self) -> Option<u32> {
        self.0
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "another postback server (pid {pid})"),
            None => f.write_str("another postback server"),
        }
    }
}
