//! Opening and closing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use queue::link::ResultLinks;
use queue::{Clock, Entropy, limits};

use crate::batch::{self, Setting};
use crate::committer::Committer;
use crate::connection::{self, Durability};
use crate::fault::{Fault, is_damage};
use crate::filesystem::refuse_network;
use crate::lock::{DirLock, Holder};
use crate::logs::LogFile;
use crate::memory::Memory;
use crate::readers::Readers;
use crate::reserve::{Reserve, Spent};
use crate::results::ResultFiles;
use crate::vault::{KeyFileError, Vault};
use crate::writer::Writer;
use crate::{migrate, recovery};

pub(crate) const DATABASE_FILE: &str = "postback.db";
const KEY_FILE: &str = "secret.key";

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory. Made when it is not there, for its owner only.
    pub dir: PathBuf,
    /// The file with the keys that open the secrets in the database. Made when there are none yet.
    pub key_file: PathBuf,
    /// Connections that read.
    pub readers: usize,
    /// How long to wait for a server that is leaving the directory.
    pub lock_patience: Duration,
    /// What the store keeps at most.
    pub bounds: Bounds,
    /// For counting what a run costs: a transaction waits for so many changes, or until none came for a while.
    pub batch_fill: Option<usize>,
}

impl Options {
    /// The options of a server on `dir`, with its key file there.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            key_file: dir.join(KEY_FILE),
            dir,
            readers: 4,
            lock_patience: Duration::from_secs(2),
            bounds: Bounds::default(),
            batch_fill: None,
        }
    }
}

/// What the store keeps at most. The defaults are those of [`queue::limits`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Queued runs of one app.
    pub queued_runs_per_app: u64,
    /// Requests of one inbox.
    pub inbox_requests: u64,
    /// Bytes of their bodies.
    pub inbox_bytes: u64,
    /// Results of this size and more become files.
    pub inline_result_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queued_runs_per_app: limits::QUEUED_RUNS_PER_APP_MAX,
            inbox_requests: limits::INBOX_REQUESTS_MAX as u64,
            inbox_bytes: limits::INBOX_BYTES_MAX,
            inline_result_bytes: limits::INLINE_RESULT_BYTES_MAX,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has the directory.
    #[error("{holder} is using the data directory {}; stop it, or choose another with --data-dir", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The database was written by a newer postback.
    #[error(
        "{} has schema {found}, and this postback knows schemas up to {known}; \
         run the newer postback that wrote it, or choose another data directory with --data-dir",
        path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// The linked SQLite is not safe.
    #[error("SQLite {found} can corrupt a database in WAL mode; {wanted} or later is needed")]
    SqliteTooOld {
        /// Its version.
        found: &'static str,
        /// The oldest safe version.
        wanted: &'static str,
    },
    /// A setting that durability rests on did not take.
    #[error("{}: `{pragma}` is `{found}` instead of `{wanted}`; is this a network file system?", path.display())]
    Pragma {
        /// The database.
        path: PathBuf,
        /// The setting.
        pragma: &'static str,
        /// What was asked for.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The directory is on another machine.
    #[error(
        "the data directory {} is on a network file system ({kind}), where SQLite cannot keep what it \
         promises; choose a local one with --data-dir",
        dir.display()
    )]
    Network {
        /// The directory.
        dir: PathBuf,
        /// Which file system.
        kind: &'static str,
    },
    /// The key file is missing, not the right one, or open to others.
    #[error("the key file {} cannot be used, and nothing was changed: {why}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        why: KeyFileError,
    },
    /// SQLite refused.
    #[error("the database {} could not be opened: {source}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file does not hold what was written to it.
    #[error(
        "the database {} is damaged ({reason}). Copy the data directory first; then put a backup of the file in its \
         place, or what `sqlite3 {} .recover | sqlite3 saved.db` can still read of it",
        path.display(), path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the database says about the time before cannot be put in order.
    #[error("the database {} could not be recovered: {reason}", path.display())]
    Recovery {
        /// The database.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl OpenError {
    fn naming_damage(self) -> Self {
        match self {
            Self::Database { path, source } if is_damage(&source) => {
                Self::Damaged { path, reason: source.to_string() }
            }
            other => other,
        }
    }
}

/// The open store. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) committer: Committer,
    pub(crate) memory: Arc<Memory>,
    pub(crate) results: ResultFiles,
    pub(crate) disk_full: Spent,
    link: Links,
    pub(crate) logs: LogFile,
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bounds: Bounds,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Up to which moment results were counted that go undelivered.
    pub(crate) warned_until: AtomicI64,
}

/// Links to results, once somebody has said where this server is reached.
struct Links {
    key: [u8; 32],
    made: OnceLock<ResultLinks>,
}

impl Inner {
    pub(crate) fn links(&self) -> Option<&ResultLinks> {
        self.link.made.get()
    }
}

impl Store {
    /// Opens the store below `options.dir`: takes the directory's lock, brings the schema forward, and
    /// puts in order what a former process left. Blocks, for two seconds at most when the directory is
    /// still held by a server that is going away.
    ///
    /// # Errors
    /// When the directory is held by another server, belongs to a newer postback, or fails; when the key
    /// file does not open the secrets in the database.
    pub fn open(
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        Self::open_files(options, clock, entropy).map_err(OpenError::naming_damage)
    }

    fn open_files(
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        let Options { dir, key_file, readers, lock_patience, bounds, batch_fill } = options;
        connection::check_version()?;
        make_private_dir(&dir)?;
        refuse_network(&dir)?;
        let lock = Arc::new(DirLock::take(&dir, lock_patience)?);
        let mut reserve =
            Reserve::open(&dir).map_err(|source| OpenError::Io { path: dir.clone(), source })?;
        let disk_full = reserve.spent();

        let path = dir.join(DATABASE_FILE);
        let recovery = |fault: Fault| match (path.clone(), fault.to_string()) {
            (path, reason) if fault.is_damage() => OpenError::Damaged { path, reason },
            (path, reason) => OpenError::Recovery { path, reason },
        };
        let durability =
            if crate::mutant::shows("sync-normal") { Durability::Normal } else { Durability::Full };
        let conn = connection::writer(&path, durability)?;
        let vault = Vault::unlock(&conn, &key_file, Arc::clone(&entropy))?;
        migrate::run(&conn, &path, migrate::DATABASE)?;
        let incarnation = batch::next_incarnation(&conn).map_err(recovery)?;
        let results = ResultFiles::open(&dir, incarnation)
            .map_err(|source| OpenError::Io { path: dir.join("results"), source })?;
        let link_key = batch::link_key(&conn, &*entropy).map_err(recovery)?;
        let setting = Setting {
            clock: Arc::clone(&clock),
            entropy,
            vault: vault.clone(),
            results: results.clone(),
            incarnation,
            bounds,
            batch_fill,
        };
        recovery::run(&conn, &setting, &results).map_err(recovery)?;

        let warned_until = batch::warned_until(&conn).map_err(recovery)?;

        let logs = LogFile::open(&dir, &lock, disk_full.clone())?;
        let readers = Readers::new(&path, readers);
        let memory = Arc::new(Memory::load(&conn, readers, vault.clone()).map_err(recovery)?);
        let (committer, receiver, health) = Committer::new();
        reserve.take_back();
        let writer = Writer::new(conn, setting, Arc::clone(&memory), reserve, receiver, health, lock)
            .map_err(recovery)?;
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let threads = Mutex::new(vec![writer]);
        let link = Links { key: link_key, made: OnceLock::new() };
        let warned_until = AtomicI64::new(warned_until);
        let inner = Inner {
            committer,
            memory,
            results,
            disk_full,
            link,
            logs,
            vault,
            clock,
            bounds,
            threads,
            warned_until,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Links to results below `base`, which deliveries in the thin form carry from now on. The first call
    /// decides the base.
    pub fn result_links(&self, base: &str) -> ResultLinks {
        self.inner.link.made.get_or_init(|| ResultLinks::new(base, self.inner.link.key)).clone()
    }

    /// Writes what still waits, tidies the files up and lets go of the directory. Calls that come
    /// after it are told that the store is closed. A second call has nothing to do.
    pub async fn close(&self) {
        self.write_traffic();
        self.inner.committer.close().await;
        self.inner.logs.close().await;
        let threads = std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).all(|ended| ended.is_ok())
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("the writer of the database panicked");
        }
    }

    /// Resolves with the reason when the store has failed: the device refused a write, and what is on
    /// the disk is not known any more. The process should end; its next start reads what is there.
    pub async fn failed(&self) -> Arc<str> {
        let mut failure = self.inner.committer.failure();
        loop {
            if let Some(why) = failure.borrow_and_update().clone() {
                return why;
            }
            if failure.changed().await.is_err() {
                // The writer ended in peace, so it will never fail.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The database holds secrets, so the folder is made for its owner only; one that is there is left. The
/// names of new folders are synced, or a power cut could take the database with its folder.
fn make_private_dir(dir: &Path) -> Result<(), OpenError> {
    let made: Vec<_> =
        dir.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    builder.create(dir).map_err(io)?;
    for folder in made {
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)?;
    }
    Ok(())
}
