//! What the disk can do: the physical limit of anything durable.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Bytes of a record: about what a run with a small body takes.
const RECORD: usize = 600;
/// Rows of one transaction.
const ROWS: usize = 100;

/// Appends of 600 bytes, each followed by `fdatasync`, per second.
pub(crate) fn syncs_per_second(over: Duration) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut file = File::create(folder.path().join("append"))?;
    let began = Instant::now();
    let mut count = 0.0;
    while began.elapsed() < over {
        file.write_all(&[7; RECORD])?;
        file.sync_data()?;
        count += 1.0;
    }
    Ok(count / began.elapsed().as_secs_f64())
}

/// Rows of 600 bytes per second into an empty SQLite database, a hundred in a transaction, each transaction synced.
pub(crate) fn rows_per_second(over: Duration) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut database = Connection::open(folder.path().join("rows.db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    let began = Instant::now();
    let mut count = 0.0;
    while began.elapsed() < over {
        let transaction = database.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO rows (body) VALUES (?1)")?;
            for _ in 0..ROWS {
                insert.execute([&[7_u8; RECORD][..]])?;
            }
        }
        transaction.commit()?;
        count += ROWS as f64;
    }
    Ok(count / began.elapsed().as_secs_f64())
}
