//! Whatever can be measured beside the others: postback, the floors, the peers; each started anew for a measurement.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tempfile::TempDir;
use testkit::server::Home;

use crate::floors::{self, Floor};
use crate::load::{Connection, Target};
use crate::peers::{Peer, Webhook, free_port};
use crate::processes::{Group, tree};
use crate::sink::Sink;
use crate::stage::{Stage, app_folder, deploy};

/// From the start of a server to its first answer at most.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between looks for the first answer.
const POLL: Duration = Duration::from_millis(3);

/// Who is measured.
#[derive(Clone)]
pub(crate) enum System {
    Postback(PathBuf),
    Floor(Floor),
    Peer(&'static Peer),
}

/// What is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// An answer.
    Sync,
    /// A webhook.
    Webhook,
    /// The promise of one, while nobody works.
    Promise,
}

/// A started system. Dropping it ends it.
pub(crate) struct Running {
    system: System,
    address: String,
    stage: Option<Stage>,
    groups: Vec<Group>,
    /// From the start of its processes to the first answer.
    pub(crate) first_answer: Duration,
    /// Of the peers' files and logs.
    folder: Option<TempDir>,
}

impl System {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Postback(_) => "postback",
            Self::Floor(Floor::Http) => "bare hyper",
            Self::Floor(Floor::Python) => "hyper + one Python process",
            Self::Floor(Floor::Durable) => "hyper + log + one Python process",
            Self::Peer(peer) => peer.name,
        }
    }

    /// Whether it can do that at all.
    pub(crate) fn can(&self, call: &Call) -> bool {
        match (self, call) {
            (Self::Postback(_), _) => true,
            (Self::Floor(floor), call) => (*floor == Floor::Durable) != (*call == Call::Sync),
            (Self::Peer(peer), Call::Sync) => peer.webhook != Webhook::Only,
            (Self::Peer(peer), Call::Webhook) => peer.webhook != Webhook::None,
            (Self::Peer(peer), Call::Promise) => peer.has_worker(),
        }
    }

    /// Starts it and waits for its first answer.
    pub(crate) async fn start(&self, call: &Call) -> anyhow::Result<Running> {
        let folder = tempfile::tempdir()?;
        if let Self::Postback(binary) = self {
            return start_postback(binary).await;
        }
        let port = free_port()?;
        let began = Instant::now();
        let groups = match self {
            Self::Floor(floor) => vec![floors::start(*floor, call, port, folder.path())?],
            Self::Peer(peer) => peer.start(port, *call != Call::Promise, folder.path())?,
            Self::Postback(_) => Vec::new(),
        };
        let mut running = Running {
            system: self.clone(),
            address: format!("127.0.0.1:{port}"),
            stage: None,
            groups,
            first_answer: Duration::ZERO,
            folder: Some(folder),
        };
        let sink = Sink::start().await?;
        let target = match call {
            Call::Sync => running.target(None),
            Call::Webhook | Call::Promise => running.target(Some(&[sink.url(0)])),
        };
        while call_once(&target).await.is_err() {
            if running.groups.iter_mut().any(Group::has_ended) || began.elapsed() > START_LIMIT {
                let log = running.folder.iter().map(|folder| folder.path().join("server.log"));
                let text: String = log.flat_map(std::fs::read_to_string).collect();
                let tail: Vec<_> = text.lines().rev().take(3).collect();
                anyhow::bail!("it gave no answer; its log ends with: {}", tail.join(" / "));
            }
            tokio::time::sleep(POLL).await;
        }
        running.first_answer = began.elapsed();
        if *call == Call::Webhook {
            sink.wait(1, START_LIMIT).await.context("its first webhook")?;
        }
        Ok(running)
    }
}

/// Deployed by one start, measured from the next: what is installed once is not counted.
async fn start_postback(binary: &Path) -> anyhow::Result<Running> {
    let home = Home::new(binary);
    let server = home.start();
    deploy(&home, &app_folder())?;
    ensure!(server.terminate().success(), "the server did not stop");
    Running::on_filled(&System::Postback(binary.to_owned()), home).await
}

async fn call_once(target: &Target) -> anyhow::Result<()> {
    let mut connection: Connection = target.connect().await?;
    target.call(&mut connection, 0).await.map(|_| ())
}

impl Running {
    /// Postback on a directory that has the app.
    pub(crate) async fn on_filled(system: &System, home: Home) -> anyhow::Result<Self> {
        let began = Instant::now();
        let stage = Stage::on_deployed(home);
        let mut running = Self {
            system: system.clone(),
            address: stage.home.url().trim_start_matches("http://").to_owned(),
            stage: Some(stage),
            groups: Vec::new(),
            first_answer: Duration::ZERO,
            folder: None,
        };
        call_once(&running.target(None)).await?;
        running.first_answer = began.elapsed();
        Ok(running)
    }

    /// Stops postback and keeps its directory.
    pub(crate) fn into_home(self) -> anyhow::Result<Home> {
        let Stage { home, server, .. } = self.stage.context("only postback has a home")?;
        ensure!(server.terminate().success(), "the server did not stop");
        Ok(home)
    }

    /// Its trivial function; with `hooks` each call asks for a webhook to one of these in turn.
    pub(crate) fn target(&self, hooks: Option<&[String]>) -> Target {
        self.function("trivial", 0, hooks)
    }

    /// The stage, where this is postback.
    pub(crate) fn stage(&self) -> anyhow::Result<&Stage> {
        self.stage.as_ref().context("only postback has a stage")
    }

    /// All its processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let stage = self.stage.iter().map(|stage| stage.server.pid());
        stage.chain(self.groups.iter().map(Group::pid)).flat_map(tree).collect()
    }

    /// A function of postback's app, with so many bytes beside the number; what the others have is one function.
    pub(crate) fn function(&self, function: &str, pad: usize, hooks: Option<&[String]>) -> Target {
        let waits = hooks.is_none() && function != "never";
        let hooks: Option<Arc<[String]>> = hooks.map(Into::into);
        let mut headers = self.headers();
        let peer = if let System::Peer(peer) = &self.system { Some(*peer) } else { None };
        if !waits && peer.is_some_and(|peer| peer.webhook == Webhook::AsCog) {
            headers.push((HeaderName::from_static("prefer"), HeaderValue::from_static("respond-async")));
        }
        let pad: Arc<str> =
            if pad == 0 { "".into() } else { format!(",\"pad\":\"{}\"", "x".repeat(pad)).into() };
        let body = move |number: usize| {
            let hook = hooks.as_ref().map(|hooks| &hooks[number % hooks.len()]);
            let body = match (peer, hook) {
                (Some(peer), None) if peer.wraps_input => format!("{{\"input\":{{\"value\":{number}}}}}"),
                (Some(Peer { webhook: Webhook::AsCog, .. }), Some(hook)) => format!(
                    "{{\"input\":{{\"value\":{number}}},\"webhook\":\"{hook}?n={number}\",\"webhook_events_filter\":[\"completed\"]}}"
                ),
                (_, Some(hook)) => format!("{{\"value\":{number},\"webhook_endpoint\":\"{hook}\"{pad}}}"),
                (_, None) => format!("{{\"value\":{number}{pad}}}"),
            };
            Bytes::from(body)
        };
        Target {
            address: self.address.clone(),
            path: self.path(function),
            headers,
            body: Arc::new(body),
            status: None,
            busy: peer.and_then(|peer| peer.busy),
            contains: if waits { b"\"ok\"" } else { b"" },
        }
    }

    fn path(&self, function: &str) -> String {
        match (&self.system, &self.stage) {
            (System::Peer(peer), _) => peer.path.to_owned(),
            (_, Some(stage)) => stage.path(function),
            _ => "/".to_owned(),
        }
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(key) = self.stage.as_ref().and_then(|stage| HeaderValue::from_str(stage.key()).ok()) {
            headers.push((AUTHORIZATION, key));
        }
        headers
    }
}
