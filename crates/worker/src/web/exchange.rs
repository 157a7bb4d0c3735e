//! One request to a web server and its answer: told to a caller as it comes, or gathered as the result of a run.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream::Stream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use queue::limits::{FAILED_ANSWER_BYTES_MAX, RESULT_BYTES_MAX};
use queue::outcome::{Code, RunError};
use queue::web::{self, Answer, Countdown, Head, Visitor};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::client::{Client, Connection, headers, innermost, nothing, streamed, whole};
use super::{result, tunnel};

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum End {
    /// The caller has the whole answer.
    Told(StatusCode),
    /// The answer ended before it was whole.
    CutShort(StatusCode, String),
    /// The caller went away.
    Gone,
    /// The answer is the result of a run, or says why there is none.
    Result(StatusCode, Result<Bytes, RunError>),
    /// There is no answer.
    Broken(String),
}

/// Sends a caller's request, and tells the answer as it comes.
pub(super) async fn visit(
    client: Client,
    port: u16,
    request: web::Request,
    visitor: Arc<dyn Visitor>,
    stop: CancellationToken,
) -> End {
    let web::Request { head, body, upgrade } = request;
    if upgrade {
        let Some(up) = body else { return End::Broken("the connection is gone".into()) };
        let answer = match client.send(Connection::Fresh, port, &head, nothing()).await {
            Ok(answer) => answer,
            Err(failed) => return End::Broken(failed.message),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return tunnel::dig(answer, up, &*visitor, &stop).await;
        }
        return tell(answer, &*visitor, stop).await;
    }
    let body = body.map_or_else(nothing, streamed);
    match client.send(Connection::Pooled, port, &head, body).await {
        Ok(answer) => tell(answer, &*visitor, stop).await,
        Err(failed) => End::Broken(failed.message),
    }
}

async fn tell(answer: http::Response<Incoming>, visitor: &dyn Visitor, stop: CancellationToken) -> End {
    let (parts, body) = answer.into_parts();
    let length = body.size_hint().exact();
    let body = BodyDataStream::new(body).map_err(|error| io::Error::other(innermost(&error))).boxed();
    let (body, ended) = Told::new(body, length, stop);
    visitor.answer(Answer {
        status: parts.status.as_u16(),
        headers: headers(&parts.headers),
        length,
        body: body.boxed(),
    });
    match ended.await {
        Ok(Ok(())) => End::Told(parts.status),
        Ok(Err(why)) => End::CutShort(parts.status, why),
        Err(_) => End::Gone,
    }
}

/// A body on its way to a caller, which says how it ended, unless it is dropped before.
pub(super) struct Told {
    body: web::Body,
    left: Countdown,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: Option<oneshot::Sender<Result<(), String>>>,
}

impl Told {
    /// The body, until `stop`.
    pub(super) fn new(
        body: web::Body,
        length: Option<u64>,
        stop: CancellationToken,
    ) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (ended, end) = oneshot::channel();
        let left = Countdown::new(length);
        let mut told = Self { body, left, stop: Box::pin(stop.cancelled_owned()), ended: Some(ended) };
        if left.is_over() {
            told.end(Ok(()));
        }
        (told, end)
    }

    fn end(&mut self, how: Result<(), String>) {
        if let Some(ended) = self.ended.take() {
            // Whoever stopped the exchange listens no more.
            let _ = ended.send(how);
        }
    }
}

impl Stream for Told {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.ended.is_none() {
            return Poll::Ready(None);
        }
        if self.stop.poll_unpin(cx).is_ready() {
            let why = "the exchange was stopped";
            self.end(Err(why.to_owned()));
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, why))));
        }
        let next = self.body.poll_next_unpin(cx);
        match &next {
            Poll::Ready(None) => self.end(Ok(())),
            Poll::Ready(Some(Err(error))) => {
                let why = error.to_string();
                self.end(Err(why));
            }
            Poll::Ready(Some(Ok(bytes))) => {
                self.left.pass(bytes.len());
                if self.left.is_over() {
                    self.end(Ok(()));
                }
            }
            Poll::Pending => {}
        }
        next
    }
}

/// Sends the request of a run, and makes its result of the answer.
pub(super) async fn run(client: Client, port: u16, head: Head, body: Bytes) -> End {
    let mut answer = match client.send(Connection::Fresh, port, &head, whole(body)).await {
        Ok(answer) => answer,
        Err(failed) => return End::Broken(failed.message),
    };
    let status = answer.status();
    let most = if status.is_success() { RESULT_BYTES_MAX } else { FAILED_ANSWER_BYTES_MAX };
    let mut gathered = BytesMut::new();
    let mut body = BodyDataStream::new(answer.body_mut());
    while let Some(bytes) = body.next().await {
        match bytes {
            Ok(bytes) => gathered.extend_from_slice(&bytes),
            Err(error) => return End::Broken(innermost(&error)),
        }
        if gathered.len() > most {
            break;
        }
    }
    if !status.is_success() {
        return End::Result(status, Err(refusal(status, &gathered)));
    }
    if gathered.len() > most {
        let message = format!("the answer is larger than {RESULT_BYTES_MAX} bytes, which a result may have");
        return End::Result(status, Err(RunError::new(Code::ResultTooLarge, message)));
    }
    End::Result(status, result::of(answer.headers(), gathered.freeze()))
}

/// Why a run failed that was answered so.
fn refusal(status: StatusCode, body: &[u8]) -> RunError {
    let said = String::from_utf8_lossy(&body[..body.len().min(FAILED_ANSWER_BYTES_MAX)]);
    let lead = format!("the app's web server answered {status}");
    let message = if said.trim().is_empty() { lead } else { format!("{lead}: {}", said.trim()) };
    RunError { kind: "HTTPStatus".to_owned(), ..RunError::new(Code::UserError, message) }
}
