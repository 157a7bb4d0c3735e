//! `postback runs`

use std::time::Duration;

use anyhow::Context as _;
use queue::Clock as _;
use queue::since::Since;
use reqwest::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::{Context, ExitStatus};
use crate::client::{Again, Client, good};
use crate::print::Printer;
use crate::system::SystemClock;

/// Arguments of `postback runs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the newest runs
    List(List),
    /// Show one run with its result, attempts and deliveries
    #[command(visible_alias = "show")]
    Get {
        /// Its id
        run: String,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
    },
    /// Cancel a run that has not ended
    Cancel {
        /// Its id
        run: String,
    },
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only runs of this app
    #[arg(long)]
    app: Option<String>,
    /// Only runs in this state
    #[arg(long, value_parser = ["queued", "running", "succeeded", "failed", "cancelled", "expired"])]
    state: Option<String>,
    /// Only runs accepted since then: `2h`, `3d`, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = Since::parse)]
    since: Option<Since>,
    /// Only runs accepted before then
    #[arg(long, value_name = "WHEN", value_parser = Since::parse)]
    until: Option<Since>,
    /// Only runs that say this: in id, function, error, warning, metadata or result
    #[arg(long)]
    text: Option<String>,
    /// Only runs with this value in their metadata; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Runs at most
    #[arg(long, default_value_t = LISTED, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// Runs of a list, when nobody says how many.
const LISTED: u32 = 20;

impl Default for List {
    fn default() -> Self {
        Self {
            app: None,
            state: None,
            since: None,
            until: None,
            text: None,
            metadata: Vec::new(),
            limit: LISTED,
        }
    }
}

/// Seconds of one long-poll.
const POLL_SECS: u64 = 30;
/// From one to the next.
const POLL_LEAST: Duration = Duration::from_millis(500);

/// Lists, shows or cancels.
///
/// # Errors
/// When the server cannot be reached or knows no such run.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    let action = args.action.unwrap_or_else(|| Action::List(List::default()));
    match action {
        Action::List(wanted) => {
            let spinner = printer.spinner("looking for runs");
            let page = find(&client, &wanted).await;
            spinner.finish_and_clear();
            let page = page?;
            if printer.wants_json() {
                printer.json(&page);
                return Ok(ExitStatus::Success);
            }
            let text = |run: &Value, key: &str| match &run[key] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                Value::Number(number) => number.as_f64().map_or_else(String::new, |ms| format!("{ms:.1}")),
                other => other.to_string(),
            };
            let columns = ["id", "appId", "functionName", "state", "acceptedAt", "runTimeMs"];
            let rows: Vec<Vec<String>> = page["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|run| {
                    let mut row: Vec<String> = columns.iter().map(|column| text(run, column)).collect();
                    if let Some(until) = waits_until(run) {
                        row[3] = format!("queued until {until}");
                    }
                    row
                })
                .collect();
            printer.table(&["RUN", "APP", "FUNCTION", "STATE", "ACCEPTED", "MS"], &rows);
        }
        Action::Cancel { run } => {
            let ended = client.control(Method::DELETE, &format!("runs/{run}")).text().await?;
            if printer.wants_json() {
                printer.raw_json(&ended);
            } else {
                let state: Stands =
                    serde_json::from_str(&ended).context("the server's answer names no state")?;
                printer.say(match state.state.as_str() {
                    "cancelled" => "The run was cancelled; its webhooks are told.",
                    _ => "The run is asked to let go; `postback runs get --wait` shows its end.",
                });
            }
        }
        Action::Get { run, wait: false } => {
            printer.raw_json(&client.control(Method::GET, &format!("runs/{run}")).text().await?);
        }
        Action::Get { run, wait: true } => {
            printer.raw_json(&wait_for_end(&client, printer, &run, false).await?.view);
        }
    }
    Ok(ExitStatus::Success)
}

/// The runs that are wanted, in one page: a search is asked to go on until it found enough or saw all.
async fn find(client: &Client, wanted: &List) -> anyhow::Result<Value> {
    let now = SystemClock.now();
    let moment = |since: Option<Since>| since.map(|since| since.before(now).to_rfc3339());
    let said = [
        ("app", wanted.app.clone()),
        ("state", wanted.state.clone()),
        ("since", moment(wanted.since)),
        ("until", moment(wanted.until)),
        ("text", wanted.text.clone()),
    ];
    let metadata = wanted.metadata.iter().map(|pair| ("metadata", pair.clone()));
    let said: Vec<(&str, String)> =
        said.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(metadata).collect();
    let most = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let (mut items, mut next) = (Vec::new(), Value::Null);
    loop {
        let mut ask = client.control(Method::GET, "runs").query("limit", most - items.len());
        for (name, value) in &said {
            ask = ask.query(name, value);
        }
        if let Some(token) = next.as_str() {
            ask = ask.query("nextToken", token);
        }
        let mut page = ask.json().await?;
        if let Value::Array(found) = page["items"].take() {
            items.extend(found);
        }
        next = page["nextToken"].take();
        if next.is_null() || items.len() >= most {
            return Ok(serde_json::json!({ "items": items, "nextToken": next }));
        }
    }
}

/// When a queued run may start, if it has to wait until then. `notBefore` stays when its time has come.
fn waits_until(run: &Value) -> Option<&str> {
    let until = run["notBefore"].as_str().filter(|_| run["state"] == "queued")?;
    let due = queue::Timestamp::parse_rfc3339(until)?;
    (due > SystemClock.now()).then_some(until)
}

/// A run that has ended.
pub(crate) struct Ended {
    /// The run as the server shows it, to the byte.
    pub(crate) view: String,
    /// How it ended: `succeeded` or how not.
    pub(crate) state: String,
}

#[derive(serde::Deserialize)]
struct Stands {
    state: String,
}

/// Asks until the run has ended, also while its server is restarted. `answered` tells whether the server has been there.
///
/// # Errors
/// When the server cannot be reached for too long or knows no such run.
pub(crate) async fn wait_for_end(
    client: &Client,
    printer: Printer,
    run: &str,
    answered: bool,
) -> anyhow::Result<Ended> {
    let spinner = printer.spinner("waiting for the run's end");
    let ended = ended(Again::new(client, printer, Some(&spinner), answered), run).await;
    spinner.finish_and_clear();
    ended
}

async fn ended(mut server: Again<'_>, run: &str) -> anyhow::Result<Ended> {
    let path = format!("runs/{run}");
    loop {
        let asked = Instant::now();
        let (status, view) = server
            .ask(
                |client| {
                    let ask = client.control(Method::GET, &path).query("wait", POLL_SECS);
                    ask.within(Duration::from_secs(POLL_SECS + 10))
                },
                || format!("the run is kept: `postback runs get {run} --wait` goes on waiting for it"),
            )
            .await?;
        let view = good(status, view)?;
        let Stands { state } = serde_json::from_str(&view).context("the server's answer names no state")?;
        if !matches!(state.as_str(), "queued" | "running") {
            return Ok(Ended { view, state });
        }
        // A server that shuts down lets its callers go early.
        tokio::time::sleep_until(asked + POLL_LEAST).await;
    }
}
