//! `postback logs`

use std::time::Duration;

use reqwest::Method;

use super::{Context, ExitStatus};
use crate::print::{WithHint, clean};

/// Between two looks when following.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Arguments of `postback logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name or id of the app
    #[arg(required_unless_present = "run")]
    app: Option<String>,
    /// Only what this run printed
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Go on printing what is new
    #[arg(long, short)]
    follow: bool,
}

/// Prints lines, oldest first.
///
/// # Errors
/// When the server cannot be reached or knows no such app or run.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    let path = match (&args.run, &args.app) {
        (Some(run), _) => format!("runs/{run}/logs"),
        (None, Some(app)) => format!("apps/{}/logs", client.app_id(app)),
        (None, None) => return Err(WithHint::new("whose logs?", "name an app, or a run with `--run`").into()),
    };
    let mut token: Option<String> = None;
    loop {
        let mut ask = client.control(Method::GET, &path).query("direction", "forward");
        if let Some(token) = &token {
            ask = ask.query("nextToken", token);
        }
        let page = ask.json().await?;
        for line in page["logs"].as_array().into_iter().flatten() {
            if printer.wants_json() {
                printer.data(&line.to_string());
            } else {
                let text = |key: &str| line[key].as_str().unwrap_or_default();
                printer.data(&format!(
                    "{} {:6} {}",
                    text("timestamp"),
                    text("stream"),
                    clean(text("logLine"))
                ));
            }
        }
        token = page["nextPageToken"].as_str().map(str::to_owned).or(token);
        if page["hasMore"] == true {
            continue;
        }
        if !args.follow {
            return Ok(ExitStatus::Success);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
