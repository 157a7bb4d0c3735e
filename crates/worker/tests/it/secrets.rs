//! Secrets of replicas, and the restart that brings new ones to those that run.

use std::time::Duration;

use queue::app::AppConfig;
use queue::port::{Dispatch as _, Replicas as _, Secrets as _};
use queue::registry::SecretChange;

use crate::house::{House, PATIENCE, Plan, text};

const CODE: &str = r#"
import os, time

SEEN = os.environ.get("TOKEN")
if SEEN == "breaks the import":
    raise ValueError("no such token")

def seen():
    return [SEEN, os.environ.get("TOKEN")]

def wait(seconds):
    time.sleep(seconds)
    return SEEN
"#;

async fn set(house: &House, value: &str) {
    let change = SecretChange { set: [("TOKEN".into(), value.into())].into(), remove: vec![] };
    house.memory.change_secrets(&house.app.id.project(), None, change).await.unwrap();
}

async fn seen(house: &House) -> String {
    text(&house.call("seen", "{}").await)
}

async fn until(what: &str, look: impl AsyncFn() -> bool) {
    let began = std::time::Instant::now();
    while !look().await {
        assert!(began.elapsed() < PATIENCE, "{what}: in vain");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_replica_has_the_secrets_of_its_start_until_it_is_restarted() {
    let house = House::of(CODE).await;
    assert_eq!(seen(&house).await, "[null,null]");
    set(&house, "first").await;
    assert_eq!(seen(&house).await, "[null,null]", "a running replica keeps what it has");
    house.handle.restart(&house.app.id);
    until("a fresh replica serves", async || seen(&house).await == r#"["first","first"]"#).await;
    let says = |text: &str| house.memory.lines().iter().any(|line| line.text.contains(text));
    until("the old one is gone", async || says("ended: asked to")).await;
    assert!(!says("ended while it worked"));
    assert_eq!(house.replicas(), 1);
}

#[tokio::test]
async fn calls_under_way_end_on_the_replica_that_a_restart_replaces() {
    let config = AppConfig { replica_concurrency: Some(4), min_replicas: 1, ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    set(&house, "first").await;
    let call = house.new_call("wait", r#"{"seconds":1}"#, Duration::from_secs(20));
    let handle = house.handle.clone();
    let long = tokio::spawn(async move { handle.call(call).await.unwrap() });
    // The call is with the old replica once this one, which came later, is answered.
    seen(&house).await;
    house.handle.restart(&house.app.id);
    until("a fresh replica serves", async || seen(&house).await == r#"["first","first"]"#).await;
    assert_eq!(text(&long.await.unwrap()), "null");
}

#[tokio::test]
async fn a_restart_whose_replica_does_not_start_leaves_the_old_one() {
    let house = House::of(CODE).await;
    set(&house, "breaks the import").await;
    house.handle.restart(&house.app.id);
    until("the failed start is told", async || {
        house.memory.lines().iter().any(|line| line.text.contains("no such token"))
    })
    .await;
    assert_eq!(seen(&house).await, "[null,null]");
}
