//! The bodies that callers and receivers read: keys in a fixed order, compact, the result's bytes
//! exactly as the model made them.
//!
//! One function for both, since a webhook carries what a synchronous caller would have read. It is
//! pure, so a body rendered again after a restart is the same to the byte.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::id::RunId;
use crate::outcome::{Outcome, RunError};
use crate::run::{EndpointUrl, Generation};
use crate::webhook::Metadata;

/// Said to whoever asked for a webhook.
pub const ACKNOWLEDGEMENT: &str =
    "Your request is being processed. We will return the result to your webhook.";
/// What pre-built models return unless they say something else: they were image models when the sentence was
/// written.
pub const PREBUILT_RETURNS: &str = "images";
/// Said on v4 to `?async=true` without a webhook.
pub const ASYNC_ACKNOWLEDGEMENT: &str = "Your request is being processed.";

/// Said by pre-built models.
pub fn prebuilt_acknowledgement(returns: &str) -> String {
    format!("We will return the {returns} to the endpoint provided when the task is complete.")
}

#[derive(Serialize)]
struct Body<'a> {
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    run_time_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

/// Where the result of a thin body is, and how large it is.
#[derive(Clone, Copy)]
struct Elsewhere<'a> {
    url: &'a str,
    bytes: usize,
}

/// What the caller of a synchronous call reads on success, and what a webhook carries always.
///
/// v3 and legacy: `run_id, message, result, status_code, run_time_ms`; v4: `run_id, result,
/// run_time_ms`. A run that did not succeed has `result` null, the error's message, and `error`. What the
/// caller wants to be told back comes last.
pub fn body(run: RunId, generation: Generation, outcome: &Outcome, metadata: Option<&Metadata>) -> Bytes {
    render(run, generation, outcome, None, metadata)
}

/// The same with the result's place instead of the result, for receivers that do not take large bodies:
/// `result` is null, and `result_url` and `result_bytes` follow the other keys. `None` for an outcome
/// without a result, whose body is small anyway.
pub fn thin_body(
    run: RunId,
    generation: Generation,
    outcome: &Outcome,
    link: &str,
    metadata: Option<&Metadata>,
) -> Option<Bytes> {
    let elsewhere = Elsewhere { url: link, bytes: outcome.result.as_ref()?.len() };
    Some(render(run, generation, outcome, Some(elsewhere), metadata))
}

fn render(
    run: RunId,
    generation: Generation,
    outcome: &Outcome,
    elsewhere: Option<Elsewhere<'_>>,
    metadata: Option<&Metadata>,
) -> Bytes {
    let mut id = [0; 36];
    let id = run.encode(&mut id);
    let five_keys = generation != Generation::V4;
    let message = match &outcome.error {
        Some(error) => Some(error.message.clone()),
        None if five_keys => Some(format!("Finished inference request with run_id: `{id}`")),
        None => None,
    };
    let result = if elsewhere.is_some() { None } else { outcome.result.as_deref() };
    let body = Body {
        run_id: id,
        message: message.as_deref(),
        result: result.and_then(raw_json),
        status_code: five_keys.then_some(outcome.status_code),
        run_time_ms: outcome.run_time_ms,
        error: outcome.error.as_ref(),
        result_url: elsewhere.map(|elsewhere| elsewhere.url),
        result_bytes: elsewhere.map(|elsewhere| elsewhere.bytes),
        metadata,
    };
    to_json(&body, result.map_or(0, <[u8]>::len))
}

/// The answer of a synchronous call that did not succeed: `{"run_id","message","code"}`.
pub fn error_body(run: Option<RunId>, message: &str, code: &str) -> Bytes {
    #[derive(Serialize)]
    struct ErrorBody<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        run_id: Option<RunId>,
        message: &'a str,
        code: &'a str,
    }
    to_json(&ErrorBody { run_id: run, message, code }, message.len())
}

/// The answer about a run that was removed with age: an error's keys, and when that was.
pub fn removed_body(run: RunId, message: &str, code: &str, removed_at: Timestamp) -> Bytes {
    #[derive(Serialize)]
    struct RemovedBody<'a> {
        run_id: RunId,
        message: &'a str,
        code: &'a str,
        removed_at: Timestamp,
    }
    to_json(&RemovedBody { run_id: run, message, code, removed_at }, message.len())
}

/// Endpoints in the form in which a request named them.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Named<'a> {
    /// One address.
    One(&'a EndpointUrl),
    /// A list of addresses.
    List(&'a [EndpointUrl]),
}

/// The acknowledgement of a call that asked for a webhook. v4 names no address.
pub fn acknowledgement(
    run: RunId,
    generation: Generation,
    webhook: Option<Named<'_>>,
    message: &str,
) -> Bytes {
    #[derive(Serialize)]
    struct Acknowledgement<'a> {
        run_id: RunId,
        #[serde(skip_serializing_if = "Option::is_none")]
        webhook_endpoint: Option<Named<'a>>,
        message: &'a str,
    }
    let webhook_endpoint = webhook.filter(|_| generation != Generation::V4);
    to_json(&Acknowledgement { run_id: run, webhook_endpoint, message }, message.len())
}

/// The bytes as raw JSON, unless they are not JSON at all (then the answer says `null`: the worker
/// checks results before they become outcomes, so this is a second line of defence).
fn raw_json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

pub(crate) fn to_json(value: &impl Serialize, payload: usize) -> Bytes {
    let mut buffer = Vec::with_capacity(payload + 256);
    serde_json::to_writer(&mut buffer, value).expect("strings and numbers always serialise");
    buffer.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::outcome::Code;

    const RUN: RunId = RunId::from_bytes([1; 16]);
    const ID: &str = "01010101-0101-0101-0101-010101010101";

    fn text(body: &Bytes) -> &str {
        std::str::from_utf8(body).unwrap()
    }

    #[test]
    fn the_delay_example_delivers_these_bytes() {
        let outcome = Outcome::succeeded(
            Bytes::from_static(br#"{"result": "Delayed for 0 mins"}"#),
            200,
            1.757,
            Timestamp::from_millis(0),
        );
        assert_eq!(
            text(&body(RUN, Generation::V3, &outcome, None)),
            format!(
                "{{\"run_id\":\"{ID}\",\"message\":\"Finished inference request with run_id: `{ID}`\",\
                 \"result\":{{\"result\": \"Delayed for 0 mins\"}},\"status_code\":200,\"run_time_ms\":1.757}}"
            )
        );
        assert_eq!(
            text(&body(RUN, Generation::V4, &outcome, None)),
            format!(
                "{{\"run_id\":\"{ID}\",\"result\":{{\"result\": \"Delayed for 0 mins\"}},\"run_time_ms\":1.757}}"
            )
        );
    }

    #[test]
    fn a_thin_body_says_where_the_result_is() {
        let result = Bytes::from_static(br#""a long one""#);
        let outcome = Outcome::succeeded(result, 200, 0.5, Timestamp::from_millis(0));
        let thin = thin_body(RUN, Generation::V4, &outcome, "https://a.example/r?x=1&y=2", None).unwrap();
        assert_eq!(
            text(&thin),
            format!(
                "{{\"run_id\":\"{ID}\",\"result\":null,\"run_time_ms\":0.5,\
                 \"result_url\":\"https://a.example/r?x=1&y=2\",\"result_bytes\":12}}"
            )
        );
        let failed = Outcome::failed(RunError::new(Code::Timeout, "late"), 1.0, Timestamp::from_millis(0));
        assert_eq!(thin_body(RUN, Generation::V3, &failed, "https://a.example/", None), None);
    }

    #[test]
    fn metadata_comes_last_as_it_came() {
        let metadata = Metadata::parse(r#"{"order": 17}"#).unwrap();
        let outcome = Outcome::succeeded(Bytes::from_static(b"1"), 200, 0.5, Timestamp::from_millis(0));
        assert_eq!(
            text(&body(RUN, Generation::V4, &outcome, Some(&metadata))),
            format!(
                "{{\"run_id\":\"{ID}\",\"result\":1,\"run_time_ms\":0.5,\"metadata\":{{\"order\": 17}}}}"
            )
        );
        let thin = thin_body(RUN, Generation::V4, &outcome, "https://a.example/", Some(&metadata)).unwrap();
        assert!(text(&thin).ends_with(r#""result_bytes":1,"metadata":{"order": 17}}"#));
    }

    #[test]
    fn an_acknowledgement_names_the_endpoints_as_they_were_named() {
        let urls = ["https://a.example/", "https://b.example/"].map(EndpointUrl::checked);
        let said = |named| text(&acknowledgement(RUN, Generation::V3, named, "m")).to_owned();
        assert_eq!(
            said(Some(Named::One(&urls[0]))),
            format!("{{\"run_id\":\"{ID}\",\"webhook_endpoint\":\"https://a.example/\",\"message\":\"m\"}}")
        );
        assert_eq!(
            said(Some(Named::List(&urls))),
            format!(
                "{{\"run_id\":\"{ID}\",\"webhook_endpoint\":[\"https://a.example/\",\"https://b.example/\"],\"message\":\"m\"}}"
            )
        );
        assert_eq!(said(None), format!("{{\"run_id\":\"{ID}\",\"message\":\"m\"}}"));
    }

    #[test]
    fn integers_of_any_size_pass_through() {
        let big = Bytes::from_static(b"123456789012345678901234567890");
        let outcome = Outcome::succeeded(big, 200, 0.5, Timestamp::from_millis(0));
        assert!(
            text(&body(RUN, Generation::V4, &outcome, None)).contains(":123456789012345678901234567890,")
        );
    }

    #[test]
    fn a_failed_run_tells_why() {
        let error = RunError {
            code: Code::UserError,
            kind: "ValueError".into(),
            message: "no".into(),
            traceback: None,
        };
        let outcome = Outcome::failed(error, 2.0, Timestamp::from_millis(0));
        assert_eq!(
            text(&body(RUN, Generation::V3, &outcome, None)),
            format!(
                "{{\"run_id\":\"{ID}\",\"message\":\"no\",\"result\":null,\"status_code\":500,\"run_time_ms\":2.0,\
                 \"error\":{{\"code\":\"user_error\",\"type\":\"ValueError\",\"message\":\"no\"}}}}"
            )
        );
    }
}
