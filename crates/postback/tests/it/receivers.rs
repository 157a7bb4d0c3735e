//! Many receivers at once, some of them out of order: nobody else feels it, and the server neither.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::checker::Evidence;
use testkit::footprint::Footprint;
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

const RECEIVERS: usize = 100;
const ROUNDS: usize = 3;
/// One attempt in all, by `limits.rs`, and what a busy machine may add.
const ATTEMPT_LIMIT: Duration = queue::limits::DELIVERY_LIMIT;
const LATE_MAX: Duration = Duration::from_millis(500);
/// What one delivery may take beside its body.
const MEMORY_PER_DELIVERY: u64 = 1 << 20;

/// A run of `basic/echo` whose webhook goes to `url`.
async fn run_for(stage: &Stage, url: &str) -> String {
    let request = json!({"value": url, "webhook_endpoint": url}).to_string();
    let answer = stage.call(&stage.v3("basic/echo"), request).await;
    assert_eq!(answer.status(), 200);
    body(answer).await["run_id"].as_str().unwrap().to_owned()
}

async fn delivery_of(stage: &Stage, run: &str) -> Value {
    let path = stage.control(&format!("runs/{run}"));
    body(stage.request(Method::GET, &path).send().await.unwrap()).await["deliveries"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_receivers_one_that_hangs_is_felt_by_nobody() {
    let stage = Stage::basic();
    let hanging = Evil::start(Fault::Hang).await.unwrap();
    let mut good = Vec::new();
    for _ in 1..RECEIVERS {
        good.push(Recorder::start().await.unwrap());
    }
    let (mut feeding, mut runs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The one that hangs has its turn first, so that all others come after it.
        feeding.push(run_for(&stage, &hanging.url("x")).await);
        for receiver in &good {
            runs.push(run_for(&stage, &receiver.url(&round.to_string())).await);
        }
    }
    for receiver in &good {
        assert!(receiver.wait_until(PATIENCE, |arrivals| arrivals.len() >= ROUNDS).await);
        let paths: HashSet<_> = receiver.arrivals().iter().map(|arrival| arrival.path.clone()).collect();
        assert_eq!((receiver.count(), paths.len()), (ROUNDS, ROUNDS), "each once");
    }
    let mut states = Vec::new();
    for run in &feeding {
        // The run that feeds it has long ended: only its webhook waits.
        assert_eq!(stage.ended_run(run).await["state"], "succeeded");
        let delivery = delivery_of(&stage, run).await;
        states.push(delivery["state"].as_str().unwrap().to_owned());
        // On a slow machine the others may take longer than the attempt that hangs.
        let hangs = delivery["state"] == "sending"
            || (delivery["state"] == "pending" && delivery["attempts"][0]["reason"] == "timeout:headers");
        assert!(hangs, "{delivery}");
    }
    // Whoever has to wait for it waits for its whole limit.
    let mut evidence = Evidence { delay_max: Some(ATTEMPT_LIMIT / 2), ..Evidence::default() };
    evidence.arrivals.extend(good.iter().flat_map(Recorder::arrivals));
    for run in &runs {
        let path = stage.control(&format!("runs/{run}"));
        evidence.runs.push(stage.request(Method::GET, &path).send().await.unwrap().json().await.unwrap());
    }
    assert_eq!(evidence.others_are_not_delayed(), []);
    println!("those to the receiver that hangs: {states:?}");
    assert!(hanging.accepted() >= ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_without_end_cost_a_bounded_memory_and_end_by_their_deadline() {
    let stage = Stage::basic();
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000000\r\n".to_vec();
    let (mut floods, mut drips) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        floods.push(Evil::start(Fault::Endless).await.unwrap());
        drips.push(Evil::start(Fault::Drip(head.clone(), Duration::from_millis(50))).await.unwrap());
    }
    let (pid, data_dir) = (stage.server.as_ref().unwrap().pid(), stage.home.data_dir());
    let resident = || Footprint::of(pid, &data_dir).expect("the server runs").resident;
    run_for(&stage, &floods[0].url("warm")).await;
    let before = resident();
    let mut runs = Vec::new();
    for receiver in floods.iter().chain(&drips) {
        runs.push(run_for(&stage, &receiver.url("x")).await);
    }
    let began = Instant::now();
    let mut most = 0;
    let mut ended = Vec::new();
    while ended.len() < runs.len() {
        assert!(began.elapsed() < PATIENCE, "{} of {} attempts ended", ended.len(), runs.len());
        most = most.max(resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(run) = runs.get(ended.len()) {
            let delivery = delivery_of(&stage, run).await;
            if delivery["attempts"][0]["endedAt"].is_string() {
                ended.push(delivery);
            }
        }
    }
    let mut times = Vec::new();
    for (number, delivery) in ended.iter().enumerate() {
        let attempt = &delivery["attempts"][0];
        let took = Duration::from_secs_f64(attempt["durationMs"].as_f64().unwrap() / 1e3);
        times.push(took);
        assert!(attempt["response"].as_str().unwrap().len() <= queue::limits::DELIVERY_RESPONSE_KEPT_MAX);
        if number < floods.len() {
            // More than is read of an answer does not change what it says.
            assert_eq!(delivery["state"], "delivered", "{delivery}");
        } else {
            assert_eq!((&attempt["reason"], &delivery["state"]), (&json!("timeout:body"), &json!("pending")));
        }
    }
    // A busy machine is late now and then, and not always.
    times.sort_unstable();
    let median = times[times.len() / 2];
    assert!(median < ATTEMPT_LIMIT + LATE_MAX, "the attempts took {times:?}");
    let bound = before + runs.len() as u64 * MEMORY_PER_DELIVERY;
    assert!(most <= bound, "{most} bytes of memory; {before} before, {bound} at most");
}
