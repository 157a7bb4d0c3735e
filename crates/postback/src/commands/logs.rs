//! `postback logs`

use std::time::Duration;

use queue::Clock as _;
use queue::since::Since;
use reqwest::Method;

use super::{Context, ExitStatus};
use crate::print::{WithHint, clean};
use crate::system::SystemClock;

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
    /// Only lines of this output
    #[arg(long, value_name = "OUTPUT")]
    stream: Option<Output>,
    /// Only lines that contain this text, whatever the case
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only lines printed later: `90m`, `2h`, `3d` ago, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Begin with so many of the newest lines, up to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), conflicts_with = "since")]
    tail: Option<u32>,
}

/// Where a line came from: what the server itself says of replicas is `system`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Stdout,
    Stderr,
    System,
}

impl Output {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
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
    let since = args.since.map(|since| since.before(SystemClock.now()));
    let mut token: Option<String> = None;
    loop {
        let mut ask = client.control(Method::GET, &path);
        // Without a direction the newest lines come; from the second page on the token says it all.
        match (&token, args.tail) {
            (Some(token), _) => ask = ask.query("nextToken", token),
            (None, Some(tail)) => ask = ask.query("pageSize", tail),
            (None, None) => ask = ask.query("direction", "forward"),
        }
        if let Some(since) = since.filter(|_| token.is_none()) {
            ask = ask.query("afterDate", since.to_string());
        }
        if let Some(stream) = args.stream {
            ask = ask.query("stream", stream.as_str());
        }
        if let Some(text) = &args.search {
            ask = ask.query("search", text);
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
