//! `postback keys`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use queue::Clock as _;
use queue::limits::ROTATION_OVERLAP;
use queue::port::{Keyring as _, Registry as _, TooManySecrets};
use queue::registry::KeyKind;
use queue::since::Since;
use reqwest::Method;
use serde_json::{Value, json};

use super::serve::KeyFile;
use super::{Context, ExitStatus};
use crate::credentials::{self, Credentials};
use crate::keyring::Keyring;
use crate::print::WithHint;
use crate::profile;
use crate::system::{OsEntropy, SystemClock};

/// Arguments of `postback keys`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print the project and its keys, from the data directory on this machine
    Show,
    /// Replace keys; a replaced webhook secret signs for a while beside the new one
    Rotate(Rotate),
    /// List the named keys, which stand beside the two that every project has
    List,
    /// Make a named key, and print it this once
    Create(Create),
    /// Revoke a named key: whoever holds it is refused at once
    Revoke {
        /// Its id, as `postback keys list` shows it
        key: String,
    },
    /// Sign deliveries with Ed25519 (`v1a`) as well, so that receivers need no secret
    V1a {
        /// Whether to
        switch: Switch,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// What it is for
    name: String,
    /// What it opens: calls of apps, or everything in the project
    #[arg(long, default_value = "inference", value_parser = ["inference", "everything"])]
    scope: String,
    /// When it ends: after `12h`, `30d`, or at a time such as 2027-01-31T12:00:00Z; never, when not given
    #[arg(long, value_name = "WHEN", value_parser = Since::parse)]
    expires: Option<Since>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// Which keys; all, when not given
    #[arg(long, value_delimiter = ',', value_name = "KEY,…")]
    only: Vec<Which>,
    /// Seconds that a replaced webhook secret or key goes on signing; 0 ends all former ones now
    #[arg(long, value_name = "SECONDS", default_value_t = ROTATION_OVERLAP.as_secs())]
    overlap: u64,
    /// Change the key that secrets in the database are encrypted with, and nothing else; the server must not
    /// be running
    #[arg(long, conflicts_with_all = ["only", "overlap"])]
    encryption: bool,
    #[command(flatten)]
    key_file: KeyFile,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Which {
    PublicKey,
    PrivateKey,
    ServiceAccountToken,
    WebhookSecret,
    WebhookKey,
}

impl Which {
    const fn kind(self) -> KeyKind {
        match self {
            Self::PublicKey => KeyKind::PublicKey,
            Self::PrivateKey => KeyKind::PrivateKey,
            Self::ServiceAccountToken => KeyKind::ServiceAccountToken,
            Self::WebhookSecret => KeyKind::WebhookSecret,
            Self::WebhookKey => KeyKind::WebhookKey,
        }
    }
}

/// Shows or replaces the keys.
///
/// # Errors
/// When the data directory has none, or neither a server nor the store can be reached.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let data_dir = context.data_dir()?;
    match args.action.unwrap_or(Action::Show) {
        Action::Show => {
            let credentials = credentials::read(&data_dir)?.ok_or_else(|| {
                WithHint::new(
                    format!("there is no `{}`", credentials::path(&data_dir).display()),
                    "the first `postback serve` makes it; name its directory with `--data-dir`",
                )
            })?;
            show(&credentials, context)
        }
        Action::Rotate(rotate) if rotate.encryption => encryption(&rotate.key_file, data_dir, context).await,
        Action::Rotate(rotate) => {
            let fresh = if means_a_server(context)? {
                by_server(&rotate, context).await?
            } else {
                match open(&rotate.key_file, data_dir.clone()).await? {
                    Some(store) => {
                        let fresh = by_store(&rotate, data_dir, &store).await;
                        store.close().await;
                        fresh?
                    }
                    None => by_server(&rotate, context).await?,
                }
            };
            told(&fresh, rotate.overlap, context)
        }
        Action::List => list(context).await,
        Action::Create(wish) => create(&wish, context).await,
        Action::Revoke { key } => {
            let client = context.client().await?;
            let answer = client.control(Method::DELETE, &format!("keys/{key}")).json().await?;
            if context.printer.wants_json() {
                context.printer.json(&answer);
            } else {
                context.printer.done(answer["message"].as_str().unwrap_or("it opens nothing any more"));
            }
            Ok(ExitStatus::Success)
        }
        Action::V1a { switch } => {
            let on = matches!(switch, Switch::On);
            let client = context.client().await?;
            let keys = client.control(Method::PUT, "keys/signing").body(&json!({"v1a": on})).json().await?;
            if context.printer.wants_json() {
                context.printer.json(&keys);
            } else if on {
                context.printer.done("deliveries carry a v1a signature beside v1; receivers check it with");
                for key in keys["webhookPublicKeys"].as_array().into_iter().flatten() {
                    context.printer.data(key["publicKey"].as_str().unwrap_or_default());
                }
                let (url, project) = (client.url(), client.project());
                context.printer.note(&format!("  published at {url}/v2/projects/{project}/webhook-keys"));
            } else {
                context.printer.done("deliveries carry v1 signatures only");
            }
            Ok(ExitStatus::Success)
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<ExitStatus> {
    let keys = context.client().await?.control(Method::GET, "keys").json().await?;
    let keys = &keys["keys"];
    if context.printer.wants_json() {
        context.printer.json(keys);
        return Ok(ExitStatus::Success);
    }
    let columns = ["id", "name", "scope", "createdAt", "expiresAt", "lastUsedAt"];
    let cell = |key: &Value, column: &str| key[column].as_str().unwrap_or("never").to_owned();
    let row = |key: &Value| columns.map(|column| cell(key, column)).into();
    let rows: Vec<Vec<String>> = keys.as_array().into_iter().flatten().map(row).collect();
    context.printer.table(&["KEY", "NAME", "SCOPE", "CREATED", "EXPIRES", "LAST USED"], &rows);
    Ok(ExitStatus::Success)
}

async fn create(wish: &Create, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let expires_at = wish.expires.map(|when| when.after(SystemClock.now()).to_rfc3339());
    let body = json!({"name": wish.name, "scope": wish.scope, "expiresAt": expires_at});
    let made = client.control(Method::POST, "keys").body(&body).json().await?;
    if context.printer.wants_json() {
        context.printer.json(&made);
        return Ok(ExitStatus::Success);
    }
    let id = made["id"].as_str().unwrap_or_default();
    context.printer.note(&format!("it is shown this once; `postback keys revoke {id}` ends it"));
    context.printer.data(made["key"].as_str().unwrap_or_default());
    Ok(ExitStatus::Success)
}

/// Whether flags, environment or profile name a server, rather than the data directory of this machine.
fn means_a_server(context: &Context) -> anyhow::Result<bool> {
    let global = &context.global;
    Ok(global.api_key.is_some() || (global.data_dir.is_none() && profile::saved()?.is_some()))
}

/// The store of a data directory; `None` while a server has it.
async fn open(key_file: &KeyFile, data_dir: PathBuf) -> anyhow::Result<Option<store::Store>> {
    if !data_dir.join("postback.db").exists() {
        return Err(WithHint::new(
            format!("there is no store in `{}`", data_dir.display()),
            "the first `postback serve` makes it; name its directory with `--data-dir`",
        )
        .into());
    }
    let options = store::Options { lock_patience: Duration::ZERO, ..key_file.store_options(data_dir) };
    let opening = tokio::task::spawn_blocking(move || {
        store::Store::open(options, Arc::new(SystemClock), Arc::new(OsEntropy))
    });
    match opening.await? {
        Ok(store) => Ok(Some(store)),
        Err(store::OpenError::Locked { .. }) => Ok(None),
        Err(error) => Err(error).context("failed to open the store"),
    }
}

/// The running server replaces the keys.
async fn by_server(rotate: &Rotate, context: &Context) -> anyhow::Result<Value> {
    let client = context.client().await?;
    let kinds: Vec<_> = if rotate.only.is_empty() {
        let keys = client.control(Method::GET, "keys").json().await?;
        all(!keys["webhookPublicKeys"].as_array().is_none_or(Vec::is_empty))
    } else {
        rotate.only.iter().map(|which| which.kind()).collect()
    };
    let words: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let body = json!({"keys": words, "overlapSeconds": rotate.overlap});
    client.control(Method::POST, "keys/rotate").body(&body).json().await
}

/// No server runs: the keys are replaced in its store.
async fn by_store(rotate: &Rotate, data_dir: PathBuf, store: &store::Store) -> anyhow::Result<Value> {
    let project = store.projects().await?.into_iter().next().context("the store has no project yet")?;
    let kinds: Vec<_> = if rotate.only.is_empty() {
        all(!project.webhook_keys.is_empty())
    } else {
        rotate.only.iter().map(|which| which.kind()).collect()
    };
    let overlap = Duration::from_secs(rotate.overlap);
    anyhow::ensure!(overlap <= ROTATION_OVERLAP, "`--overlap` is {} at most", ROTATION_OVERLAP.as_secs());
    let keyring = Keyring::new(data_dir, Arc::new(store.clone()), Arc::new(SystemClock), Arc::new(OsEntropy));
    match keyring.rotate(&project.id, &kinds, overlap).await?.context("the project is gone")? {
        Ok(keys) => Ok(serde_json::to_value(keys)?),
        Err(TooManySecrets(until)) => Err(WithHint::new(
            "as many replaced secrets as may sign still do",
            format!("rotate after {until}, or with `--overlap 0`, which ends all of them now"),
        )
        .into()),
    }
}

/// Every key there is. The Ed25519 key only where one is used.
fn all(has_webhook_key: bool) -> Vec<KeyKind> {
    KeyKind::ALL.into_iter().filter(|kind| *kind != KeyKind::WebhookKey || has_webhook_key).collect()
}

/// The new keys, this once.
fn told(fresh: &Value, overlap: u64, context: &Context) -> anyhow::Result<ExitStatus> {
    let printer = context.printer;
    if printer.wants_json() {
        printer.json(fresh);
        return Ok(ExitStatus::Success);
    }
    printer.note("new keys; replaced API keys open nothing any more");
    if overlap > 0 && (fresh["webhookSecret"].is_string() || fresh["webhookPublicKey"].is_string()) {
        printer.note(&format!("deliveries carry both signatures, the former one for {overlap} s more"));
    }
    for (name, key) in [
        ("public key", "publicKey"),
        ("private key", "privateKey"),
        ("service account", "serviceAccountToken"),
        ("webhook secret", "webhookSecret"),
        ("webhook key", "webhookPublicKey"),
    ] {
        if let Some(value) = fresh[key].as_str() {
            printer.data(&format!("{name:16} {value}"));
        }
    }
    Ok(ExitStatus::Success)
}

async fn encryption(key_file: &KeyFile, data_dir: PathBuf, context: &Context) -> anyhow::Result<ExitStatus> {
    let store = open(key_file, data_dir).await?.ok_or_else(|| {
        WithHint::new(
            "a server is using the data directory",
            "the encryption key is changed while no server runs: stop it first",
        )
    })?;
    let resealed = store.rotate_encryption().await;
    store.close().await;
    let resealed = resealed.context("the change is not finished; the same command goes on with it")?;
    let printer = context.printer;
    if printer.wants_json() {
        printer.json(&json!({"resealed": resealed}));
    } else {
        printer.done(&format!(
            "{resealed} secrets are encrypted with a new key; the old one opens nothing any more"
        ));
        printer.note("keep a copy of the key file apart from the copies of the database");
    }
    Ok(ExitStatus::Success)
}

fn show(credentials: &Credentials, context: &Context) -> anyhow::Result<ExitStatus> {
    if context.printer.wants_json() {
        context.printer.json(&serde_json::to_value(credentials)?);
    } else {
        for (name, value) in [
            ("project", credentials.project_id.as_str()),
            ("public key", &credentials.public_key),
            ("private key", &credentials.private_key),
            ("service account", &credentials.service_account_token),
            ("webhook secret", &credentials.webhook_secret),
        ] {
            context.printer.data(&format!("{name:16} {value}"));
        }
    }
    Ok(ExitStatus::Success)
}
