//! Connections to SQLite: every pragma set on each of them, and read back.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::OpenError;

/// Before this version two connections that write and checkpoint at the same moment can corrupt the
/// file (the WAL-reset bug).
const VERSION_MIN: (i32, &str) = (3_051_003, "3.51.3");
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The WAL file is cut back to this size when it starts anew.
const WAL_BYTES_MAX: i64 = 64 << 20;
const STATEMENTS_CACHED: usize = 128;

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The write-ahead log is on the disk: an acknowledged write survives a power cut.
    Full,
    /// Consistent after a power cut, but the last writes may be missing.
    Normal,
}

/// Refuses a SQLite with a known way to lose data.
pub(crate) fn check_version() -> Result<(), OpenError> {
    if rusqlite::version_number() < VERSION_MIN.0 {
        return Err(OpenError::SqliteTooOld { found: rusqlite::version(), wanted: VERSION_MIN.1 });
    }
    Ok(())
}

/// The one connection that writes.
pub(crate) fn writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    let io = |source| OpenError::Database { path: path.to_owned(), source };
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE,
    )
    .map_err(io)?;
    let (word, number) = match durability {
        Durability::Full => ("FULL", 2),
        Durability::Normal => ("NORMAL", 1),
    };
    common(&conn).map_err(io)?;
    conn.pragma_update(None, "journal_mode", "WAL").map_err(io)?;
    conn.pragma_update(None, "synchronous", word).map_err(io)?;
    conn.pragma_update(None, "fullfsync", true).map_err(io)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX).map_err(io)?;
    conn.pragma_update(None, "cache_size", -32_768).map_err(io)?;

    expect(&conn, path, "journal_mode", "wal")?;
    expect(&conn, path, "synchronous", &number.to_string())?;
    expect(&conn, path, "foreign_keys", "1")?;
    expect(&conn, path, "journal_size_limit", &WAL_BYTES_MAX.to_string())?;
    #[cfg(test)]
    let conn = crate::effort::watched(conn);
    Ok(conn)
}

/// A connection that can only read.
pub(crate) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let io = |source| OpenError::Database { path: path.to_owned(), source };
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE,
    )
    .map_err(io)?;
    common(&conn).map_err(io)?;
    conn.pragma_update(None, "query_only", true).map_err(io)?;
    conn.pragma_update(None, "cache_size", -4_096).map_err(io)?;
    expect(&conn, path, "query_only", "1")?;
    #[cfg(test)]
    let conn = crate::effort::watched(conn);
    Ok(conn)
}

fn common(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // A plan never depends on what is bound. Else SQLite looks at the values of some statements and prepares
    // those again whenever they change: at each execution, that is.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}

/// A pragma that was not understood is ignored in silence, so what it became is read back.
fn expect(conn: &Connection, path: &Path, pragma: &'static str, wanted: &str) -> Result<(), OpenError> {
    let found =
        pragma_text(conn, pragma).map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    if found.eq_ignore_ascii_case(wanted) {
        Ok(())
    } else {
        Err(OpenError::Pragma { path: path.to_owned(), pragma, wanted: wanted.to_owned(), found })
    }
}

/// The value of a pragma, as text.
pub(crate) fn pragma_text(conn: &Connection, pragma: &str) -> rusqlite::Result<String> {
    use rusqlite::types::ValueRef;
    conn.pragma_query_value(None, pragma, |row| {
        Ok(match row.get_ref(0)? {
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_of_the_writer_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let conn = writer(&path, Durability::Full).unwrap();
        let value = |pragma| pragma_text(&conn, pragma).unwrap();
        assert_eq!(value("journal_mode"), "wal");
        assert_eq!(value("synchronous"), "2");
        assert_eq!(value("foreign_keys"), "1");
        assert_eq!(value("busy_timeout"), "5000");
        let logs = writer(&dir.path().join("y.db"), Durability::Normal).unwrap();
        assert_eq!(pragma_text(&logs, "synchronous").unwrap(), "1");
    }

    #[test]
    fn a_reader_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        writer(&path, Durability::Full).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let conn = reader(&path).unwrap();
        assert!(conn.execute("INSERT INTO t VALUES (1)", []).is_err());
    }

    #[test]
    fn a_setting_that_did_not_take_is_an_error() {
        let path = Path::new(":memory:");
        let refused = writer(path, Durability::Full).unwrap_err();
        assert!(matches!(refused, OpenError::Pragma { pragma: "journal_mode", .. }), "{refused}");
    }
}
