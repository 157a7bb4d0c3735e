//! Telling a caller what a generator yields as it comes: server-sent events.
//!
//! The answer begins with the first value; a function that fails before it is answered like any other, one
//! that fails after it ends the stream with `event: error`. A caller that hangs up cancels the call.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use queue::answer;
use queue::app::Function;
use queue::limits::STREAM_BEHIND_BYTES_MAX;
use queue::outcome::Outcome;
use queue::port::{Dispatch, Heard, Listener, Refused};
use queue::run::{Generation, Mode};
use queue::webhook::Metadata;
use queue::{AppId, RunId};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::call::{self, Message};
use super::promise::Order;
use super::target::Target;
use crate::Gateway;
use crate::problem::{Answer, Problem, REQUEST_ID, run_header};

/// Between two signs of life of a stream that has nothing to say: connections that are idle get closed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that leave in one piece.
const PIECE_BYTES: usize = 64 << 10;
/// What an event costs beyond its text.
const EVENT_BYTES: usize = 16;

/// What a request says about the form of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    Events,
    Anything,
    SomethingElse,
}

impl Accepts {
    fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::Anything;
        for value in headers.get_all(header::ACCEPT) {
            let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
            if value.contains("text/event-stream") {
                return Self::Events;
            }
            if !value.contains("*/*") {
                read = Self::SomethingElse;
            }
        }
        read
    }
}

/// Whether a caller that waits is told each value as it comes; without it a generator's values are a list.
pub(super) fn is_wanted(
    target: &Target,
    function: &Function,
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> bool {
    if target.streams || body.is_some_and(says_stream) {
        return true;
    }
    match Accepts::read(headers) {
        Accepts::Events => true,
        Accepts::Anything => target.generation == Generation::V4 && function.streams && body.is_none(),
        Accepts::SomethingElse => false,
    }
}

/// What clients of OpenAI's API say in the body.
fn says_stream(body: &Bytes) -> bool {
    #[derive(Deserialize)]
    struct Said {
        stream: serde_json::Value,
    }
    serde_json::from_slice::<Said>(body).is_ok_and(|said| said.stream == serde_json::Value::Bool(true))
}

/// Where a replica puts the values of one call.
#[derive(Debug)]
struct Ear {
    values: mpsc::UnboundedSender<Bytes>,
    behind: Arc<AtomicUsize>,
}

impl Listener for Ear {
    fn tell(&self, text: Bytes) -> Heard {
        let size = text.len() + EVENT_BYTES;
        let behind = self.behind.fetch_add(size, Ordering::Relaxed) + size;
        // One value that is larger than the bound passes, as long as nothing waits before it.
        if behind > STREAM_BEHIND_BYTES_MAX && behind > size && !self.values.is_closed() {
            return Heard::Behind;
        }
        self.values.send(text).map_or(Heard::Gone, |()| Heard::Yes)
    }
}

type Calling = Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + Send>>;

/// How the call ended, or the wait for it.
enum End {
    Awaited(Calling),
    Known(Result<Outcome, Refused>),
    Told,
}

/// A stream of values on its way to its caller.
struct Events {
    run: RunId,
    values: mpsc::UnboundedReceiver<Bytes>,
    behind: Arc<AtomicUsize>,
    end: End,
    message: Message,
    hang_up: HangUp,
}

/// Cancels a call whose caller goes away.
pub(super) struct HangUp {
    dispatch: Arc<dyn Dispatch>,
    app: AppId,
    run: RunId,
    is_over: bool,
}

impl HangUp {
    pub(super) fn new(dispatch: Arc<dyn Dispatch>, app: AppId, run: RunId) -> Self {
        Self { dispatch, app, run, is_over: false }
    }

    /// The call has ended.
    pub(super) fn is_over(&mut self) {
        self.is_over = true;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if !self.is_over {
            self.dispatch.cancel(&self.app, self.run);
        }
    }
}

/// Calls the function and answers with what it yields as it comes, or with what it returned.
pub(super) async fn answer(
    gateway: &Gateway,
    order: Order<'_>,
    metadata: Option<Metadata>,
) -> Answer<Response> {
    let (sender, mut values) = mpsc::unbounded_channel();
    let behind = Arc::new(AtomicUsize::new(0));
    let ear = Ear { values: sender, behind: Arc::clone(&behind) };
    let app = order.target.app.id.clone();
    let (call, reply) = call::prepare(gateway, order, metadata, Some(Arc::new(ear)));
    let run = call.id;
    let dispatch = Arc::clone(&gateway.dispatch);
    let hang_up = HangUp::new(Arc::clone(&dispatch), app, run);
    let mut calling: Calling = Box::pin(async move { dispatch.call(call).await });
    let end = tokio::select! {
        biased;
        Some(_) = values.recv() => End::Awaited(calling),
        outcome = &mut calling => {
            // Both may come between two looks.
            if values.try_recv().is_err() {
                let mut hang_up = hang_up;
                hang_up.is_over();
                return call::answered(gateway, run, outcome, &reply);
            }
            End::Known(outcome)
        }
    };
    gateway.meter.accepted(reply.generation, Mode::Sync);
    let events = Events { run, values, behind, end, message: reply.message, hang_up };
    let body = stream::unfold(events, async |mut events| {
        let piece = events.next().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), events))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REQUEST_ID, run_header(run));
    Ok(response)
}

impl Events {
    /// The next events; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let first = tokio::select! {
            biased;
            value = self.values.recv() => value,
            () = sleep(HEARTBEAT) => return Some(Bytes::from_static(b":\n\n")),
        };
        let Some(first) = first else { return self.last().await };
        let mut piece = BytesMut::with_capacity(first.len() + EVENT_BYTES);
        self.put(&mut piece, &first);
        while piece.len() < PIECE_BYTES
            && let Ok(value) = self.values.try_recv()
        {
            self.put(&mut piece, &value);
        }
        Some(piece.freeze())
    }

    fn put(&self, piece: &mut BytesMut, text: &Bytes) {
        self.behind.fetch_sub(text.len() + EVENT_BYTES, Ordering::Relaxed);
        put_event(piece, text);
    }

    /// What is said after the last value: nothing when all went well.
    async fn last(&mut self) -> Option<Bytes> {
        let outcome = match std::mem::replace(&mut self.end, End::Told) {
            End::Awaited(calling) => calling.await,
            End::Known(outcome) => outcome,
            End::Told => return None,
        };
        self.hang_up.is_over();
        let (code, message) = match outcome {
            Ok(Outcome { error: Some(error), .. }) => (error.code.as_str().into(), self.message.of(&error)),
            Ok(_) => return None,
            Err(refused) => {
                let problem = Problem::from(refused);
                (problem.code, problem.message.into_owned())
            }
        };
        let mut event = BytesMut::from(&b"event: error\n"[..]);
        put_event(&mut event, &answer::error_body(Some(self.run), &message, &code));
        Some(event.freeze())
    }
}

/// One event. A text that is framed already, as code for OpenAI's clients does it, stays as it is.
fn put_event(piece: &mut BytesMut, text: &[u8]) {
    const FIELDS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];
    if text.ends_with(b"\n\n") && FIELDS.iter().any(|field| text.starts_with(field)) {
        return piece.put_slice(text);
    }
    let mut rest = text;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        piece.put_slice(b"data: ");
        piece.put_slice(&rest[..end.unwrap_or(rest.len())]);
        piece.put_slice(b"\n");
        let Some(end) = end else { break };
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + if both { 2 } else { 1 }..];
    }
    piece.put_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> String {
        let mut piece = BytesMut::new();
        put_event(&mut piece, text.as_bytes());
        String::from_utf8(piece.to_vec()).unwrap()
    }

    #[test]
    fn each_line_of_a_value_is_a_line_of_its_event() {
        assert_eq!(event("hello "), "data: hello \n\n");
        assert_eq!(event(""), "data: \n\n");
        assert_eq!(event("a\nb\r\nc\rd"), "data: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(event("\n"), "data: \ndata: \n\n");
    }

    #[test]
    fn a_value_that_is_an_event_already_is_left_alone() {
        for framed in ["data: {\"a\":1}\n\n", "data: [DONE]\n\n", "event: x\ndata: 1\n\n", ": hm\n\n"] {
            assert_eq!(event(framed), framed);
        }
        assert_eq!(event("data: x"), "data: data: x\n\n");
    }

    #[test]
    fn what_a_caller_accepts_is_read_from_all_its_headers() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            Accepts::read(&headers)
        };
        assert_eq!(read(&[]), Accepts::Anything);
        assert_eq!(read(&["*/*"]), Accepts::Anything);
        assert_eq!(read(&["application/json"]), Accepts::SomethingElse);
        assert_eq!(read(&["application/json", "Text/Event-Stream;q=0.5"]), Accepts::Events);
    }

    #[test]
    fn a_listener_that_falls_behind_is_told_nothing_more() {
        let (sender, mut values) = mpsc::unbounded_channel();
        let behind = Arc::new(AtomicUsize::new(0));
        let ear = Ear { values: sender, behind: Arc::clone(&behind) };
        let large = Bytes::from(vec![b'x'; STREAM_BEHIND_BYTES_MAX]);
        assert_eq!(ear.tell(large.clone()), Heard::Yes, "alone it passes");
        assert_eq!(ear.tell(Bytes::from_static(b"y")), Heard::Behind);
        values.close();
        while values.try_recv().is_ok() {}
        assert_eq!(ear.tell(Bytes::from_static(b"z")), Heard::Gone);
    }
}
