//! How many replicas there are: as many as the work needs, within what the app allows.

use std::time::Duration;

use queue::app::AppConfig;
use queue::scaling::{Balancing, Metric};

use crate::house::{House, Plan, until};

const CODE: &str = r#"
import os, time

def wait(seconds):
    time.sleep(seconds)
    return os.getpid()
"#;

fn scaled(min: u32, max: u32, cooldown: u64) -> Plan {
    let config = AppConfig {
        min_replicas: min,
        max_replicas: Some(max),
        cooldown_seconds: Some(cooldown),
        replica_concurrency: Some(1),
        ..AppConfig::default()
    };
    Plan { config, ..Plan::default() }
}

#[tokio::test]
async fn replicas_grow_with_the_work_to_their_most_and_shrink_to_zero() {
    let house = House::with(CODE, scaled(0, 3, 1)).await;
    until("the first replica serves", || (house.replicas() == 1).then_some(())).await;
    let runs: Vec<_> = (0..12).map(|_| house.submit(house.run("wait", r#"{"seconds":0.4}"#))).collect();
    let mut most = 0;
    until("all runs end", || {
        most = most.max(house.replicas());
        (house.memory.ended() == runs.len()).then_some(())
    })
    .await;
    assert_eq!(most, 3);
    let mut pids = std::collections::HashSet::new();
    for run in runs {
        pids.insert(house.result(run).await);
    }
    assert_eq!(pids.len(), 3);
    until("the last replica leaves", || (house.replicas() == 0).then_some(())).await;
}

#[tokio::test]
async fn an_app_at_zero_is_woken_by_work() {
    let house = House::with(CODE, scaled(0, 1, 0)).await;
    until("the replica leaves", || (house.replicas() == 0).then_some(())).await;
    let run = house.submit(house.run("wait", r#"{"seconds":0}"#));
    house.outcome(run).await;
    until("the replica leaves again", || (house.replicas() == 0).then_some(())).await;
    house.call("wait", r#"{"seconds":0}"#).await;
}

#[tokio::test]
async fn the_least_number_of_replicas_is_there_without_work_and_stays() {
    let house = House::with(CODE, Plan { not_deployed: true, ..scaled(2, 4, 0) }).await;
    until("two replicas", || (house.replicas() == 2).then_some(())).await;
    let runs: Vec<_> = (0..8).map(|_| house.submit(house.run("wait", r#"{"seconds":0.3}"#))).collect();
    for run in runs {
        house.outcome(run).await;
    }
    until("back to two", || (house.replicas() == 2).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(house.replicas(), 2);
}

#[tokio::test]
async fn a_replica_stays_for_its_cooldown() {
    let house = House::with(CODE, scaled(0, 1, 2)).await;
    let first = house.call("wait", r#"{"seconds":0}"#).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let second = house.call("wait", r#"{"seconds":0}"#).await;
    assert_eq!(first.result, second.result);
}

/// Runs one after another; the processes that had them, in order.
async fn served_by(house: &House, runs: usize) -> Vec<String> {
    let mut pids = Vec::new();
    for _ in 0..runs {
        pids.push(house.result(house.submit(house.run("wait", r#"{"seconds":0}"#))).await);
    }
    pids
}

fn balanced(way: Option<Balancing>, concurrency: u32) -> Plan {
    let plan = scaled(3, 3, 60);
    let config =
        AppConfig { load_balancing_algorithm: way, replica_concurrency: Some(concurrency), ..plan.config };
    Plan { config, not_deployed: true, ..plan }
}

/// Waits until each of three replicas has had a call at the same time.
async fn all_serve(house: &House) {
    until("three replicas", || (house.replicas() == 3).then_some(())).await;
    loop {
        let runs: Vec<_> = (0..3).map(|_| house.submit(house.run("wait", r#"{"seconds":0.2}"#))).collect();
        let mut pids = std::collections::HashSet::new();
        for run in runs {
            pids.insert(house.result(run).await);
        }
        if pids.len() == 3 {
            return;
        }
    }
}

#[tokio::test]
async fn with_few_calls_at_once_the_oldest_replica_gets_what_it_has_a_place_for() {
    let house = House::with(CODE, balanced(None, 1)).await;
    all_serve(&house).await;
    let pids = served_by(&house, 6).await;
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
}

#[tokio::test]
async fn round_robin_gives_each_replica_its_turn() {
    let house = House::with(CODE, balanced(Some(Balancing::RoundRobin), 2)).await;
    all_serve(&house).await;
    let pids = served_by(&house, 6).await;
    assert_eq!(pids[..3], pids[3..], "{pids:?}");
    assert_eq!(pids[..3].iter().collect::<std::collections::HashSet<_>>().len(), 3, "{pids:?}");
}

#[tokio::test]
async fn replicas_that_share_too_little_work_become_fewer_although_none_is_idle_for_long() {
    let plan = scaled(0, 3, 1);
    let config = AppConfig { load_balancing_algorithm: Some(Balancing::RoundRobin), ..plan.config };
    let house = House::with(CODE, Plan { config, ..plan }).await;
    let runs: Vec<_> = (0..9).map(|_| house.submit(house.run("wait", r#"{"seconds":0.5}"#))).collect();
    until("three replicas", || (house.replicas() == 3).then_some(())).await;
    for run in runs {
        house.outcome(run).await;
    }
    let began = std::time::Instant::now();
    while house.replicas() != 1 {
        assert!(began.elapsed() < crate::house::PATIENCE, "{} replicas stay", house.replicas());
        house.call("wait", r#"{"seconds":0.02}"#).await;
    }
}

#[tokio::test]
async fn requests_per_second_ask_for_replicas_that_no_waiting_call_asks_for() {
    let config = AppConfig {
        max_replicas: Some(3),
        scaling_metric: Some(Metric::RequestsPerSecond),
        scaling_target: Some(1),
        evaluation_interval_seconds: Some(1),
        ..AppConfig::default()
    };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    let began = std::time::Instant::now();
    while house.replicas() < 3 {
        assert!(began.elapsed() < crate::house::PATIENCE, "{} replicas", house.replicas());
        house.call("wait", r#"{"seconds":0.05}"#).await;
    }
}

#[tokio::test]
async fn memory_in_use_asks_for_replicas_up_to_the_most() {
    let code = format!("{CODE}\nBALLAST = bytearray(96 << 20)\n");
    let config = AppConfig {
        min_replicas: 1,
        max_replicas: Some(2),
        memory: Some(0.5),
        scaling_metric: Some(Metric::MemoryUtilization),
        scaling_target: Some(10),
        evaluation_interval_seconds: Some(1),
        ..AppConfig::default()
    };
    let house = House::with(&code, Plan { config, ..Plan::default() }).await;
    until("a second replica", || (house.replicas() == 2).then_some(())).await;
}

#[tokio::test]
async fn a_buffer_is_there_before_anybody_calls() {
    let plan = scaled(1, 4, 0);
    let config = AppConfig { scaling_buffer: Some(2), ..plan.config };
    let house = House::with(CODE, Plan { config, not_deployed: true, ..plan }).await;
    until("three replicas", || (house.replicas() == 3).then_some(())).await;
    let run = house.submit(house.run("wait", r#"{"seconds":1}"#));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(house.replicas(), 3, "one is wanted, and two to spare are there");
    house.outcome(run).await;
}
