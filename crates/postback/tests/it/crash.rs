//! `kill -9` at random moments under load: nothing acknowledged is lost, nothing is recorded twice.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::recorder::{Arrival, Recorder};

use crate::support::{PATIENCE, Stage, json as body};

const RUNS: usize = 200;
const KILLS: usize = 20;
/// Time between a client's requests, so that the load lasts as long as the kills.
const PACE: Duration = Duration::from_millis(40);

/// A small generator whose seed is printed, so that a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What a client knows of one of its requests.
#[derive(Clone, Debug, PartialEq)]
enum Known {
    /// The server said yes, with this run id.
    Acked(String),
    /// The connection broke: the server may have taken it or not.
    Unknown,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_run_survives_twenty_kills() {
    let seed =
        std::env::var("POSTBACK_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            u64::from(std::process::id()) << 20
                | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
        });
    println!("seed: POSTBACK_TEST_SEED={seed}");
    let mut chance = Chance(seed | 1);

    let mut stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let effects = stage.home.scratch().join("effects");
    let path = format!("{}{}", stage.home.url(), stage.v3("basic/note"));
    let history: Mutex<HashMap<usize, Known>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let key = stage.keys.public_key.clone();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let client = || async {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= RUNS {
                return;
            }
            let request = json!({"path": effects, "value": number, "webhook_endpoint": recorder.url("hook")});
            let known = loop {
                let sent = http.post(&path).header("authorization", &key).json(&request).send().await;
                match sent {
                    Ok(answer) if answer.status() == 200 => match answer.json::<Value>().await {
                        Ok(ack) => break Known::Acked(ack["run_id"].as_str().unwrap().to_owned()),
                        Err(_) => break Known::Unknown,
                    },
                    Ok(answer) => panic!("refused: {}", body(answer).await),
                    // Nothing was sent: the same request again, once the server is back.
                    Err(error) if error.is_connect() => tokio::time::sleep(Duration::from_millis(5)).await,
                    Err(_) => break Known::Unknown,
                }
            };
            history.lock().unwrap().insert(number, known);
            tokio::time::sleep(PACE).await;
        }
    };
    let killer = async move {
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(20 + chance.below(180))).await;
            stage = tokio::task::spawn_blocking(move || {
                stage.crash_and_restart();
                stage
            })
            .await
            .unwrap();
        }
        stage
    };
    let (stage, ..) = tokio::join!(killer, client(), client(), client(), client());

    let history = history.into_inner().unwrap();
    let acked: Vec<&String> = history
        .values()
        .filter_map(|known| if let Known::Acked(run) = known { Some(run) } else { None })
        .collect();
    let unknown = history.len() - acked.len();
    println!("{} acknowledged, {unknown} unknown, {KILLS} kills", acked.len());
    assert_eq!(history.len(), RUNS);
    assert!(acked.len() >= RUNS / 2, "most requests must have been acknowledged");

    // I1: every acknowledged run ends, once, and its webhook arrives.
    for run in &acked {
        let view = stage.ended_run(run).await;
        assert_eq!(view["state"], "succeeded", "{view}");
    }
    let by_run = |arrivals: &[Arrival]| {
        let mut map: HashMap<String, Vec<Arrival>> = HashMap::new();
        for arrival in arrivals {
            map.entry(arrival.json()["run_id"].as_str().unwrap().to_owned())
                .or_default()
                .push(arrival.clone());
        }
        map
    };
    let all = recorder.wait_until(PATIENCE, |arrivals| {
        let arrived = by_run(arrivals);
        acked.iter().all(|run| arrived.contains_key(*run))
    });
    assert!(all.await, "a webhook of an acknowledged run never arrived");

    // I4: duplicates carry one id and one body; every signature verifies.
    let webhook = standardwebhooks::Webhook::new(&stage.keys.webhook_secret).unwrap();
    let mut duplicates = 0;
    for (run, arrivals) in by_run(&recorder.arrivals()) {
        duplicates += arrivals.len() - 1;
        for arrival in &arrivals {
            webhook.verify(&arrival.body, &arrival.headers).unwrap();
            assert_eq!(arrival.body, arrivals[0].body, "two bodies for run {run}");
            assert_eq!(arrival.header("webhook-id"), arrivals[0].header("webhook-id"));
        }
    }
    // Executions: at most one more per kill that could have hit the run.
    let mut executions: HashMap<String, usize> = HashMap::new();
    for line in std::fs::read_to_string(&effects).unwrap().lines() {
        *executions.entry(line.to_owned()).or_default() += 1;
    }
    let again: usize = executions.values().map(|times| times - 1).sum();
    println!("{again} executions again, {duplicates} deliveries again");
    assert!(executions.len() >= acked.len());
    crate::support::verify_with_python(&stage, &recorder.arrivals());
}
