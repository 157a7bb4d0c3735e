//! A change of the key: a new one joins the file, everything is sealed anew with it, the old ones go.
//!
//! Killed at any point it leaves a file that opens everything there is; the next call goes on where this
//! one stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use queue::port::{StoreError, Stored};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::{PROOF_PLACE, Place, Ring, Vault, versions};
use crate::Store;
use crate::batch::Batch;
use crate::fault::Fault;

/// Values sealed anew in one transaction.
const PER_BATCH: i64 = 500;

/// A column that holds sealed values, and what names its rows.
struct Column {
    table: &'static str,
    column: &'static str,
    /// The row as its place names it, and the values that find it.
    select: &'static str,
    update: &'static str,
}

const COLUMNS: [Column; 6] = [
    Column {
        table: "project_secrets",
        column: "sealed",
        select: "SELECT project || '/' || kind || '/' || number, sealed FROM project_secrets
                 WHERE substr(sealed, 1, 4) <> ?1 LIMIT ?2",
        update: "UPDATE project_secrets SET sealed = ?2 WHERE project || '/' || kind || '/' || number = ?1",
    },
    Column {
        table: "secrets",
        column: "sealed",
        select: "SELECT owner || '/' || name, sealed FROM secrets WHERE substr(sealed, 1, 4) <> ?1 LIMIT ?2",
        update: "UPDATE secrets SET sealed = ?2 WHERE owner || '/' || name = ?1",
    },
    Column {
        table: "inboxes",
        column: "sealed_token",
        select: "SELECT id, sealed_token FROM inboxes WHERE substr(sealed_token, 1, 4) <> ?1 LIMIT ?2",
        update: "UPDATE inboxes SET sealed_token = ?2 WHERE id = ?1",
    },
    Column {
        table: "builds",
        column: "sealed_headers",
        select: "SELECT id, sealed_headers FROM builds WHERE substr(sealed_headers, 1, 4) <> ?1 LIMIT ?2",
        update: "UPDATE builds SET sealed_headers = ?2 WHERE id = ?1",
    },
    Column {
        table: "runs",
        column: "caller_secret",
        select: "SELECT id, caller_secret FROM runs INDEXED BY runs_sealed
                 WHERE caller_secret IS NOT NULL AND substr(caller_secret, 1, 4) < ?1 LIMIT ?2",
        update: "UPDATE runs SET caller_secret = ?2 WHERE id = ?1",
    },
    // Last, so that the proof asks for the old keys as long as anything else does.
    Column {
        table: PROOF_PLACE.table,
        column: PROOF_PLACE.column,
        select: "SELECT '1', proof FROM vault WHERE substr(proof, 1, 4) <> ?1 LIMIT ?2",
        update: "UPDATE vault SET proof = ?2 WHERE one = ?1",
    },
];

impl Store {
    /// Seals every secret with a new key and takes the old keys out of the key file. Returns how many
    /// values were sealed anew. What a former call did not finish is finished, with the key it made.
    ///
    /// # Errors
    /// When the key file cannot be written, the store is closed or its disk fails, or a value does not
    /// open. The old keys stay in the file then.
    pub async fn rotate_encryption(&self) -> Stored<u64> {
        let vault = self.inner.vault.clone();
        vault.add_key()?;
        let mut resealed = 0;
        for column in &COLUMNS {
            loop {
                let done = self.inner.committer.write(0, move |batch| reseal(batch, column)).await?;
                resealed += done;
                if done == 0 {
                    break;
                }
            }
        }
        let used = self.inner.memory.readers().read(|conn| Ok(versions(conn)?)).await?;
        vault.keep_only_newest(&used)?;
        Ok(resealed)
    }
}

/// Seals the next values of a column that older keys sealed.
fn reseal(batch: &Batch<'_>, column: &Column) -> Result<u64, Fault> {
    let vault = &batch.setting.vault;
    let newest = vault.ring().newest().0.to_be_bytes();
    let mut count = 0;
    for (row, sealed) in old_values(batch.conn, column, newest)? {
        let name = match &row {
            Value::Text(text) => text.as_bytes(),
            Value::Blob(bytes) => bytes,
            _ => return Err(Fault::Corrupt(format!("a row of {} has no name", column.table))),
        };
        let place = Place::new(column.table, name, column.column);
        let fresh = vault.seal(place, &vault.open(place, &sealed)?);
        batch.sql(column.update)?.execute(params![row, fresh])?;
        count += 1;
    }
    Ok(count)
}

fn old_values(conn: &Connection, column: &Column, newest: [u8; 4]) -> Result<Vec<(Value, Vec<u8>)>, Fault> {
    let mut statement = conn.prepare_cached(column.select)?;
    let rows = statement.query_map(params![newest, PER_BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Vault {
    /// A new key in the file and in the ring, unless the last change was not finished.
    fn add_key(&self) -> Stored<()> {
        self.change(|keys| {
            if keys.len() == 1 {
                let version = keys.last_key_value().map_or(1, |(version, _)| version.saturating_add(1));
                keys.insert(version, self.entropy.bytes());
            }
        })
    }

    /// The old keys go, unless something is still sealed with one of them.
    fn keep_only_newest(&self, used: &[u32]) -> Stored<()> {
        let newest = self.ring().newest().0;
        if let Some(old) = used.iter().find(|version| **version != newest) {
            let why =
                format!("secrets sealed with key version {old} appeared meanwhile; change the key once more");
            return Err(StoreError::Unavailable(why));
        }
        self.change(|keys| keys.retain(|version, _| *version == newest))
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<u32, super::key_file::Key>)) -> Stored<()> {
        let ring = Arc::clone(&self.ring);
        let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
        let mut keys = ring.file.keys.clone();
        change(&mut keys);
        if keys == ring.file.keys {
            return Ok(());
        }
        let file = ring.file.replace(keys).map_err(|error| {
            StoreError::Unavailable(format!("the key file could not be written: {error}"))
        })?;
        *ring = Ring::new(file);
        Ok(())
    }
}
