//! A receiver of webhooks that misbehaves on the wire, in one chosen way, and counts who came.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is wrong with it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Accepts and never reads.
    Hang,
    /// Reads the request and never answers.
    Silent,
    /// Answers these bytes and closes.
    Say(Vec<u8>),
    /// Answers these bytes, then for ever one more, this far apart.
    Drip(Vec<u8>, Duration),
    /// Answers 200 and a body without end, as fast as it is taken.
    Endless,
    /// Reads the request and resets the connection.
    Reset,
}

impl Fault {
    /// Answers a status line, these header lines, and no body, and closes.
    pub fn status(status: &str, headers: &[&str]) -> Self {
        let mut answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n");
        for header in headers {
            answer.push_str(header);
            answer.push_str("\r\n");
        }
        answer.push_str("\r\n");
        Self::Say(answer.into_bytes())
    }
}

/// Listens on a port of its own until it is dropped.
pub struct Evil {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Evil {
    /// Begins to listen on 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(fault: Fault) -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), move |_| fault.clone()).await
    }

    /// Begins to listen at an address of the test's choice; what is wrong depends on the path asked for,
    /// which is empty for faults that never read.
    ///
    /// # Errors
    /// When somebody else listens there.
    pub async fn start_at(
        address: SocketAddr,
        fault: impl Fn(&str) -> Fault + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let accepted = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, Arc::new(fault), Arc::clone(&accepted)));
        Ok(Self { address, accepted, accepting })
    }

    /// A honeypot: an answer of 200 that nobody should ever come for.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn honeypot() -> std::io::Result<Self> {
        Self::start(Fault::status("200 OK", &[])).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of an endpoint: `http://127.0.0.1:…/{path}`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many connections it accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Choice = Arc<dyn Fn(&str) -> Fault + Send + Sync>;

async fn accept(listener: TcpListener, fault: Choice, accepted: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        let fault = Arc::clone(&fault);
        connections.spawn(async move {
            // A peer that goes away is what these receivers are about.
            let _ = misbehave(stream, fault).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn misbehave(mut stream: TcpStream, fault: Choice) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    if matches!(fault(""), Fault::Hang) {
        return std::future::pending().await;
    }
    let path = read_request(&mut stream).await?;
    match fault(&path) {
        Fault::Hang | Fault::Silent => std::future::pending().await,
        Fault::Say(answer) => stream.write_all(&answer).await,
        Fault::Drip(answer, pause) => {
            stream.write_all(&answer).await?;
            loop {
                tokio::time::sleep(pause).await;
                stream.write_all(b"x").await?;
            }
        }
        Fault::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"1000\r\n".as_slice(), &[b'x'; 0x1000], b"\r\n"].concat();
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        Fault::Reset => stream.set_zero_linger(),
    }
}

/// Reads head and body of one request with a `content-length`; its path.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    let mut request = Vec::new();
    loop {
        if let Some(end) = request.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
            let said = String::from_utf8_lossy(&request[..end]).into_owned();
            let head = said.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())
                .unwrap_or(0);
            if request.len() >= end + HEAD_END.len() + length {
                return Ok(said.split(' ').nth(1).unwrap_or_default().to_owned());
            }
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
