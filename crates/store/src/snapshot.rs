//! The registry as one unchanging picture. It is small and changes when people do something, so each
//! change makes a new one; readers hold the one they took.

use std::collections::BTreeMap;
use std::sync::Arc;

use queue::app::{AppConfig, Function};
use queue::registry::{App, Build, Identity, Project, Scope};
use queue::{AppId, BuildId, ProjectId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::fault::Fault;
use crate::keys::Keys;
use crate::row;
use crate::secrets::{self, Secrets};
use crate::vault::Vault;

#[derive(Default)]
pub(crate) struct Snapshot {
    /// Oldest first.
    pub(crate) projects: Vec<Project>,
    pub(crate) keys: Keys,
    /// In the order of ids, so a project's apps are in the order of names.
    pub(crate) apps: BTreeMap<AppId, Arc<App>>,
}

impl Snapshot {
    pub(crate) fn load(conn: &Connection, vault: &Vault) -> Result<Self, Fault> {
        let mut snapshot = Self::default();
        let mut statement = conn.prepare_cached(
            "SELECT id, public_key_hash, private_key_hash, created_at, sign_v1a FROM projects ORDER BY created_at, rowid",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: ProjectId = row::parsed(row, 0)?;
            for (column, scope) in [(1, Scope::Inference), (2, Scope::Everything)] {
                snapshot.keys.insert(row::key_hash(row, column)?, Identity { project: id.clone(), scope });
            }
            let secrets = Secrets::load(conn, vault, &id)?;
            snapshot.projects.push(Project {
                webhook_secrets: secrets.webhook,
                webhook_keys: secrets.ed25519,
                sign_v1a: row.get(4)?,
                token_secret: secrets.token,
                created_at: row::time(row, 3)?,
                id,
            });
        }
        snapshot.keys.load(conn)?;
        let mut statement = conn.prepare_cached(
            "SELECT a.id, a.live_build, a.latest_build, b.status, a.created_at, a.updated_at
             FROM apps a JOIN builds b ON b.id = a.latest_build",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let live = match row.get_ref(1)?.as_str_or_null()? {
                None => None,
                Some(id) => build(conn, vault, id)?,
            };
            let app = App {
                id: row::parsed(row, 0)?,
                live,
                latest_build: row::parsed(row, 2)?,
                latest_status: row::build_status(row, 3)?,
                created_at: row::time(row, 4)?,
                updated_at: row::time(row, 5)?,
            };
            snapshot.apps.insert(app.id.clone(), Arc::new(app));
        }
        Ok(snapshot)
    }
}

const BUILD: &str =
    "SELECT id, app, status, config, prepared, functions, upload_token_hash, created_at, updated_at,
    sealed_headers FROM builds";

/// One build.
pub(crate) fn build(conn: &Connection, vault: &Vault, id: &str) -> Result<Option<Build>, Fault> {
    let mut statement = conn.prepare_cached(&format!("{BUILD} WHERE id = ?1"))?;
    statement.query_row(params![id], |row| Ok(read_build(row, vault))).optional()?.transpose()
}

/// Builds of an app, newest first.
pub(crate) fn builds(
    conn: &Connection,
    vault: &Vault,
    app: &AppId,
    limit: usize,
) -> Result<Vec<Build>, Fault> {
    let mut statement =
        conn.prepare_cached(&format!("{BUILD} WHERE app = ?1 ORDER BY created_at DESC, id DESC LIMIT ?2"))?;
    let mut rows = statement.query(params![app.as_str(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut builds = Vec::new();
    while let Some(row) = rows.next()? {
        builds.push(read_build(row, vault)?);
    }
    Ok(builds)
}

/// Builds that are not final, oldest first.
pub(crate) fn unfinished_builds(conn: &Connection, vault: &Vault) -> Result<Vec<Build>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "{BUILD} WHERE status IN ('pending', 'building', 'initializing') ORDER BY created_at"
    ))?;
    let mut rows = statement.query([])?;
    let mut builds = Vec::new();
    while let Some(row) = rows.next()? {
        builds.push(read_build(row, vault)?);
    }
    Ok(builds)
}

fn read_build(row: &Row<'_>, vault: &Vault) -> Result<Build, Fault> {
    let id: BuildId = row::parsed(row, 0)?;
    let mut config = row::json::<AppConfig>(row, 3)?;
    config.webhook_headers = secrets::open_headers(vault, id.as_str(), row, 9)?;
    Ok(Build {
        id,
        app: row::parsed(row, 1)?,
        status: row::build_status(row, 2)?,
        config,
        prepared: row::optional_json(row, 4)?,
        functions: row::json::<Vec<Function>>(row, 5)?,
        upload_token_hash: row::key_hash(row, 6)?,
        created_at: row::time(row, 7)?,
        updated_at: row::time(row, 8)?,
    })
}
