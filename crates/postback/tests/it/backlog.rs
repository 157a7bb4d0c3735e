//! A receiver that comes back to a long queue of webhooks: it is drained at its cap, begins carefully, and nobody
//! else feels it. Store and delivery engine, without the server around them.
//!
//! `cargo xtask prove` runs the same test with more of them, as `POSTBACK_PROVE_BACKLOG` says.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use delivery::{Engine, Handle};
use futures_util::StreamExt as _;
use futures_util::stream;
use queue::delivery::{DeliveryFilter, DeliveryState};
use queue::limits::{DELIVERIES_IN_FLIGHT_DEFAULT, DELIVERIES_PER_RECEIVER_DEFAULT, WEBHOOKS_PER_RUN_MAX};
use queue::outcome::{Finish, Finished, Outcome};
use queue::port::{Accepted, Claim, Deliveries as _, Outbox as _, Registry as _, Runs as _};
use queue::registry::NewProject;
use queue::run::{EndpointUrl, Generation, Mode, NewRun, RunOptions};
use queue::{AppId, Clock as _, LeaseToken, ProjectId, RunId};
use store::{Options, Store};
use testkit::{Chance, WallClock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::chance::number;
use crate::support::PATIENCE;

const BACKLOG: u64 = 10_000;
/// Runs written at once.
const AT_ONCE: usize = 1_024;
/// What a receiver takes for each answer.
const ANSWER_TAKES: Duration = Duration::from_millis(2);

/// A receiver that says 200 to everything and remembers how it was asked.
#[derive(Default)]
struct Receiver {
    ids: Mutex<HashSet<String>>,
    arrived: AtomicUsize,
    answered: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// Requests that came while more were open than good answers allow.
    too_early: AtomicUsize,
    changed: Notify,
}

impl Receiver {
    fn serve(self: &Arc<Self>, listener: TcpListener) {
        let receiver = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = Arc::clone(&receiver);
                tokio::spawn(async move { receiver.answer_all(stream).await });
            }
        });
    }

    async fn answer_all(&self, mut stream: TcpStream) {
        let mut read = Vec::new();
        loop {
            while !is_complete(&read) {
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let open = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(open, Ordering::SeqCst);
            // One probe, and with each good answer one place more.
            if open > 1 + self.answered.load(Ordering::SeqCst) {
                self.too_early.fetch_add(1, Ordering::SeqCst);
            }
            let head = String::from_utf8_lossy(&read);
            let id = head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap().to_owned();
            read.clear();
            tokio::time::sleep(ANSWER_TAKES).await;
            self.ids.lock().unwrap().insert(id);
            self.arrived.fetch_add(1, Ordering::SeqCst);
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            self.answered.fetch_add(1, Ordering::SeqCst);
            self.changed.notify_waiters();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    async fn wait_until(&self, count: usize) {
        let began = Instant::now();
        let (mut known, mut changed_at) = (self.arrived(), began);
        while self.arrived() < count {
            let changed = self.changed.notified();
            if self.arrived() < count {
                let _ = tokio::time::timeout(Duration::from_millis(200), changed).await;
            }
            if self.arrived() > known {
                (known, changed_at) = (self.arrived(), Instant::now());
            }
            assert!(changed_at.elapsed() < PATIENCE, "{known} of {count} arrived, and no more come");
        }
    }
}

/// Whether a request is there with all of its body. There is one at a time.
fn is_complete(read: &[u8]) -> bool {
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("deliveries say how long they are").parse().unwrap();
    read.len() >= end + 4 + length
}

struct World {
    store: Store,
    app: AppId,
}

impl World {
    async fn open(dir: &std::path::Path) -> Self {
        let store = Store::open(Options::new(dir), Arc::new(WallClock), Arc::new(Chance)).unwrap();
        let project: ProjectId = "p-12345678".parse().unwrap();
        let new = NewProject {
            id: project.clone(),
            public_key_hash: [1; 32],
            private_key_hash: [2; 32],
            webhook_secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            token_secret: vec![3; 32],
            created_at: WallClock.now(),
        };
        store.create_project(new).await.unwrap();
        Self { store, app: AppId::new(&project, &"app".parse().unwrap()) }
    }

    /// A run that ended, and the first attempts to tell its webhooks that have a place.
    async fn ended(&self, webhooks: Vec<EndpointUrl>, handle: Option<&Handle>) {
        let at = WallClock.now();
        let run = NewRun {
            id: RunId::generate(at, &Chance),
            app: self.app.clone(),
            function: "predict".into(),
            generation: Generation::V4,
            mode: Mode::Async,
            input: Bytes::from_static(b"{}"),
            webhooks: webhooks.clone(),
            limit: Duration::from_secs(900),
            accepted_at: at,
            warning: None,
            options: RunOptions::default(),
        };
        let accepted = self.store.accept(run, Claim::Now(LeaseToken::generate(&Chance))).await.unwrap();
        let Accepted::Leased(lease) = accepted else { panic!("{accepted:?}") };
        let mut departures: Vec<_> =
            webhooks.iter().map(|url| handle.and_then(|handle| handle.reserve(url, 9))).collect();
        let first_attempts = departures.iter().map(Option::is_some).collect();
        let outcome = Outcome::succeeded(Bytes::from_static(br#"{"is": 1}"#), 200, 0.5, WallClock.now());
        let finished = self.store.finish(Finish { lease, outcome, first_attempts }).await.unwrap();
        let Finished::Recorded(due) = finished else { panic!("the lease is current") };
        for due in due {
            departures[usize::from(due.id.index)].take().unwrap().send(due);
        }
        if let Some(handle) = handle {
            handle.wake();
        }
    }

    async fn is_any(&self, state: DeliveryState) -> bool {
        let (project, state) = (self.app.project(), Some(state));
        let filter = DeliveryFilter { project, endpoints: None, state, after: None, limit: 1 };
        !self.store.deliveries(filter).await.unwrap().is_empty()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_comes_back_is_drained_at_its_cap_and_felt_by_nobody() {
    let backlog = usize::try_from(number("POSTBACK_PROVE_BACKLOG").unwrap_or(BACKLOG)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let world = World::open(dir.path()).await;
    // Bound and not listening: whoever connects is refused.
    let away = TcpSocket::new_v4().unwrap();
    away.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = EndpointUrl::checked(&format!("http://{}/hook", away.local_addr().unwrap()));
    let runs = backlog.div_ceil(WEBHOOKS_PER_RUN_MAX);
    let ended = |number: usize| {
        let webhooks = WEBHOOKS_PER_RUN_MAX.min(backlog - number * WEBHOOKS_PER_RUN_MAX);
        world.ended(vec![url.clone(); webhooks], None)
    };
    let began = Instant::now();
    stream::iter(0..runs).map(ended).buffer_unordered(AT_ONCE).collect::<()>().await;
    println!("{backlog} webhooks written in {:?}", began.elapsed());

    let mut options = delivery::Options::default();
    options.rules.allow_private = vec!["127.0.0.0/8".parse().unwrap()];
    let store = Arc::new(world.store.clone());
    let (deliveries, registry) = (Arc::clone(&store), Arc::clone(&store));
    let (engine, handle) =
        Engine::new(options, deliveries, registry, store, Arc::new(WallClock), Arc::new(Chance));
    let stop = CancellationToken::new();
    let running = tokio::spawn(engine.run(stop.clone()));
    let (back, other) = (Arc::new(Receiver::default()), Arc::new(Receiver::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_url = EndpointUrl::checked(&format!("http://{}/hook", listener.local_addr().unwrap()));
    other.serve(listener);

    // Nobody is there, until nothing is tried any more.
    let began = Instant::now();
    while handle.reserve(&url, 0).is_some() || world.is_any(DeliveryState::Sending).await {
        assert!(began.elapsed() < PATIENCE, "attempts go on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    back.serve(away.listen(1_024).unwrap());
    let began = Instant::now();
    let mut passed = Vec::new();
    while back.arrived() < backlog {
        let before = back.arrived();
        world.ended(vec![other_url.clone()], Some(&handle)).await;
        other.wait_until(passed.len() + 1).await;
        passed.push(back.arrived() - before);
        assert!(
            began.elapsed() < Duration::from_secs(30) || back.arrived() > 0,
            "nobody looks whether it is back"
        );
    }
    while world.is_any(DeliveryState::Pending).await || world.is_any(DeliveryState::Sending).await {
        assert!(began.elapsed() < 10 * PATIENCE, "not all of them end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    stop.cancel();
    running.await.unwrap();
    world.store.close().await;

    let most = back.most_at_once.load(Ordering::SeqCst);
    passed.sort_unstable();
    let (median, worst) = (passed[passed.len() / 2], passed[passed.len() - 1]);
    println!(
        "figure: {backlog} webhooks to a receiver that came back: {took:?} with the wait for the probe, {most} at once; \
         {} to another, passed by {median} of them (median), {worst} (most)",
        passed.len()
    );
    // Whoever waited for the backlog would be passed by all of it.
    assert!(
        worst <= DELIVERIES_IN_FLIGHT_DEFAULT,
        "{worst} of the backlog passed a webhook to another receiver"
    );
    assert_eq!((back.arrived(), back.ids.lock().unwrap().len()), (backlog, backlog), "each once");
    assert_eq!(back.too_early.load(Ordering::SeqCst), 0, "it comes back to a crowd");
    assert!((2..=DELIVERIES_PER_RECEIVER_DEFAULT).contains(&most), "{most} at once");
}
