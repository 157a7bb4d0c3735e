//! A receiver of webhooks that costs little: it remembers which call each one belongs to, and when it came.
//!
//! Calls are told apart by the number that stands after `"value":` near the head of a webhook's body, or after `?n=` in
//! its address, for those who do not tell what was asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use testkit::listener::serve;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Of a body so much is looked at.
const HEAD: usize = 1_024;
const MARK: &[u8] = b"\"value\":";

/// Listens until it is dropped.
pub(crate) struct Sink {
    addresses: Vec<SocketAddr>,
    arrivals: Arc<Arrivals>,
    accepting: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Arrivals {
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Default)]
struct Seen {
    /// When the first webhook of each call came.
    first: HashMap<usize, Instant>,
    /// Webhooks of calls that had one.
    again: usize,
    /// Bodies without a number.
    foreign: usize,
    /// With so many, whoever waits is told.
    wanted: usize,
}

impl Sink {
    /// One receiver.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_many(1).await
    }

    /// Receivers on ports of their own.
    pub(crate) async fn start_many(receivers: usize) -> anyhow::Result<Self> {
        let arrivals = Arc::new(Arrivals::default());
        let (mut addresses, mut accepting) = (Vec::new(), Vec::new());
        for _ in 0..receivers {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            addresses.push(listener.local_addr()?);
            let kept = Arc::clone(&arrivals);
            accepting.push(tokio::spawn(serve(listener, move |request| record(request, Arc::clone(&kept)))));
        }
        Ok(Self { addresses, arrivals, accepting })
    }

    /// The endpoint at one of the receivers.
    pub(crate) fn url(&self, receiver: usize) -> String {
        format!("http://{}/hook", self.addresses[receiver % self.addresses.len()])
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.arrivals.lock()
    }

    /// Calls whose webhook came.
    pub(crate) fn count(&self) -> usize {
        self.lock().first.len()
    }

    /// Forgets what came so far.
    pub(crate) fn clear(&self) {
        *self.lock() = Seen::default();
    }

    /// Waits for the webhooks of `count` calls and returns when each came.
    ///
    /// # Errors
    /// When they do not come in `patience`, or something else came.
    pub(crate) async fn wait(
        &self,
        count: usize,
        patience: Duration,
    ) -> anyhow::Result<HashMap<usize, Instant>> {
        self.lock().wanted = count;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let changed = self.arrivals.changed.notified();
            if self.count() >= count {
                break;
            }
            let came = tokio::time::timeout_at(deadline, changed).await.is_ok();
            ensure!(came, "{} of {count} webhooks arrived in {patience:?}", self.count());
        }
        let seen = self.lock();
        ensure!(seen.foreign == 0, "{} webhooks belong to no call", seen.foreign);
        ensure!(
            seen.first.len() == count,
            "webhooks of {} calls arrived, {count} were made",
            seen.first.len()
        );
        Ok(seen.first.clone())
    }

    /// How many webhooks came more than once.
    pub(crate) fn again(&self) -> usize {
        self.lock().again
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, number: Option<usize>) {
        let at = Instant::now();
        let mut seen = self.lock();
        match number {
            None => seen.foreign += 1,
            Some(number) => {
                let known = seen.first.len();
                seen.first.entry(number).or_insert(at);
                if seen.first.len() == known {
                    seen.again += 1;
                }
            }
        }
        if seen.first.len() >= seen.wanted {
            self.changed.notify_waiters();
        }
    }
}

/// The number after the first `"value":`.
fn number(head: &[u8]) -> Option<usize> {
    let start = head.windows(MARK.len()).position(|part| part == MARK)? + MARK.len();
    let digits = head[start..].trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

async fn record(request: Request<Incoming>, arrivals: Arc<Arrivals>) -> Response<Empty<Bytes>> {
    let named = request.uri().query().and_then(|query| query.strip_prefix("n=")?.parse().ok());
    let mut body = request.into_body();
    let mut head = Vec::new();
    while let Some(frame) = body.frame().await {
        // A body that ends early was never received.
        let Ok(frame) = frame else { return Response::new(Empty::new()) };
        if let Some(data) = frame.data_ref() {
            let rest = HEAD.saturating_sub(head.len());
            head.extend_from_slice(&data[..data.len().min(rest)]);
        }
    }
    arrivals.add(named.or_else(|| number(&head)));
    Response::new(Empty::new())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_webhook_is_matched_by_its_number() {
        assert_eq!(number(br#"{"result":{"result":"ok","value":17},"run_time_ms":0.1}"#), Some(17));
        assert_eq!(number(br#"{"value": 3}"#), Some(3));
        assert_eq!(number(br#"{"result":null}"#), None);
    }
}
