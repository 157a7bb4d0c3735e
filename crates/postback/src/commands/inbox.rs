//! `postback inbox`

use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::Value;

use super::{Context, ExitStatus};
use crate::client::{Ask, Client, ServerSaid};
use crate::print::{Colour, Printer, clean};

/// Arguments of `postback inbox`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make an inbox
    Create,
    /// Show what an inbox recorded
    #[command(visible_alias = "get")]
    Show {
        /// Its id
        inbox: String,
    },
    /// Print what arrives as it arrives
    Listen {
        /// Its id; a new one is made when it is not given
        inbox: Option<String>,
        /// Post each request on to this address as well
        #[arg(long, value_name = "URL")]
        forward: Option<String>,
    },
}

/// Makes, shows or follows.
///
/// # Errors
/// When the server cannot be reached or knows no such inbox.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    match args.action {
        Action::Create => {
            let inbox = create(&client).await?;
            if printer.wants_json() { printer.json(&inbox) } else { introduce(printer, &inbox) }
        }
        Action::Show { inbox } => {
            let mut after = 0;
            loop {
                let page = requests(&client, &inbox, after).await?;
                let Some(last) = page.last() else { break };
                after = last["sequence"].as_i64().context("a recorded request has no number")?;
                page.iter().for_each(|request| show(printer, request));
            }
        }
        Action::Listen { inbox, forward } => listen(&client, printer, inbox, forward).await?,
    }
    Ok(ExitStatus::Success)
}

/// A new inbox: `{id, url, pageUrl}`.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn create(client: &Client) -> anyhow::Result<Value> {
    client.control(Method::POST, "inboxes").json().await
}

/// A page of what an inbox recorded after the request numbered `after`, oldest first.
///
/// # Errors
/// When the server knows no such inbox.
pub(crate) async fn requests(client: &Client, inbox: &str, after: i64) -> anyhow::Result<Vec<Value>> {
    let page = recorded(client, inbox, after).json().await?;
    Ok(page["items"].as_array().cloned().unwrap_or_default())
}

fn recorded<'a>(client: &'a Client, inbox: &str, after: i64) -> Ask<'a> {
    client.control(Method::GET, &format!("inboxes/{inbox}/requests")).query("after", after)
}

fn introduce(printer: Printer, inbox: &Value) {
    for (name, key) in [("inbox", "id"), ("address", "url"), ("page", "pageUrl")] {
        printer.data(&format!("{name:8} {}", inbox[key].as_str().unwrap_or_default()));
    }
}

/// A request as people read it.
pub(crate) fn show(printer: Printer, request: &Value) {
    if printer.wants_json() {
        printer.data(&request.to_string());
        return;
    }
    let text = |value: &Value| clean(value.as_str().unwrap_or_default());
    let verdict = text(&request["signature"]["verdict"]);
    let colour = if verdict == "verified" { Colour::Green } else { Colour::Yellow };
    printer.data(&format!(
        "{} {} {}  {} ({})",
        text(&request["receivedAt"]),
        text(&request["method"]),
        text(&request["path"]),
        printer.paint(colour, &verdict),
        text(&request["signature"]["detail"]),
    ));
    for (name, value) in headers(request) {
        if name.starts_with("webhook-") || name == "content-type" {
            printer.data(&format!("  {}: {}", clean(&name), clean(&value)));
        }
    }
    if request["bodyEncoding"] == "base64" {
        printer.data("  (no text; in base64)");
    }
    for line in text(&request["body"]).lines() {
        printer.data(&format!("  {line}"));
    }
}

/// The headers, whether the server lists them as pairs or as an object.
pub(crate) fn headers(request: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match &request["headers"] {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        Value::Array(pairs) => pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        _ => Vec::new(),
    }
}

async fn listen(
    client: &Client,
    printer: Printer,
    inbox: Option<String>,
    forward: Option<String>,
) -> anyhow::Result<()> {
    /// One long-poll.
    const WAIT: Duration = Duration::from_secs(30);
    /// Between two tries to reach a server that was there before.
    const TRY_AGAIN: Duration = Duration::from_secs(1);
    let inbox = match inbox {
        Some(inbox) => inbox,
        None => {
            let made = create(client).await?;
            introduce(printer, &made);
            made["id"].as_str().context("the server named no inbox")?.to_owned()
        }
    };
    let forwarding = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let (mut after, mut reached) = (0, false);
    printer.note("waiting for requests; stop with Ctrl-C");
    loop {
        let ask = recorded(client, &inbox, after).query("wait", WAIT.as_secs()).within(WAIT * 2);
        let page = match ask.json().await {
            Ok(page) => page,
            // What the server refuses, it will refuse again; a restart is waited for.
            Err(error) if !reached || error.downcast_ref().is_some_and(ServerSaid::is_final) => {
                return Err(error);
            }
            Err(error) => {
                printer.warning(&format!("{error:#}; trying again"));
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
        };
        reached = true;
        for request in page["items"].as_array().into_iter().flatten() {
            after = request["sequence"].as_i64().unwrap_or(after).max(after);
            show(printer, request);
            if let Some(target) = &forward {
                match pass_on(&forwarding, target, request).await {
                    Ok(status) => printer.note(&format!("  forwarded to {target}: {status}")),
                    Err(error) => printer.warning(&format!("not forwarded to {target}: {error:#}")),
                }
            }
        }
    }
}

/// Sends a recorded request to another address: the same method, body, and headers but those that
/// belong to the connection.
async fn pass_on(
    http: &reqwest::Client,
    target: &str,
    request: &Value,
) -> anyhow::Result<reqwest::StatusCode> {
    let method = request["method"].as_str().unwrap_or("POST").parse::<Method>()?;
    let body = request["body"].as_str().unwrap_or_default();
    let body = match request["bodyEncoding"].as_str() {
        Some("base64") => STANDARD.decode(body).context("the recorded body is damaged")?,
        _ => body.as_bytes().to_vec(),
    };
    let mut forwarded = http.request(method, target).timeout(Duration::from_secs(30)).body(body);
    for (name, value) in headers(request) {
        if !matches!(
            name.as_str(),
            "host" | "content-length" | "connection" | "transfer-encoding" | "accept-encoding"
        ) {
            forwarded = forwarded.header(name, value);
        }
    }
    Ok(forwarded.send().await?.status())
}
