//! Recorded requests on their way to another address: all that arrive, or one of them once more.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use queue::replay::headers_sent;
use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::Value;
use url::Url;

use super::super::ExitStatus;
use super::{create, headers, introduce, recorded, show};
use crate::client::{Client, ServerSaid};
use crate::print::{Colour, Printer, clean};

/// One long-poll.
const WAIT: Duration = Duration::from_secs(30);
/// Between two tries to reach a server that was there before.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Time that the other address has.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Characters of its answer that are shown.
const SHOWN_CHARS_MAX: usize = 2_000;
/// Bytes of its answer that are read.
const READ_BYTES_MAX: usize = 64 << 10;

/// Prints what arrives, and sends it on.
///
/// # Errors
/// When the server cannot be reached or knows no such inbox.
pub(super) async fn listen(
    client: &Client,
    printer: Printer,
    inbox: Option<String>,
    forward: Option<Url>,
) -> anyhow::Result<()> {
    let inbox = match inbox {
        Some(inbox) => inbox,
        None => {
            let made = create(client).await?;
            introduce(printer, &made);
            made["id"].as_str().context("the server named no inbox")?.to_owned()
        }
    };
    let http = http()?;
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
            let Some(target) = &forward else { continue };
            let target = below(target, request["path"].as_str().unwrap_or_default());
            match pass_on(&http, &target, request).await {
                Ok(answer) => answer.say(printer, &target),
                Err(error) => printer.warning(&format!("not forwarded to {target}: {error:#}")),
            }
        }
    }
}

/// Sends one recorded request to an address. Succeeds when that answers with a status of success.
///
/// # Errors
/// When there is no such request, or the address cannot be reached.
pub(super) async fn replay(
    client: &Client,
    printer: Printer,
    inbox: &str,
    number: i64,
    target: &Url,
) -> anyhow::Result<ExitStatus> {
    let page = recorded(client, inbox, number.saturating_sub(1)).query("limit", 1).json().await?;
    let request = page["items"].as_array().and_then(|items| items.first());
    let request = request.filter(|request| request["sequence"] == number).with_context(|| {
        format!("inbox {inbox} has no request {number}; `postback inbox show {inbox}` shows those it has")
    })?;
    let answer =
        pass_on(&http()?, target, request).await.with_context(|| format!("{target} could not be reached"))?;
    answer.say(printer, target);
    if headers(request).iter().any(|(name, _)| name == queue::signature::TIMESTAMP_HEADER) {
        printer.note(
            "its signature is of the time when it was first sent: a receiver that refuses it 300 s later is right; \
             `postback deliveries redeliver` signs anew",
        );
    }
    if printer.wants_json() {
        printer.json(&answer.json());
    }
    Ok(if answer.status.is_success() { ExitStatus::Success } else { ExitStatus::Failure })
}

fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().redirect(Policy::none()).no_proxy().build()?)
}

/// `target`, with what followed the inbox's own address behind it.
fn below(target: &Url, path: &str) -> Url {
    // `/inbox/{id}` is what the sender was told; the rest is its own.
    let rest = path.splitn(4, '/').nth(3);
    let (rest, query) = match rest.map(|rest| rest.split_once('?').unwrap_or((rest, ""))) {
        Some((rest, query)) => (rest, query),
        None => ("", path.split_once('?').map_or("", |(_, query)| query)),
    };
    let mut url = target.clone();
    if !rest.is_empty() {
        url.set_path(&format!("{}/{rest}", target.path().trim_end_matches('/')));
    }
    if !query.is_empty() {
        let joined = target.query().map_or_else(|| query.to_owned(), |own| format!("{own}&{query}"));
        url.set_query(Some(&joined));
    }
    url
}

/// What the other address said.
struct Answer {
    method: Method,
    status: reqwest::StatusCode,
    took: Duration,
    body: String,
}

impl Answer {
    fn say(&self, printer: Printer, target: &Url) {
        let colour = if self.status.is_success() { Colour::Green } else { Colour::Yellow };
        let status = printer.paint(colour, &self.status.to_string());
        let millis = self.took.as_secs_f64() * 1e3;
        printer.note(&format!("  → {} {target}  {status} in {millis:.1} ms", self.method));
        for line in clean(&self.body).lines().take(20) {
            printer.note(&format!("  ← {line}"));
        }
    }

    fn json(&self) -> Value {
        serde_json::json!({
            "status": self.status.as_u16(),
            "durationMs": self.took.as_secs_f64() * 1e3,
            "body": self.body,
        })
    }
}

/// Sends a recorded request to another address: the same method, body, and headers but those that
/// belong to the connection.
async fn pass_on(http: &reqwest::Client, target: &Url, request: &Value) -> anyhow::Result<Answer> {
    let method = request["method"].as_str().unwrap_or("POST").parse::<Method>()?;
    let body = request["body"].as_str().unwrap_or_default();
    let body = match request["bodyEncoding"].as_str() {
        Some("base64") => STANDARD.decode(body).context("the recorded body is damaged")?,
        _ => body.as_bytes().to_vec(),
    };
    let mut forwarded = http.request(method.clone(), target.clone()).timeout(ANSWER_LIMIT).body(body);
    for (name, value) in headers_sent(&headers(request)) {
        forwarded = forwarded.header(name, value);
    }
    let began = Instant::now();
    let mut response = forwarded.send().await?;
    let took = began.elapsed();
    let (status, mut read) = (response.status(), Vec::new());
    while read.len() < READ_BYTES_MAX
        && let Some(chunk) = response.chunk().await?
    {
        read.extend_from_slice(&chunk);
    }
    let body = String::from_utf8_lossy(&read).chars().take(SHOWN_CHARS_MAX).collect();
    Ok(Answer { method, status, took, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_inboxs_address_is_put_behind_the_other_one() {
        for (target, path, sent) in [
            ("http://localhost:3000", "/inbox/1", "http://localhost:3000/"),
            ("http://localhost:3000/hook", "/inbox/1", "http://localhost:3000/hook"),
            ("http://localhost:3000/hook/", "/inbox/1/a/b", "http://localhost:3000/hook/a/b"),
            ("http://localhost:3000/", "/inbox/1?x=1", "http://localhost:3000/?x=1"),
            ("http://localhost:3000/?k=2", "/inbox/1/a?x=%20", "http://localhost:3000/a?k=2&x=%20"),
        ] {
            assert_eq!(below(&target.parse().unwrap(), path).as_str(), sent);
        }
    }
}
