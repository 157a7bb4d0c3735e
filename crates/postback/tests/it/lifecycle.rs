//! A server's life: first start, second server, drain, restart, limits, no orphan.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use testkit::processes::mentioning;
use testkit::recorder::Recorder;
use testkit::server::Home;

use crate::support::{PATIENCE, Stage, app_folder, binary, json as body};

const SIGTERM: i32 = 15;

#[tokio::test]
async fn the_first_start_makes_keys_that_only_their_owner_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::empty();
    let path = stage.home.data_dir().join("credentials.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(stage.keys.project_id.starts_with("p-") && stage.keys.project_id.len() == 10);
    assert!(stage.keys.webhook_secret.starts_with("whsec_"));
    let projects = body(stage.request(Method::GET, "/v2/projects").send().await.unwrap()).await;
    assert_eq!(projects[0]["id"], stage.keys.project_id.as_str());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(stage.bare(Method::GET, path).send().await.unwrap().status(), 200, "{path}");
    }
    let metrics = stage.bare(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(metrics.status(), 200);
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let stage = Stage::empty();
    let output = stage.home.command().args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(stage.home.data_dir().to_str().unwrap()) && said.contains("another"), "{said}");
    assert_eq!(stage.bare(Method::GET, "/readyz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_drained_server_has_answered_its_callers_and_ends_with_status_0() {
    let mut stage = Stage::basic();
    let path = stage.v4("basic/nap");
    let answer = tokio::spawn({
        let request = stage.request(Method::POST, &path).body(r#"{"seconds":1}"#);
        async move { request.send().await.unwrap().status() }
    });
    // The call is under way once its replica is busy: a call beside it has been answered.
    assert_eq!(stage.call(&stage.v4("basic/echo"), r#"{"value":1}"#).await.status(), 200);
    let server = stage.server.take().unwrap();
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(answer.await.unwrap(), 200);
}

/// Fifty requests a second, and the server is asked to stop in the middle of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_no_accepted_run_and_charges_none() {
    let mut stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let (path, body_of_run) =
        (stage.v3("basic/nap"), json!({"seconds": 0.5, "webhook_endpoint": recorder.url("")}).to_string());
    let mut server = stage.server.take().unwrap();
    let mut accepted = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    // Until the server is gone, or says that it is going.
    while let Ok(answer) = stage.request(Method::POST, &path).body(body_of_run.clone()).send().await
        && answer.status() == 200
    {
        accepted.push(body(answer).await["run_id"].as_str().unwrap().to_owned());
        if accepted.len() == 50 {
            signal(server.pid());
        }
        assert!(accepted.len() < 5_000, "it does not stop");
        tick.tick().await;
    }
    assert!(accepted.len() >= 50, "{} were accepted before anybody asked it to stop", accepted.len());
    assert_eq!(tokio::task::block_in_place(|| end_of(|| server.ended())).code(), Some(0));

    stage.server = Some(tokio::task::block_in_place(|| stage.home.start()));
    for run in &accepted {
        let view = stage.ended_run(run).await;
        assert_eq!(view["state"], "succeeded", "{view}");
        let attempts = view["attempts"].as_array().unwrap();
        let charged = attempts.iter().rev().skip(1).filter(|attempt| attempt["end"] != "drained");
        assert_eq!(charged.count(), 0, "{view}");
    }
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= accepted.len()).await);
    let told: HashSet<_> =
        recorder.arrivals().iter().map(|arrival| arrival.json()["run_id"].to_string()).collect();
    assert!(accepted.iter().all(|run| told.contains(&format!("\"{run}\""))), "each run's webhook arrived");
}

#[tokio::test]
async fn queued_runs_survive_a_crash_and_their_webhooks_arrive_after_it() {
    let mut stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let request = json!({"seconds": 0.5, "webhook_endpoint": recorder.url("")}).to_string();
    let mut runs = Vec::new();
    for _ in 0..5 {
        let accepted = body(stage.call(&stage.v3("basic/nap"), request.clone()).await).await;
        runs.push(accepted["run_id"].as_str().unwrap().to_owned());
    }
    stage.crash_and_restart();
    for run in &runs {
        assert_eq!(stage.ended_run(run).await["state"], "succeeded");
    }
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= 5).await);
}

#[tokio::test]
async fn kill_9_leaves_no_orphan_after_a_second() {
    let mut stage = Stage::basic();
    let marker = stage.home.data_dir().join("builds").to_str().unwrap().to_owned();
    let mut took = Vec::new();
    // On a machine that is busy with other things one death may take longer, and not each of them.
    while took.len() < 5 {
        assert_eq!(stage.call(&stage.v4("basic/echo"), r#"{"value":1}"#).await.status(), 200);
        assert!(!mentioning(&marker).is_empty(), "a replica works in the build's folder");
        stage.server.take().unwrap().kill();
        let killed = Instant::now();
        while !mentioning(&marker).is_empty() {
            assert!(killed.elapsed() < PATIENCE, "left over: {:?}", mentioning(&marker));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if killed.elapsed() < Duration::from_secs(1) {
            return;
        }
        took.push(killed.elapsed());
        stage.server = Some(stage.home.start());
    }
    panic!("each time it took longer than a second: {took:?}");
}

#[tokio::test]
async fn a_run_over_its_limit_ends_as_timeout_and_names_the_way_out() {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("cerebrium.toml"),
        "[cerebrium.deployment]\nname = \"slow\"\n[cerebrium.scaling]\nresponse_grace_period = 16\n",
    )
    .unwrap();
    std::fs::write(
        folder.path().join("main.py"),
        "import time\ndef nap(seconds):\n    time.sleep(seconds)\n",
    )
    .unwrap();
    stage.deploy(folder.path(), &["slow"]);
    let began = Instant::now();
    let answer = stage.call(&stage.v4("slow/nap"), r#"{"seconds":60}"#).await;
    assert_eq!(answer.status(), 504);
    assert!((16..24).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let answer = body(answer).await;
    assert_eq!(answer["code"], "timeout");
    assert!(
        answer["run_id"].is_string() && answer["message"].as_str().unwrap().contains("webhook_endpoint"),
        "{answer}"
    );
}

fn signal(pid: u32) {
    let status = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "the server could not be signalled");
}

/// Waits for the end of a process that should not take long.
fn end_of(mut ended: impl FnMut() -> Option<ExitStatus>) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = ended() {
            return status;
        }
        assert!(began.elapsed() < PATIENCE / 2, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_cuts_the_draining_short_and_the_run_under_way_goes_on_later() {
    let home = Home::new(binary()).with_env("POSTBACK_DRAIN_TIMEOUT", "600");
    let mut stage = Stage::on(home);
    stage.deploy(&app_folder("basic"), &["basic"]);
    let accepted = body(stage.call(&stage.v4("basic/nap?async=true"), r#"{"seconds":300}"#).await).await;
    let run = stage.control(&format!("runs/{}", accepted["run_id"].as_str().unwrap()));
    let until_it_runs = async |stage: &Stage, attempts: usize| {
        let began = Instant::now();
        loop {
            let view = body(stage.request(Method::GET, &run).send().await.unwrap()).await;
            if view["state"] == "running" && view["attempts"].as_array().unwrap().len() == attempts {
                return view;
            }
            assert!(began.elapsed() < PATIENCE, "it does not run: {view}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until_it_runs(&stage, 1).await;
    let mut server = stage.server.take().unwrap();
    signal(server.pid());
    let began = Instant::now();
    while !stage.home.log().contains("shutting down") {
        assert!(began.elapsed() < PATIENCE, "it does not drain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(server.ended().is_none(), "it waits for the run");
    signal(server.pid());
    assert_eq!(tokio::task::block_in_place(|| end_of(|| server.ended())).code(), Some(0));

    stage.server = Some(tokio::task::block_in_place(|| stage.home.start()));
    let view = until_it_runs(&stage, 2).await;
    let end = view["attempts"][0]["end"].as_str().unwrap();
    assert!(["drained", "server_lost"].contains(&end), "nobody is charged: {view}");
    let cancelled = stage.request(Method::DELETE, &run).send().await.unwrap();
    assert!(cancelled.status().is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_while_it_starts_ends_it_and_the_next_start_knows_what_to_do() {
    let home = Home::new(binary());
    for delay in (0..120).step_by(15) {
        let mut child = home
            .command()
            .args(["serve", "--listen", home.url().trim_start_matches("http://")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Somewhere between the first instruction and being ready; where, is not what matters.
        std::thread::sleep(Duration::from_millis(delay));
        signal(child.id());
        let status = tokio::task::block_in_place(|| end_of(|| child.try_wait().unwrap()));
        assert!(status.success() || status.signal() == Some(SIGTERM), "after {delay} ms: {status}");
    }
    let stage = Stage::on(home);
    let projects = body(stage.request(Method::GET, "/v2/projects").send().await.unwrap()).await;
    assert_eq!(projects[0]["id"], stage.keys.project_id.as_str());
}
