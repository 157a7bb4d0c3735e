//! Runs that are cancelled, wherever they are.

use queue::lease::Release;
use queue::outcome::{Code, Ending};
use queue::port::Dispatch as _;

use crate::functions::HOLDING;
use crate::house::{House, Plan, is_alive, until};

#[tokio::test]
async fn a_run_that_lets_go_ends_as_cancelled_and_its_replica_lives_on() {
    let house = House::with(HOLDING, Plan::patient()).await;
    let run = house.submit(house.run("sleepy", "{}"));
    let pid = house.written("sleepy").await;
    house.handle.cancel(&house.id(), run);
    let outcome = house.outcome(run).await;
    assert_eq!((outcome.ending, outcome.error.unwrap().code), (Ending::Cancelled, Code::Cancelled));
    assert_eq!(house.result(house.submit(house.run("who", "{}"))).await, pid.trim());
}

#[tokio::test]
async fn a_run_that_does_not_let_go_loses_its_process() {
    let house = House::with(HOLDING, Plan::at_once(1)).await;
    let run = house.submit(house.run("stubborn", "{}"));
    let pid = house.written("stubborn").await.trim().parse().unwrap();
    house.handle.cancel(&house.id(), run);
    assert_eq!(house.outcome(run).await.ending, Ending::Cancelled);
    until("the process is gone", || (!is_alive(pid)).then_some(())).await;
    assert!(house.memory.releases().is_empty(), "it ended once");
}

#[tokio::test]
async fn a_run_that_waits_for_a_replica_goes_back_to_the_store() {
    let house = House::with(HOLDING, Plan::patient()).await;
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
    let house = House::with(HOLDING, Plan::patient()).await;
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
    let house = House::with(HOLDING, Plan::patient()).await;
    let first = house.submit(house.run("sleepy", "{}"));
    house.written("sleepy").await;
    let second = house.submit(house.run("who", "{}"));
    house.memory.is_late(house.id(), first);
    house.memory.is_late(house.id(), second);
    let released = until("the run is released", || house.memory.releases().first().copied()).await;
    assert_eq!(released, (second, Release::Drained));
    assert!(house.memory.outcome(first).is_none(), "the one that has begun goes on");
}
