//! Runs that are cancelled, wherever they are.

use std::time::Duration;

use queue::app::AppConfig;
use queue::lease::Release;
use queue::outcome::{Code, Ending};
use queue::port::Dispatch as _;

use crate::house::{House, PATIENCE, Plan, is_alive, until};

const CODE: &str = r#"
import asyncio, os, time
HERE = os.path.dirname(os.path.abspath(__file__))

def note(name):
    with open(os.path.join(HERE, name), "a") as f:
        f.write("%d\n" % os.getpid())

async def sleepy():
    note("sleepy")
    await asyncio.sleep(600)

def who():
    return os.getpid()

def stubborn():
    note("stubborn")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass
"#;

fn one_at_a_time() -> Plan {
    Plan {
        config: AppConfig { replica_concurrency: Some(1), max_replicas: Some(1), ..AppConfig::default() },
        // A run that lets go does so whatever else the machine is doing.
        adjust: Some(|options| options.cancel_grace = PATIENCE),
        ..Plan::default()
    }
}

/// For a run that never lets go.
fn without_patience() -> Plan {
    Plan { adjust: Some(|options| options.cancel_grace = Duration::from_millis(200)), ..one_at_a_time() }
}

#[tokio::test]
async fn a_run_that_lets_go_ends_as_cancelled_and_its_replica_lives_on() {
    let house = House::with(CODE, one_at_a_time()).await;
    let run = house.submit(house.run("sleepy", "{}"));
    let pid = house.written("sleepy").await;
    house.handle.cancel(&house.id(), run);
    let outcome = house.outcome(run).await;
    assert_eq!((outcome.ending, outcome.error.unwrap().code), (Ending::Cancelled, Code::Cancelled));
    assert_eq!(house.result(house.submit(house.run("who", "{}"))).await, pid.trim());
}

#[tokio::test]
async fn a_run_that_does_not_let_go_loses_its_process() {
    let house = House::with(CODE, without_patience()).await;
    let run = house.submit(house.run("stubborn", "{}"));
    let pid = house.written("stubborn").await.trim().parse().unwrap();
    house.handle.cancel(&house.id(), run);
    assert_eq!(house.outcome(run).await.ending, Ending::Cancelled);
    until("the process is gone", || (!is_alive(pid)).then_some(())).await;
    assert!(house.memory.releases().is_empty(), "it ended once");
}

#[tokio::test]
async fn a_run_that_waits_for_a_replica_goes_back_to_the_store() {
    let house = House::with(CODE, one_at_a_time()).await;
    let first = house.submit(house.run("sleepy", "{}"));
    house.written("sleepy").await;
    let second = house.submit(house.run("who", "{}"));
    house.handle.cancel(&house.id(), second);
    let released = until("the run is released", || house.memory.releases().first().copied()).await;
    assert_eq!(released, (second, Release::Drained));
    assert!(house.memory.outcome(first).is_none(), "the other one goes on");
}

#[tokio::test]
async fn a_run_on_its_way_to_its_place_is_turned_back() {
    let house = House::with(CODE, one_at_a_time()).await;
    let run = house.run("who", "{}");
    let slot = house.handle.reserve(&house.app, run.input.len()).expect("there is a place");
    let run = house.memory.lease(run);
    let id = run.lease.run;
    house.handle.cancel(&house.id(), id);
    slot.hand_over(run);
    let released = until("the run is released", || house.memory.releases().first().copied()).await;
    assert_eq!(released, (id, Release::Drained));
    // It is the store that ends it; this one does not, and gives it out anew.
    assert_eq!(house.outcome(id).await.ending, Ending::Succeeded);
}

#[tokio::test]
async fn a_run_that_was_to_start_by_now_goes_back_unless_it_has_begun() {
    let house = House::with(CODE, one_at_a_time()).await;
    let first = house.submit(house.run("sleepy", "{}"));
    house.written("sleepy").await;
    let second = house.submit(house.run("who", "{}"));
    house.memory.is_late(house.id(), first);
    house.memory.is_late(house.id(), second);
    let released = until("the run is released", || house.memory.releases().first().copied()).await;
    assert_eq!(released, (second, Release::Drained));
    assert!(house.memory.outcome(first).is_none(), "the one that has begun goes on");
}
