//! A burst of slow calls on an app that is scaled: replicas rise, nothing is lost, and they go again.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::processes::mentioning;
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

const CALLS: usize = 200;
const REPLICAS_MAX: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_makes_replicas_rise_and_loses_nothing_and_they_go_after_the_cooldown() {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[cerebrium.deployment]\nname = 'slow'\n\n[cerebrium.scaling]\nmin_replicas = 0\n\
         max_replicas = {REPLICAS_MAX}\nreplica_concurrency = 5\ncooldown = 2\n"
    );
    std::fs::write(folder.path().join("cerebrium.toml"), config).unwrap();
    // Contained, each may be process 2 of its own namespace.
    let code = "import time, uuid\n\nREPLICA = uuid.uuid4().hex\n\ndef slow(number):\n    time.sleep(0.4)\n    \
                return [number, REPLICA]\n";
    std::fs::write(folder.path().join("main.py"), code).unwrap();
    tokio::task::block_in_place(|| stage.deploy(folder.path(), &[]));
    let recorder = Recorder::start().await.unwrap();

    let path = stage.v4("slow/slow");
    let sent = futures_util::future::join_all((0..CALLS).map(|number| {
        let request = json!({"number": number, "webhook_endpoint": recorder.url("")}).to_string();
        stage.call(&path, request)
    }));
    let sent = sent.await;
    assert!(sent.iter().all(|answer| answer.status() == 202));

    let app = stage.control("apps/slow");
    let replicas = async || -> u64 {
        body(stage.request(Method::GET, &app).send().await.unwrap()).await["replicas"].as_u64().unwrap()
    };
    let (began, mut most) = (Instant::now(), 0);
    while recorder.count() < CALLS {
        assert!(began.elapsed() < PATIENCE, "{} of {CALLS} webhooks arrived", recorder.count());
        most = most.max(replicas().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(most, REPLICAS_MAX);
    let results: Vec<_> =
        recorder.arrivals().iter().map(|arrival| arrival.json()["result"].clone()).collect();
    let mut numbers: Vec<_> = results.iter().filter_map(|result| result[0].as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..CALLS as u64).collect::<Vec<_>>(), "each once");
    let replicas_seen: std::collections::HashSet<_> =
        results.iter().filter_map(|result| result[1].as_str()).collect();
    assert_eq!(replicas_seen.len() as u64, REPLICAS_MAX);

    let marker = stage.home.data_dir();
    let began = Instant::now();
    while replicas().await > 0 || mentioning(marker.to_str().unwrap()).len() > 1 {
        assert!(began.elapsed() < PATIENCE, "{} replicas stay", replicas().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events = stage.control("apps/slow/events");
    let events = body(stage.request(Method::GET, &events).send().await.unwrap()).await;
    let scaled: Vec<_> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "scaled")
        .map(|event| event["text"].as_str().unwrap().to_owned())
        .collect();
    let rises = |text: &&String| {
        text.contains(&format!("→ {REPLICAS_MAX} replicas: ")) && text.contains("5 at once each")
    };
    assert!(scaled.iter().any(|text| rises(&text)), "{scaled:?}");
    let last: &Value = &json!(scaled.last());
    assert!(last.as_str().unwrap().ends_with("→ 0 replicas: fewer would have done for 2 s"), "{scaled:?}");
}
