//! How it is with very many runs: the start on a full data directory, the memory of a long queue, and the rate
//! beside millions of finished runs. Directories are filled through the store's own verbs.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use hyper::header::AUTHORIZATION;
use queue::delivery::{AttemptEnd, AttemptReport, Verdict};
use queue::outcome::{Finish, Finished, Outcome};
use queue::port::{Accepted, Claim, Deliveries as _, Runs as _};
use queue::run::{EndpointUrl, Generation, Mode, NewRun, RunOptions};
use queue::{AppId, Clock, Entropy, LeaseToken, ProjectId, RunId, Timestamp};
use rand::RngCore as _;
use store::{Options, Store};
use testkit::server::Home;

use crate::Sizes;
use crate::load::{Target, Until, closed_loop};
use crate::pieces::{CONNECTIONS, PATIENCE, webhooks};
use crate::report::{Report, number};
use crate::sink::Sink;
use crate::stage::{Stage, app_folder, deploy, peak_mb, reset_peak, resident_mb};
use crate::systems::{Running, System};

/// Runs written at once: two batches of the store's writer.
const AT_ONCE: usize = 1_024;
const OURS: &str = "postback";
/// What a finished run with its delivery takes on the disk, generously.
const BYTES_PER_RUN: u64 = 2_000;
/// What has to be left beside.
const SPARE_BYTES: u64 = 4 << 30;
const DAY_MS: i64 = 86_400_000;

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

/// A start on a full data directory, after a clean stop and after a kill.
pub(crate) async fn start(report: &mut Report, sizes: &Sizes, binary: &Path) -> anyhow::Result<()> {
    let home = Home::new(binary);
    let server = home.start();
    deploy(&home, &app_folder())?;
    server.terminate();
    let add =
        |report: &mut Report, figure: &str, unit, value| report.add("restart", OURS, figure, unit, value);
    let began = Instant::now();
    let server = home.start();
    add(report, "ready on an empty directory", "ms", millis(began));
    server.terminate();

    let sink = Sink::start().await?;
    let full = Full { finished: sizes.finished[1], queued: sizes.queued };
    add(report, "runs written into the directory", "per s", fill(&home, &full, &sink.url(0)).await?);
    let what =
        format!("with {} finished and {} queued", number(full.finished as f64), number(full.queued as f64));
    for name in ["a clean stop", "a kill"] {
        let seen = sink.count();
        let began = Instant::now();
        let server = home.start();
        add(report, &format!("ready after {name}, {what}"), "ms", millis(began));
        while sink.count() <= seen {
            ensure!(began.elapsed() < PATIENCE, "no run was worked on in {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        add(report, &format!("first webhook after {name}"), "ms", millis(began));
        add(report, "memory then", "MB", resident_mb(server.pid())?);
        server.kill();
    }
    Ok(())
}

/// Data directories with finished runs, filled once and used in every round.
#[derive(Default)]
pub(crate) struct Grown {
    homes: Vec<(usize, Home)>,
}

impl Grown {
    /// The rate from call to webhook beside finished runs, one size after the other.
    pub(crate) async fn measure(
        &mut self,
        report: &mut Report,
        sizes: &Sizes,
        system: &System,
        binary: &Path,
    ) -> anyhow::Result<()> {
        for finished in sizes.finished {
            let home = match self.homes.iter().position(|(size, _)| *size == finished) {
                Some(place) => self.homes.remove(place).1,
                None => match Self::fill(report, "growth", binary, finished).await? {
                    Some(home) => home,
                    None => continue,
                },
            };
            let running = Running::on_filled(system, home).await?;
            let label = format!("{} finished:", number(finished as f64));
            webhooks(report, "growth", &label, system, &running, sizes.webhooks).await?;
            self.homes.push((finished, running.into_home()?));
        }
        Ok(())
    }

    /// A directory with so many finished runs; none, said in the report, where the disk has no room for them.
    pub(crate) async fn fill(
        report: &mut Report,
        piece: &str,
        binary: &Path,
        finished: usize,
    ) -> anyhow::Result<Option<Home>> {
        let needed = finished as u64 * BYTES_PER_RUN + SPARE_BYTES;
        let free = free_bytes(&std::env::temp_dir())?;
        if free < needed {
            let why = format!(
                "{finished} finished runs take about {} GB on the disk, {} are free",
                needed >> 30,
                free >> 30
            );
            report.skip(piece, OURS, &why);
            return Ok(None);
        }
        let home = Home::new(binary);
        let server = home.start();
        deploy(&home, &app_folder())?;
        ensure!(server.terminate().success(), "the server did not stop");
        if finished > 0 {
            let rate = fill(&home, &Full { finished, queued: 0 }, "http://127.0.0.1:9/hook").await?;
            report.add(piece, OURS, &format!("{} written", number(finished as f64)), "per s", rate);
        }
        Ok(Some(home))
    }
}

/// What a directory is filled with.
struct Full {
    finished: usize,
    queued: usize,
}

fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    Ok(system.f_bavail * system.f_frsize)
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Fills the directory through the verbs that the server itself uses; runs per second.
async fn fill(home: &Home, sizes: &Full, hook: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
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
    Ok((sizes.finished + sizes.queued) as f64 / began.elapsed().as_secs_f64())
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
        store.complete(AttemptEnd {
            id,
            project: Some(due.project),
            url,
            attempt,
            ended_at: at,
            verdict: Verdict::Delivered,
            report,
        });
    }
    Ok(())
}

/// A long queue: what it costs to make, to keep, to start with, and to work off.
pub(crate) async fn backlog(report: &mut Report, sizes: &Sizes, binary: &Path) -> anyhow::Result<()> {
    let mut add = |figure: &str, unit, value| report.add("backlog", OURS, figure, unit, value);
    let stage = Stage::start(binary)?;
    let sink = Sink::start().await?;
    let Stage { home, server, .. } = &stage;
    let target = Target {
        address: home.url().trim_start_matches("http://").to_owned(),
        path: stage.path("never"),
        headers: vec![(AUTHORIZATION, stage.key().parse()?)],
        body: {
            let hook = sink.url(0);
            Arc::new(move |number| format!("{{\"value\":{number},\"webhook_endpoint\":\"{hook}\"}}").into())
        },
        status: Some(202),
        busy: None,
        contains: b"",
    };
    reset_peak(server.pid())?;
    let tenth = sizes.backlog / 10;
    for part in 0..10 {
        let body = Arc::clone(&target.body);
        let target = Target { body: Arc::new(move |number| body(part * tenth + number)), ..target.clone() };
        let seen = closed_loop(&target, CONNECTIONS, Until::Count(tenth)).await?;
        match part {
            0 => add("accepted, the first tenth", "per s", seen.rate),
            9 => add("accepted, the last tenth", "per s", seen.rate),
            _ => {}
        }
    }
    let queued = tenth * 10;
    add("memory of the server while accepting, at most", "MB", peak_mb(server.pid())?);

    // The same app with a function that comes back, found by the next start.
    let folder = tempfile::tempdir()?;
    std::fs::copy(app_folder().join("cerebrium.toml"), folder.path().join("cerebrium.toml"))?;
    let code = "async def trivial(value):\n    return {\"value\": value}\n\n\nnever = trivial\n";
    std::fs::write(folder.path().join("main.py"), code)?;
    deploy(home, folder.path())?;
    let Stage { home, server, .. } = stage;
    server.kill();
    let began = Instant::now();
    let server = home.start();
    add(&format!("ready after a kill, {} queued", number(queued as f64)), "ms", millis(began));
    reset_peak(server.pid())?;
    let began = Instant::now();
    while began.elapsed() < sizes.drain && sink.count() < queued {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (arrived, taken) = (sink.count(), began.elapsed());
    ensure!(arrived > 0, "nothing was worked on in {taken:?}");
    add("worked off, webhooks", "per s", arrived as f64 / taken.as_secs_f64());
    add("memory of the server meanwhile, at most", "MB", peak_mb(server.pid())?);
    add("webhooks that came again", "times", sink.again() as f64);
    Ok(())
}
