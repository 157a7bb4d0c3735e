//! `postback deliveries`

use queue::Clock as _;
use queue::since::Since;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Context, ExitStatus};
use crate::client::Client;
use crate::print::{Printer, WithHint};
use crate::system::SystemClock;

/// Arguments of `postback deliveries`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the newest deliveries
    List(Which),
    /// Show one delivery with all its attempts
    #[command(visible_alias = "get")]
    Show {
        /// Its id: the `webhook-id` that receivers see
        delivery: String,
    },
    /// Deliver once more: the same id and body, a fresh timestamp and signature
    Redeliver(Again),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Only deliveries in this state
    #[arg(long, value_parser = ["pending", "sending", "delivered", "exhausted", "disabled"])]
    state: Option<String>,
    /// Only deliveries to this address
    #[arg(long, value_name = "URL", conflicts_with = "receiver")]
    endpoint: Option<String>,
    /// Only deliveries to the origin of this address
    #[arg(long, value_name = "URL")]
    receiver: Option<String>,
    /// Deliveries at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["delivery", "endpoint", "receiver"]))]
struct Again {
    /// The delivery's id: the `webhook-id` that receivers see
    delivery: Option<String>,
    /// All that failed at this address
    #[arg(long, value_name = "URL", requires = "since")]
    endpoint: Option<String>,
    /// All that failed at the origin of this address
    #[arg(long, value_name = "URL", requires = "since")]
    receiver: Option<String>,
    /// How far back: `90m`, `2h`, `3d`, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_parser = Since::parse, conflicts_with = "delivery")]
    since: Option<Since>,
}

/// Lists, shows, or delivers once more.
///
/// # Errors
/// When the server cannot be reached, knows no such delivery, or cannot make it again.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    let newest = Which { state: None, endpoint: None, receiver: None, limit: 20 };
    match args.action.unwrap_or(Action::List(newest)) {
        Action::List(which) => list(&client, printer, which).await?,
        Action::Show { delivery } => {
            let text = client.control(Method::GET, &format!("deliveries/{delivery}")).text().await?;
            if printer.wants_json() {
                printer.raw_json(&text);
            } else {
                show(printer, &serde_json::from_str(&text)?);
            }
        }
        Action::Redeliver(Again { delivery: Some(delivery), .. }) => {
            let path = format!("deliveries/{delivery}/redeliver");
            let answer = client.control(Method::POST, &path).json().await?;
            if printer.wants_json() {
                printer.json(&answer);
            } else {
                printer.done(&format!("{delivery} is on its way again"));
            }
        }
        Action::Redeliver(again) => failed(&client, printer, &again).await?,
    }
    Ok(ExitStatus::Success)
}

async fn list(client: &Client, printer: Printer, which: Which) -> anyhow::Result<()> {
    let mut ask = client.control(Method::GET, "deliveries").query("limit", which.limit);
    for (name, value) in [("state", which.state), ("endpoint", which.endpoint), ("receiver", which.receiver)]
    {
        if let Some(value) = value {
            ask = ask.query(name, value);
        }
    }
    let page = ask.json().await?;
    if printer.wants_json() {
        printer.json(&page);
        return Ok(());
    }
    let items: Vec<_> = page["items"].as_array().into_iter().flatten().collect();
    let (headings, rows) = table(&items);
    printer.table(&headings, &rows);
    Ok(())
}

/// Most runs tell their outcome only; where one of the list tells more, a column says what.
fn table(deliveries: &[&Value]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let mut headings = vec!["DELIVERY", "STATE", "ATTEMPTS", "LAST", "NEXT ATTEMPT", "ENDPOINT"];
    let mut rows: Vec<_> = deliveries.iter().map(|delivery| row(delivery)).collect();
    let is_progress =
        |delivery: &&Value| delivery["event"].as_str().is_some_and(|event| event != "completed");
    if deliveries.iter().any(is_progress) {
        headings.insert(1, "EVENT");
        for (row, delivery) in rows.iter_mut().zip(deliveries) {
            row.insert(1, text(&delivery["event"]));
        }
    }
    (headings, rows)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn row(delivery: &Value) -> Vec<String> {
    let last = delivery["attempts"].as_array().and_then(|attempts| attempts.last()).unwrap_or(&Value::Null);
    vec![
        text(&delivery["id"]),
        text(&delivery["state"]),
        last["number"].as_u64().unwrap_or(0).to_string(),
        seen(last),
        text(&delivery["nextAttemptAt"]),
        text(&delivery["url"]),
    ]
}

/// What an attempt came to: its reason, its status, or both.
fn seen(attempt: &Value) -> String {
    match (&attempt["reason"], attempt["statusCode"].as_u64()) {
        (Value::String(reason), Some(status)) => format!("{reason} {status}"),
        (Value::String(reason), None) => reason.clone(),
        (_, Some(status)) => status.to_string(),
        _ => String::new(),
    }
}

/// A delivery and its attempts, with where the time of each went.
fn show(printer: Printer, delivery: &Value) {
    let facts: Vec<_> = [
        ("delivery", "id"),
        ("run", "runId"),
        ("event", "event"),
        ("endpoint", "url"),
        ("state", "state"),
        ("next attempt", "nextAttemptAt"),
    ]
    .into_iter()
    .filter(|(_, key)| delivery[key].is_string())
    .map(|(name, key)| vec![name.to_owned(), text(&delivery[key])])
    .collect();
    printer.rows(&facts);
    printer.data("");
    let rows: Vec<_> = delivery["attempts"].as_array().into_iter().flatten().map(attempt).collect();
    let headings = ["ATTEMPT", "STARTED", "RESULT", "DNS", "CONNECT", "TLS", "FIRST BYTE", "TOTAL"];
    printer.table(&headings, &rows);
}

fn attempt(attempt: &Value) -> Vec<String> {
    let timings = &attempt["timings"];
    let took =
        |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms"));
    let reused = timings["reusedConnection"] == true;
    vec![
        attempt["number"].as_u64().unwrap_or(0).to_string(),
        text(&attempt["startedAt"]),
        if attempt["endedAt"].is_null() { "under way".to_owned() } else { seen(attempt) },
        took(&timings["dnsMs"]),
        if reused { "reused".to_owned() } else { took(&timings["connectMs"]) },
        took(&timings["tlsMs"]),
        took(&timings["firstByteMs"]),
        took(&attempt["durationMs"]),
    ]
}

async fn failed(client: &Client, printer: Printer, again: &Again) -> anyhow::Result<()> {
    let Some(since) = again.since else {
        let hint = "add `--since 2h`: what failed earlier is left alone";
        return Err(WithHint::new("it is not said how far back to go", hint).into());
    };
    let mut body = json!({"since": since.before(SystemClock.now())});
    for (name, value) in [("endpoint", &again.endpoint), ("receiver", &again.receiver)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    let answer = client.control(Method::POST, "deliveries/redeliver").body(&body).json().await?;
    if printer.wants_json() {
        printer.json(&answer);
    } else {
        printer.done(&format!("{} deliveries are on their way again", answer["redelivered"]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_of_which_event_when_there_are_others_than_outcomes() {
        let delivery =
            |event| json!({"id": "1", "event": event, "state": "pending", "attempts": [], "url": "u"});
        let (outcome, logs) = (delivery("completed"), delivery("logs"));
        let (headings, rows) = table(&[&outcome]);
        assert_eq!((headings[1], rows[0].len()), ("STATE", headings.len()));
        let (headings, rows) = table(&[&logs, &outcome]);
        assert_eq!((headings[1], headings.len()), ("EVENT", 7));
        assert_eq!(
            (rows[0][1].as_str(), rows[1][1].as_str(), rows[1][2].as_str()),
            ("logs", "completed", "pending")
        );
        assert!(rows.iter().all(|row| row.len() == headings.len()));
    }

    #[test]
    fn an_attempt_shows_where_its_time_went() {
        let shown = |timings: Value| {
            attempt(
                &json!({"number": 2, "startedAt": "then", "endedAt": "now", "statusCode": 503, "reason": "http_status",
                            "durationMs": 12.345, "timings": timings}),
            )
        };
        let fresh = json!({"reusedConnection": false, "dnsMs": 1.04, "connectMs": 2.0, "tlsMs": null, "firstByteMs": 9});
        assert_eq!(
            shown(fresh),
            ["2", "then", "http_status 503", "1.0 ms", "2.0 ms", "-", "9.0 ms", "12.3 ms"]
        );
        let reused = json!({"reusedConnection": true, "dnsMs": null, "connectMs": null, "tlsMs": null, "firstByteMs": 9});
        assert_eq!(shown(reused)[3..7], ["-", "reused", "-", "9.0 ms"]);
    }
}
