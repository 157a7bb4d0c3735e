//! How it is with very many runs: the start on a full data directory, the memory of a long queue, and the rate
//! beside millions of finished runs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use hyper::header::AUTHORIZATION;
use testkit::server::Home;

use crate::Sizes;
use crate::fill::{Full, fill, filled};
use crate::load::{Target, Until, closed_loop};
use crate::pieces::{CONNECTIONS, PATIENCE, webhooks};
use crate::report::{Report, number};
use crate::sink::Sink;
use crate::stage::{Stage, app_folder, deploy, peak_mb, reset_peak, resident_mb};
use crate::systems::{Running, System};

const OURS: &str = "postback";

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
    let full = Full { queued: sizes.queued, ..Full::of(sizes.finished[1]) };
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
                None => match filled(report, "growth", binary, &Full::of(finished)).await? {
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
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
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
