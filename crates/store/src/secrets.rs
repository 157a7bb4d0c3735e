//! Secrets as the database keeps them: what a project signs with, and what callers bring.

use queue::app::AppConfig;
use queue::run::RunOptions;
use queue::signature::CallerSecret;
use queue::webhook::WebhookHeaders;
use queue::{ProjectId, RunId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::batch::Batch;
use crate::fault::Fault;
use crate::row;
use crate::vault::{Place, Vault};

/// What a secret of a project is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Signs deliveries (`v1`).
    Webhook,
    /// Signs service-account tokens.
    Token,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Token => "token",
        }
    }
}

/// Puts a secret in force.
pub(crate) fn put(batch: &Batch<'_>, project: &ProjectId, kind: Kind, secret: &[u8]) -> Result<(), Fault> {
    let (project, kind) = (project.as_str(), kind.as_str());
    let last: Option<i64> = batch
        .sql("SELECT max(number) FROM project_secrets WHERE project = ?1 AND kind = ?2")?
        .query_row(params![project, kind], |row| row.get(0))?;
    let number = last.unwrap_or(0) + 1;
    let sealed = batch.setting.vault.seal(place(&row_of(project, kind, number)), secret);
    batch
        .sql("DELETE FROM project_secrets WHERE project = ?1 AND kind = ?2")?
        .execute(params![project, kind])?;
    batch
        .sql("INSERT INTO project_secrets (project, kind, number, sealed, created_at) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![project, kind, number, sealed, batch.now().as_millis()])?;
    Ok(())
}

/// What a project signs with, opened.
pub(crate) struct Secrets {
    pub(crate) webhook: String,
    pub(crate) token: Vec<u8>,
}

impl Secrets {
    pub(crate) fn load(conn: &Connection, vault: &Vault, project: &ProjectId) -> Result<Self, Fault> {
        let webhook = in_force(conn, vault, project, Kind::Webhook)?;
        Ok(Self {
            webhook: String::from_utf8(webhook)
                .map_err(|_| Fault::Corrupt(format!("the webhook secret of {project} is no text")))?,
            token: in_force(conn, vault, project, Kind::Token)?,
        })
    }
}

fn in_force(conn: &Connection, vault: &Vault, project: &ProjectId, kind: Kind) -> Result<Vec<u8>, Fault> {
    let (project, kind) = (project.as_str(), kind.as_str());
    let mut statement = conn.prepare_cached(
        "SELECT number, sealed FROM project_secrets WHERE project = ?1 AND kind = ?2 ORDER BY number DESC LIMIT 1",
    )?;
    let found = statement
        .query_row(params![project, kind], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let (number, sealed) = found
        .ok_or_else(|| Fault::Corrupt(format!("project {project} has no secret of the kind `{kind}`")))?;
    vault.open(place(&row_of(project, kind, number)), &sealed)
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
