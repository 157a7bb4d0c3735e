//! A load whose history is kept, and the verdict of the checker over it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::checker::{self, Evidence, Known, Run};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

/// A client of `basic/note` that remembers what became of each of its requests.
pub(crate) struct Load {
    http: reqwest::Client,
    path: String,
    key: String,
    effects: PathBuf,
    recorder: Recorder,
    history: Mutex<BTreeMap<u64, Known>>,
}

impl Load {
    pub(crate) async fn new(stage: &Stage) -> Self {
        Self {
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap(),
            path: format!("{}{}", stage.home.url(), stage.v3("basic/note")),
            key: stage.keys.public_key.clone(),
            effects: stage.home.scratch().join("effects"),
            recorder: Recorder::start().await.unwrap(),
            history: Mutex::default(),
        }
    }

    /// How many requests the receiver has had.
    pub(crate) fn arrived(&self) -> usize {
        self.recorder.count()
    }

    /// Another endpoint of the receiver.
    pub(crate) fn hook(&self, path: &str) -> String {
        self.recorder.url(path)
    }

    /// Makes request `number`, with `ballast` bytes that nobody reads. `None` when nothing was sent.
    pub(crate) async fn send(&self, number: u64, ballast: usize) -> Option<Known> {
        let request = json!({
            "path": self.effects, "value": number, "ballast": "x".repeat(ballast),
            "webhook_endpoint": self.recorder.url("hook"),
        });
        let sent = self.http.post(&self.path).header("authorization", &self.key).json(&request).send().await;
        let known = match sent {
            Ok(answer) if answer.status() == 200 => match answer.json::<Value>().await {
                Ok(ack) => Known::Acked(ack["run_id"].as_str().unwrap().to_owned()),
                Err(_) => Known::Unknown,
            },
            Ok(answer) => {
                let status = answer.status().as_u16();
                match answer.json::<Value>().await {
                    Ok(problem) if problem["code"] != "outcome_unknown" => Known::Refused(status),
                    _ => Known::Unknown,
                }
            }
            Err(error) if error.is_connect() => return None,
            Err(_) => Known::Unknown,
        };
        self.history.lock().unwrap().insert(number, known.clone());
        Some(known)
    }

    /// Waits until the server is idle, restarts it on the way, and gathers what everybody knows.
    pub(crate) async fn evidence(&self, stage: &mut Stage) -> Evidence {
        idle(stage).await;
        let before = settled_runs(stage, false).await;
        stage.stop().await;
        checker::hurry_deliveries(&stage.home.data_dir());
        stage.restart().await;
        let runs = settled_runs(stage, true).await;
        // Ends as they were before the restart, and deliveries as they ended after it.
        let before: BTreeMap<_, _> = before.into_iter().map(|run| (run.id.clone(), run)).collect();
        let runs_then = runs.iter().filter_map(|run| {
            let then = before.get(&run.id)?;
            Some(Run { deliveries: run.deliveries.clone(), ..then.clone() })
        });
        let effects = std::fs::read_to_string(&self.effects).unwrap_or_default();
        let evidence = Evidence {
            history: self.history.lock().unwrap().clone(),
            runs: runs_then.collect(),
            runs_later: runs,
            arrivals: self.recorder.arrivals(),
            effects: effects.lines().map(|line| line.parse().unwrap()).collect(),
            damage: Vec::new(),
        };
        stage.stop().await;
        let damage = checker::integrity(&stage.home.data_dir());
        Evidence { damage, ..evidence }
    }
}

impl Stage {
    /// Kills the server, if it runs.
    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
        }
    }

    /// Starts the server again.
    pub(crate) async fn restart(&mut self) {
        let server = tokio::task::block_in_place(|| self.home.start());
        self.server = Some(server);
    }
}

/// Waits until nothing is queued or running.
async fn idle(stage: &Stage) {
    let began = Instant::now();
    for state in ["queued", "running", "queued"] {
        loop {
            let path = stage.control(&format!("runs?limit=1&state={state}"));
            let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
            if page["items"].as_array().unwrap().is_empty() {
                break;
            }
            assert!(began.elapsed() < PATIENCE * 2, "runs stay {state}: {page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Every run in full; with `delivered`, once its deliveries have ended as well, or patience has.
async fn settled_runs(stage: &Stage, delivered: bool) -> Vec<Run> {
    let began = Instant::now();
    let mut runs = Vec::new();
    for id in run_ids(stage).await {
        loop {
            let path = stage.control(&format!("runs/{id}"));
            let view = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
            let run: Run = serde_json::from_value(view).unwrap();
            let waits = |state: &str| matches!(state, "pending" | "sending");
            let open = delivered && run.deliveries.iter().any(|delivery| waits(&delivery.state));
            if !open || began.elapsed() > PATIENCE {
                runs.push(run);
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    runs
}

/// The id of every run, newest first.
async fn run_ids(stage: &Stage) -> Vec<String> {
    let mut ids = Vec::new();
    let mut path = stage.control("runs");
    loop {
        let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(token) = page["nextToken"].as_str() else { return ids };
        path = stage.control(&format!("runs?nextToken={token}"));
    }
}
