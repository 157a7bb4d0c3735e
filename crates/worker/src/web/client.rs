//! Requests to a web server on this machine, each with a body that comes as a stream.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use queue::web::{self, Head};

/// Time that a connection to this machine may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Shorter than the commonest servers wait before they close: five seconds.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Header lines of an answer.
const HEADERS_MAX: usize = 256;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The way to one web server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pooled: legacy::Client<HttpConnector, Body>,
    fresh: legacy::Client<HttpConnector, Body>,
}

/// Whether a request may go out on a connection that others have used. One that is just being closed takes a request
/// and answers nothing, which a caller sees and a run cannot afford.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Pooled,
    Fresh,
}

impl Client {
    /// For as many requests at once.
    pub(super) fn new(concurrency: usize) -> Self {
        let client = |idle: usize| {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            connector.set_connect_timeout(Some(CONNECT_LIMIT));
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_MAX)
                .pool_max_idle_per_host(idle)
                .http1_max_headers(HEADERS_MAX)
                .build(connector)
        };
        Self { pooled: client(concurrency), fresh: client(0) }
    }

    /// Sends a request to the server on `port`.
    pub(super) async fn send(
        &self,
        connection: Connection,
        port: u16,
        head: &Head,
        body: Body,
    ) -> Result<http::Response<Incoming>, Failed> {
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::from_bytes(head.method.as_bytes()).map_err(Failed::malformed)?;
        *request.uri_mut() =
            format!("http://127.0.0.1:{port}{}", head.target).parse::<Uri>().map_err(Failed::malformed)?;
        for (name, value) in &head.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(Failed::malformed)?;
            let value = HeaderValue::from_maybe_shared(value.clone()).map_err(Failed::malformed)?;
            request.headers_mut().append(name, value);
        }
        let client = if connection == Connection::Pooled { &self.pooled } else { &self.fresh };
        client.request(request).await.map_err(|error| Failed { message: innermost(&error) })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) message: String,
}

impl Failed {
    fn malformed(error: impl Error) -> Self {
        Self { message: format!("the request cannot be sent as it is: {error}") }
    }
}

/// What an error says at its core.
pub(super) fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// No body.
pub(super) fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all there.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes.
pub(super) fn streamed(body: web::Body) -> Body {
    StreamBody::new(body.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
}

/// An answer's headers, for the way back.
pub(super) fn headers(answer: &http::HeaderMap) -> web::Headers {
    answer
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}
