//! Replicas as people see them: what each is, and what it works on.

use std::time::Instant;

use queue::app::AppConfig;
use queue::port::Replicas as _;
use queue::replica::ReplicaState;

use crate::house::{House, PATIENCE, Plan, until};

const CODE: &str = r#"
import time

def wait(seconds):
    time.sleep(seconds)
"#;

#[tokio::test]
async fn a_replica_is_listed_with_its_memory_and_the_runs_it_works_on() {
    let config =
        AppConfig { replica_concurrency: Some(2), cooldown_seconds: Some(600), ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    until("the replica serves", || (house.replicas() == 1).then_some(())).await;
    let runs = [(); 2].map(|()| house.submit(house.run("wait", r#"{"seconds":600}"#)));
    let began = Instant::now();
    let busy = loop {
        let mut listed = house.handle.list(&house.id()).await;
        assert!(listed.len() <= 1, "{listed:?}");
        if let Some(busy) = listed.pop().filter(|replica| replica.runs.len() == runs.len()) {
            break busy;
        }
        assert!(began.elapsed() < PATIENCE, "the replica does not say what it works on");
        tokio::task::yield_now().await;
    };
    assert!(runs.iter().all(|run| busy.runs.contains(run)), "{busy:?}");
    assert_eq!((busy.state, busy.gpus.len()), (ReplicaState::Serving, 0));
    // A Python interpreter is no smaller.
    assert!(busy.memory.is_some_and(|bytes| (1 << 20..1 << 32).contains(&bytes)), "{busy:?}");
    assert_eq!(house.handle.list(&"p-1234abcd-nobody".parse().unwrap()).await.len(), 0);
}
