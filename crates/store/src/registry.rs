//! The port `Registry`: projects, keys, apps and builds. Read from memory, changed by the writer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue::app::{AppConfig, Function};
use queue::limits::BUILDS_PER_APP_MAX;
use queue::outcome::{Code, RunError};
use queue::port::{Registry, Stored};
use queue::registry::{
    App, Build, BuildStatus, FreshKeys, Identity, KeyHash, KeyMade, KeyView, NewBuild, NewProject, Prepared,
    Project, Rotated,
};
use queue::{AppId, BuildId, ProjectId, Timestamp};
use rusqlite::{OptionalExtension as _, params};

use crate::Store;
use crate::batch::{AppNumber, Batch};
use crate::chores::{self, CHANGED_PER_STEP, Position, Step, Work};
use crate::fault::Fault;
use crate::keys::{self, Found};
use crate::row;
use crate::runs::{Cause, end_without_lease};
use crate::secrets::{self, Kind};
use crate::snapshot;
use crate::{app_events, app_secrets};

/// Why a queued run of a deleted app ends.
const APP_DELETED: &str = "the app was deleted before the run could start";

/// Builds younger than this are remembered, however many there are: replicas of them may still be at work.
const BUILDS_REMEMBERED_MS: i64 = 86_400_000;

const UNFINISHED: &str = "status IN ('pending', 'building', 'initializing')";

#[async_trait]
impl Registry for Store {
    async fn create_project(&self, project: NewProject) -> Stored<()> {
        self.inner.committer.write(0, move |batch| create_project(batch, &project)).await
    }

    async fn projects(&self) -> Stored<Vec<Project>> {
        Ok(self.inner.memory.registry().projects.clone())
    }

    async fn project(&self, id: &ProjectId) -> Stored<Option<Project>> {
        Ok(self.inner.memory.registry().projects.iter().find(|project| project.id == *id).cloned())
    }

    async fn identify(&self, key: &KeyHash) -> Stored<Option<Identity>> {
        let found = self.inner.memory.registry().keys.find(key, || self.inner.clock.now());
        let Some(Found { identity, note }) = found else { return Ok(None) };
        if let Some(at) = note {
            let hash = *key;
            self.inner.committer.note(move |batch| keys::used(batch, &hash, at));
        }
        Ok(Some(identity))
    }

    async fn keys(&self, project: &ProjectId) -> Stored<Vec<KeyView>> {
        let project = project.clone();
        self.inner.memory.readers().read(move |conn| keys::list(conn, &project)).await
    }

    async fn create_key(&self, project: &ProjectId, key: KeyView, hash: KeyHash) -> Stored<KeyMade> {
        let project = project.clone();
        self.inner.committer.write(0, move |batch| keys::create(batch, &project, &key, &hash)).await
    }

    async fn revoke_key(&self, project: &ProjectId, id: &str) -> Stored<bool> {
        let (project, id) = (project.clone(), id.to_owned());
        self.inner.committer.write(0, move |batch| keys::revoke(batch, &project, &id)).await
    }

    async fn rotate_keys(&self, project: &ProjectId, fresh: FreshKeys) -> Stored<Rotated> {
        let project = project.clone();
        self.inner.committer.write(0, move |batch| secrets::rotate(batch, &project, &fresh)).await
    }

    async fn sign_v1a(&self, project: &ProjectId, on: bool, key: String) -> Stored<bool> {
        let project = project.clone();
        self.inner.committer.write(0, move |batch| secrets::sign_v1a(batch, &project, on, &key)).await
    }

    async fn app(&self, id: &AppId) -> Stored<Option<Arc<App>>> {
        Ok(self.inner.memory.registry().apps.get(id).cloned())
    }

    async fn apps(&self, project: Option<&ProjectId>) -> Stored<Vec<Arc<App>>> {
        let registry = self.inner.memory.registry();
        let wanted = |app: &&Arc<App>| project.is_none_or(|project| app.id.project() == *project);
        Ok(registry.apps.values().filter(wanted).cloned().collect())
    }

    async fn register_build(&self, build: NewBuild) -> Stored<Build> {
        let registered = Build {
            id: build.id.clone(),
            app: build.app.clone(),
            status: BuildStatus::Pending,
            config: build.config.clone(),
            prepared: None,
            functions: Vec::new(),
            upload_token_hash: build.upload_token_hash,
            created_at: build.created_at,
            updated_at: build.created_at,
        };
        self.inner.committer.write(0, move |batch| register_build(batch, &build)).await?;
        Ok(registered)
    }

    async fn build(&self, id: &BuildId) -> Stored<Option<Build>> {
        let id = id.clone();
        let vault = self.inner.vault.clone();
        self.inner.memory.readers().read(move |conn| snapshot::build(conn, &vault, id.as_str())).await
    }

    async fn set_build_status(
        &self,
        id: &BuildId,
        status: BuildStatus,
        prepared: Option<Prepared>,
    ) -> Stored<bool> {
        let id = id.clone();
        self.inner
            .committer
            .write(0, move |batch| set_build_status(batch, &id, status, prepared.as_ref()))
            .await
    }

    async fn activate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>> {
        let id = id.clone();
        let app =
            self.inner.committer.write(0, move |batch| make_live(batch, &id, &functions, UNFINISHED)).await?;
        Ok(app.and_then(|app| self.inner.memory.registry().apps.get(&app).cloned()))
    }

    async fn reconfigure(&self, app: &AppId, config: AppConfig) -> Stored<Option<Arc<App>>> {
        let id = app.clone();
        let changed = self.inner.committer.write(0, move |batch| reconfigure(batch, &id, &config)).await?;
        Ok(if changed { self.inner.memory.registry().apps.get(app).cloned() } else { None })
    }

    async fn delete_app(&self, id: &AppId) -> Stored<bool> {
        let app = id.clone();
        let Some(cancelling) = self.inner.committer.end(move |batch| delete_app(batch, &app)).await? else {
            return Ok(false);
        };
        // The app is gone, whatever comes next.
        if let Err(error) = self.done(vec![cancelling]).await {
            tracing::warn!(app.id = %id, %error, "some queued runs of a deleted app are not cancelled yet");
        }
        Ok(true)
    }

    async fn reactivate(&self, id: &BuildId, functions: Vec<Function>) -> Stored<Option<Arc<App>>> {
        let id = id.clone();
        let app = self
            .inner
            .committer
            .write(0, move |batch| make_live(batch, &id, &functions, "status = 'success'"))
            .await?;
        Ok(app.and_then(|app| self.inner.memory.registry().apps.get(&app).cloned()))
    }

    async fn builds(&self, app: &AppId, limit: usize) -> Stored<Vec<Build>> {
        let (vault, app) = (self.inner.vault.clone(), app.clone());
        self.inner.memory.readers().read(move |conn| snapshot::builds(conn, &vault, &app, limit)).await
    }

    async fn unfinished_builds(&self) -> Stored<Vec<Build>> {
        let vault = self.inner.vault.clone();
        self.inner.memory.readers().read(move |conn| snapshot::unfinished_builds(conn, &vault)).await
    }
}

fn create_project(batch: &mut Batch<'_>, project: &NewProject) -> Result<(), Fault> {
    let made = batch
        .sql(
            "INSERT INTO projects (id, public_key_hash, private_key_hash, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            project.id.as_str(),
            project.public_key_hash,
            project.private_key_hash,
            project.created_at.as_millis(),
        ])?;
    if made > 0 {
        secrets::put(batch, &project.id, Kind::Webhook, project.webhook_secret.as_bytes(), Duration::ZERO)?;
        secrets::put(batch, &project.id, Kind::Token, &project.token_secret, Duration::ZERO)?;
    }
    batch.effects.registry = true;
    Ok(())
}

fn register_build(batch: &mut Batch<'_>, build: &NewBuild) -> Result<(), Fault> {
    let project = build.app.project();
    let known = batch.sql("SELECT 1 FROM projects WHERE id = ?1")?.exists([project.as_str()])?;
    if !known {
        return Err(Fault::Refused(format!("there is no project {project}")));
    }
    let at = build.created_at.as_millis();
    batch
        .sql(&format!(
            "UPDATE builds SET status = 'cancelled', updated_at = ?2 WHERE app = ?1 AND {UNFINISHED}"
        ))?
        .execute(params![build.app.as_str(), at])?;
    batch
        .sql(
            "INSERT INTO apps (id, project, latest_build, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT (id) DO UPDATE SET latest_build = excluded.latest_build",
        )?
        .execute(params![build.app.as_str(), project.as_str(), build.id.as_str(), at])?;
    let (config, headers) = secrets::seal_config(&batch.setting.vault, build.id.as_str(), &build.config);
    batch
        .sql(
            "INSERT INTO builds (id, app, status, config, sealed_headers, upload_token_hash, created_at, updated_at)
             VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6, ?6)",
        )?
        .execute(params![
            build.id.as_str(),
            build.app.as_str(),
            config,
            headers,
            build.upload_token_hash,
            at
        ])?;
    forget_builds(batch, &build.app, build.created_at)?;
    let number = batch.app(&build.app)?;
    if number.deleted {
        // From here on its queued runs could not be told from those of the app that was deleted.
        chores::finish_cancelling(batch, number.number)?;
        batch
            .sql("UPDATE app_numbers SET deleted_at = NULL WHERE number = ?1")?
            .execute(params![number.number])?;
        batch.books.deleted.remove(&number.number);
        batch.books.apps.insert(build.app.clone(), AppNumber { deleted: false, ..number });
    }
    batch.effects.registry = true;
    Ok(())
}

fn set_build_status(
    batch: &mut Batch<'_>,
    id: &BuildId,
    status: BuildStatus,
    prepared: Option<&Prepared>,
) -> Result<bool, Fault> {
    let changed = batch
        .sql(&format!(
            "UPDATE builds SET status = ?2, prepared = coalesce(?3, prepared), updated_at = ?4
             WHERE id = ?1 AND {UNFINISHED}"
        ))?
        .execute(params![
            id.as_str(),
            status.as_str(),
            prepared.map(row::to_json),
            batch.now().as_millis()
        ])?;
    batch.effects.registry |= changed > 0;
    Ok(changed > 0)
}

/// Makes a build live of which `holds` is true. Returns its app.
fn make_live(
    batch: &mut Batch<'_>,
    id: &BuildId,
    functions: &[Function],
    holds: &str,
) -> Result<Option<AppId>, Fault> {
    let now = batch.now().as_millis();
    let app = batch
        .sql(&format!(
            "UPDATE builds SET status = 'success', functions = ?2, updated_at = ?3
             WHERE id = ?1 AND {holds} RETURNING app"
        ))?
        .query_row(params![id.as_str(), row::to_json(&functions), now], |row| {
            Ok(row::parsed::<AppId>(row, 0))
        })
        .optional()?
        .transpose()?;
    let Some(app) = app else { return Ok(None) };
    batch.sql("UPDATE apps SET live_build = ?2, updated_at = ?3 WHERE id = ?1")?.execute(params![
        app.as_str(),
        id.as_str(),
        now
    ])?;
    batch.effects.registry = true;
    Ok(Some(app))
}

/// Forgets the oldest builds of an app that has very many.
fn forget_builds(batch: &Batch<'_>, app: &AppId, now: Timestamp) -> Result<(), Fault> {
    batch
        .sql(&format!(
            "DELETE FROM builds WHERE app = ?1 AND updated_at < ?2 AND NOT {UNFINISHED}
                 AND id NOT IN (SELECT id FROM builds WHERE app = ?1 ORDER BY created_at DESC LIMIT ?3)
                 AND id NOT IN (SELECT live_build FROM apps WHERE id = ?1 AND live_build IS NOT NULL)"
        ))?
        .execute(params![
            app.as_str(),
            now.as_millis().saturating_sub(BUILDS_REMEMBERED_MS),
            BUILDS_PER_APP_MAX as i64
        ])?;
    Ok(())
}

fn reconfigure(batch: &mut Batch<'_>, app: &AppId, config: &AppConfig) -> Result<bool, Fault> {
    let now = batch.now().as_millis();
    let live: Option<String> = batch
        .sql("SELECT live_build FROM apps WHERE id = ?1 AND live_build IS NOT NULL")?
        .query_row([app.as_str()], |row| row.get(0))
        .optional()?;
    let Some(live) = live else { return Ok(false) };
    let (config, headers) = secrets::seal_config(&batch.setting.vault, &live, config);
    let changed = batch
        .sql("UPDATE builds SET config = ?2, sealed_headers = ?3, updated_at = ?4 WHERE id = ?1")?
        .execute(params![live, config, headers, now])?;
    if changed > 0 {
        batch.sql("UPDATE apps SET updated_at = ?2 WHERE id = ?1")?.execute(params![app.as_str(), now])?;
        batch.effects.registry = true;
    }
    Ok(changed > 0)
}

/// Takes the app out of the registry. When it was there, returns the chore that cancels its queued runs.
fn delete_app(batch: &mut Batch<'_>, app: &AppId) -> Result<Option<i64>, Fault> {
    let builds = batch.sql("UPDATE apps SET live_build = NULL WHERE id = ?1")?.execute([app.as_str()])?;
    if builds == 0 {
        return Ok(None);
    }
    batch.sql("DELETE FROM builds WHERE app = ?1")?.execute([app.as_str()])?;
    batch.sql("DELETE FROM apps WHERE id = ?1")?.execute([app.as_str()])?;
    app_secrets::forget(batch, app)?;
    app_events::forget(batch, app)?;
    let number = batch.app(app)?.number;
    batch
        .sql("UPDATE app_numbers SET deleted_at = ?2 WHERE number = ?1")?
        .execute(params![number, batch.now().as_millis()])?;
    batch.books.deleted.insert(number);
    batch.books.apps.insert(app.clone(), AppNumber { number, deleted: true });
    batch.effects.registry = true;
    chores::add(batch, Work::Cancel(number)).map(Some)
}

/// Those that may start and those whose time has not come stand in an index each.
const QUEUED_OF_APP: &str = "SELECT id FROM runs WHERE app = ?1 AND state = 'queued' AND delayed = 0
     UNION ALL
     SELECT id FROM runs WHERE app = ?1 AND state = 'queued' AND delayed = 1";

/// Cancels some queued runs of a deleted app.
pub(crate) fn cancel_queued(batch: &mut Batch<'_>, number: i64, position: Position) -> Result<Step, Fault> {
    let mut runs = Vec::new();
    if batch.is_deleted(number) {
        let mut statement = batch.sql(&format!("{QUEUED_OF_APP} LIMIT ?2"))?;
        let mut rows = statement.query(params![number, CHANGED_PER_STEP as i64])?;
        while let Some(row) = rows.next()? {
            runs.push(row::run_id(row, 0)?);
        }
    }
    for run in &runs {
        end_without_lease(batch, *run, Cause::Queued, RunError::new(Code::Cancelled, APP_DELETED))?;
    }
    // What is cancelled is not found again.
    Ok(Step { changed: runs.len(), next: (runs.len() == CHANGED_PER_STEP).then_some(position) })
}
