//! What a run tells its endpoints on its way: that an attempt began, what it printed, what it yielded.
//!
//! These are deliveries like that of the outcome, but nothing rests on them: they have a short schedule,
//! never disable an endpoint, keep no run from being removed, and may be lost with the server.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::answer::to_json;
use crate::clock::Timestamp;
use crate::id::RunId;
use crate::lease::Lease;
use crate::run::Generation;
use crate::webhook::{Event, Metadata};

/// Something to be told.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The attempt it is about; a stale one tells nothing.
    pub lease: Lease,
    /// What happened; never [`Event::Completed`].
    pub event: Event,
    /// Lines or values, as a JSON array.
    pub items: Bytes,
    /// How many more there were than a body has room for.
    pub dropped: u32,
    /// Not to be sent before.
    pub due_at: Timestamp,
}

/// An event as the store has it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// What happened.
    pub event: Event,
    /// In which attempt of the run.
    pub attempt: u32,
    /// Lines or values, as a JSON array.
    pub items: &'a [u8],
    /// How many more there were.
    pub dropped: u32,
}

#[derive(Serialize)]
struct Body<'a> {
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    event: Event,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

/// What a webhook carries about an event: `run_id, message, event, attempt, output or logs`, on v4 without
/// the message. `dropped` counts what had no room. Pure, like [`crate::answer::body`].
pub fn body(run: RunId, generation: Generation, told: &Told<'_>, metadata: Option<&Metadata>) -> Bytes {
    let mut id = [0; 36];
    let id = run.encode(&mut id);
    let said = match told.event {
        Event::Start => "Started inference request",
        Event::Output => "Output of inference request",
        Event::Logs => "Logs of inference request",
        Event::Completed => "Finished inference request",
    };
    let items = || serde_json::from_slice(told.items).ok();
    let body = Body {
        run_id: id,
        message: (generation != Generation::V4).then(|| format!("{said} with run_id: `{id}`")),
        event: told.event,
        attempt: told.attempt,
        output: if told.event == Event::Output { items() } else { None },
        logs: if told.event == Event::Logs { items() } else { None },
        dropped: (told.dropped > 0).then_some(told.dropped),
        metadata,
    };
    to_json(&body, told.items.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: RunId = RunId::from_bytes([1; 16]);
    const ID: &str = "01010101-0101-0101-0101-010101010101";

    #[test]
    fn each_event_has_its_body() {
        let told = |event, items: &'static [u8], dropped| Told { event, attempt: 2, items, dropped };
        let said = |generation, told: &Told<'_>, metadata| {
            String::from_utf8(body(RUN, generation, told, metadata).to_vec()).unwrap()
        };
        assert_eq!(
            said(Generation::V3, &told(Event::Start, b"[]", 0), None),
            format!(
                "{{\"run_id\":\"{ID}\",\"message\":\"Started inference request with run_id: `{ID}`\",\
                 \"event\":\"start\",\"attempt\":2}}"
            )
        );
        assert_eq!(
            said(Generation::V4, &told(Event::Logs, br#"["a","b"]"#, 3), None),
            format!(
                "{{\"run_id\":\"{ID}\",\"event\":\"logs\",\"attempt\":2,\"logs\":[\"a\",\"b\"],\"dropped\":3}}"
            )
        );
        let metadata = Metadata::parse(r#"{"order": 17}"#).unwrap();
        assert_eq!(
            said(Generation::V4, &told(Event::Output, b"[12345678901234567890123]", 0), Some(&metadata)),
            format!(
                "{{\"run_id\":\"{ID}\",\"event\":\"output\",\"attempt\":2,\"output\":[12345678901234567890123],\
                 \"metadata\":{{\"order\": 17}}}}"
            )
        );
    }
}
