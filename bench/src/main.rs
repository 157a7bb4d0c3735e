//! Measures the main job on this machine: durable acknowledgements, webhooks end to end, latency at a
//! gentle load, memory at rest, time from start to the first answer.
//!
//! `cargo run --release -p bench [-- --quick] [--binary FILE]`, [`hanging`] for one receiver of many that hangs, or
//! [`scale`] for very many runs. It drives the release binary from outside, with its load
//! generator and its receiver on the same machine, and prints the disk's sync rate beside the figures,
//! since no durable system can be judged without it.

mod disk;
mod hanging;
mod load;
mod report;
mod scale;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use testkit::recorder::Recorder;
use testkit::server::{Home, Server};

use load::{Connection, Load};
use report::Report;

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("scale").is_some() {
        return scale::run(arguments).await;
    }
    let (mut quick, mut binary, mut hangs) = (false, None, false);
    let mut plan = hanging::Plan { seconds: 20, pairs: 5 };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "hanging" => hangs = true,
            "--seconds" if hangs => plan.seconds = arguments.next().context("`--seconds N`")?.parse()?,
            "--pairs" if hangs => plan.pairs = arguments.next().context("`--pairs N`")?.parse()?,
            "--quick" => quick = true,
            "--binary" => binary = Some(PathBuf::from(arguments.next().context("`--binary` names a file")?)),
            other => anyhow::bail!(
                "`{other}` is no option; there are --quick and --binary FILE, `hanging` with --seconds N and --pairs N, and `scale`"
            ),
        }
    }
    let (acks, webhooks, gentle) = if quick { (5_000, 2_000, 60) } else { (40_000, 20_000, 200) };
    let binary = binary.map_or_else(release_binary, Ok)?;
    if hangs {
        ensure!(hanging::run(&plan, &binary).await?, "the others feel the receiver that hangs");
        return Ok(());
    }
    let mut report = Report::default();
    for _ in 0..if quick { 1 } else { ROUNDS } {
        report.add("disk: append 600 B + fdatasync", "per s", disk::syncs_per_second()?);
        let stage = Stage::start(&binary)?;
        report.add("start to first answer", "ms", stage.first_answer(&binary).await?);
        report.add("idle memory, server", "MB", resident_mb(stage.server.pid())?);
        stage.sync(&mut report, acks).await?;
        stage.end_to_end(&mut report, webhooks).await?;
        stage.gentle(&mut report, gentle).await?;
        stage.acknowledgements(&mut report, acks).await?;
        report.add("memory after it all, server", "MB", resident_mb(stage.server.pid())?);
    }
    report.print();
    Ok(())
}

/// The binary as users run it, built by cargo when it is not there.
fn release_binary() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["build", "--release", "--package", "postback"])
        .current_dir(&root)
        .status()?;
    ensure!(status.success(), "the release binary could not be built");
    Ok(root.join("target/release/postback"))
}

/// A server with the app of the benchmarks.
struct Stage {
    home: Home,
    server: Server,
}

impl Stage {
    fn start(binary: &Path) -> anyhow::Result<Self> {
        let home = Home::new(binary);
        let server = home.start();
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("app");
        let output = home.command().current_dir(app).args(["deploy", "bench"]).output()?;
        ensure!(output.status.success(), "deploy failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { home, server })
    }

    fn path(&self, function: &str) -> String {
        format!("/v4/{}/bench/{function}", self.home.keys().project_id)
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let address = self.home.url().trim_start_matches("http://").to_owned();
        Connection::open(&address, &self.home.keys().public_key).await
    }

    /// A second server on a copy of nothing but the environment cache: process start to first answer.
    async fn first_answer(&self, binary: &Path) -> anyhow::Result<f64> {
        let home = Home::new(binary);
        let server = home.start();
        let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("app");
        let output = home.command().current_dir(app).args(["deploy", "bench"]).output()?;
        ensure!(output.status.success(), "deploy failed: {}", String::from_utf8_lossy(&output.stderr));
        server.terminate();
        let began = Instant::now();
        let server = home.start();
        let stage = Self { home, server };
        let mut connection = stage.connect().await?;
        let (status, body) = connection.post(&stage.path("trivial"), r#"{"value":1}"#).await?;
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }

    async fn sync(&self, report: &mut Report, requests: usize) -> anyhow::Result<()> {
        for (name, connections, requests) in [("sync-1", 1, requests / 8), ("sync-64", CONNECTIONS, requests)]
        {
            let load = Load { connections, requests, expected: 200 };
            let path = self.path("trivial");
            let result =
                load.run(|| self.connect(), &path, |number| format!("{{\"value\":{number}}}")).await?;
            report.add_latencies(name, &result);
        }
        Ok(())
    }

    /// Durable acknowledgements while the replica is busy for ever: nothing but accept is measured.
    async fn acknowledgements(&self, report: &mut Report, requests: usize) -> anyhow::Result<()> {
        let recorder = Recorder::start().await?;
        let hook = recorder.url("never");
        let load = Load { connections: CONNECTIONS, requests, expected: 202 };
        let path = self.path("never");
        let body = |number: usize| format!("{{\"value\":{number},\"webhook_endpoint\":\"{hook}\"}}");
        let result = load.run(|| self.connect(), &path, body).await?;
        report.add_latencies("ack-64", &result);
        Ok(())
    }

    async fn end_to_end(&self, report: &mut Report, requests: usize) -> anyhow::Result<()> {
        let recorder = Recorder::start().await?;
        let hook = recorder.url("hook");
        let load = Load { connections: CONNECTIONS, requests, expected: 202 };
        let path = self.path("trivial");
        let body = |number: usize| format!("{{\"value\":{number},\"webhook_endpoint\":\"{hook}\"}}");
        let began = Instant::now();
        let result = load.run(|| self.connect(), &path, body).await?;
        ensure!(
            recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= requests).await,
            "{} of {requests} webhooks arrived",
            recorder.count()
        );
        let arrivals = recorder.arrivals();
        let mut values: Vec<_> =
            arrivals.iter().map(|arrival| arrival.json()["result"]["value"].as_u64()).collect();
        values.sort_unstable();
        values.dedup();
        ensure!(values.len() == requests, "{} of {requests} results are distinct", values.len());
        let last = arrivals.iter().map(|arrival| arrival.at).max().context("webhooks arrived")?;
        report.add_latencies("e2e-64 acks", &result);
        report.add("e2e-64 webhooks", "per s", requests as f64 / last.duration_since(began).as_secs_f64());
        Ok(())
    }

    /// Twenty requests a second, each timed from its sending to its webhook's arrival.
    async fn gentle(&self, report: &mut Report, requests: usize) -> anyhow::Result<()> {
        let recorder = Recorder::start().await?;
        let hook = recorder.url("gentle");
        let mut connection = self.connect().await?;
        let path = self.path("trivial");
        let mut sent = Vec::with_capacity(requests);
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for number in 0..requests {
            tick.tick().await;
            sent.push(Instant::now());
            let body = format!("{{\"value\":{number},\"webhook_endpoint\":\"{hook}\"}}");
            let (status, _) = connection.post(&path, &body).await?;
            ensure!(status == 202, "{status}");
        }
        ensure!(
            recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= requests).await,
            "webhooks are missing"
        );
        let mut latencies = Vec::with_capacity(requests);
        for arrival in recorder.arrivals() {
            let number = arrival.json()["result"]["value"].as_u64().context("the result has its number")?;
            latencies.push(arrival.at.duration_since(sent[usize::try_from(number)?]));
        }
        report.add_percentiles("e2e at 20/s", &mut latencies);
        Ok(())
    }
}

/// Resident memory of a process, in MB.
fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kilobytes / 1e3)
}
