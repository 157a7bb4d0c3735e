//! The pieces of the benchmark that measure several systems in the same way, each started anew for a measurement.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use testkit::receiver::{Evil, Fault};

use crate::load::{Seen, Until, closed_loop, steady};
use crate::processes::{cpu_seconds, proportional_mb};
use crate::report::Report;
use crate::sink::Sink;
use crate::stage::{app_folder, deploy, peak_mb, reset_peak, resident_mb};
use crate::systems::{Call, Running, System};
use crate::{Sizes, disk};

/// Connections of the pieces whose names end so.
pub(crate) const CONNECTIONS: usize = 64;
/// Calls before those that count.
const WARM_UP_CALLS: usize = 200;
/// After the load: so long may it take until the last webhook is there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const PER_SECOND: u32 = 20;
const RECEIVERS: usize = 1_000;
const HANGING: usize = 10;
const RESULTS: [(&str, usize); 3] = [("1 KiB", 1 << 10), ("100 KiB", 100 << 10), ("5 MiB", 5 << 20)];

/// What disk and loopback can do.
pub(crate) async fn limits(report: &mut Report, sizes: &Sizes, bare: &System) -> anyhow::Result<()> {
    report.add(
        "limits",
        "disk",
        "append 600 B + fdatasync",
        "per s",
        disk::syncs_per_second(sizes.measured / 2)?,
    );
    let rows = disk::rows_per_second(sizes.measured / 2)?;
    report.add("limits", "SQLite, WAL, FULL", "rows, 100 in a transaction", "per s", rows);
    let running = bare.start(&Call::Sync).await?;
    let target = running.function("", 570, None);
    let seen = closed_loop(&target, CONNECTIONS, sizes.time()).await?;
    report.add("limits", "hyper to hyper", "POST of 600 B", "per s", seen.rate);
    Ok(())
}

/// Calls that wait for their answers.
pub(crate) async fn sync(
    report: &mut Report,
    sizes: &Sizes,
    system: &System,
    connections: usize,
) -> anyhow::Result<()> {
    let running = system.start(&Call::Sync).await?;
    let seen = closed_loop(&running.target(None), connections, sizes.time()).await?;
    let piece = format!("sync-{connections}");
    add(report, &piece, system, "calls", &seen);
    report.add(
        &piece,
        system.name(),
        "memory after it, all processes",
        "MB",
        proportional_mb(&running.processes()),
    );
    Ok(())
}

fn add(report: &mut Report, piece: &str, system: &System, what: &str, seen: &Seen) {
    report.add(piece, system.name(), what, "per s", seen.rate);
    report.add_latencies(piece, system.name(), "", &seen.latencies);
    if seen.busy > 0 {
        report.add(piece, system.name(), "answered with `busy` besides", "times", seen.busy as f64);
    }
}

/// Acknowledgements while nobody works.
pub(crate) async fn acks(report: &mut Report, sizes: &Sizes, system: &System) -> anyhow::Result<()> {
    let running = system.start(&Call::Promise).await?;
    let sink = Sink::start().await?;
    let target = running.function("never", 0, Some(&[sink.url(0)]));
    let seen = closed_loop(&target, CONNECTIONS, sizes.time()).await?;
    ensure!(sink.count() == 0, "{} webhooks came although nobody works", sink.count());
    add(report, "ack-64", system, "acknowledgements", &seen);
    Ok(())
}

/// From the call to the webhook, with all of them accounted for.
pub(crate) async fn end_to_end(report: &mut Report, sizes: &Sizes, system: &System) -> anyhow::Result<()> {
    let running = system.start(&Call::Webhook).await?;
    let calls = if matches!(system, System::Postback(_)) { sizes.webhooks } else { sizes.webhooks_of_peers };
    webhooks(report, "e2e-64", "", system, &running, calls).await
}

/// The same on a system that runs.
pub(crate) async fn webhooks(
    report: &mut Report,
    piece: &str,
    label: &str,
    system: &System,
    running: &Running,
    calls: usize,
) -> anyhow::Result<()> {
    let sink = Sink::start().await?;
    let target = running.target(Some(&[sink.url(0)]));
    let warm_up = WARM_UP_CALLS.min(calls);
    closed_loop(&target, CONNECTIONS, Until::Count(warm_up)).await?;
    sink.wait(warm_up, PATIENCE).await?;
    sink.clear();
    let began = Instant::now();
    let seen = closed_loop(&target, CONNECTIONS, Until::Count(calls)).await?;
    ensure!(seen.answered == calls, "{} of {calls} calls were acknowledged", seen.answered);
    let arrived = sink.wait(calls, PATIENCE).await?;
    let named = |what: &str| format!("{label} {what}").trim().to_owned();
    report.add(piece, system.name(), &named("webhooks"), "per s", calls as f64 / span(&arrived, began)?);
    report.add(piece, system.name(), &named("acknowledgements"), "per s", seen.rate);
    report.add_latencies(piece, system.name(), &named("acknowledged,"), &seen.latencies);
    if sink.again() > 0 {
        report.add(piece, system.name(), &named("webhooks that came again"), "times", sink.again() as f64);
    }
    Ok(())
}

/// Seconds from the first call to the last webhook.
fn span(arrived: &HashMap<usize, Instant>, began: Instant) -> anyhow::Result<f64> {
    let last = arrived.values().max().context("webhooks arrived")?;
    Ok(last.duration_since(began).as_secs_f64())
}

/// From the call to the webhook when there is little to do.
pub(crate) async fn gentle(report: &mut Report, sizes: &Sizes, system: &System) -> anyhow::Result<()> {
    let running = system.start(&Call::Webhook).await?;
    let sink = Sink::start().await?;
    let target = running.target(Some(&[sink.url(0)]));
    // The first second does not count.
    let warm_up = PER_SECOND as usize;
    let calls = sizes.gentle_calls + warm_up;
    let sent = steady(&target, calls, PER_SECOND).await?;
    let arrived = sink.wait(calls, PATIENCE).await?;
    let latencies: Vec<_> = arrived
        .iter()
        .filter(|(number, _)| **number >= warm_up)
        .map(|(number, at)| at.duration_since(sent[*number]))
        .collect();
    report.add_latencies("e2e-low", system.name(), "call to webhook,", &latencies);
    Ok(())
}

/// Bodies and results of several sizes, answered and delivered.
pub(crate) async fn payload(report: &mut Report, sizes: &Sizes, system: &System) -> anyhow::Result<()> {
    for (label, bytes) in RESULTS {
        let running = system.start(&Call::Sync).await?;
        let pid = running.stage()?.server.pid();
        let mut target = running.function("echo", bytes, None);
        // Large bodies wait for room in memory.
        target.busy = Some(503);
        closed_loop(&target, 4, Until::Count(8)).await?;
        let seen = closed_loop(&target, CONNECTIONS, sizes.time()).await?;
        report.add("payload", system.name(), &format!("{label} answered"), "per s", seen.rate);
        report.add_latencies("payload", system.name(), &format!("{label} answered,"), &seen.latencies);

        let calls = (sizes.payload_bytes / bytes).clamp(CONNECTIONS, sizes.webhooks);
        let sink = Sink::start().await?;
        let mut target = running.function("echo", bytes, Some(&[sink.url(0)]));
        target.busy = Some(503);
        let before = resident_mb(pid)?;
        reset_peak(pid)?;
        let began = Instant::now();
        closed_loop(&target, CONNECTIONS, Until::Count(calls)).await?;
        let arrived = sink.wait(calls, PATIENCE).await?;
        let rate = calls as f64 / span(&arrived, began)?;
        report.add("payload", system.name(), &format!("{label} delivered"), "per s", rate);
        let grown = (peak_mb(pid)? - before).max(0.0);
        report.add("payload", system.name(), &format!("{label} delivered, memory grew by"), "MB", grown);
    }
    copies(report, system).await
}

/// How often one large body lies in the server's memory at most: one call at a time on a fresh server.
async fn copies(report: &mut Report, system: &System) -> anyhow::Result<()> {
    let (_, bytes) = RESULTS[2];
    let running = system.start(&Call::Sync).await?;
    let pid = running.stage()?.server.pid();
    let before = resident_mb(pid)?;
    reset_peak(pid)?;
    closed_loop(&running.function("echo", bytes, None), 1, Until::Count(1)).await?;
    let copies = (peak_mb(pid)? - before) * 1e6 / bytes as f64;
    report.add("payload", system.name(), "5 MiB, copies of body and result, one call", "copies", copies);
    Ok(())
}

/// Many receivers, and the same with some that accept and never answer.
pub(crate) async fn fan_out(report: &mut Report, sizes: &Sizes, system: &System) -> anyhow::Result<()> {
    for hanging in [0, HANGING] {
        let running = system.start(&Call::Sync).await?;
        let sink = Sink::start_many(RECEIVERS - hanging).await?;
        let mut evil = Vec::new();
        for _ in 0..hanging {
            evil.push(Evil::start(Fault::Hang).await?);
        }
        let good = (0..RECEIVERS - hanging).map(|receiver| sink.url(receiver));
        let hooks: Vec<_> = evil.iter().map(|evil| evil.url("hook")).chain(good).collect();
        let target = running.target(Some(&hooks));
        let calls = sizes.webhooks.next_multiple_of(RECEIVERS);
        let began = Instant::now();
        closed_loop(&target, CONNECTIONS, Until::Count(calls)).await?;
        let wanted = calls / RECEIVERS * (RECEIVERS - hanging);
        let arrived = sink.wait(wanted, PATIENCE).await?;
        let called = evil.iter().all(|evil| evil.accepted() > 0);
        ensure!(called, "a receiver that hangs was never called");
        let figure = match hanging {
            0 => format!("webhooks to {RECEIVERS} receivers"),
            _ => format!("webhooks to {RECEIVERS} receivers, {hanging} of which hang"),
        };
        report.add("fan-out", system.name(), &figure, "per s", wanted as f64 / span(&arrived, began)?);
    }
    Ok(())
}

/// What it takes when it does nothing, and how long it takes to begin.
pub(crate) async fn idle(report: &mut Report, sizes: &Sizes, system: &System) -> anyhow::Result<()> {
    let call = if system.can(&Call::Sync) { Call::Sync } else { Call::Webhook };
    let running = system.start(&call).await?;
    let first = running.first_answer.as_secs_f64() * 1e3;
    report.add("idle, cold", system.name(), "start to first answer", "ms", first);
    // What follows the first answer at once is no rest.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pids = running.processes();
    report.add("idle, cold", system.name(), "memory, all processes", "MB", proportional_mb(&pids));
    let server = running.stage().ok().map(|stage| vec![stage.server.pid()]);
    let measured = server.clone().unwrap_or(pids);
    let (began, before) = (Instant::now(), cpu_seconds(&measured));
    tokio::time::sleep(sizes.idle).await;
    let share = (cpu_seconds(&measured) - before) / began.elapsed().as_secs_f64() * 100.0;
    report.add("idle, cold", system.name(), "CPU", "% of a core", share);
    if let Some(server) = server {
        report.add("idle, cold", system.name(), "memory, server alone", "MB", resident_mb(server[0])?);
        drop(running);
        from_zero(report, system).await?;
    }
    Ok(())
}

/// The first call of an app that has no replica.
async fn from_zero(report: &mut Report, system: &System) -> anyhow::Result<()> {
    let System::Postback(binary) = system else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let text = std::fs::read_to_string(app_folder().join("cerebrium.toml"))?;
    ensure!(text.contains("min_replicas = 1"), "the app's config has changed");
    let text = text.replace("min_replicas = 1", "min_replicas = 0");
    std::fs::write(folder.path().join("cerebrium.toml"), text)?;
    std::fs::copy(app_folder().join("main.py"), folder.path().join("main.py"))?;
    let home = testkit::server::Home::new(binary);
    let server = home.start();
    deploy(&home, folder.path())?;
    ensure!(server.terminate().success(), "the server did not stop");
    let stage = crate::stage::Stage::on_deployed(home);
    let mut connection = stage.connect().await?;
    let began = Instant::now();
    let (status, answer) = connection.post(&stage.path("trivial"), "{\"value\":1}").await?;
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&answer));
    let taken = began.elapsed().as_secs_f64() * 1e3;
    report.add("idle, cold", system.name(), "first call of an app without a replica", "ms", taken);
    Ok(())
}
