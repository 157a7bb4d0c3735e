//! One HTTP/1.1 connection, and one request at a time on it.
//!
//! The connection is a value, not a task: whoever has a request on it drives it, so that an exchange
//! costs no hand-over between tasks, and an idle connection costs nothing but its socket.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use queue::delivery::Timings;
use queue::limits::{DELIVERY_RESPONSE_KEPT_MAX, DELIVERY_RESPONSE_READ_MAX};
use tokio::time::{Instant, timeout_at};

use crate::connect::Stream;
use crate::failure::{Failure, Phase};
use crate::verdict::Seen;

type Driver = Connection<TokioIo<Stream>, Full<Bytes>>;

/// Headers of an answer, in number and in bytes.
const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    driver: Option<Box<Driver>>,
    pub(crate) opened_at: Instant,
}

/// A request that came back because the connection was closed before a byte of it was written.
pub(crate) struct Unsent(pub(crate) Request<Full<Bytes>>);

impl Wire {
    pub(crate) async fn new(stream: Stream) -> Result<Self, Failure> {
        let (sender, driver) = Builder::new()
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::of_exchange(&error))?;
        Ok(Self { sender, driver: Some(Box::new(driver)), opened_at: Instant::now() })
    }

    /// Whether another request may go out on it, as far as can be seen without waiting.
    pub(crate) fn is_ready(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        step(&mut self.driver, &mut cx);
        self.driver.is_some() && matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Sends a request and reads the answer, bounded in time and size.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        timings: &mut Timings,
    ) -> Result<Seen, Unsent> {
        match self.ask(request, deadline, timings).await? {
            Ok(answer) => Ok(self.see(answer, deadline).await),
            Err(failure) => Ok(Seen::failed(failure)),
        }
    }

    /// Sends a request, and returns once the status and the headers of its answer are there.
    pub(crate) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        timings: &mut Timings,
    ) -> Result<Result<Response<Incoming>, Failure>, Unsent> {
        let Self { sender, driver, .. } = self;
        let began = Instant::now();
        match timeout_at(deadline, drive(driver, sender.try_send_request(request))).await {
            Ok(Ok(answer)) => {
                timings.first_byte = Some(began.elapsed());
                Ok(Ok(answer))
            }
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Err(Unsent(request)),
                None => Ok(Err(Failure::of_exchange(error.error()))),
            },
            Err(_) => {
                self.driver = None;
                Ok(Err(Failure::Timeout(Phase::Headers)))
            }
        }
    }

    /// Reads the rest of an answer.
    pub(crate) async fn see(&mut self, answer: Response<Incoming>, deadline: Instant) -> Seen {
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let mut seen = Seen {
            status: Some(status.as_u16()),
            retry_after: retry_after.filter(|_| !status.is_success()).map(str::to_owned),
            failure: failure_of(status),
            ..Seen::default()
        };
        let mut kept = Vec::new();
        if let Err(broken) = self.read(answer.into_body(), &mut kept, deadline).await {
            // An answer that never became complete is no answer that can be relied on.
            if seen.failure.is_none() {
                seen.failure = Some(broken);
            }
            self.driver = None;
        }
        seen.response = as_text(&kept);
        seen
    }

    /// Reads the body up to the bound, then hangs up; keeps its first bytes.
    async fn read(
        &mut self,
        mut body: Incoming,
        kept: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut read = 0;
        while !body.is_end_stream() {
            let frame = timeout_at(deadline, drive(&mut self.driver, body.frame()))
                .await
                .map_err(|_| Failure::Timeout(Phase::Body))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| Failure::of_exchange(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            read += data.len();
            let room = DELIVERY_RESPONSE_KEPT_MAX - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
            if read > DELIVERY_RESPONSE_READ_MAX && !crate::mutant::shows("body-without-limit") {
                self.driver = None;
                break;
            }
        }
        Ok(())
    }
}

/// Moves the connection on while `work` is waited for.
async fn drive<T>(driver: &mut Option<Box<Driver>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        step(driver, cx);
        work.as_mut().poll(cx)
    })
    .await
}

/// A connection that has ended is dropped, which tells whoever waits for it.
fn step(driver: &mut Option<Box<Driver>>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && Pin::new(running).poll(cx).is_ready()
    {
        *driver = None;
    }
}

fn failure_of(status: StatusCode) -> Option<Failure> {
    if status.is_success() {
        None
    } else if status.is_redirection() {
        Some(Failure::Redirect)
    } else {
        Some(Failure::HttpStatus)
    }
}

/// The bytes as text that every store can keep, no longer than the bound although what is no text takes
/// more room; a character cut in two at the end is left out.
fn as_text(bytes: &[u8]) -> Option<String> {
    let cut = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    };
    let mut text = String::from_utf8_lossy(cut).replace('\0', "\u{fffd}");
    queue::text::truncate(&mut text, DELIVERY_RESPONSE_KEPT_MAX);
    (!text.is_empty()).then_some(text)
}
