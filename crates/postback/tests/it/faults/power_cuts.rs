//! Power cuts under load: the server is stopped dead, its disk is taken as it lies there, and the next
//! server starts on that. Page cache that was never synced is gone, as `kill -9` never makes it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::checker::{self, Known};
use testkit::server::Home;

use super::disk::Ext4;
use super::skip;
use crate::load::Load;
use crate::support::{PATIENCE, Stage, app_folder, binary};

const CUTS: u64 = 20;
/// Acknowledged requests from one cut to the next.
const ACKED_PER_CUT: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let disk = match Ext4::mount() {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    let mut stage = Stage::on(Home::new(binary()).with_data_dir(disk.path().join("data")));
    stage.deploy(&app_folder("basic"), &["basic"]);
    // A build is files of its own; this test is about runs.
    disk.sync();
    let load = Load::new(&stage).await;
    let (next, acked, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let client = || async {
        while !over.load(Ordering::SeqCst) {
            match load.send(next.fetch_add(1, Ordering::SeqCst), 0).await {
                Some(Known::Acked(_)) => _ = acked.fetch_add(1, Ordering::SeqCst),
                Some(_) => {}
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let cutter = async {
        for cut in 1..=CUTS {
            let began = Instant::now();
            while acked.load(Ordering::SeqCst) < cut * ACKED_PER_CUT {
                assert!(began.elapsed() < PATIENCE, "the load stands still before cut {cut}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let pid = stage.server.as_ref().unwrap().pid().to_string();
            assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
            // Whatever the client knows by now was said by a server whose disk is kept after that.
            tokio::task::block_in_place(|| disk.freeze_copy());
            stage.stop().await;
            tokio::task::block_in_place(|| disk.use_copy());
            let damage = checker::integrity(&stage.home.data_dir());
            assert_eq!(damage, [""; 0], "after cut {cut}");
            stage.restart().await;
        }
        over.store(true, Ordering::SeqCst);
    };
    tokio::join!(cutter, client(), client());

    let evidence = load.evidence(&mut stage).await;
    println!("{CUTS} power cuts, {} acknowledged", evidence.count(|known| matches!(known, Known::Acked(_))));
    evidence.assert_clean();
}
