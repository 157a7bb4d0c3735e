//! `postback call`

use std::time::Duration;

use anyhow::Context as _;
use queue::Entropy;
use queue::webhook::{Metadata, Schedule, WebhookHeaders};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{Context, ExitStatus, runs};
use crate::client::{Again, Ask, Client};
use crate::print::{Printer, WithHint, clean};
use crate::system::OsEntropy;

/// The longest a synchronous call can take.
const CALL_LIMIT: Duration = queue::limits::RESPONSE_GRACE_PERIOD_MAX;

/// Arguments of `postback call`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the app
    app: String,
    /// Function to call
    #[arg(default_value = "predict")]
    function: String,
    /// JSON object with the function's arguments, or @FILE
    #[arg(long, default_value = "{}", value_name = "JSON")]
    data: String,
    /// Address that gets the result; the command ends with the acknowledgement. May be repeated
    #[arg(long, value_name = "URL")]
    webhook: Vec<String>,
    /// Header that the webhooks carry, `NAME: VALUE`. May be repeated
    #[arg(long, value_name = "HEADER", value_parser = header)]
    header: Vec<(String, String)>,
    /// What the webhooks tell [default: completed]. May be repeated
    #[arg(long, value_name = "EVENT", value_parser = ["start", "output", "logs", "completed"])]
    event: Vec<String>,
    /// Waits after each attempt of the webhooks that fails, such as `5s,1m,2h`; `none` for one attempt
    #[arg(long, value_name = "WAITS")]
    webhook_schedule: Option<Schedule>,
    /// JSON object that comes back in the webhooks and with the run
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// End with the acknowledgement; `postback runs get` shows the result
    #[arg(long = "async")]
    asynchronous: bool,
    /// Start it so many seconds from now at the earliest; with `--async` or `--webhook`
    #[arg(long, value_name = "SECONDS")]
    delay: Option<u64>,
    /// Start it before runs of a lower priority, after those of a higher one: -100 to 100
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i8>,
    /// When it fails with an error to retry on, execute it again so many times at most
    #[arg(long, value_name = "TIMES")]
    retries: Option<u32>,
    /// End codes to retry on, with commas between them; `user_error,timeout` without it
    #[arg(long, value_name = "CODES")]
    retry_on: Option<String>,
    /// Execute it so many times at most, whatever the reason; with 1 never twice, even if the server dies
    #[arg(long, value_name = "TIMES")]
    max_attempts: Option<u32>,
    /// With `--async` or `--webhook`: wait for the run's end and print the run
    #[arg(long)]
    wait: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `NAME: VALUE`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Calls a function and prints the server's answer.
///
/// # Errors
/// When the arguments are no JSON or the server cannot be reached; an answer that says no is an exit
/// status.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let data = match args.data.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("failed to read `{file}`"))?,
        None => args.data.clone(),
    };
    serde_json::from_str::<serde::de::IgnoredAny>(&data).map_err(|error| {
        WithHint::new(
            format!("`--data` is no JSON: {error}"),
            "give an object: `--data '{\"prompt\": \"hello\"}'`",
        )
    })?;
    let client = context.client().await?;
    let call = Call::of(&args, data, &client)?;
    let printer = context.printer;
    let mut events = Events::default();
    let (status, text) = if args.wait {
        call.accepted(&client, printer).await?
    } else {
        call.ask(&client).any_or_events(|piece| events.take(piece, |data| printer.data(data))).await?
    };
    if events.seen {
        return match &events.error {
            None => Ok(ExitStatus::Success),
            Some(error) => {
                let error: Value = serde_json::from_str(error).unwrap_or_default();
                let message = error["message"].as_str().unwrap_or("the stream ended with an error");
                let run = error["run_id"].as_str().unwrap_or_default();
                Err(WithHint::new(clean(message), format!("what it printed: `postback logs --run {run}`"))
                    .into())
            }
        };
    }
    if args.wait && status.is_success() {
        return wait(&client, &text, context).await;
    }
    // As it came: parsed, big numbers would lose their digits.
    context.printer.data(&if context.printer.wants_json() { text.clone() } else { clean(&text) });
    if status.is_success() {
        return Ok(ExitStatus::Success);
    }
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(run) = answer["run_id"].as_str() {
        context.printer.hint(&format!("what it printed: `postback logs --run {run}`"));
    }
    Ok(ExitStatus::Failure)
}

/// A call as it is sent.
struct Call {
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Call {
    fn of(args: &Args, body: String, client: &Client) -> anyhow::Result<Self> {
        let path = format!("/v4/{}/{}/{}", client.project(), args.app, args.function);
        let (mut query, mut headers) = (Vec::new(), Vec::new());
        if args.asynchronous || !args.webhook.is_empty() || args.wait {
            query.push(("async", "true".to_owned()));
        }
        query.extend(args.webhook.iter().map(|webhook| ("webhookEndpoint", webhook.clone())));
        if !args.header.is_empty() {
            let told = WebhookHeaders::new(args.header.clone())
                .map_err(|why| anyhow::anyhow!("`--header` {why}"))?;
            headers.push(("x-webhook-headers", serde_json::to_string(&told)?));
        }
        if !args.event.is_empty() {
            query.push(("webhookEventsFilter", args.event.join(",")));
        }
        if let Some(schedule) = &args.webhook_schedule {
            headers.push(("x-webhook-schedule", schedule.to_string()));
        }
        if let Some(metadata) = &args.metadata {
            let metadata = Metadata::parse(metadata).map_err(|why| anyhow::anyhow!("`--metadata` {why}"))?;
            headers.push(("x-metadata", metadata.as_str().replace(['\n', '\r', '\t'], " ")));
        }
        let options = [
            ("delay", args.delay.map(|delay| delay.to_string())),
            ("priority", args.priority.map(|priority| priority.to_string())),
            ("retries", args.retries.map(|retries| retries.to_string())),
            ("retry_on", args.retry_on.clone()),
            ("max_attempts", args.max_attempts.map(|attempts| attempts.to_string())),
        ];
        query.extend(options.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Ok(Self { path, query, headers, body })
    }

    fn ask<'a>(&self, client: &'a Client) -> Ask<'a> {
        let ask = client.ask(Method::POST, &self.path).raw_body(self.body.clone()).within(CALL_LIMIT);
        let ask = self.query.iter().fold(ask, |ask, (name, value)| ask.query(name, value));
        self.headers.iter().fold(ask, |ask, (name, value)| ask.header(name, value.clone()))
    }

    /// The acknowledgement. The call has a key, so that one whose acknowledgement was lost is not made twice.
    async fn accepted(&self, client: &Client, printer: Printer) -> anyhow::Result<(StatusCode, String)> {
        let entropy: &dyn Entropy = &OsEntropy;
        let key = entropy.hex(16);
        let mut server = Again::new(client, printer, None, false);
        let call = |client| self.ask(client).header("idempotency-key", key.clone());
        server
            .ask(call, || "the call may have been accepted: `postback runs list` shows it then".to_owned())
            .await
    }
}

/// A stream of server-sent events, read piece by piece.
#[derive(Default)]
struct Events {
    seen: bool,
    begun: Vec<u8>,
    /// The data of an `event: error`.
    error: Option<String>,
}

impl Events {
    /// Reads on; says the data of every event that is complete.
    fn take(&mut self, piece: &[u8], mut say: impl FnMut(&str)) {
        self.seen = true;
        // The end may have begun with the piece before; what came earlier has been looked through.
        let mut from = self.begun.len().saturating_sub(1);
        self.begun.extend_from_slice(piece);
        while let Some(end) = self.begun[from..].windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.begun.drain(..from + end + 2).collect();
            from = 0;
            let event = String::from_utf8_lossy(&event);
            let field = |name: &str| {
                let lines = event.lines().filter_map(|line| line.strip_prefix(name));
                lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>()
            };
            let data = field("data:").join("\n");
            if field("event:") == ["error"] {
                self.error = Some(data);
            } else if event.contains("data:") {
                say(&clean(&data));
            }
        }
    }
}

/// Follows an acknowledged run to its end.
async fn wait(client: &Client, acknowledgement: &str, context: &Context) -> anyhow::Result<ExitStatus> {
    let acknowledged: Value = serde_json::from_str(acknowledgement)?;
    let run = acknowledged["run_id"].as_str().context("the server's answer names no run")?;
    let printer = context.printer;
    printer.note(&format!("accepted as run {run}"));
    let ended = runs::wait_for_end(client, printer, run, true).await?;
    printer.raw_json(&ended.view);
    Ok(if ended.state == "succeeded" { ExitStatus::Success } else { ExitStatus::Failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looked through anew with every byte, this would be ten thousand million looks.
    #[test]
    fn a_long_event_in_small_pieces_is_read_in_one_pass() {
        let (mut events, mut said) = (Events::default(), 0);
        let began = std::time::Instant::now();
        for piece in [b"data: ", &[b'x'; 150_000][..], b"\n\n"].concat().chunks(1) {
            events.take(piece, |data| said += data.len());
        }
        assert_eq!((said, events.begun.len()), (150_000, 0));
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }

    #[test]
    fn events_are_read_however_their_bytes_arrive() {
        let stream =
            "data: one \n\n:\n\ndata: two\ndata: lines\n\nevent: error\ndata: {\"message\":\"no\"}\n\n";
        for step in [1, 2, 7, 1000] {
            let (mut events, mut said) = (Events::default(), Vec::new());
            for piece in stream.as_bytes().chunks(step) {
                events.take(piece, |data| said.push(data.to_owned()));
            }
            assert_eq!(said, ["one ", "two\nlines"]);
            assert_eq!(events.error.as_deref(), Some(r#"{"message":"no"}"#));
        }
    }
}
