//! `postback login`

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::ensure;

use super::{Context, ExitStatus};
use crate::client::Client;
use crate::print::WithHint;
use crate::profile::{self, DEFAULT_URL, Profile};

/// Arguments of `postback login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "The key comes from --api-key, POSTBACK_API_KEY, or standard input.")]
pub(crate) struct Args {}

/// Checks a key against the server and saves both.
///
/// # Errors
/// When there is no key, or the server refuses it.
pub(crate) async fn run(_args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let url = context.global.url.clone().unwrap_or_else(|| DEFAULT_URL.to_owned());
    let url = url.trim_end_matches('/').to_owned();
    let api_key = match context.global.api_key.clone() {
        Some(key) => key,
        None => read_key(&url, context)?,
    };
    ensure!(
        !api_key.is_empty(),
        WithHint::new("no key was given", "`postback keys show` on the server's machine prints it")
    );
    let client =
        Client::connect(Profile { url: url.clone(), api_key: api_key.clone(), project: None }).await?;
    let project = Some(client.project().to_owned());
    let path = profile::save(&Profile { url: url.clone(), api_key, project })?;
    context.printer.done(&format!(
        "logged in to {url}, project {}; saved in {}",
        client.project(),
        path.display()
    ));
    Ok(ExitStatus::Success)
}

fn read_key(url: &str, context: &Context) -> anyhow::Result<String> {
    if std::io::stdin().is_terminal() {
        context.printer.say(&format!("private key of {url}:"));
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
