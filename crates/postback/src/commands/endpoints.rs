//! `postback endpoints`

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, ExitStatus};
use crate::client::Client;
use crate::print::{Printer, WithHint, clean};

/// Arguments of `postback endpoints`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the endpoints: those disabled or set once, and those that were told something lately
    List,
    /// Show one endpoint
    #[command(visible_alias = "show")]
    Get {
        /// Its id, as `postback endpoints list` shows it
        endpoint: String,
    },
    /// Set what an endpoint takes
    #[command(group = clap::ArgGroup::new("taken").required(true).args(["body_bytes_max", "any_body"]))]
    Set {
        /// Its address, as calls name it
        address: String,
        /// Bodies of more bytes than this carry a link to the result instead of the result
        #[arg(long, value_name = "BYTES")]
        body_bytes_max: Option<u64>,
        /// It takes bodies of any size again
        #[arg(long)]
        any_body: bool,
    },
    /// Send a test event to an endpoint, and show what it answered
    Test {
        /// Its address, or its id as `postback endpoints list` shows it
        endpoint: String,
    },
    /// Disable an endpoint: what is due there waits until it is enabled
    Disable {
        /// Its id, as `postback endpoints list` shows it, or its address
        endpoint: String,
    },
    /// Enable an endpoint and deliver what waits for it
    Enable {
        /// Its id, as `postback endpoints list` shows it, or its address
        endpoint: String,
    },
}

/// An endpoint in the list.
fn row(endpoint: &Value) -> Vec<String> {
    let figures = &endpoint["figures"];
    let taken = match (figures["succeeded"].as_u64(), figures["attempts"].as_u64()) {
        (Some(succeeded), Some(attempts)) => format!("{succeeded}/{attempts}"),
        _ => "-".to_owned(),
    };
    let waiting = endpoint["waiting"].as_u64().unwrap_or(0) + figures["pending"].as_u64().unwrap_or(0);
    let more = if figures["pendingMore"] == true { "+" } else { "" };
    let said = |key: &str| cell(&endpoint[key]);
    vec![said("id"), said("state"), taken, format!("{waiting}{more}"), said("url"), said("reason")]
}

/// The id of an endpoint that somebody named by that, or by its address.
async fn id(client: &Client, named: &str) -> anyhow::Result<String> {
    if named.starts_with("ep_") {
        return Ok(named.to_owned());
    }
    let list = client.control(Method::GET, "endpoints").json().await?;
    let known = list["items"].as_array().into_iter().flatten().find(|known| known["url"] == named);
    known.and_then(|known| known["id"].as_str()).map(str::to_owned).ok_or_else(|| {
        let message = format!("no endpoint with the address `{named}` is known");
        WithHint::new(message, "`postback endpoints list` shows those that are").into()
    })
}

/// Seconds that the answer of an endpoint is waited for: one attempt, and some for its turn.
const PATIENCE_SECS: u64 = 40;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Sends a test event and waits for what comes of it.
async fn test(client: &Client, printer: Printer, endpoint: &str) -> anyhow::Result<ExitStatus> {
    let ask = if endpoint.starts_with("ep_") {
        client.control(Method::POST, &format!("endpoints/{endpoint}/test"))
    } else {
        client.control(Method::POST, "endpoints/test").body(&json!({"url": endpoint}))
    };
    let sent = ask.json().await?;
    let path = format!("deliveries/{}", sent["deliveryId"].as_str().unwrap_or_default());
    let spinner = printer.spinner("waiting for the receiver's answer");
    let patience = tokio::time::Instant::now() + Duration::from_secs(PATIENCE_SECS);
    let delivery = loop {
        let delivery = client.control(Method::GET, &path).json().await;
        let is_over = |delivery: &Value| !matches!(delivery["state"].as_str(), Some("pending" | "sending"));
        let is_late = tokio::time::Instant::now() >= patience;
        if is_late || !delivery.as_ref().is_ok_and(|delivery| !is_over(delivery)) {
            break delivery;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    spinner.finish_and_clear();
    let delivery = delivery?;
    if printer.wants_json() {
        printer.json(&delivery);
    } else {
        tell(printer, endpoint, &sent, &delivery);
    }
    let taken = delivery["state"] == "delivered";
    Ok(if taken { ExitStatus::Success } else { ExitStatus::Failure })
}

fn tell(printer: Printer, endpoint: &str, sent: &Value, delivery: &Value) {
    let attempt = &delivery["attempts"][0];
    let status = attempt["statusCode"].as_u64().map_or_else(String::new, |status| format!(" with {status}"));
    let took =
        attempt["durationMs"].as_f64().map_or_else(String::new, |millis| format!(" in {millis:.0} ms"));
    match (delivery["state"].as_str(), attempt["reason"].as_str()) {
        (Some("delivered"), _) => printer.done(&format!("{endpoint} took the test event{status}{took}")),
        (Some("pending" | "sending"), _) => {
            printer.warning(&format!("{endpoint} has not answered yet; the attempt goes on"));
        }
        (_, reason) => {
            let reason = reason.unwrap_or("unknown");
            printer.warning(&format!("{endpoint} did not take the test event{status}{took}: {reason}"));
        }
    }
    if let Some(said) = attempt["response"].as_str().filter(|said| !said.is_empty()) {
        printer.data(&clean(said));
    }
    printer.note(&format!("`postback runs get {}` shows all of it", sent["runId"].as_str().unwrap_or("")));
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Lists, shows, sets or enables.
///
/// # Errors
/// When the server cannot be reached or knows no such endpoint.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    match args.action.unwrap_or(Action::List) {
        Action::List => {
            let list = client.control(Method::GET, "endpoints").json().await?;
            if printer.wants_json() {
                printer.json(&list);
                return Ok(ExitStatus::Success);
            }
            let rows: Vec<Vec<String>> = list["items"].as_array().into_iter().flatten().map(row).collect();
            printer.table(&["ENDPOINT", "STATE", "TAKEN", "WAITING", "ADDRESS", "REASON"], &rows);
        }
        Action::Get { endpoint } => {
            let path = format!("endpoints/{}", id(&client, &endpoint).await?);
            printer.raw_json(&client.control(Method::GET, &path).text().await?);
        }
        Action::Set { address, body_bytes_max, any_body: _ } => {
            let body = json!({"url": address, "bodyBytesMax": body_bytes_max});
            let answer = client.control(Method::POST, "endpoints").body(&body).json().await?;
            if printer.wants_json() {
                printer.json(&answer);
            } else {
                let taken = body_bytes_max
                    .map_or_else(|| "any size".to_owned(), |bytes| format!("{bytes} bytes at most"));
                printer
                    .done(&format!("{} takes bodies of {taken}", answer["url"].as_str().unwrap_or(&address)));
            }
        }
        Action::Test { endpoint } => return test(&client, printer, &endpoint).await,
        Action::Disable { endpoint } => {
            let endpoint = id(&client, &endpoint).await?;
            let path = format!("endpoints/{endpoint}/disable");
            let answer = client.control(Method::POST, &path).json().await?;
            if printer.wants_json() {
                printer.json(&answer);
            } else {
                printer.done(if answer["wasDisabled"] == true {
                    "it was disabled already"
                } else {
                    "disabled; what is due there waits until `postback endpoints enable`"
                });
            }
        }
        Action::Enable { endpoint } => {
            let endpoint = id(&client, &endpoint).await?;
            let answer = client.control(Method::POST, &format!("endpoints/{endpoint}/enable")).json().await?;
            if printer.wants_json() {
                printer.json(&answer);
            } else {
                printer.done(&if answer["wasDisabled"] == false {
                    "it was enabled already, and nothing waited for it".to_owned()
                } else {
                    format!("enabled; {} deliveries are on their way", answer["replayed"])
                });
            }
        }
    }
    Ok(ExitStatus::Success)
}
