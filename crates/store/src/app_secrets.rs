//! Secrets of projects and apps: sealed in the database, opened for the replicas that start.

use std::collections::BTreeMap;

use async_trait::async_trait;
use queue::limits::SECRETS_MAX;
use queue::port::{Secrets, Stored};
use queue::registry::SecretChange;
use queue::{AppId, ProjectId};
use rusqlite::{Connection, params};

use crate::Store;
use crate::batch::Batch;
use crate::fault::Fault;
use crate::vault::{Place, Vault};

#[async_trait]
impl Secrets for Store {
    async fn secret_names(&self, project: &ProjectId, app: Option<&AppId>) -> Stored<Vec<String>> {
        let owner = owner(project, app);
        let names = move |conn: &Connection| {
            let mut statement =
                conn.prepare_cached("SELECT name FROM secrets WHERE owner = ?1 ORDER BY name")?;
            let names = statement.query_map([owner], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        };
        self.inner.memory.readers().read(names).await
    }

    async fn change_secrets(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        change: SecretChange,
    ) -> Stored<bool> {
        let owner = owner(project, app);
        let bytes = change.set.values().map(String::len).sum();
        self.inner.committer.write(bytes, move |batch| write(batch, &owner, &change)).await
    }

    async fn secrets_of(&self, app: &AppId) -> Stored<BTreeMap<String, String>> {
        let (vault, project, app) = (self.inner.vault.clone(), app.project(), app.clone());
        let load = move |conn: &Connection| {
            let mut secrets = BTreeMap::new();
            for owner in [project.as_str(), app.as_str()] {
                load(conn, &vault, owner, &mut secrets)?;
            }
            Ok(secrets)
        };
        self.inner.memory.readers().read(load).await
    }
}

fn owner(project: &ProjectId, app: Option<&AppId>) -> String {
    app.map_or_else(|| project.as_str().to_owned(), |app| app.as_str().to_owned())
}

fn write(batch: &Batch<'_>, owner: &str, change: &SecretChange) -> Result<bool, Fault> {
    let names: Vec<String> = batch
        .sql("SELECT name FROM secrets WHERE owner = ?1")?
        .query_map([owner], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let stays = |name: &&String| !change.remove.contains(name) && !change.set.contains_key(*name);
    if names.iter().filter(stays).count() + change.set.len() > SECRETS_MAX {
        return Ok(false);
    }
    for name in &change.remove {
        batch.sql("DELETE FROM secrets WHERE owner = ?1 AND name = ?2")?.execute(params![owner, name])?;
    }
    for (name, value) in &change.set {
        let sealed = batch.setting.vault.seal(place(&row_of(owner, name)), value.as_bytes());
        batch
            .sql(
                "INSERT INTO secrets (owner, name, sealed, updated_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (owner, name) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at",
            )?
            .execute(params![owner, name, sealed, batch.now().as_millis()])?;
    }
    Ok(true)
}

/// Forgets those of an app that is deleted.
pub(crate) fn forget(batch: &Batch<'_>, app: &AppId) -> Result<(), Fault> {
    batch.sql("DELETE FROM secrets WHERE owner = ?1")?.execute([app.as_str()])?;
    Ok(())
}

fn load(
    conn: &Connection,
    vault: &Vault,
    owner: &str,
    secrets: &mut BTreeMap<String, String>,
) -> Result<(), Fault> {
    let mut statement = conn.prepare_cached("SELECT name, sealed FROM secrets WHERE owner = ?1")?;
    let mut rows = statement.query([owner])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let value = vault.open(place(&row_of(owner, &name)), row.get_ref(1)?.as_blob()?)?;
        let value = String::from_utf8(value)
            .map_err(|_| Fault::Corrupt(format!("the secret {name} of {owner} is no text")))?;
        secrets.insert(name, value);
    }
    Ok(())
}

fn row_of(owner: &str, name: &str) -> String {
    format!("{owner}/{name}")
}

fn place(row: &str) -> Place<'_> {
    Place::new("secrets", row.as_bytes(), "sealed")
}
