//! `postback endpoints`

use reqwest::Method;
use serde_json::json;

use super::{Context, ExitStatus};

/// Arguments of `postback endpoints`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the endpoints that were disabled or set once
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
    /// Enable an endpoint and deliver what waits for it
    Enable {
        /// Its id, as `postback endpoints list` shows it
        endpoint: String,
    },
}

fn cell(value: &serde_json::Value) -> String {
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
            let columns = ["id", "state", "since", "waiting", "url", "reason"];
            let rows: Vec<Vec<String>> = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|row| columns.map(|column| cell(&row[column])).into())
                .collect();
            printer.table(&["ENDPOINT", "STATE", "SINCE", "WAITING", "ADDRESS", "REASON"], &rows);
        }
        Action::Get { endpoint } => {
            let path = format!("endpoints/{endpoint}");
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
        Action::Enable { endpoint } => {
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
