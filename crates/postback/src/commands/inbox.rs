//! `postback inbox`

mod forward;

use anyhow::Context as _;
use queue::inbox::{Reply, Script};
use reqwest::Method;
use serde_json::{Map, Value, json};
use url::Url;

use super::{Context, ExitStatus};
use crate::client::{Ask, Client};
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
    Create {
        #[command(flatten)]
        settings: Settings,
        /// How it answers: a status, or a step for each request such as `500,timeout,429;retry-after=3,reset,200`
        #[arg(long = "reply", value_name = "SCRIPT")]
        script: Option<Script>,
    },
    /// List the inboxes
    List,
    /// Set name and end of an inbox
    Set {
        /// Its id
        inbox: String,
        #[command(flatten)]
        settings: Settings,
        /// It stays until it is deleted
        #[arg(long, conflicts_with = "expires_in")]
        never_expires: bool,
    },
    /// Set how an inbox answers, once a request is recorded
    Reply {
        /// Its id
        inbox: String,
        /// A status, or a step for each request, of which the last stays: `500,timeout,429;retry-after=3,reset,200`.
        /// Further options of a step are `;delay=2s` and `;times=3` [default: 200, with no delay and no headers]
        script: Option<Script>,
        /// A header of each answer, `Name: value`; may be given several times
        #[arg(long = "header", value_name = "HEADER", requires = "script")]
        headers: Vec<String>,
        /// Body of each answer [default: the recorded request's id]
        #[arg(long, requires = "script")]
        body: Option<String>,
    },
    /// Give the page of an inbox a new address, and the old one with its links opens nothing any more; or make a link
    /// to it that ends
    Share {
        /// Its id
        inbox: String,
        /// Make a link that ends after this time instead: `30m`, `12h`, `7d`
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires_in: Option<u64>,
    },
    /// End an inbox, with all that it recorded
    Delete {
        /// Its id
        inbox: String,
    },
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
        /// Send each request on to this address as well, and show its answer. What follows the inbox's own address
        /// is put behind it
        #[arg(long, value_name = "URL")]
        forward: Option<Url>,
    },
    /// Send a recorded request once more, to any address
    Replay {
        /// Its inbox
        inbox: String,
        /// Its number, as `postback inbox show` and the page tell it
        request: i64,
        /// Where to
        #[arg(long, value_name = "URL")]
        to: Url,
    },
}

#[derive(Debug, clap::Args)]
struct Settings {
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// It ends after this time, with all that it recorded: `30m`, `12h`, `7d`
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires_in: Option<u64>,
}

impl Settings {
    fn fields(self) -> Map<String, Value> {
        let mut fields = Map::new();
        if let Some(name) = self.name {
            fields.insert("name".into(), name.into());
        }
        if let Some(seconds) = self.expires_in {
            fields.insert("expiresInSeconds".into(), seconds.into());
        }
        fields
    }
}

/// `45s`, `30m`, `12h`, `7d`; a number alone is seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let seconds = queue::text::time(text).map_or_else(|| text.parse().ok(), |time| Some(time.as_secs()));
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| "a time is a number with `s`, `m`, `h` or `d` behind it, such as `12h`".to_owned())
}

/// Makes, shows or follows.
///
/// # Errors
/// When the server cannot be reached or knows no such inbox.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let client = context.client().await?;
    let printer = context.printer;
    match args.action {
        Action::Create { settings, script } => {
            let mut fields = settings.fields();
            if let Some(script) = script {
                fields.insert("reply".into(), script.to_string().into());
            }
            let ask = client.control(Method::POST, "inboxes").body(&fields.into());
            tell(printer, &ask.json().await?);
        }
        Action::List => list(printer, &client.control(Method::GET, "inboxes").json().await?),
        Action::Set { inbox, settings, never_expires } => {
            let mut fields = settings.fields();
            if never_expires {
                fields.insert("expiresAt".into(), Value::Null);
            }
            anyhow::ensure!(
                !fields.is_empty(),
                "nothing to set: give --name, --expires-in or --never-expires"
            );
            set(&client, printer, &inbox, fields.into()).await?;
        }
        Action::Reply { inbox, script, headers, body } => {
            let reply = script.map(|script| {
                let headers = Reply::header_lines(&headers.join("\n"))?;
                Reply::new(script, headers, body)
            });
            let reply = reply.transpose()?.map(|reply| {
                let headers: Map<_, _> =
                    reply.headers.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
                json!({"script": reply.script.to_string(), "headers": headers, "body": reply.body})
            });
            set(&client, printer, &inbox, json!({"reply": reply})).await?;
        }
        Action::Share { inbox, expires_in: None } => {
            let ask = client.control(Method::POST, &format!("inboxes/{inbox}/share"));
            tell(printer, &ask.json().await?);
        }
        Action::Share { inbox, expires_in: Some(seconds) } => {
            let ask = client.control(Method::POST, &format!("inboxes/{inbox}/links"));
            tell(printer, &ask.body(&json!({"expiresInSeconds": seconds})).json().await?);
        }
        Action::Delete { inbox } => {
            client.control(Method::DELETE, &format!("inboxes/{inbox}")).json().await?;
            printer.done(&format!("inbox {inbox} is deleted, with all that it recorded"));
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
        Action::Listen { inbox, forward } => forward::listen(&client, printer, inbox, forward).await?,
        Action::Replay { inbox, request, to } => {
            return forward::replay(&client, printer, &inbox, request, &to).await;
        }
    }
    Ok(ExitStatus::Success)
}

async fn set(client: &Client, printer: Printer, inbox: &str, fields: Value) -> anyhow::Result<()> {
    let ask = client.control(Method::PATCH, &format!("inboxes/{inbox}")).body(&fields);
    tell(printer, &ask.json().await?);
    Ok(())
}

fn tell(printer: Printer, inbox: &Value) {
    if printer.wants_json() { printer.json(inbox) } else { introduce(printer, inbox) }
}

fn list(printer: Printer, list: &Value) {
    if printer.wants_json() {
        printer.json(list);
        return;
    }
    let cell = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows: Vec<_> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|inbox| {
            let reply = inbox["reply"]["script"].as_str().unwrap_or("200");
            vec![
                cell(&inbox["id"]),
                cell(&inbox["name"]),
                cell(&inbox["createdAt"]),
                cell(&inbox["expiresAt"]),
                reply.to_owned(),
            ]
        })
        .collect();
    printer.table(&["INBOX", "NAME", "MADE", "ENDS", "REPLY"], &rows);
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
    let rows = [
        ("inbox", &inbox["id"]),
        ("name", &inbox["name"]),
        ("address", &inbox["url"]),
        ("page", &inbox["pageUrl"]),
        ("ends", &inbox["expiresAt"]),
        ("reply", &inbox["reply"]["script"]),
    ];
    for (name, value) in rows {
        if let Some(text) = value.as_str() {
            printer.data(&format!("{name:8} {}", clean(text)));
        }
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
        "#{} {} {} {}  {} ({})",
        request["sequence"],
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
