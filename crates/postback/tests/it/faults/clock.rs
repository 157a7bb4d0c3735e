//! The machine's clock is set while the server works: an hour forward, two back, ten years forward, to
//! 1970. What runs is not hurried, nothing is sent in a storm, and once the clock is right again what was
//! scheduled by the wrong one is not lost.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use queue::Timestamp;
use queue::signature::TIMESTAMP_HEADER;
use reqwest::Method;
use serde_json::json;
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;
use testkit::server::Home;

use super::skip;
use crate::support::{PATIENCE, Stage, app_folder, binary, json as body};

/// What the clock is set to, in libfaketime's words, and what the year then begins with.
const JUMPS: [(&str, i64); 5] = [
    ("+3600", 3_600),
    ("-7200", -7_200),
    ("+315360000", 315_360_000),
    ("@1970-02-01 00:00:00", i64::MIN),
    ("+0", 0),
];
/// Attempts at a receiver that fails, for each delivery and each time the clock is set: what was due by the
/// clock, and the step of five seconds that may follow.
const ATTEMPTS_PER_JUMP: usize = 2;

/// The library that fakes the clock of a program, if it is installed.
fn library() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
}

fn now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

/// The server's clock, by what it makes.
async fn servers_clock(stage: &Stage) -> i64 {
    let inbox = stage.request(Method::POST, &stage.control("inboxes")).json(&json!({})).send().await.unwrap();
    let made_at = body(inbox).await["createdAt"].as_str().and_then(Timestamp::parse_rfc3339);
    made_at.expect("an inbox says when it was made").as_millis() / 1_000
}

/// Sets the clock and waits until the server goes by it.
async fn set(stage: &Stage, file: &Path, (text, ahead): (&str, i64)) {
    std::fs::write(file, text).unwrap();
    let began = Instant::now();
    let is_set = |clock: i64| match ahead {
        i64::MIN => clock < 10_000_000,
        ahead => (clock - now() - ahead).abs() < 60,
    };
    while !is_set(servers_clock(stage).await) {
        assert!(began.elapsed() < PATIENCE, "the clock does not become {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn accept(stage: &Stage, function: &str, request: serde_json::Value) -> String {
    let accepted = stage.call(&stage.v3(&format!("basic/{function}")), request.to_string()).await;
    body(accepted).await["run_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_hurries_nothing_and_loses_nothing() {
    let Some(library) = library() else { return skip("libfaketime is not installed") };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("clock");
    std::fs::write(&file, "+0").unwrap();
    let home = Home::new(binary())
        .with_env("LD_PRELOAD", library.to_str().unwrap())
        .with_env("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
        .with_env("FAKETIME_NO_CACHE", "1")
        .with_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut stage = Stage::on(home);
    stage.deploy(&app_folder("basic"), &["basic"]);
    let recorder = Recorder::start().await.unwrap();
    let failing = Evil::start(Fault::status("500 Internal Server Error", &[])).await.unwrap();

    let mut deliveries = 0;
    for jump in JUMPS {
        // Under way while the clock is set.
        let nap = json!({"seconds": 1, "webhook_endpoint": recorder.url("nap")});
        let nap = accept(&stage, "nap", nap).await;
        set(&stage, &file, jump).await;
        let view = stage.ended_run(&nap).await;
        assert_eq!(
            (&view["state"], &view["attempts"].as_array().unwrap().len()),
            (&json!("succeeded"), &1),
            "{view}"
        );
        let took = view["runTimeMs"].as_f64().unwrap();
        assert!((1_000.0..20_000.0).contains(&took), "after {jump:?} a nap of a second took {took} ms");

        // Begun by the wrong clock: one that arrives, one that fails.
        let before = failing.accepted();
        accept(&stage, "echo", json!({"value": 1, "webhook_endpoint": recorder.url("fresh")})).await;
        accept(&stage, "echo", json!({"value": 1, "webhook_endpoint": failing.url("fails")})).await;
        deliveries += 1;
        let began = Instant::now();
        while failing.accepted() == before {
            assert!(began.elapsed() < PATIENCE, "nothing is delivered after {jump:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let made = failing.accepted() - before;
        println!("{jump:?}: a nap took {took:.0} ms; {made} attempts at the receiver that fails");
        assert!(made <= deliveries * ATTEMPTS_PER_JUMP, "a storm of {made} attempts after {jump:?}");
    }
    assert!(
        recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= 2 * JUMPS.len()).await,
        "webhooks are missing: {}",
        recorder.count()
    );
    let last = recorder.arrivals().into_iter().rev().find(|arrival| arrival.path == "/fresh").unwrap();
    let signed_at: i64 = last.header(TIMESTAMP_HEADER).parse().unwrap();
    assert!((signed_at - now()).abs() < 120, "signed at {signed_at}, and it is {}", now());

    // Nothing waits for a time that only the wrong clock knew.
    let began = Instant::now();
    loop {
        let path = stage.control("deliveries?state=pending");
        let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
        let late = |item: &&serde_json::Value| item["nextAttemptAt"].as_str().unwrap() > "2035";
        let Some(late) = page["items"].as_array().unwrap().iter().find(late) else { break };
        assert!(began.elapsed() < PATIENCE, "it waits for years: {late}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stage.server.as_mut().unwrap().ended().is_none(), "the server lives");
    let attempts = failing.accepted();
    assert!(attempts <= deliveries * JUMPS.len() * ATTEMPTS_PER_JUMP, "a storm of {attempts} attempts");

    // A start by a clock that is wrong, and the next by the right one.
    std::fs::write(&file, "+315360000").unwrap();
    tokio::task::block_in_place(|| stage.crash_and_restart());
    let run = accept(&stage, "echo", json!({"value": 1, "webhook_endpoint": failing.url("fails")})).await;
    assert_eq!(stage.ended_run(&run).await["state"], "succeeded");
    std::fs::write(&file, "+0").unwrap();
    let before = failing.accepted();
    tokio::task::block_in_place(|| stage.crash_and_restart());
    let began = Instant::now();
    while failing.accepted() == before {
        assert!(began.elapsed() < PATIENCE, "what waits is not taken up");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stage.ended_run(&run).await["state"], "succeeded", "nothing that ended was removed");
}
