//! A request to a web server whose caller waits: it goes on as it comes, and so does the answer.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::Stream;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, StatusCode, header, request};
use http_body::Body as _;
use queue::RunId;
use queue::limits::{REQUEST_BODY_BYTES_MAX, RESPONSE_GRACE_PERIOD_MAX};
use queue::port::Call;
use queue::registry::Build;
use queue::run::{Generation, Mode};
use queue::web::{self, Countdown, Head, Visitor};
use tokio::sync::oneshot;

use super::{forward, switch};
use crate::Gateway;
use crate::inference::call::Reply;
use crate::inference::streaming::HangUp;
use crate::inference::target::Target;
use crate::inference::{body, call};
use crate::listener::Patient;
use crate::problem::{Answer, Problem, REQUEST_ID, run_header};

/// What became of the body of a request on its way.
type Fault = Arc<Mutex<Option<Problem>>>;

/// Whoever waits for the answer.
struct Caller {
    request: Mutex<Option<web::Request>>,
    answer: Mutex<Option<oneshot::Sender<web::Answer>>>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

impl Visitor for Caller {
    fn request(&self) -> Option<web::Request> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn answer(&self, answer: web::Answer) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // A caller that went away has dropped the other end, and with it goes the answer.
            let _ = sender.send(answer);
        }
    }
}

/// Sends a request to the app's web server and answers with what it answers.
pub(super) async fn answer(
    gateway: &Gateway,
    target: &Target,
    build: &Build,
    parts: &request::Parts,
    body: Body,
) -> Answer<Response> {
    let accepted_at = gateway.clock.now();
    let run = RunId::generate(accepted_at, &*gateway.entropy);
    let switching = forward::wants_switch(parts);
    let fault = Fault::default();
    let (up, client) = match switching {
        Some(upgrade) => {
            let (up, client) = switch::begin(upgrade);
            (Some(up), Some(client))
        }
        None => (on_its_way(&parts.headers, body, &fault)?, None),
    };
    let head = forward::of_visit(gateway, parts, run, client.is_some());
    let (sender, mut answered) = oneshot::channel();
    let function = Head::function(&head.target).into();
    let request = web::Request { head, body: up, upgrade: client.is_some() };
    let caller = Caller { request: Mutex::new(Some(request)), answer: Mutex::new(Some(sender)) };
    // A conversation goes on for as long as both sides like, within reason.
    let limit =
        if client.is_some() { RESPONSE_GRACE_PERIOD_MAX } else { build.config.response_grace_period() };
    let call = Call {
        id: run,
        app: Arc::clone(&target.app),
        function,
        generation: Generation::V4,
        input: Bytes::new(),
        limit,
        accepted_at,
        metadata: None,
        listener: None,
        visitor: Some(Arc::new(caller)),
    };
    let dispatch = Arc::clone(&gateway.dispatch);
    let mut hang_up = HangUp::new(Arc::clone(&dispatch), target.app.id.clone(), run);
    let mut calling = async move { dispatch.call(call).await }.boxed();
    let answer = tokio::select! {
        biased;
        Ok(answer) = &mut answered => answer,
        outcome = &mut calling => match answered.try_recv() {
            // Both may come between two looks.
            Ok(answer) => answer,
            Err(_) => {
                hang_up.is_over();
                if let Some(problem) = fault.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    return Err(problem.about(run));
                }
                return call::answered(gateway, run, outcome, &Reply::to_visitor(limit));
            }
        },
    };
    gateway.meter.accepted(Generation::V4, Mode::Sync);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let headers = forward::back(parts, answer.headers, switches);
    let left = Countdown::new(answer.length);
    if left.is_over() {
        hang_up.is_over();
    }
    let told = Told { body: answer.body, left, hang_up };
    let mut response = match client {
        Some(client) if switches => {
            switch::join(client, told.boxed());
            Response::new(Body::empty())
        }
        _ => {
            let mut response = Response::new(Body::from_stream(told));
            response.extensions_mut().insert(Patient);
            response
        }
    };
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(REQUEST_ID, run_header(run));
    Ok(response)
}

/// The body of a request, within its bound.
fn on_its_way(headers: &HeaderMap, body: Body, fault: &Fault) -> Answer<Option<web::Body>> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > REQUEST_BODY_BYTES_MAX as u64) {
        return Err(body::refuse_unread(headers, body));
    }
    let (fault, mut passed) = (Arc::clone(fault), 0);
    let checked = body.into_data_stream().map(move |bytes| {
        let problem = match bytes {
            Ok(bytes) => {
                passed += bytes.len();
                if passed <= REQUEST_BODY_BYTES_MAX {
                    return Ok(bytes);
                }
                body::too_large()
            }
            Err(error) => body::broken(&error),
        };
        let message = problem.message.to_string();
        *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        Err(io::Error::other(message))
    });
    Ok(Some(checked.boxed()))
}

/// An answer's body on its way to its caller; one that goes away takes the call with it.
struct Told {
    body: web::Body,
    left: Countdown,
    hang_up: HangUp,
}

impl Stream for Told {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let next = self.body.poll_next_unpin(cx);
        let is_over = match &next {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(bytes))) => {
                self.left.pass(bytes.len());
                self.left.is_over()
            }
            Poll::Ready(Some(Err(_)) | None) => true,
        };
        if is_over {
            self.hang_up.is_over();
        }
        next
    }
}
