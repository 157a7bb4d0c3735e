//! A receiver of webhooks that behaves: it remembers every request and answers 200, or 413 to bodies that
//! are too large for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use queue::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::listener::serve;
use crate::wall_clock;

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When its body was complete.
    pub at: Instant,
    /// The same by the wall clock.
    pub received: Timestamp,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Arrival {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("webhooks carry JSON")
    }
}

/// Listens on a port of its own until it is dropped.
pub struct Recorder {
    address: SocketAddr,
    arrivals: Arc<Arrivals>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Arrivals {
    bytes_max: Option<usize>,
    list: Mutex<Vec<Arrival>>,
    changed: Notify,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder {
    /// Begins to listen on 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// The same, with 413 for bodies of more than `bytes_max`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start_limited(bytes_max: usize) -> std::io::Result<Self> {
        Self::open(SocketAddr::from(([127, 0, 0, 1], 0)), Some(bytes_max)).await
    }

    /// Begins to listen where nobody else does.
    ///
    /// # Errors
    /// When somebody does.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        Self::open(address, None).await
    }

    async fn open(address: SocketAddr, bytes_max: Option<usize>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let arrivals = Arc::new(Arrivals { bytes_max, ..Arrivals::default() });
        let kept = Arc::clone(&arrivals);
        let accepting = tokio::spawn(serve(listener, move |request| record(request, Arc::clone(&kept))));
        Ok(Self { address, arrivals, accepting })
    }

    /// The address of an endpoint: `http://127.0.0.1:…/{path}`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Everything that arrived so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().clone()
    }

    /// How many requests arrived so far.
    pub fn count(&self) -> usize {
        self.arrivals.lock().len()
    }

    /// Waits until `enough` says so of everything that arrived; `false` when `limit` passed first.
    pub async fn wait_until(&self, limit: Duration, enough: impl Fn(&[Arrival]) -> bool) -> bool {
        let wait = async {
            loop {
                let changed = self.arrivals.changed.notified();
                if enough(&self.arrivals.lock()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn record(request: Request<Incoming>, arrivals: Arc<Arrivals>) -> Response<Empty<Bytes>> {
    let (head, body) = request.into_parts();
    // A body that ends early was never received.
    if let Ok(body) = body.collect().await {
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let arrival = Arrival {
            at: Instant::now(),
            received: wall_clock(),
            path,
            headers: head.headers,
            body: body.to_bytes(),
        };
        let too_large = arrivals.bytes_max.is_some_and(|max| arrival.body.len() > max);
        arrivals.lock().push(arrival);
        arrivals.changed.notify_waiters();
        if too_large {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = hyper::StatusCode::PAYLOAD_TOO_LARGE;
            return response;
        }
    }
    Response::new(Empty::new())
}
