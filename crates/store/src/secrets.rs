//! Secrets as the database keeps them: what a project signs with, and what callers bring.

use std::time::Duration;

use queue::app::AppConfig;
use queue::limits::WEBHOOK_SECRETS_MAX;
use queue::registry::{FreshKeys, Rotated};
use queue::run::RunOptions;
use queue::signature::{CallerSecret, WebhookSecret};
use queue::webhook::WebhookHeaders;
use queue::{ProjectId, RunId, Timestamp};
use rusqlite::{Connection, Row, params};

use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;
use crate::vault::{Place, Vault};

/// What a secret of a project is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Signs deliveries (`v1`).
    Webhook,
    /// Signs deliveries (`v1a`).
    Ed25519,
    /// Signs service-account tokens.
    Token,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Ed25519 => "ed25519",
            Self::Token => "token",
        }
    }
}

/// Replaces keys and secrets of a project, all of them or none.
pub(crate) fn rotate(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    fresh: &FreshKeys,
) -> Result<Rotated, Fault> {
    let kinds = [(Kind::Webhook, &fresh.webhook_secret), (Kind::Ed25519, &fresh.webhook_key)];
    for (kind, secret) in kinds {
        if secret.is_some()
            && !fresh.overlap.is_zero()
            && let Some(until) = first_to_go(batch, project, kind)?
        {
            return Ok(Rotated::TooMany(until));
        }
    }
    let changed = batch
        .sql(
            "UPDATE projects SET public_key_hash = ifnull(?2, public_key_hash),
                                 private_key_hash = ifnull(?3, private_key_hash)
             WHERE id = ?1",
        )?
        .execute(params![project.as_str(), fresh.public_key_hash, fresh.private_key_hash])?;
    if changed == 0 {
        return Ok(Rotated::Unknown);
    }
    for (kind, secret) in kinds {
        if let Some(secret) = secret {
            put(batch, project, kind, secret.as_bytes(), fresh.overlap)?;
        }
    }
    if let Some(secret) = &fresh.token_secret {
        put(batch, project, Kind::Token, secret, Duration::ZERO)?;
    }
    batch.effects.registry = true;
    Ok(Rotated::Done)
}

/// When the next of the replaced secrets ends, if no more fit beside them.
fn first_to_go(batch: &Batch<'_>, project: &ProjectId, kind: Kind) -> Result<Option<Timestamp>, Fault> {
    let now = batch.now();
    let (signing, first): (usize, Option<i64>) = batch
        .sql(
            "SELECT count(*), min(expires_at) FROM project_secrets
             WHERE project = ?1 AND kind = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
        )?
        .query_row(params![project.as_str(), kind.as_str(), now.as_millis()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    Ok((signing >= WEBHOOK_SECRETS_MAX).then(|| first.map_or(now, Timestamp::from_millis)))
}

/// Puts a secret in force. The one before goes on until the overlap is over; with no overlap, all end.
pub(crate) fn put(
    batch: &Batch<'_>,
    project: &ProjectId,
    kind: Kind,
    secret: &[u8],
    overlap: Duration,
) -> Result<(), Fault> {
    let (project, kind, now) = (project.as_str(), kind.as_str(), batch.now());
    let last: Option<i64> = batch
        .sql("SELECT max(number) FROM project_secrets WHERE project = ?1 AND kind = ?2")?
        .query_row(params![project, kind], |row| row.get(0))?;
    if overlap.is_zero() {
        batch
            .sql("DELETE FROM project_secrets WHERE project = ?1 AND kind = ?2")?
            .execute(params![project, kind])?;
    } else {
        batch
            .sql(
                "UPDATE project_secrets SET expires_at = ?3
                 WHERE project = ?1 AND kind = ?2 AND expires_at IS NULL",
            )?
            .execute(params![project, kind, now.plus(overlap).as_millis()])?;
    }
    let number = last.unwrap_or(0) + 1;
    let sealed = batch.setting.vault.seal(place(&row_of(project, kind, number)), secret);
    batch
        .sql(
            "INSERT INTO project_secrets (project, kind, number, sealed, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![project, kind, number, sealed, now.as_millis()])?;
    Ok(())
}

/// Switches `v1a`. The key is put in force when there is none.
pub(crate) fn sign_v1a(
    batch: &mut Batch<'_>,
    project: &ProjectId,
    on: bool,
    key: &str,
) -> Result<bool, Fault> {
    let changed = batch
        .sql("UPDATE projects SET sign_v1a = ?2 WHERE id = ?1")?
        .execute(params![project.as_str(), on])?;
    if changed == 0 {
        return Ok(false);
    }
    let has_key = batch
        .sql("SELECT 1 FROM project_secrets WHERE project = ?1 AND kind = ?2 AND expires_at IS NULL")?
        .exists(params![project.as_str(), Kind::Ed25519.as_str()])?;
    if on && !has_key {
        put(batch, project, Kind::Ed25519, key.as_bytes(), Duration::ZERO)?;
    }
    batch.effects.registry = true;
    Ok(true)
}

/// Removes secrets that sign no more.
pub(crate) fn forget_expired(batch: &mut Batch<'_>, now: Timestamp) -> Result<(), Fault> {
    let gone = batch.sql("DELETE FROM project_secrets WHERE expires_at <= ?1")?.execute([now.as_millis()])?;
    batch.effects.registry |= gone > 0;
    Ok(())
}

/// What a project signs with, opened.
pub(crate) struct Secrets {
    pub(crate) webhook: Vec<WebhookSecret>,
    pub(crate) ed25519: Vec<WebhookSecret>,
    pub(crate) token: Vec<u8>,
}

impl Secrets {
    pub(crate) fn load(conn: &Connection, vault: &Vault, project: &ProjectId) -> Result<Self, Fault> {
        let token = load(conn, vault, project, Kind::Token, |bytes, _, _| Ok(bytes))?.into_iter().next();
        let signing = |kind| {
            load(conn, vault, project, kind, |bytes, created_at, expires_at| {
                let secret = String::from_utf8(bytes)
                    .map_err(|_| Fault::Corrupt(format!("a signing secret of {project} is no text")))?;
                Ok(WebhookSecret { secret, created_at, expires_at })
            })
        };
        let secrets = Self {
            webhook: signing(Kind::Webhook)?,
            ed25519: signing(Kind::Ed25519)?,
            token: token
                .ok_or_else(|| Fault::Corrupt(format!("project {project} has no secret for tokens")))?,
        };
        if secrets.webhook.is_empty() {
            return Err(Fault::Corrupt(format!("project {project} has no webhook secret")));
        }
        Ok(secrets)
    }
}

/// Newest first.
fn load<T>(
    conn: &Connection,
    vault: &Vault,
    project: &ProjectId,
    kind: Kind,
    make: impl Fn(Vec<u8>, Timestamp, Option<Timestamp>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let (project, kind) = (project.as_str(), kind.as_str());
    let mut statement = conn.prepare_cached(
        "SELECT number, sealed, created_at, expires_at FROM project_secrets
         WHERE project = ?1 AND kind = ?2 ORDER BY number DESC",
    )?;
    let mut rows = statement.query(params![project, kind])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name = row_of(project, kind, row.get(0)?);
        let opened = vault.open(place(&name), row.get_ref(1)?.as_blob()?)?;
        found.push(make(opened, row::time(row, 2)?, row::optional_time(row, 3)?)?);
    }
    Ok(found)
}

fn row_of(project: &str, kind: &str, number: i64) -> String {
    format!("{project}/{kind}/{number}")
}

fn place(row: &str) -> Place<'_> {
    Place::new("project_secrets", row.as_bytes(), "sealed")
}

/// What a caller brought in secret, as the row of its run has it.
#[derive(Clone)]
pub(crate) struct Sealed(Vec<u8>);

impl Sealed {
    pub(crate) fn read(row: &Row<'_>, column: usize) -> Result<Option<Self>, Fault> {
        Ok(row::optional_bytes(row, column)?.map(|bytes| Self(bytes.to_vec())))
    }

    pub(crate) fn open(&self, vault: &Vault, run: RunId) -> Result<Brought, Fault> {
        let plain = vault.open(callers_place(&run.into_bytes()), &self.0)?;
        let (secret, headers) = match plain.iter().position(|byte| *byte == 0) {
            None => (&plain[..], None),
            Some(end) => (&plain[..end], Some(&plain[end + 1..])),
        };
        let headers = headers.map(serde_json::from_slice).transpose();
        Ok(Brought {
            secret: (!secret.is_empty()).then(|| CallerSecret::new(secret)),
            headers: headers
                .map_err(|_| Fault::Corrupt(format!("the webhook headers of run {run} cannot be read")))?,
        })
    }
}

/// What the caller of a run brought for its deliveries, and what nobody else is to see.
#[derive(Clone, Default)]
pub(crate) struct Brought {
    pub(crate) secret: Option<CallerSecret>,
    pub(crate) headers: Option<WebhookHeaders>,
}

/// Seals what the caller of a run brought: the secret, which came in a header and so has no zero byte,
/// and after such a byte the headers.
pub(crate) fn seal_callers(vault: &Vault, run: RunId, options: &RunOptions) -> Option<Vec<u8>> {
    let (secret, headers) = (&options.caller_secret, &options.webhook_headers);
    if secret.is_none() && headers.is_none() {
        return None;
    }
    let mut plain = secret.as_ref().map(|secret| secret.as_bytes().to_vec()).unwrap_or_default();
    if let Some(headers) = headers {
        plain.push(0);
        plain.extend(row::to_json(headers).into_bytes());
    }
    Some(vault.seal(callers_place(&run.into_bytes()), &plain))
}

/// The configuration of a build as its row has it: the text that anybody may read, and the headers apart.
pub(crate) fn seal_config(vault: &Vault, build: &str, config: &AppConfig) -> (String, Option<Vec<u8>>) {
    let Some(headers) = &config.webhook_headers else { return (row::to_json(config), None) };
    let shown = AppConfig { webhook_headers: None, ..config.clone() };
    (row::to_json(&shown), Some(vault.seal(headers_place(build), row::to_json(headers).as_bytes())))
}

/// The headers of a build's configuration.
pub(crate) fn open_headers(
    vault: &Vault,
    build: &str,
    row: &Row<'_>,
    column: usize,
) -> Result<Option<WebhookHeaders>, Fault> {
    let Some(sealed) = row.get_ref(column)?.as_blob_or_null()? else { return Ok(None) };
    serde_json::from_slice(&vault.open(headers_place(build), sealed)?)
        .map(Some)
        .map_err(|_| Fault::Corrupt(format!("the webhook headers of build {build} cannot be read")))
}

fn headers_place(build: &str) -> Place<'_> {
    Place::new("builds", build.as_bytes(), "sealed_headers")
}

fn callers_place(run: &[u8; 16]) -> Place<'_> {
    Place::new("runs", run, "caller_secret")
}
