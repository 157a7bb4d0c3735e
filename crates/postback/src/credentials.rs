//! `credentials.json`: what the first start makes, and the only place where keys stand in clear.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use queue::port::{Registry, Stored};
use queue::registry::{KeyHash, NewProject, Project, Scope};
use queue::signature::SigningKey;
use queue::{Clock, Entropy, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::print::WithHint;

/// As long as those of the hosted platform live.
const TOKEN_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A project's keys in clear. Kept at mode 0600 in the data directory, never logged.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) project_id: ProjectId,
    pub(crate) public_key: String,
    pub(crate) private_key: String,
    pub(crate) service_account_token: String,
    pub(crate) webhook_secret: String,
}

/// Where the file lies in a data directory.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("credentials.json")
}

/// Reads the file; `None` when there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Option<Credentials>> {
    let path = path(data_dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    };
    let credentials =
        serde_json::from_str(&text).with_context(|| format!("`{}` is damaged", path.display()))?;
    Ok(Some(credentials))
}

impl Credentials {
    /// Fresh keys for a project, and the secret with which its tokens are signed.
    pub(crate) fn generate(
        project_id: ProjectId,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> (Self, NewProject) {
        let token_secret = entropy.bytes::<32>().to_vec();
        let now = clock.now();
        let credentials = Self {
            public_key: public_key(entropy),
            private_key: private_key(entropy),
            service_account_token: issue_token(&project_id, &token_secret, now),
            webhook_secret: SigningKey::generate(entropy),
            project_id,
        };
        let project = NewProject {
            id: credentials.project_id.clone(),
            public_key_hash: hash(&credentials.public_key),
            private_key_hash: hash(&credentials.private_key),
            webhook_secret: credentials.webhook_secret.clone(),
            token_secret,
            created_at: now,
        };
        (credentials, project)
    }

    /// Writes the file in one step, durably and readable by its owner only.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        self.stage(data_dir)?;
        adopt(data_dir)
    }

    /// Writes the file beside the one that counts. It takes its place by [`adopt`].
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn stage(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = staged(data_dir);
        let temporary = unfinished(data_dir);
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(data_dir)?.sync_all()
        };
        write().with_context(|| format!("failed to write `{}`", path.display()))
    }
}

/// Where a file is written before it is whole.
fn unfinished(data_dir: &Path) -> PathBuf {
    data_dir.join("credentials.json.new")
}

/// Where a file waits that may take the place of the one that counts.
fn staged(data_dir: &Path) -> PathBuf {
    data_dir.join("credentials.json.next")
}

/// The staged file takes the place of the one that counts.
///
/// # Errors
/// When the directory cannot be written.
pub(crate) fn adopt(data_dir: &Path) -> anyhow::Result<()> {
    let path = path(data_dir);
    let adopt = || -> std::io::Result<()> {
        fs::rename(staged(data_dir), &path)?;
        File::open(data_dir)?.sync_all()
    };
    adopt().with_context(|| format!("failed to write `{}`", path.display()))
}

/// Removes the staged file, if there is one.
///
/// # Errors
/// When the directory cannot be written.
pub(crate) fn unstage(data_dir: &Path) -> anyhow::Result<()> {
    remove(&staged(data_dir))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Ends a rotation that a crash cut short: the staged file counts if its keys are those of the store.
async fn settle(data_dir: &Path, registry: &dyn Registry) -> anyhow::Result<()> {
    remove(&unfinished(data_dir))?;
    let Ok(text) = fs::read_to_string(staged(data_dir)) else { return Ok(()) };
    let Ok(next) = serde_json::from_str::<Credentials>(&text) else { return unstage(data_dir) };
    let Some(project) = registry.project(&next.project_id).await? else { return unstage(data_dir) };
    let same = next.webhook_secret == project.webhook_secret()
        && foreign(&next, &project, registry).await?.is_empty();
    if same { adopt(data_dir) } else { unstage(data_dir) }
}

/// The keys that do not open the project as they should, by the words for them that `keys rotate --only` takes.
async fn foreign(
    credentials: &Credentials,
    project: &Project,
    registry: &dyn Registry,
) -> Stored<Vec<&'static str>> {
    let mut foreign = Vec::new();
    for (word, key, scope) in [
        ("public-key", &credentials.public_key, Scope::Inference),
        ("private-key", &credentials.private_key, Scope::Everything),
    ] {
        let opens = registry.identify(&hash(key)).await?;
        if !opens.is_some_and(|found| found.project == project.id && found.scope == scope) {
            foreign.push(word);
        }
    }
    if !speaks_for(&credentials.service_account_token, project) {
        foreign.push("service-account-token");
    }
    Ok(foreign)
}

fn speaks_for(token: &str, project: &Project) -> bool {
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = jsonwebtoken::DecodingKey::from_secret(&project.token_secret);
    jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation)
        .is_ok_and(|token| token.claims["project_id"] == project.id.as_str())
}

/// A fresh public key.
pub(crate) fn public_key(entropy: &dyn Entropy) -> String {
    format!("public-{}", entropy.hex(20))
}

/// A fresh private key.
pub(crate) fn private_key(entropy: &dyn Entropy) -> String {
    format!("private-{}", entropy.hex(20))
}

/// A token as Cerebrium's clients want it: they read the project from its claims and never check its
/// signature; we do.
pub(crate) fn issue_token(project: &ProjectId, secret: &[u8], now: Timestamp) -> String {
    let claims = serde_json::json!({
        "project_id": project,
        "projectId": project,
        "sub": project,
        "iat": now.as_secs(),
        "exp": now.plus(TOKEN_LIFE).as_secs(),
    });
    let key = jsonwebtoken::EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("HS256 signs any JSON")
}

pub(crate) fn hash(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

/// Makes the first project when the store has none. One idempotent step: whatever of it a crash
/// leaves out, the next start does again, and no key is ever told that does not work.
///
/// # Errors
/// When file or store refuse, or the file belongs to another data directory's store.
pub(crate) async fn ensure(
    data_dir: &Path,
    registry: &dyn Registry,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> anyhow::Result<Option<Credentials>> {
    settle(data_dir, registry).await?;
    let known = registry.projects().await?;
    if known.is_empty() {
        let (credentials, project) = Credentials::generate(ProjectId::generate(entropy), clock, entropy);
        credentials.stage(data_dir)?;
        registry.create_project(project).await?;
        adopt(data_dir)?;
        return Ok(Some(credentials));
    }
    let Some(mut credentials) = read(data_dir)? else {
        tracing::warn!(
            "`{}` is missing: the project's keys go on working, but commands on this machine cannot find them; \
             make new ones with `postback keys rotate`",
            path(data_dir).display()
        );
        return Ok(None);
    };
    let Some(project) = known.iter().find(|project| project.id == credentials.project_id) else {
        bail!(
            "`{}` names project {}, which is not in this data directory; move the file away and make new keys with \
             `postback keys rotate --data-dir {}`",
            path(data_dir).display(),
            credentials.project_id,
            data_dir.display()
        );
    };
    let foreign = foreign(&credentials, project, registry).await?;
    if !foreign.is_empty() {
        return Err(not_whole(data_dir, &foreign, project).into());
    }
    let secret = project.webhook_secret();
    if credentials.webhook_secret != secret {
        tracing::warn!(
            "`{}` had a former webhook secret; it has the one in force now",
            path(data_dir).display()
        );
        secret.clone_into(&mut credentials.webhook_secret);
        credentials.write(data_dir)?;
    }
    Ok(Some(credentials))
}

/// Callers may have other keys than the file, which go on working: what to do is for its owner to choose.
fn not_whole(data_dir: &Path, foreign: &[&str], project: &Project) -> WithHint {
    let are = if foreign.len() == 1 { "is" } else { "are" };
    WithHint::new(
        format!(
            "{} in `{}` {are} not of project {}; nothing was changed",
            foreign.join(", "),
            path(data_dir).display(),
            project.id
        ),
        format!(
            "put the file back as the server wrote it; or move it away, and the server starts without it; or make new keys \
             with `postback keys rotate --only {} --data-dir {}`, which end those in use",
            foreign.join(","),
            data_dir.display()
        ),
    )
}
