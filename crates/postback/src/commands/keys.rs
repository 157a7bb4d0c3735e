//! `postback keys`

use std::sync::Arc;

use anyhow::Context as _;

use super::serve::KeyFile;
use super::{Context, ExitStatus};
use crate::credentials::{self, Credentials};
use crate::print::WithHint;
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
    /// Replace all keys and the webhook secret; the server must not be running
    Rotate {
        /// Change the key that secrets in the database are encrypted with, and nothing else
        #[arg(long)]
        encryption: bool,
        #[command(flatten)]
        key_file: KeyFile,
    },
}

/// Shows or replaces the keys.
///
/// # Errors
/// When the data directory has none, or a server is using it.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let data_dir = context.data_dir()?;
    let credentials = match args.action.unwrap_or(Action::Show) {
        Action::Show => credentials::read(&data_dir)?.ok_or_else(|| {
            WithHint::new(
                format!("there is no `{}`", credentials::path(&data_dir).display()),
                "the first `postback serve` makes it; name its directory with `--data-dir`",
            )
        })?,
        Action::Rotate { encryption, key_file } => {
            let store = store::Store::open(
                key_file.store_options(data_dir.clone()),
                Arc::new(SystemClock),
                Arc::new(OsEntropy),
            )
            .context("failed to open the store; keys are replaced while no server runs")?;
            if encryption {
                let resealed = store.rotate_encryption().await;
                store.close().await;
                return told(
                    resealed.context("the change is not finished; the same command goes on with it")?,
                    context,
                );
            }
            let rotated = credentials::rotate(&data_dir, &store, &SystemClock, &OsEntropy).await;
            store.close().await;
            context.printer.note("new keys; the old ones open nothing any more");
            rotated?
        }
    };
    show(&credentials, context)
}

/// How many secrets a new encryption key has reached: all.
fn told(resealed: u64, context: &Context) -> anyhow::Result<ExitStatus> {
    if context.printer.wants_json() {
        context.printer.json(&serde_json::json!({"resealed": resealed}));
    } else {
        context.printer.done(&format!(
            "{resealed} secrets are encrypted with a new key; the old one opens nothing any more"
        ));
        context.printer.note("keep a copy of the key file apart from the copies of the database");
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
