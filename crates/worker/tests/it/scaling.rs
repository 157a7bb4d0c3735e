//! How many replicas there are: as many as the work needs, within what the app allows.

use std::time::Duration;

use queue::app::AppConfig;

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
