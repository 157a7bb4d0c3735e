//! Further keys of projects: kept by their hashes, found in memory, gone at once when they are revoked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use queue::limits::KEYS_MAX;
use queue::registry::{Identity, KeyHash, KeyMade, KeyView, Scope};
use queue::{ProjectId, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;

/// How exactly the last use of a key is remembered: that often it is written down.
const USED_EVERY_MS: i64 = 3_600_000;
const NEVER: i64 = i64::MIN;

/// Who holds which key.
#[derive(Default)]
pub(crate) struct Keys(HashMap<KeyHash, Holder>);

struct Holder {
    identity: Identity,
    /// What only named keys have: the path of a run with the others reads no clock for it.
    named: Option<Named>,
}

struct Named {
    expires_at: Option<Timestamp>,
    used_at: AtomicI64,
}

/// A key that opens something.
pub(crate) struct Found {
    pub(crate) identity: Identity,
    /// Its use is to be written down.
    pub(crate) note: Option<Timestamp>,
}

impl Keys {
    /// Takes in one of the two keys that a project begins with.
    pub(crate) fn insert(&mut self, hash: KeyHash, identity: Identity) {
        self.0.insert(hash, Holder { identity, named: None });
    }

    /// Takes in all others.
    pub(crate) fn load(&mut self, conn: &Connection) -> Result<(), Fault> {
        let mut statement =
            conn.prepare_cached("SELECT hash, project, scope, expires_at, last_used_at FROM keys")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let identity = Identity { project: row::parsed(row, 1)?, scope: scope(row, 2)? };
            let named = Named {
                expires_at: row::optional_time(row, 3)?,
                used_at: AtomicI64::new(row.get::<_, Option<i64>>(4)?.unwrap_or(NEVER)),
            };
            self.0.insert(row::key_hash(row, 0)?, Holder { identity, named: Some(named) });
        }
        Ok(())
    }

    /// Whose key it is, unless it has expired.
    pub(crate) fn find(&self, hash: &KeyHash, now: impl FnOnce() -> Timestamp) -> Option<Found> {
        let Holder { identity, named } = self.0.get(hash)?;
        let mut note = None;
        if let Some(named) = named {
            let now = now();
            if named.expires_at.is_some_and(|at| at <= now) {
                return None;
            }
            let used = named.used_at.load(Ordering::Relaxed);
            let is_due = used == NEVER || now.as_millis() - used >= USED_EVERY_MS;
            // Of many requests at once one writes it down.
            let swap = (used, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed);
            if is_due && named.used_at.compare_exchange(swap.0, swap.1, swap.2, swap.3).is_ok() {
                note = Some(now);
            }
        }
        Some(Found { identity: identity.clone(), note })
    }
}

fn scope(row: &Row<'_>, column: usize) -> Result<Scope, Fault> {
    row::word(row, column, Scope::ALL, Scope::as_str)
}

/// Keeps a key, unless its project has as many as it may, or there is none.
pub(crate) fn create(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    key: &KeyView,
    hash: &KeyHash,
) -> Result<KeyMade, Fault> {
    let project = project.as_str();
    if !batch.sql("SELECT 1 FROM projects WHERE id = ?1")?.exists([project])? {
        return Ok(KeyMade::Unknown);
    }
    let kept: usize =
        batch.sql("SELECT count(*) FROM keys WHERE project = ?1")?.query_row([project], |row| row.get(0))?;
    if kept >= KEYS_MAX {
        return Ok(KeyMade::TooMany);
    }
    batch
        .sql(
            "INSERT INTO keys (hash, id, project, name, scope, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            hash,
            key.id,
            project,
            key.name,
            key.scope.as_str(),
            key.created_at.as_millis(),
            key.expires_at.map(Timestamp::as_millis),
        ])?;
    batch.effects.registry = true;
    Ok(KeyMade::Done)
}

/// Removes a key. Whether there was one.
pub(crate) fn revoke(batch: &mut Batch<'_>, project: &ProjectId, id: &str) -> Result<bool, Fault> {
    let removed = batch
        .sql("DELETE FROM keys WHERE project = ?1 AND id = ?2")?
        .execute(params![project.as_str(), id])?;
    batch.effects.registry |= removed > 0;
    Ok(removed > 0)
}

/// Writes down that a key was used.
pub(crate) fn used(batch: &Batch<'_>, hash: &KeyHash, at: Timestamp) -> Result<(), Fault> {
    batch.sql("UPDATE keys SET last_used_at = ?2 WHERE hash = ?1")?.execute(params![hash, at.as_millis()])?;
    Ok(())
}

/// The keys of a project, newest first.
pub(crate) fn list(conn: &Connection, project: &ProjectId) -> Result<Vec<KeyView>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT id, name, scope, created_at, expires_at, last_used_at FROM keys
         WHERE project = ?1 ORDER BY created_at DESC, id",
    )?;
    let mut rows = statement.query([project.as_str()])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(KeyView {
            id: row.get(0)?,
            name: row.get(1)?,
            scope: scope(row, 2)?,
            created_at: row::time(row, 3)?,
            expires_at: row::optional_time(row, 4)?,
            last_used_at: row::optional_time(row, 5)?,
        });
    }
    Ok(keys)
}
