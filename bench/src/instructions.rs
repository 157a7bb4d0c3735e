//! How many instructions the server executes for one run: the figure that says the same on a busy machine.
//!
//! `cargo xtask instructions [--check | --save] [--top N] [--out FOLDER] [--binary FILE]`. The release binary serves under
//! callgrind, with one thread for everything and a store that waits until a batch has its size. Calls with a
//! webhook come in waves of 64; a wave is over when its webhooks have arrived, and the next one finds
//! the server at rest. Counted is the server's process alone, from the first byte of a call to the note that its
//! webhook was taken: neither the replica, nor this load generator.
//!
//! The figure of the last `--save` is in `bench/instructions.txt`; `--check` fails when there are more than that
//! by [`MARGIN`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use testkit::recorder::Recorder;
use testkit::server::Home;

use crate::callgrind::{Cost, Profile};
use crate::load::Connection;
use crate::stage::{Stage, release_binary};

/// Runs of one wave, and the size of the store's batches.
const WAVE: usize = 64;
const WAVES_OF_WARM_UP: usize = 16;
/// Counted apart, so that something that happens now and then does not decide.
const PARTS: usize = 5;
const WAVES_OF_A_PART: usize = 8;
/// After a wave's last webhook: its end is noted, and nothing is left to do.
const REST: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
/// Characters of a function's name in the table.
const NAME_MAX: usize = 140;
/// By so much of the kept figure a new one may be above it.
const MARGIN: f64 = 0.10;

struct Wanted {
    binary: Option<PathBuf>,
    check: bool,
    save: bool,
    top: Option<usize>,
    out: Option<PathBuf>,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut wanted = Self { binary: None, check: false, save: false, top: None, out: None };
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--check" => wanted.check = true,
                "--save" => wanted.save = true,
                "--top" => wanted.top = Some(arguments.next().context("`--top N`")?.parse()?),
                "--binary" => {
                    let file = PathBuf::from(arguments.next().context("`--binary FILE`")?);
                    wanted.binary = Some(file.canonicalize()?);
                }
                "--out" => wanted.out = Some(arguments.next().context("`--out FOLDER`")?.into()),
                _ => bail!(
                    "`{name}` is no option; there are --check, --save, --top N, --out FOLDER and --binary FILE"
                ),
            }
        }
        Ok(wanted)
    }
}

/// Counts and prints.
#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
pub(crate) async fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let wanted = Wanted::read(arguments)?;
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        println!(
            "SKIP: instructions per run: valgrind cannot be started ({error}); install the package `valgrind`"
        );
        return Ok(());
    }
    let binary = wanted.binary.map_or_else(release_binary, Ok)?;
    let temporary = tempfile::tempdir()?;
    let folder = wanted.out.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder)?;
    let counted = count(&binary, &folder.canonicalize()?).await?;
    let mut sorted = counted.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    println!(
        "instructions per run: {median:.0} (of {PARTS} parts of {} runs: {:.0} to {:.0})",
        WAVE * WAVES_OF_A_PART,
        sorted[0],
        sorted[PARTS - 1]
    );
    if let Some(top) = wanted.top {
        for inclusive in [true, false] {
            println!("{}", functions(&part_of(folder, PARTS - 1)?, inclusive, top));
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    if wanted.save {
        std::fs::write(&file, format!("{median:.0}\n"))?;
    }
    if wanted.check {
        let kept =
            std::fs::read_to_string(&file).context("there is no kept figure; make one with `--save`")?;
        let kept: f64 = kept.trim().parse().context("bench/instructions.txt holds one number")?;
        println!("instructions per run, as kept: {kept:.0}; now {:+.1} %", (median / kept - 1.0) * 100.0);
        ensure!(
            median <= kept * (1.0 + MARGIN),
            "a run costs {median:.0} instructions, more than {kept:.0} by over {:.0} %: `cargo xtask instructions --top 40` \
             shows where; if it is worth that, keep the new figure with `--save`",
            MARGIN * 100.0
        );
    }
    Ok(())
}

/// Instructions per run, part by part.
async fn count(binary: &Path, folder: &Path) -> anyhow::Result<Vec<f64>> {
    let out = folder.join("callgrind.out");
    let launcher = ["valgrind", "--tool=callgrind", "--quiet"].map(str::to_owned);
    let launcher = launcher.into_iter().chain([format!("--callgrind-out-file={}", out.display())]).collect();
    let home = Home::new(binary)
        .started_by(launcher, PATIENCE)
        .with_env("POSTBACK_THREADS", "1")
        .with_env("POSTBACK_STORE_BATCH_FILL", &WAVE.to_string());
    let stage = Stage::on(home)?;
    let recorder = Recorder::start().await?;
    let mut connections = Vec::new();
    for _ in 0..WAVE {
        connections.push(stage.connect().await?);
    }
    let mut load = Waves { path: stage.path("trivial"), hook: recorder.url("hook"), connections, sent: 0 };
    load.send(&recorder, WAVES_OF_WARM_UP).await?;
    dump(&stage)?;
    let mut counted = Vec::new();
    for part in 0..PARTS {
        load.send(&recorder, WAVES_OF_A_PART).await?;
        dump(&stage)?;
        counted.push(part_of(folder, part)?.total / (WAVE * WAVES_OF_A_PART) as f64);
    }
    Ok(counted)
}

struct Waves {
    path: String,
    hook: String,
    connections: Vec<Connection>,
    sent: usize,
}

impl Waves {
    async fn send(&mut self, recorder: &Recorder, waves: usize) -> anyhow::Result<()> {
        for _ in 0..waves {
            let calls = self.connections.iter_mut().enumerate().map(|(number, connection)| {
                let body =
                    format!("{{\"value\":{},\"webhook_endpoint\":\"{}\"}}", self.sent + number, self.hook);
                let path = &self.path;
                async move { connection.post(path, body).await }
            });
            for answer in futures_util::future::join_all(calls).await {
                let (status, body) = answer?;
                ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&body));
            }
            self.sent += WAVE;
            let all = recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= self.sent).await;
            ensure!(all, "{} of {} webhooks arrived", recorder.count(), self.sent);
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }
}

/// What was counted in a part. The first file is that of the warm-up.
fn part_of(folder: &Path, part: usize) -> anyhow::Result<Profile> {
    Profile::read(&folder.join(format!("callgrind.out.{}", part + 2)))
}

/// Writes down what was counted since the last time, and begins at nothing.
fn dump(stage: &Stage) -> anyhow::Result<()> {
    let output =
        Command::new("callgrind_control").args(["--dump", &stage.server.pid().to_string()]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("OK"), "callgrind did not answer: {said}");
    Ok(())
}

/// The functions that cost most in the last part, by themselves or with what they call.
fn functions(profile: &Profile, inclusive: bool, top: usize) -> String {
    let runs = (WAVE * WAVES_OF_A_PART) as f64;
    let (said, by): (_, fn(&Cost) -> f64) = if inclusive {
        ("with what they call", |cost| cost.inclusive)
    } else {
        ("by themselves", |cost| cost.own)
    };
    let mut table = format!("\ninstructions per run, {said}:\n");
    for (name, cost) in profile.top(by, top) {
        let share = by(&cost) / profile.total * 100.0;
        let name: String = name.chars().take(NAME_MAX).collect();
        let _ = writeln!(table, "{:>10.0} {share:>5.1} %  {name}", by(&cost) / runs);
    }
    table
}
