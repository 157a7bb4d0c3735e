//! A closed loop of keep-alive connections.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One keep-alive connection with a key.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    key: String,
}

impl Connection {
    /// Connects to `address`.
    pub(crate) async fn open(address: &str, key: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_owned(), key: key.to_owned() })
    }

    /// Posts a JSON body; status and body of the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &str) -> anyhow::Result<(u16, Bytes)> {
        let request = Request::post(path)
            .header("host", &self.host)
            .header("authorization", &self.key)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }
}

/// How much, and over how many connections.
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    pub(crate) expected: u16,
}

/// What a load saw.
pub(crate) struct Seen {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Time of each request.
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    /// Sends everything; fails at the first answer with another status than the expected one.
    pub(crate) async fn run<C, F>(
        &self,
        connect: C,
        path: &str,
        body: impl Fn(usize) -> String,
    ) -> anyhow::Result<Seen>
    where
        C: Fn() -> F,
        F: Future<Output = anyhow::Result<Connection>>,
    {
        let bodies: Arc<Vec<String>> = Arc::new((0..self.requests).map(body).collect());
        let next = Arc::new(AtomicUsize::new(0));
        let mut connections = Vec::new();
        for _ in 0..self.connections {
            connections.push(connect().await?);
        }
        let began = Instant::now();
        let mut tasks = Vec::new();
        for mut connection in connections {
            let (bodies, next, path, expected) =
                (Arc::clone(&bodies), Arc::clone(&next), path.to_owned(), self.expected);
            tasks.push(tokio::spawn(async move {
                let mut latencies = Vec::new();
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    let (status, answer) = connection.post(&path, body).await?;
                    ensure!(status == expected, "{status}: {}", String::from_utf8_lossy(&answer));
                    latencies.push(sent.elapsed());
                }
                Ok(latencies)
            }));
        }
        let mut latencies = Vec::with_capacity(self.requests);
        for task in tasks {
            latencies.extend(task.await.context("a connection's task ended early")??);
        }
        Ok(Seen { rate: self.requests as f64 / began.elapsed().as_secs_f64(), latencies })
    }
}
