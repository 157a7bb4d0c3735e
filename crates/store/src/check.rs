//! A look through the whole database, which changes nothing: for `postback doctor`, beside a server or without
//! one.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::store::DATABASE_FILE;

/// Complaints of SQLite that are shown.
const COMPLAINTS_MAX: usize = 5;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The size of the database file, in bytes.
    pub bytes: u64,
    /// What is wrong with it; empty when nothing is.
    pub complaints: Vec<String>,
}

/// Checks the database of a data directory; `None` when there is none yet.
pub fn check(dir: &Path) -> Option<Health> {
    let file = dir.join(DATABASE_FILE);
    let bytes = fs::metadata(&file).ok()?.len();
    let complaints = match complaints(&file) {
        Ok(complaints) => complaints,
        Err(error) => vec![error.to_string()],
    };
    Some(Health { bytes, complaints })
}

fn complaints(file: &Path) -> rusqlite::Result<Vec<String>> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({COMPLAINTS_MAX})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    Ok(lines.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().filter(|line| line != "ok").collect())
}
