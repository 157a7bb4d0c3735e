//! One of a hundred receivers hangs: what do the others feel?
//!
//! `cargo run --release -p bench -- hanging [--seconds N] [--pairs N] [--binary FILE]`. Runs are started at
//! a steady rate, their webhooks go to a hundred receivers in turn, and each webhook to one of the first
//! ninety-nine is timed from the sending of its call to its arrival. In half of the slices the hundredth
//! receiver accepts and never answers. Slices are paired and interleaved, each on a server of its own, and
//! pairs without any difference come first: what these differ by is the noise of the machine, and a
//! difference below it says nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;

use crate::pieces::PATIENCE;
use crate::stage::{Stage, release_binary};

const RECEIVERS: usize = 100;
const PER_SECOND: u32 = 200;
/// Before the first call that counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// The bound: p99 of the others may change by this part of it, or by this much, whichever is more.
const PART_MAX: f64 = 0.05;
const CHANGE_MAX_MS: f64 = 5.0;

/// How much of it.
struct Plan {
    seconds: u64,
    pairs: usize,
}

/// What the webhooks of one slice took.
#[derive(Clone, Copy)]
struct Slice {
    p50: f64,
    p99: f64,
}

/// Measures, and fails when the others feel more than the bound.
pub(crate) async fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let (mut plan, mut binary) = (Plan { seconds: 20, pairs: 5 }, None);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("`{name}` has no value"))?;
        match name.as_str() {
            "--seconds" => plan.seconds = value.parse().context("`--seconds N`")?,
            "--pairs" => plan.pairs = value.parse().context("`--pairs N`")?,
            "--binary" => binary = Some(PathBuf::from(value).canonicalize()?),
            _ => anyhow::bail!("`{name}` is no option; there are --seconds N, --pairs N and --binary FILE"),
        }
    }
    let binary = binary.map_or_else(release_binary, Ok)?;
    ensure!(measure(&plan, &binary).await?, "the others feel the receiver that hangs");
    Ok(())
}

/// Measures and prints; `false` when the others feel more than the bound.
#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
async fn measure(plan: &Plan, binary: &Path) -> anyhow::Result<bool> {
    println!(
        "{PER_SECOND} runs per s over {RECEIVERS} receivers, slices of {} s; ms from call to webhook",
        plan.seconds
    );
    let (mut noise, mut change) = (Vec::new(), Vec::new());
    for (kind, differences) in [("A/A", &mut noise), ("A/B", &mut change)] {
        for pair in 0..plan.pairs {
            let hangs = kind == "A/B";
            // The order changes from pair to pair, so that a drift of the machine favours nobody.
            let second_first = pair % 2 == 1;
            let one = slice(plan, binary, hangs && second_first).await?;
            let other = slice(plan, binary, hangs && !second_first).await?;
            let (a, b) = if second_first { (other, one) } else { (one, other) };
            println!(
                "{kind} {}: p50 {:.2} and {:.2}, p99 {:.2} and {:.2}",
                pair + 1,
                a.p50,
                b.p50,
                a.p99,
                b.p99
            );
            differences.push((a.p99, b.p99 - a.p99));
        }
    }
    let usual = median(change.iter().map(|(p99, _)| *p99));
    let (noise, change) =
        (median(noise.iter().map(|(_, more)| more.abs())), median(change.iter().map(|(_, more)| *more)));
    let bound = (usual * PART_MAX).max(CHANGE_MAX_MS);
    println!(
        "p99 of the others: {usual:.2} ms; with one that hangs {change:+.2} ms (median of {} pairs)",
        plan.pairs
    );
    println!("noise of the machine: {noise:.2} ms between pairs without a difference; bound: {bound:.2} ms");
    if noise > bound {
        println!("the noise is above the bound: this machine cannot tell, now");
    }
    Ok(change <= bound.max(noise))
}

/// One server, all receivers, a steady load.
async fn slice(plan: &Plan, binary: &Path, hangs: bool) -> anyhow::Result<Slice> {
    let stage = Stage::start(binary)?;
    let mut good = Vec::new();
    for _ in 1..RECEIVERS {
        good.push(Recorder::start().await?);
    }
    let (hanging, last) = (Evil::start(Fault::Hang).await?, Recorder::start().await?);
    let mut urls: Vec<_> = good.iter().map(|receiver| receiver.url("x")).collect();
    urls.push(if hangs { hanging.url("x") } else { last.url("x") });

    let path = stage.path("trivial");
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(stage.connect().await?);
    }
    let total = usize::try_from(plan.seconds * u64::from(PER_SECOND))?;
    let warm = usize::try_from(WARM_UP.as_secs() * u64::from(PER_SECOND))?;
    let mut sent = HashMap::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    for number in 0..warm + total {
        tick.tick().await;
        let to = number % RECEIVERS;
        if number >= warm && to < good.len() {
            sent.insert(number as u64, Instant::now());
        }
        let body = format!("{{\"value\":{number},\"webhook_endpoint\":\"{}\"}}", urls[to]);
        let connection = number % connections.len();
        let (status, answer) = connections[connection].post(&path, body).await?;
        ensure!(status == 202, "{status}: {}", String::from_utf8_lossy(&answer));
    }
    let mut latencies = Vec::with_capacity(sent.len());
    let expected = |to: usize| (0..warm + total).filter(|number| number % RECEIVERS == to).count();
    for (to, receiver) in good.iter().enumerate() {
        let wanted = expected(to);
        ensure!(
            receiver.wait_until(PATIENCE, |arrivals| arrivals.len() >= wanted).await,
            "{} of {wanted} webhooks arrived at receiver {to}",
            receiver.count()
        );
        for arrival in receiver.arrivals() {
            let number = arrival.json()["result"]["value"].as_u64().context("the result has its number")?;
            if let Some(sent) = sent.get(&number) {
                latencies.push(arrival.at.duration_since(*sent).as_secs_f64() * 1e3);
            }
        }
    }
    ensure!(!hangs || hanging.accepted() > 0, "nobody called the receiver that hangs");
    latencies.sort_by(f64::total_cmp);
    let at = |part: usize| latencies[latencies.len() * part / 100];
    Ok(Slice { p50: at(50), p99: at(99) })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
