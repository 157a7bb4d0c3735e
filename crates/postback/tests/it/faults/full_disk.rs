//! A full disk: nothing is accepted and everything can be read; with space it goes on by itself.

use std::io::Write as _;
use std::time::Instant;

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

    let mut filler = std::fs::File::create(disk.path().join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
    // The database may have some room left in its own files.
    let mut next = 1;
    while !matches!(load.send(next, BALLAST).await, Some(Known::Refused(503))) {
        next += 1;
        assert!(next < REQUESTS_MAX, "a full disk accepts everything");
    }
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
