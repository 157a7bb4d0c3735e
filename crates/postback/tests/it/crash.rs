//! `kill -9` at random moments under load: nothing acknowledged is lost, nothing is recorded twice.
//!
//! `cargo xtask prove` runs the same test for longer, with its numbers in `POSTBACK_PROVE_KILLS` and
//! `POSTBACK_PROVE_RUNS`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::checker::{Known, Victim};
use testkit::server::Home;

use crate::chance::{Chance, number};
use crate::load::Load;
use crate::support::{Stage, app_folder, binary};

const RUNS: u64 = 2_500;
const KILLS: u64 = 50;
/// Between two words about how far it is.
const PROGRESS_EVERY: u64 = 20;
/// One answer in so many is a file of its own.
const LARGE_EVERY: u64 = 50;
/// From one kill to the next, beside the restart.
const LIFE: Duration = Duration::from_millis(200);

/// Median and 99th percentile of writing 4 KiB to the disk of the tests, in this very minute.
fn fsync_figure(folder: &std::path::Path) -> (Duration, Duration) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(folder.join("fsync")).unwrap();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[100], times[198])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_run_survives_kills_at_random_moments() {
    let kills = number("POSTBACK_PROVE_KILLS").unwrap_or(KILLS);
    let runs = number("POSTBACK_PROVE_RUNS").unwrap_or(RUNS);
    let mut chance = Chance::new();

    // Replicas are found by the process ids that their code knows: those of the machine, without namespaces.
    let mut stage = Stage::on(Home::new(binary()).with_env("POSTBACK_SANDBOX", "s1"));
    stage.deploy(&app_folder("basic"), &["basic"]);
    let load = Load::new(&stage).await.with_large_results(LARGE_EVERY);
    let (median, slow) = fsync_figure(stage.home.scratch());
    let next = AtomicU64::new(0);
    let killed = AtomicU64::new(0);
    let began = Instant::now();
    let client = || async {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= runs {
                return;
            }
            // The load lasts as long as the kills: a request waits for its share of them.
            while killed.load(Ordering::SeqCst) < kills * number / runs {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            while load.send(number, 0).await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let killer = async {
        for _ in 0..kills {
            let life = chance.below(u64::try_from(LIFE.as_millis()).unwrap());
            tokio::time::sleep(Duration::from_millis(20 + life)).await;
            // As many replicas as servers, on the whole.
            if chance.below(2) == 0 {
                load.kill_a_replica(&mut stage, |replicas| chance.below(replicas as u64) as usize).await;
                killed.fetch_add(1, Ordering::SeqCst);
            } else {
                stage.stop().await;
                killed.fetch_add(1, Ordering::SeqCst);
                stage.restart().await;
            }
            let done = killed.load(Ordering::SeqCst);
            if done.is_multiple_of(PROGRESS_EVERY) {
                let (sent, seconds) = (next.load(Ordering::SeqCst).min(runs), began.elapsed().as_secs());
                println!("progress: {done} of {kills} kills, {sent} of {runs} requests, {seconds} s");
            }
        }
    };
    tokio::join!(killer, client(), client(), client(), client());
    let loaded = began.elapsed();

    let evidence = load.evidence(&mut stage).await;
    let acked = evidence.count(|known| matches!(known, Known::Acked(_)));
    let refused = evidence.count(|known| matches!(known, Known::Refused(_)));
    let unknown = evidence.count(|known| *known == Known::Unknown);
    let (servers, replicas) = (evidence.deaths(Victim::Server), evidence.deaths(Victim::Replica));
    println!(
        "figure: {runs} runs through {kills} kills in {:.1} s ({servers} of the server, {replicas} of replicas)",
        loaded.as_secs_f64()
    );
    println!(
        "figure: requests: {acked} acknowledged, {refused} refused, {unknown} unknown, {} of these made again with their key",
        evidence.retried.len()
    );
    println!(
        "figure: executions: {}, {} of them again; deliveries: {}, {} of them again",
        evidence.effects.len(),
        evidence.executions_again(),
        evidence.arrivals.len(),
        evidence.deliveries_again(),
    );
    if let Some((before, after)) = evidence.footprints {
        println!("figure: taken before the load: {before:?}; after: {after:?}");
    }
    println!(
        "figure: fsync of 4 KiB in that minute: p50 {:.2} ms, p99 {:.2} ms",
        median.as_secs_f64() * 1e3,
        slow.as_secs_f64() * 1e3,
    );
    let findings = evidence.findings();
    println!("{} finding(s)", findings.len());
    evidence.assert_clean();
    assert_eq!(evidence.history.len() as u64, runs);
    assert!(acked as u64 >= runs / 2, "most requests must have been acknowledged");
    assert_eq!((servers + replicas) as u64, kills);
    let webhook = standardwebhooks::Webhook::new(&stage.keys.webhook_secret).unwrap();
    for arrival in &evidence.arrivals {
        crate::support::verify_at_arrival(&webhook, arrival);
    }
    crate::support::verify_with_public_libraries(&stage, &evidence.arrivals);
}
