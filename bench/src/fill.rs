//! Data directories with very many runs, filled through the store's own verbs.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use queue::delivery::{AttemptEnd, AttemptReport, Verdict};
use queue::outcome::{Code, Finish, Finished, Outcome, RunError};
use queue::port::{Accepted, Claim, Deliveries as _, Runs as _};
use queue::run::{EndpointUrl, Generation, Mode, NewRun, RunOptions};
use queue::webhook::Metadata;
use queue::{AppId, LeaseToken, ProjectId, RunId, Timestamp};
use store::{Options, Store};
use testkit::server::Home;
use testkit::{Chance, WallClock};

use crate::report::{Report, number};
use crate::stage::{app_folder, deploy, deploy_as};

/// Runs written at once: several batches of the store's writer.
const AT_ONCE: usize = 4_096;
/// Between two words about how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// What a finished run with its delivery takes on the disk, generously.
const BYTES_PER_RUN: u64 = 2_000;
/// What has to be left beside.
const SPARE_BYTES: u64 = 4 << 30;
pub(crate) const DAY_MS: i64 = 86_400_000;
/// An app that has few of the runs, where they are of several kinds.
pub(crate) const RARE: &str = "rare";

/// What a directory is filled with.
pub(crate) struct Full {
    pub(crate) finished: usize,
    pub(crate) queued: usize,
    /// Of two apps, with failures, metadata and deliveries that were given up, as people would look for them; else all
    /// alike.
    pub(crate) of_all_kinds: bool,
}

impl Full {
    /// Finished runs, all alike.
    pub(crate) const fn of(finished: usize) -> Self {
        Self { finished, queued: 0, of_all_kinds: false }
    }

    fn apps(&self) -> &'static [&'static str] {
        if self.of_all_kinds { &["bench", RARE] } else { &["bench"] }
    }
}

/// A fresh directory that is filled so; none, said in the report, where the disk has no room for it.
pub(crate) async fn filled(
    report: &mut Report,
    piece: &str,
    binary: &Path,
    full: &Full,
) -> anyhow::Result<Option<Home>> {
    let needed = full.finished as u64 * BYTES_PER_RUN + SPARE_BYTES;
    let free = free_bytes(&std::env::temp_dir())?;
    if free < needed {
        let why = format!(
            "{} finished runs take about {} GB on the disk, {} are free",
            full.finished,
            needed >> 30,
            free >> 30
        );
        report.skip(piece, "postback", &why);
        return Ok(None);
    }
    let home = Home::new(binary);
    let server = home.start();
    deploy(&home, &app_folder())?;
    for name in &full.apps()[1..] {
        deploy_as(&home, &app_folder(), name)?;
    }
    ensure!(server.terminate().success(), "the server did not stop");
    if full.finished > 0 {
        let rate = fill(&home, full, "http://127.0.0.1:9/hook").await?;
        report.add(piece, "postback", &format!("{} written", number(full.finished as f64)), "per s", rate);
    }
    Ok(Some(home))
}

fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let system = rustix::fs::statvfs(folder)?;
    Ok(system.f_bavail * system.f_frsize)
}

/// Fills the directory through the verbs that the server itself uses; runs per second.
pub(crate) async fn fill(home: &Home, full: &Full, hook: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let store = Store::open(Options::new(home.data_dir()), Arc::new(WallClock), Arc::new(Chance))?;
    let project: ProjectId = home.keys().project_id.parse()?;
    let app = |name: &str| anyhow::Ok(AppId::new(&project, &name.parse()?));
    let apps: Vec<AppId> = full.apps().iter().map(|name| app(name)).collect::<Result<_, _>>()?;
    let (most, last) = (&apps[0], &apps[apps.len() - 1]);
    let now = testkit::wall_clock().as_millis();
    let finished = |number: usize| {
        // Over the last six days: old enough to be many, too young to be removed.
        let age = 6 * DAY_MS
            - i64::try_from(number).unwrap_or(0) * (6 * DAY_MS - 60_000) / full.finished.max(1) as i64;
        let kind = if full.of_all_kinds { Kind::of(number) } else { Kind::default() };
        let app = if kind.rare { last } else { most };
        let run = new_run(app, "trivial", hook, number, Timestamp::from_millis(now - age));
        finish_one(&store, kind, run)
    };
    all("finished", full.finished, finished).await?;
    let function = if full.of_all_kinds { "never" } else { "trivial" };
    let queued =
        |number| queue_one(&store, new_run(last, function, hook, number, Timestamp::from_millis(now)));
    all("queued", full.queued, queued).await?;
    store.close().await;
    Ok((full.finished + full.queued) as f64 / began.elapsed().as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "whoever waits for minutes wants to know how far it is")]
async fn all<F: Future<Output = anyhow::Result<()>>>(
    what: &str,
    count: usize,
    one: impl Fn(usize) -> F,
) -> anyhow::Result<()> {
    let (began, mut told) = (Instant::now(), Instant::now());
    let mut done = stream::iter(0..count).map(one).buffer_unordered(AT_ONCE);
    let mut written = 0;
    while let Some(result) = done.next().await {
        result?;
        written += 1;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let rate = written as f64 / began.elapsed().as_secs_f64();
            let left = (count - written) as f64 / rate;
            println!("{written} of {count} {what} runs written, {rate:.0} per s, {left:.0} s to go");
        }
    }
    Ok(())
}

fn new_run(app: &AppId, function: &str, hook: &str, number: usize, at: Timestamp) -> NewRun {
    NewRun {
        id: RunId::generate(at, &Chance),
        app: app.clone(),
        function: function.into(),
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

/// What is particular about a run.
#[derive(Default)]
struct Kind {
    /// Of the app that has few.
    rare: bool,
    metadata: Option<String>,
    /// Why it failed.
    error: Option<String>,
    /// Its receiver never took the delivery.
    given_up: bool,
}

impl Kind {
    fn of(number: usize) -> Self {
        let order = || format!("{{\"order\":{number},\"customer\":\"c-{}\"}}", number % 500);
        let error = || format!("no image at https://pictures.example/{number}.jpg");
        Self {
            rare: number % 1_000 == 1,
            metadata: number.is_multiple_of(5).then(order),
            error: (number % 20 == 7).then(error),
            given_up: number % 500 == 3,
        }
    }
}

async fn finish_one(store: &Store, kind: Kind, mut run: NewRun) -> anyhow::Result<()> {
    let at = run.accepted_at;
    run.options.metadata = kind.metadata.as_deref().map(Metadata::stored);
    let accepted = store.accept(run, Claim::Now(LeaseToken::generate(&Chance))).await?;
    let Accepted::Leased(lease) = accepted else { anyhow::bail!("{accepted:?}") };
    let outcome = match kind.error {
        Some(error) => Outcome::failed(RunError::new(Code::UserError, error), 0.5, at),
        None => Outcome::succeeded(Bytes::from_static(br#"{"result":"ok","value":1}"#), 200, 0.5, at),
    };
    let finished = store.finish(Finish { lease, outcome, first_attempts: vec![true] }).await?;
    let Finished::Recorded(due) = finished else { anyhow::bail!("{finished:?}") };
    for due in due {
        let (status, verdict) =
            if kind.given_up { (503, Verdict::Exhausted) } else { (200, Verdict::Delivered) };
        let report = AttemptReport { status_code: Some(status), ..AttemptReport::default() };
        let (id, url, attempt) = (due.id, due.url, due.attempt);
        store.complete(AttemptEnd {
            id,
            project: Some(due.project),
            url,
            attempt,
            ended_at: at,
            verdict,
            report,
        });
    }
    Ok(())
}
