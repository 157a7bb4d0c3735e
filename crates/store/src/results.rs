//! Large results, as files beside the database.
//!
//! A file is complete and synced, under its final name, before the commit that points at it. So a row
//! never points at nothing; a file without a row is what a crash or a stale attempt left, and is swept
//! at the next start.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use queue::RunId;
use queue::lease::Lease;
use queue::limits::RESULT_BYTES_MAX;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::fault::Fault;

/// The folder `results`.
#[derive(Clone)]
pub(crate) struct ResultFiles {
    dir: Arc<Path>,
    incarnation: i64,
    written: Arc<AtomicU64>,
    /// There may be rows that point at files.
    any: Arc<AtomicBool>,
}

/// How many bytes a file of that name holds.
pub(crate) fn bytes_of(name: &str) -> usize {
    let bytes = name.strip_suffix(".json").and_then(|name| name.rsplit_once('.'));
    // Older names do not say.
    bytes.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or(RESULT_BYTES_MAX).min(RESULT_BYTES_MAX)
}

impl ResultFiles {
    pub(crate) fn open(data_dir: &Path, incarnation: i64) -> io::Result<Self> {
        let dir = data_dir.join("results");
        fs::create_dir_all(&dir)?;
        File::open(data_dir)?.sync_all()?;
        Ok(Self { dir: dir.into(), incarnation, written: Arc::default(), any: Arc::default() })
    }

    /// Whether a result may be in a file.
    pub(crate) fn may_hold_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Writes a result and returns its name once it is safe. The name is this write's own, so that one
    /// which comes too late, even from the same attempt, cannot touch what an earlier one wrote. It tells the
    /// size as well, for those who must know before they read.
    pub(crate) fn write(&self, lease: &Lease, result: &[u8]) -> io::Result<String> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let (run, attempt, bytes) = (lease.run, lease.attempt, result.len());
        let name = format!("{run}-{attempt}-{}-{number}.{bytes}.json", self.incarnation);
        self.any.store(true, Ordering::Relaxed);
        let path = self.path(&name);
        let unfinished = path.with_extension("tmp");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(result)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        });
        if let Err(error) = written {
            // On a full disk each attempt would leave a piece that fills it further.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        File::open(&self.dir)?.sync_all()?;
        Ok(name)
    }

    pub(crate) fn read(&self, name: &str) -> io::Result<Bytes> {
        fs::read(self.path(name)).map(Bytes::from)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The result of a run, wherever it is.
    pub(crate) fn load(&self, conn: &Connection, run: RunId) -> Result<Option<Bytes>, Fault> {
        let mut statement = conn.prepare_cached("SELECT body, file FROM results WHERE run = ?1")?;
        let mut rows = statement.query(params![run.into_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        if let Some(file) = row.get_ref(1)?.as_str_or_null()? {
            return self.read(file).map(Some).map_err(|error| {
                Fault::Corrupt(format!("the result of run {run} (results/{file}): {error}"))
            });
        }
        crate::row::optional_bytes(row, 0)
    }

    /// Removes files that no row points at. Returns how many.
    pub(crate) fn sweep(&self, conn: &Connection) -> Result<usize, Fault> {
        let mut statement = conn.prepare("SELECT 1 FROM results WHERE run = ?1 AND file = ?2")?;
        let mut swept = 0;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let known =
                match name.to_str().and_then(|name| Some((name, name.get(..36)?.parse::<RunId>().ok()?))) {
                    Some((name, run)) => {
                        statement.query_row(params![run.into_bytes(), name], |_| Ok(())).optional()?.is_some()
                    }
                    None => false,
                };
            if known {
                self.any.store(true, Ordering::Relaxed);
            } else {
                fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}
