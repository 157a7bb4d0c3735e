//! Power cuts under load: the disk stops between two of its requests and loses what chance says of its cache,
//! and the next server starts on what is left. What was never synced is gone, as `kill -9` never makes it.
//!
//! `POSTBACK_PROVE_CUTS` asks for more of them.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::checker::{self, Known};
use testkit::server::Home;

use super::cached_disk::CachedDisk;
use super::skip;
use crate::chance::{Chance, number};
use crate::load::Load;
use crate::support::{PATIENCE, Stage, app_folder, binary};

const CUTS: u64 = 20;
/// Set for the part of the test that runs in its own namespace.
const INSIDE: &str = "POSTBACK_POWER_CUTS_INSIDE";
/// Acknowledged requests from one cut to the next.
const ACKED_PER_CUT: u64 = 20;
/// Requests of the disk within which the power fails after that.
const DISK_REQUESTS_MAX: u64 = 60;
/// One answer in so many is a file of its own.
const LARGE_EVERY: u64 = 20;
/// Of each of seven requests the bytes beyond the first: enough of them for the log to be written back.
const BALLAST: u64 = 20_000;

/// The mounts are out of sight of the other tests: a replica that is contained while they are there would have them in
/// its namespace, and hold on to a disk that is to be taken away.
#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "faults::power_cuts::inside", "--ignored", "--nocapture"])
        .env(INSIDE, "yes")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("unshare cannot be started: {error}")),
    };
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") {
        return skip(&format!("no namespace can be made here: {said}"));
    }
    println!("{said}");
    assert!(output.status.success(), "it failed inside the namespace");
    assert!(said.contains("1 passed"), "the test was not found inside the namespace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespace that the other test makes"]
async fn inside() {
    if std::env::var(INSIDE).is_err() {
        return println!("SKIP: runs in the namespace that the other test makes");
    }
    let disk = match CachedDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    let (mut chance, cuts) = (Chance::new(), number("POSTBACK_PROVE_CUTS").unwrap_or(CUTS));
    // With the power namespaces would go, too; here they would hold on to the disk that is taken away.
    let home = Home::new(binary()).with_data_dir(disk.path().join("data"));
    let mut stage = Stage::on(home.with_env("POSTBACK_SANDBOX", "off"));
    stage.deploy(&app_folder("basic"), &["basic"]);
    // A build is files of its own; this test is about runs.
    disk.sync();
    let load = Load::new(&stage).await.with_large_results(LARGE_EVERY);
    let (next, acked, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let client = || async {
        while !over.load(Ordering::SeqCst) {
            let request = next.fetch_add(1, Ordering::SeqCst);
            match load.send(request, usize::try_from(request % 7 * BALLAST).unwrap()).await {
                Some(Known::Acked(_)) => _ = acked.fetch_add(1, Ordering::SeqCst),
                Some(_) => {}
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let cutter = async {
        for cut in 1..=cuts {
            until(&format!("the load stands still before cut {cut}"), || {
                (acked.load(Ordering::SeqCst) >= cut * ACKED_PER_CUT).then_some(())
            })
            .await;
            let power = disk.fail_after(chance.below(DISK_REQUESTS_MAX), chance.fork());
            let what = until(&format!("the power does not fail for cut {cut}"), || power.came()).await;
            println!("cut {cut}: {what}");
            // It may wait for the disk, and dies when that lets it go.
            let pid = stage.server.as_ref().unwrap().pid().to_string();
            assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            power.abandon();
            stage.stop().await;
            tokio::task::block_in_place(|| power.power_on());
            let damage = checker::integrity(&stage.home.data_dir());
            assert_eq!(damage, [""; 0], "after cut {cut}");
            stage.restart().await;
        }
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(cutter, client(), client());

    let evidence = load.evidence(&mut stage).await;
    println!("{cuts} power cuts, {} acknowledged", evidence.count(|known| matches!(known, Known::Acked(_))));
    evidence.assert_clean();
}

async fn until<T>(complaint: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{complaint}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
