//! A full disk: nothing is accepted, what runs ends on record, and everything can be read, by a server that
//! was started on it too; with space it goes on by itself.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use testkit::checker::Known;
use testkit::server::Home;

use super::disk::Tmpfs;
use super::skip;
use crate::load::Load;
use crate::support::{PATIENCE, Stage, app_folder, binary, json as body};

/// Of one request: larger than the space that the database may still have in its own files.
const BALLAST: usize = 2 << 20;
const REQUESTS_MAX: u64 = 20;
/// Runs that end while the disk is full, and the bytes of their results: more than the database has room for.
const NAPS: usize = 40;
const ANSWER: usize = 100_000;
/// Bytes of a result that becomes a file.
const LARGE: usize = 300_000;
/// What a full disk leaves of the reserve.
const FOR_A_START: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_runs_and_goes_on_when_it_has_grown() {
    let disk = match Tmpfs::mount("48m") {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    let mut stage = Stage::on(Home::new(binary()).with_data_dir(disk.path().join("data")));
    stage.deploy(&app_folder("basic"), &["basic"]);
    let load = Load::new(&stage).await;
    let Some(Known::Acked(first)) = load.send(0, 0).await else { panic!("the first run is accepted") };
    assert_eq!(stage.ended_run(&first).await["state"], "succeeded");
    // It will end while the disk is full. Its result is no request's number.
    let nap = json!({"seconds": 1.5, "webhook_endpoint": load.hook("nap")}).to_string();
    let nap =
        body(stage.call(&stage.v3("basic/nap"), nap).await).await["run_id"].as_str().unwrap().to_owned();

    fill(&disk);
    let mut next = 1;
    refused(&load, &mut next).await;
    let request = json!({"x": "x".repeat(BALLAST), "webhook_endpoint": load.hook("refused")}).to_string();
    let refused = stage.call(&stage.v3("basic/identity"), request).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    let refused = body(refused).await;
    assert_eq!(refused["code"], "storage_full", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("disk"), "{refused}");
    let path = stage.control(&format!("runs/{first}"));
    assert_eq!(stage.request(Method::GET, &path).send().await.unwrap().status(), 200);
    assert_eq!(stage.bare(Method::GET, "/healthz").send().await.unwrap().status(), 200);

    disk.grow("96m");
    let began = Instant::now();
    while !matches!(load.send(next + 1, BALLAST).await, Some(Known::Acked(_))) {
        next += 1;
        assert!(began.elapsed() < PATIENCE, "it does not go on");
    }
    assert_eq!(stage.ended_run(&nap).await["state"], "succeeded");
    assert!(stage.server.as_mut().unwrap().ended().is_none(), "it went on without a restart");
    load.evidence(&mut stage).await.assert_clean();
}

fn fill(disk: &Tmpfs) {
    let mut filler = std::fs::File::create(disk.path().join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
}

/// Makes requests until one is refused: the database may have some room left in its own files.
async fn refused(load: &Load, next: &mut u64) {
    let last = *next + REQUESTS_MAX;
    while !matches!(load.send(*next, BALLAST).await, Some(Known::Refused(503))) {
        *next += 1;
        assert!(*next < last, "a full disk accepts everything");
    }
    *next += 1;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_keeps_no_run_from_ending_and_no_server_from_starting() {
    let disk = match Tmpfs::mount("64m") {
        Ok(disk) => disk,
        Err(reason) => return skip(&reason),
    };
    let mut stage = Stage::on(Home::new(binary()).with_data_dir(disk.path().join("data")));
    stage.deploy(&app_folder("basic"), &["basic"]);
    let load = Load::new(&stage).await;
    let reserve = || std::fs::metadata(stage.home.data_dir().join("reserve")).unwrap().len();
    assert_eq!(reserve(), 16 << 20);
    let nap = async |answer_bytes: usize| {
        let nap = json!({"seconds": 3, "answer_bytes": answer_bytes, "webhook_endpoint": load.hook("nap")});
        let answer = body(stage.call(&stage.v3("basic/nap"), nap.to_string()).await).await;
        answer["run_id"].as_str().unwrap().to_owned()
    };
    let mut naps = Vec::new();
    for _ in 0..NAPS {
        naps.push(nap(ANSWER).await);
    }
    let large = nap(LARGE).await;
    fill(&disk);
    for nap in &naps {
        assert_eq!(stage.ended_run(nap).await["state"], "succeeded");
    }
    let began = Instant::now();
    while load.arrived() < NAPS {
        assert!(began.elapsed() < PATIENCE, "{} of {NAPS} webhooks arrived", load.arrived());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reserve(), FOR_A_START, "they ended without it");
    let mut next = 0;
    refused(&load, &mut next).await;

    // What does not fit is held, and its attempts to be written leave nothing behind.
    let results = stage.home.data_dir().join("results");
    let pieces = || std::fs::read_dir(&results).unwrap().count();
    let view = async |run: &str| {
        let path = stage.control(&format!("runs/{run}"));
        body(stage.request(Method::GET, &path).send().await.unwrap()).await
    };
    assert_eq!((view(&large).await["state"].as_str(), pieces()), (Some("running"), 0));

    stage.stop().await;
    // Nor does SQLite's log leave any room.
    std::fs::write(disk.path().join("filler"), "").unwrap();
    let settle = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('pragma wal_checkpoint(truncate)').fetchall()";
    let database = stage.home.data_dir().join("postback.db");
    let settled = Command::new("python3").args(["-c", settle]).arg(&database).status().unwrap();
    assert!(settled.success() && !stage.home.data_dir().join("postback.db-wal").exists());
    fill(&disk);
    stage.restart().await;
    let path = stage.control(&format!("runs/{}", naps[0]));
    let read = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
    assert_eq!(read["result"]["ballast"].as_str().map(str::len), Some(ANSWER), "{read}");
    refused(&load, &mut next).await;

    disk.grow("128m");
    assert_eq!(stage.ended_run(&large).await["state"], "succeeded");
    assert_eq!(std::fs::metadata(stage.home.data_dir().join("reserve")).unwrap().len(), 16 << 20);
    load.evidence(&mut stage).await.assert_clean();
}
