//! Load: a closed loop of keep-alive connections, or calls at a steady pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A call that a server is busy with others for is made again after this.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// One call takes at most.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Whom to call with what.
#[derive(Clone)]
pub(crate) struct Target {
    /// `127.0.0.1:4100`
    pub(crate) address: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of the call of this number.
    pub(crate) body: Arc<dyn Fn(usize) -> Bytes + Send + Sync>,
    /// The only good status; any 2xx when `None`.
    pub(crate) status: Option<u16>,
    /// The status that means: not now.
    pub(crate) busy: Option<u16>,
    /// What every answer contains.
    pub(crate) contains: &'static [u8],
}

impl Target {
    /// A keep-alive connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address, &self.headers).await
    }

    /// Makes the call of this number, again and again while the server is busy; how often it was.
    pub(crate) async fn call(&self, connection: &mut Connection, number: usize) -> anyhow::Result<usize> {
        let body = (self.body)(number);
        let mut busy = 0;
        loop {
            let (status, answer) = connection.post(&self.path, body.clone()).await?;
            if Some(status) == self.busy {
                busy += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
                continue;
            }
            let good = self.status.map_or((200..300).contains(&status), |wanted| wanted == status);
            ensure!(good, "{}: {status}: {:.300}", self.path, String::from_utf8_lossy(&answer));
            let head = &answer[..answer.len().min(512)];
            ensure!(
                self.contains.is_empty()
                    || head.windows(self.contains.len()).any(|part| part == self.contains),
                "{}: the answer has no `{}`",
                self.path,
                String::from_utf8_lossy(self.contains)
            );
            return Ok(busy);
        }
    }
}

/// One keep-alive connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    headers: HeaderMap,
}

impl Connection {
    /// Connects to `address`; `headers` go with each call.
    pub(crate) async fn open(address: &str, headers: &[(HeaderName, HeaderValue)]) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut all = HeaderMap::new();
        all.insert(HOST, address.parse()?);
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.extend(headers.iter().cloned());
        Ok(Self { sender, headers: all })
    }

    /// Posts a JSON body; status and body of the answer.
    pub(crate) async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> anyhow::Result<(u16, Bytes)> {
        let answer = self.ask(Request::post(path).body(Full::new(body.into()))?).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// Any request, with the headers of the connection where it has none of its own.
    pub(crate) async fn ask(&mut self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let own = std::mem::replace(request.headers_mut(), self.headers.clone());
        request.headers_mut().extend(own);
        self.sender.ready().await?;
        let answer = async {
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            anyhow::Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        tokio::time::timeout(CALL_LIMIT, answer).await.context("no answer in time")?
    }
}

/// How long a loop goes on.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// So many calls.
    Count(usize),
    /// So long, after a time that does not count.
    Over { warm_up: Duration, measured: Duration },
}

/// What a load saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// Calls answered per second.
    pub(crate) rate: f64,
    /// Time of each call.
    pub(crate) latencies: Vec<Duration>,
    /// Calls answered, warm-up and all.
    pub(crate) answered: usize,
    /// How often the server said that it was busy.
    pub(crate) busy: usize,
}

/// Each connection calls, waits for the answer, and calls again.
///
/// # Errors
/// At the first answer that is not the expected one.
pub(crate) async fn closed_loop(target: &Target, connections: usize, until: Until) -> anyhow::Result<Seen> {
    let (count, warm_up, limit) = match until {
        Until::Count(count) => (count, Duration::ZERO, None),
        Until::Over { warm_up, measured } => (usize::MAX, warm_up, Some(warm_up + measured)),
    };
    let next = Arc::new(AtomicUsize::new(0));
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(target.connect().await?);
    }
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in open {
        let (next, target) = (Arc::clone(&next), target.clone());
        tasks.spawn(async move {
            let mut seen = Seen::default();
            while limit.is_none_or(|limit| began.elapsed() < limit) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    break;
                }
                let sent = Instant::now();
                seen.busy += target.call(&mut connection, number).await?;
                seen.answered += 1;
                if sent.duration_since(began) >= warm_up {
                    seen.latencies.push(sent.elapsed());
                }
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        let seen = seen.context("a connection's task ended early")??;
        all.latencies.extend(seen.latencies);
        all.answered += seen.answered;
        all.busy += seen.busy;
    }
    all.rate = all.latencies.len() as f64 / (began.elapsed() - warm_up).as_secs_f64();
    Ok(all)
}

/// Calls at a steady pace, whether or not they are answered; when each was sent.
pub(crate) async fn steady(target: &Target, count: usize, per_second: u32) -> anyhow::Result<Vec<Instant>> {
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(Arc::new(tokio::sync::Mutex::new(target.connect().await?)));
    }
    let mut sent = Vec::with_capacity(count);
    let mut calls = tokio::task::JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    for number in 0..count {
        tick.tick().await;
        sent.push(Instant::now());
        let (target, connection) = (target.clone(), Arc::clone(&connections[number % connections.len()]));
        calls.spawn(async move { target.call(&mut *connection.lock().await, number).await });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    Ok(sent)
}
