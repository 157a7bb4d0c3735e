//! How it is with very many runs: the start on a full data directory, and the memory of a long queue.
//!
//! `cargo run --release -p bench -- scale [--queued N] [--finished N] [--backlog N] [--drain SECONDS]
//! [--binary FILE]`. First a data directory is filled through the store's own verbs with 100,000 queued
//! and 1,000,000 finished runs, each of these with a delivered webhook, and a server is started on it.
//! Then a server gets 1,000,000 calls that it cannot work on, is killed, started again with code that
//! can, and watched while it works them off.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use queue::delivery::{AttemptEnd, AttemptReport, Verdict};
use queue::outcome::{Finish, Finished, Outcome};
use queue::port::{Accepted, Claim, Deliveries as _, Runs as _};
use queue::run::{EndpointUrl, Generation, Mode, NewRun, RunOptions};
use queue::{AppId, Clock, Entropy, LeaseToken, ProjectId, RunId, Timestamp};
use rand::RngCore as _;
use store::{Options, Store};
use testkit::recorder::Recorder;
use testkit::server::{Home, Server};

use crate::load::{Connection, Load};
use crate::{release_binary, resident_mb};

/// Runs written at once: two batches of the store's writer.
const AT_ONCE: usize = 1_024;
/// Bodies of calls made beforehand.
const CALLS_PER_ROUND: usize = 50_000;
const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);
const DAY_MS: i64 = 86_400_000;

/// How many of what.
struct Sizes {
    queued: usize,
    finished: usize,
    backlog: usize,
    drain: Duration,
}

/// Measures and prints.
pub(crate) async fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut sizes =
        Sizes { queued: 100_000, finished: 1_000_000, backlog: 1_000_000, drain: Duration::from_secs(60) };
    let mut binary = None;
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("`{name}` has no value"))?;
        let number = || value.parse().with_context(|| format!("`{name} {value}` is no number"));
        match name.as_str() {
            "--queued" => sizes.queued = number()?,
            "--finished" => sizes.finished = number()?,
            "--backlog" => sizes.backlog = number()?,
            "--drain" => sizes.drain = Duration::from_secs(number()? as u64),
            "--binary" => binary = Some(PathBuf::from(value)),
            _ => anyhow::bail!(
                "`{name}` is no option; there are --queued, --finished, --backlog, --drain and --binary"
            ),
        }
    }
    let binary = binary.map_or_else(release_binary, Ok)?;
    if sizes.queued > 0 {
        start(&binary, &sizes).await?;
    }
    if sizes.backlog > 0 {
        backlog(&binary, &sizes).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn say(name: &str, value: f64, unit: &str) {
    println!("{name:<46} {value:>12.1} {unit}");
}

struct Wall;

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        testkit::wall_clock()
    }
}

struct Random;

impl Entropy for Random {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

fn deploy(home: &Home, from: &Path) -> anyhow::Result<()> {
    let output = home.command().current_dir(from).args(["deploy", "bench"]).output()?;
    ensure!(output.status.success(), "deploy failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn app_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("app")
}

/// A start on a full data directory.
async fn start(binary: &Path, sizes: &Sizes) -> anyhow::Result<()> {
    let home = Home::new(binary);
    let server = home.start();
    deploy(&home, &app_folder())?;
    server.terminate();
    let began = Instant::now();
    let server = home.start();
    say("start on an empty directory: ready after", millis(began), "ms");
    server.terminate();

    let recorder = Recorder::start().await?;
    let began = Instant::now();
    fill(&home, sizes, &recorder.url("hook")).await?;
    say("runs written into the directory", (sizes.queued + sizes.finished) as f64, "runs");
    say("  at a rate of", (sizes.queued + sizes.finished) as f64 / began.elapsed().as_secs_f64(), "per s");
    say("  the database's size", size_mb(&home.data_dir())?, "MB");

    for name in ["after a clean stop", "after a kill"] {
        let seen = recorder.count();
        let (began, wall) = (Instant::now(), testkit::wall_clock());
        let server = home.start();
        say(&format!("start {name}: ready after"), millis(began), "ms");
        let came = recorder.wait_until(PATIENCE, |arrivals| arrivals.len() > seen).await;
        ensure!(came, "no run was worked on in {PATIENCE:?}");
        let first =
            recorder.arrivals()[seen].json()["run_id"].as_str().context("it names its run")?.to_owned();
        let started = started_at(&home, &first)?;
        say("  the first run claimed after", started.since(wall).as_secs_f64() * 1e3, "ms");
        say("  its webhook after", millis(began), "ms");
        say("  memory", resident_mb(server.pid())?, "MB");
        server.kill();
    }
    Ok(())
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn size_mb(dir: &Path) -> anyhow::Result<f64> {
    Ok(std::fs::metadata(dir.join("postback.db"))?.len() as f64 / 1e6)
}

/// When a run was claimed, as the command line tells it.
fn started_at(home: &Home, run: &str) -> anyhow::Result<Timestamp> {
    let output = home.command().args(["runs", "get", run, "--json"]).output()?;
    ensure!(output.status.success(), "`runs get` failed: {}", String::from_utf8_lossy(&output.stderr));
    let view: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = view["startedAt"].as_str().context("the run has started")?;
    Timestamp::parse_rfc3339(text).context("it started at some time")
}

/// Fills the directory through the verbs that the server itself uses.
async fn fill(home: &Home, sizes: &Sizes, hook: &str) -> anyhow::Result<()> {
    let store = Store::open(Options::new(home.data_dir()), Arc::new(Wall), Arc::new(Random))?;
    let project: ProjectId = home.keys().project_id.parse()?;
    let app = AppId::new(&project, &"bench".parse()?);
    let now = testkit::wall_clock().as_millis();
    let finished = |number: usize| {
        // Over the last six days: old enough to be many, too young to be removed.
        let age = 6 * DAY_MS
            - i64::try_from(number).unwrap_or(0) * (6 * DAY_MS - 60_000) / sizes.finished.max(1) as i64;
        finish_one(&store, new_run(&app, hook, number, Timestamp::from_millis(now - age)))
    };
    all(sizes.finished, finished).await?;
    all(sizes.queued, |number| queue_one(&store, new_run(&app, hook, number, Timestamp::from_millis(now))))
        .await?;
    store.close().await;
    Ok(())
}

async fn all<F: Future<Output = anyhow::Result<()>>>(
    count: usize,
    one: impl Fn(usize) -> F,
) -> anyhow::Result<()> {
    let mut done = stream::iter(0..count).map(one).buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

fn new_run(app: &AppId, hook: &str, number: usize, at: Timestamp) -> NewRun {
    NewRun {
        id: RunId::generate(at, &Random),
        app: app.clone(),
        function: "trivial".into(),
        generation: Generation::V4,
        mode: Mode::Async,
        input: Bytes::from(format!("{{\"value\":{number}}}")),
        webhooks: vec![EndpointUrl::checked(hook)],
        limit: Duration::from_secs(900),
        accepted_at: at,
        warning: None,
        options: RunOptions::default(),
    }
}

async fn queue_one(store: &Store, run: NewRun) -> anyhow::Result<()> {
    let accepted = store.accept(run, Claim::Later).await?;
    ensure!(matches!(accepted, Accepted::Queued), "{accepted:?}");
    Ok(())
}

async fn finish_one(store: &Store, run: NewRun) -> anyhow::Result<()> {
    let at = run.accepted_at;
    let accepted = store.accept(run, Claim::Now(LeaseToken::generate(&Random))).await?;
    let Accepted::Leased(lease) = accepted else { anyhow::bail!("{accepted:?}") };
    let outcome = Outcome::succeeded(Bytes::from_static(br#"{"result":"ok","value":1}"#), 200, 0.5, at);
    let finished = store.finish(Finish { lease, outcome, first_attempts: vec![true] }).await?;
    let Finished::Recorded(due) = finished else { anyhow::bail!("{finished:?}") };
    for due in due {
        let report = AttemptReport { status_code: Some(200), ..AttemptReport::default() };
        let (id, url, attempt) = (due.id, due.url, due.attempt);
        store.complete(AttemptEnd { id, url, attempt, ended_at: at, verdict: Verdict::Delivered, report });
    }
    Ok(())
}

/// The memory of a long queue.
async fn backlog(binary: &Path, sizes: &Sizes) -> anyhow::Result<()> {
    let home = Home::new(binary);
    let server = home.start();
    deploy(&home, &app_folder())?;
    let recorder = Recorder::start().await?;
    let hook = recorder.url("hook");
    let path = format!("/v4/{}/bench/never", home.keys().project_id);
    say("a server that does nothing: memory", resident_mb(server.pid())?, "MB");
    let (mut sent, mut most, began) = (0, 0_f64, Instant::now());
    while sent < sizes.backlog {
        let requests = CALLS_PER_ROUND.min(sizes.backlog - sent);
        let load = Load { connections: CONNECTIONS, requests, expected: 202 };
        let body = |number: usize| format!("{{\"value\":{},\"webhook_endpoint\":\"{hook}\"}}", sent + number);
        load.run(|| connect(&home), &path, body).await?;
        sent += requests;
        let resident = resident_mb(server.pid())?;
        most = most.max(resident);
        if sent % (4 * CALLS_PER_ROUND) == 0 {
            say(&format!("  with {sent} queued: memory"), resident, "MB");
        }
    }
    say("calls acknowledged while none is worked on", sent as f64 / began.elapsed().as_secs_f64(), "per s");
    say("  memory at most", most, "MB");

    // The same app with a function that comes back, found by the next start.
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(app_folder())? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    std::fs::write(
        folder.path().join("main.py"),
        "async def never(value):\n    return {\"value\": value}\n",
    )?;
    deploy(&home, folder.path())?;
    server.kill();
    let began = Instant::now();
    let server = home.start();
    say("start after a kill: ready after", millis(began), "ms");
    say("  memory", resident_mb(server.pid())?, "MB");
    drain(&server, &recorder, sizes).await
}

async fn connect(home: &Home) -> anyhow::Result<Connection> {
    let address = home.url().trim_start_matches("http://").to_owned();
    Connection::open(&address, &home.keys().public_key).await
}

/// Watches the queue being worked off, until it is empty or the time is over.
async fn drain(server: &Server, recorder: &Recorder, sizes: &Sizes) -> anyhow::Result<()> {
    let (began, mut most) = (Instant::now(), 0_f64);
    while began.elapsed() < sizes.drain && recorder.count() < sizes.backlog {
        tokio::time::sleep(Duration::from_millis(500)).await;
        most = most.max(resident_mb(server.pid())?);
    }
    let (arrived, time) = (recorder.count(), began.elapsed());
    ensure!(arrived > 0, "nothing was worked on in {time:?}");
    say("webhooks while it is worked off", arrived as f64, "webhooks");
    say("  at a rate of", arrived as f64 / time.as_secs_f64(), "per s");
    say("  memory at most", most, "MB");
    Ok(())
}
