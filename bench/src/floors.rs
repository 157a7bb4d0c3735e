//! What no server can be faster than: an HTTP server that does nothing, one with a Python process behind it, and one
//! that besides keeps its promises on the disk.
//!
//! Both are this very program, started once more, so that a server and its load do not share threads.

mod durable;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use self::durable::Durable;
use crate::processes::Group;
use crate::systems::Call;

/// The first argument of such a start.
pub(crate) const ARGUMENT: &str = "__floor";

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// An HTTP server that answers at once.
    Http,
    /// The same with one Python process on a socket, which gets many calls at once.
    Python,
    /// The same with a log on the disk: a call is in it before it is acknowledged, and its answer before it is posted.
    Durable,
}

pub(crate) const ALL: [Floor; 3] = [Floor::Http, Floor::Python, Floor::Durable];

/// Starts one that listens on the port.
pub(crate) fn start(floor: Floor, call: &Call, port: u16, folder: &Path) -> anyhow::Result<Group> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ARGUMENT).arg(port.to_string());
    if floor != Floor::Http && *call != Call::Promise {
        command.arg("--socket").arg(folder.join("floor.sock"));
    }
    if floor == Floor::Durable {
        command.arg("--log").arg(folder.join("floor.records"));
    }
    Group::start(&mut command, &folder.join("floor.log"))
}

/// What the started program does, for ever.
pub(crate) async fn serve(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let port: u16 = arguments.next().context("a port")?.parse()?;
    let mut serving = Serving::default();
    while let Some(name) = arguments.next() {
        let file = arguments.next().context("a file")?;
        match name.as_str() {
            "--socket" => serving.worker = Some(Worker::start(Path::new(&file)).await?),
            "--log" => serving.durable = Some(Durable::start(Path::new(&file), serving.worker.clone())?),
            _ => anyhow::bail!("`{name}` is no option of a floor"),
        }
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let serving = serving.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, serving.clone()));
            let _ = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// What stands behind the HTTP server.
#[derive(Clone, Default)]
struct Serving {
    worker: Option<Worker>,
    durable: Option<Durable>,
}

async fn answer(request: Request<Incoming>, serving: Serving) -> Result<Response<Full<Bytes>>, Infallible> {
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let ok = Bytes::from_static(br#"{"result":"ok"}"#);
    let answer = match serving {
        Serving { durable: Some(durable), .. } => durable.promise(body).await.map(|()| ok),
        Serving { worker: Some(worker), .. } => worker.call(&body).await,
        Serving { .. } => Some(ok),
    };
    let mut response = Response::new(Full::new(answer.clone().unwrap_or_default()));
    if answer.is_none() {
        *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
    }
    Ok(response)
}

/// The way to the Python process.
#[derive(Clone)]
struct Worker {
    frames: mpsc::UnboundedSender<Bytes>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
    next: Arc<AtomicU64>,
}

impl Worker {
    async fn start(socket: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let script = peers_folder().join("floor.py");
        // It ends when its connection does, and with the group at the latest.
        let _child = Command::new("python3").arg(script).arg(socket).spawn().context("python3")?;
        let (stream, _) = listener.accept().await?;
        let (frames, receiver) = mpsc::unbounded_channel();
        let worker = Self { frames, waiting: Arc::default(), next: Arc::default() };
        tokio::spawn(carry(stream, receiver, Arc::clone(&worker.waiting)));
        Ok(worker)
    }

    async fn call(&self, body: &[u8]) -> Option<Bytes> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let head = format!("{{\"id\":{id},\"call\":");
        let length = u32::try_from(head.len() + body.len() + 1).ok()?;
        let frame = [&length.to_be_bytes()[..], head.as_bytes(), body, b"}"].concat();
        self.frames.send(frame.into()).ok()?;
        answer.await.ok()
    }
}

/// Frames to and from the process, as many at once as there are.
async fn carry(
    stream: UnixStream,
    mut frames: mpsc::UnboundedReceiver<Bytes>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
) {
    let (mut reading, mut writing) = stream.into_split();
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            let mut all = frame.to_vec();
            while let Ok(frame) = frames.try_recv() {
                all.extend_from_slice(&frame);
            }
            if writing.write_all(&all).await.is_err() {
                break;
            }
        }
    });
    let mut held = BytesMut::with_capacity(1 << 18);
    while reading.read_buf(&mut held).await.is_ok_and(|count| count > 0) {
        while let Some(frame) = next_frame(&mut held) {
            let id =
                frame[6..].iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
            let id = id.fold(0, |id, digit| id * 10 + u64::from(digit - b'0'));
            let waiter = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            if let Some(waiter) = waiter {
                let _ = waiter.send(frame);
            }
        }
    }
}

/// `{"id": 17, …}`, without its length.
fn next_frame(held: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(held.get(..4)?.try_into().ok()?) as usize;
    if held.len() < 4 + length {
        return None;
    }
    held.advance(4);
    Some(held.split_to(length).freeze())
}

/// Where the peers' programs lie.
pub(crate) fn peers_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}
