//! The accept loop: what one connection may cost, and how the server stops taking new ones.
//!
//! `axum::serve` sets no timer, so a half-sent header would stay open for ever. Here every connection
//! is watched: its first bytes, each header, and idle time have limits; bodies must keep a minimum rate
//! (see [`Paced`]); the number of connections, headers and HTTP/2 streams is bounded.

mod crowd;
mod paced;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use queue::inbox::ResetConnection;
use queue::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use crowd::{Crowd, Member, turn_away};
use watch::{Busy, Watch};

pub(crate) use crowd::one_customer;
pub use paced::{Paced, TooSlow};

/// What connections may cost.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Connections open at once; the next one waits in the backlog of the operating system.
    pub connections_max: usize,
    /// Of them from one address (of IPv6: from one /64); beyond it a connection gets 429. 0 is no bound.
    pub connections_per_address_max: usize,
    /// Proxies, whose connections are other people's.
    pub trusted_proxies: Vec<IpNet>,
    /// Time for the first request after connecting, and for each header once its first byte is there.
    pub header_limit: Duration,
    /// Time without a byte in either direction, between requests.
    pub idle_limit: Duration,
    /// Bytes of one request's header.
    pub header_bytes_max: usize,
    /// Header lines of one request.
    pub headers_max: usize,
    /// Time without a byte of a body that is expected, or of an answer that waits to be taken.
    pub body_stall_limit: Duration,
    /// Bytes per second that a body must bring, and an answer be taken, on average after a grace of
    /// `body_stall_limit`.
    pub body_rate_min: u32,
    /// Requests at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Time that requests under way have to end once the server stops.
    pub drain_limit: Duration,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
            trusted_proxies: Vec::new(),
            header_limit: limits::HEADER_LIMIT,
            idle_limit: limits::IDLE_LIMIT,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            headers_max: limits::HEADERS_MAX,
            body_stall_limit: limits::BODY_STALL_LIMIT,
            body_rate_min: limits::BODY_RATE_MIN,
            streams_max: 256,
            drain_limit: Duration::from_secs(30),
        }
    }
}

/// How the server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because their requests did not end in time.
    pub cut: usize,
}

/// Serves `surface` until `shutdown` is cancelled; then takes no more connections, lets requests under
/// way end within [`ListenerOptions::drain_limit`], and cuts the rest.
pub async fn serve<S>(
    listener: TcpListener,
    surface: S,
    shutdown: CancellationToken,
    options: ListenerOptions,
) -> Drained
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let host = Arc::new(Host {
        protocol: protocol(&options),
        places: Arc::new(Semaphore::new(options.connections_max)),
        crowd: Crowd::new(options.connections_per_address_max, options.trusted_proxies.clone()),
        surface,
        shutdown,
        cut: cut.clone(),
        starved: AtomicBool::new(false),
        options,
    });
    while let Some((stream, peer, place)) = host.accept(&listener).await {
        match host.crowd.admit(peer.ip()) {
            Some(member) => {
                connections.spawn(Arc::clone(&host).converse(stream, peer, (place, member)));
            }
            None => turn_away(stream),
        }
    }
    drop(listener);
    connections.close();
    let ended_in_time = tokio::time::timeout(host.options.drain_limit, connections.wait()).await.is_ok();
    let left = if ended_in_time { 0 } else { connections.len() };
    cut.cancel();
    connections.wait().await;
    Drained { cut: left }
}

fn protocol(options: &ListenerOptions) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        // The watch knows idle from slow, which hyper's one timeout does not.
        .header_read_timeout(None)
        .max_headers(options.headers_max)
        .max_buf_size(options.header_bytes_max.max(8 << 10));
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_max)
        .max_pending_accept_reset_streams(32)
        .max_local_error_reset_streams(256)
        .max_header_list_size(u32::try_from(options.header_bytes_max).unwrap_or(u32::MAX))
        .max_send_buf_size(256 << 10);
    protocol
}

struct Host<S> {
    protocol: auto::Builder<TokioExecutor>,
    places: Arc<Semaphore>,
    crowd: Arc<Crowd>,
    surface: S,
    shutdown: CancellationToken,
    cut: CancellationToken,
    /// The last attempt to accept failed, and that was said.
    starved: AtomicBool,
    options: ListenerOptions,
}

impl<S> Host<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// The next connection; `None` once the server stops.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let next = async {
            let place = Arc::clone(&self.places).acquire_owned().await.expect("nobody closes the semaphore");
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        if self.starved.swap(false, Ordering::Relaxed) {
                            tracing::info!("connections are accepted again");
                        }
                        return (stream, peer, place);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        // Said once, not ten times a second for as long as it lasts.
                        if !self.starved.swap(true, Ordering::Relaxed) {
                            tracing::error!(
                                error.message = %error,
                                "no connection can be accepted; if there are too many open files, raise `ulimit -n` \
                                 or `LimitNOFILE=`"
                            );
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            accepted = next => Some(accepted),
        }
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        _place: (OwnedSemaphorePermit, Member),
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error.message = %error, "the connection was gone before it began");
            return;
        }
        let watch = Arc::new(Watch::new(&self.options));
        let (stall, rate) = (self.options.body_stall_limit, self.options.body_rate_min);
        let surface = self.surface.clone();
        let watched = Arc::clone(&watch);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let busy = watched.request_began(request.version());
            let mut request = request.map(|body| Body::new(Paced::new(body, stall, rate)));
            request.extensions_mut().insert(ConnectInfo(peer));
            let watched = Arc::clone(&watched);
            let answer = surface.clone().call(request);
            async move {
                let Ok(mut answer) = answer.await;
                if answer.extensions_mut().remove::<ResetConnection>().is_some() {
                    watched.reset();
                    std::future::pending::<()>().await;
                }
                if answer.extensions_mut().remove::<Patient>().is_some() {
                    return Ok::<_, Infallible>(answer.map(|body| Body::new(Held { body, _busy: busy })));
                }
                drop(busy);
                Ok(answer)
            }
        });
        let io = TokioIo::new(watch.over(stream));
        {
            let connection = self.protocol.serve_connection_with_upgrades(io, service);
            let mut connection = std::pin::pin!(connection);
            let mut stopping = false;
            loop {
                tokio::select! {
                    ended = connection.as_mut() => {
                        if let Err(error) = ended {
                            tracing::trace!(error.message = %error, "a connection ended early");
                        }
                        break;
                    }
                    () = self.shutdown.cancelled(), if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    () = self.cut.cancelled() => return,
                    () = watch.exceeded() => return,
                    () = watch.was_reset() => return,
                }
            }
        }
        // One that speaks another protocol by now keeps its place for as long.
        tokio::select! {
            () = watch.closed() => {}
            () = self.cut.cancelled() => {}
        }
    }
}

/// On an answer whose body may be silent for as long as it likes: whoever makes it has limits of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patient;

/// The body of such an answer.
struct Held {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Errors that say nothing about the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
