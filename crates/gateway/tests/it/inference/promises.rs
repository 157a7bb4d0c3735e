//! What an acknowledgement is worth.

use std::sync::atomic::Ordering;
use std::time::Duration;

use queue::Clock as _;
use queue::port::StoreError;

use super::{HOOK, Rig, call, deploy, run_id, v3, v4};

fn with_webhook() -> String {
    format!(r#"{{"webhook_endpoint":"{HOOK}"}}"#)
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_kept() {
    let rig = Rig::gated();
    deploy(&rig.world);
    let router = rig.router();
    let waiting = tokio::spawn(async move { call(&router, &v3("old/predict"), &with_webhook()).await });
    rig.at_gate.acquire().await.unwrap().forget();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished(), "the commit has not returned");
    assert!(rig.handed.lock().unwrap().is_empty(), "nor may the run begin");
    rig.gate.add_permits(1);
    let reply = waiting.await.unwrap();
    assert_eq!(reply.status, 200);
    let handed = rig.handed.lock().unwrap();
    assert_eq!(handed[0].lease.run.to_string(), run_id(&reply));
    assert_eq!(handed[0].input, with_webhook());
    assert_eq!(handed[0].webhooks[0].as_str(), HOOK);
    assert!(rig.world.hold().told.is_empty(), "a run handed over needs no wake");
}

#[tokio::test]
async fn a_caller_that_hangs_up_cannot_lose_the_run_between_commit_and_replica() {
    let rig = Rig::gated();
    deploy(&rig.world);
    let router = rig.router();
    let waiting = tokio::spawn(async move { call(&router, &v3("old/predict"), &with_webhook()).await });
    rig.at_gate.acquire().await.unwrap().forget();
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    rig.gate.add_permits(1);
    tokio::time::timeout(Duration::from_secs(5), rig.settled.acquire()).await.unwrap().unwrap().forget();
    assert_eq!(rig.handed.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_unknown_acceptance_is_looked_for_and_given_back() {
    let rig = Rig::gated();
    deploy(&rig.world);
    *rig.accept_error.lock().unwrap() = Some(StoreError::Unknown("fsync".into()));
    rig.gate.add_permits(1);
    let reply = call(&rig.router(), &v3("old/predict"), &with_webhook()).await;
    let run = run_id(&reply);
    assert!(reply.problem(503, "outcome_unknown").starts_with("outcome unknown"));
    assert!(rig.handed.lock().unwrap().is_empty(), "nobody may work on what may not be there");
    tokio::time::timeout(Duration::from_secs(60), rig.settled.acquire()).await.unwrap().unwrap().forget();
    assert_eq!(rig.released.lock().unwrap()[0].run.to_string(), run);
}

#[tokio::test]
async fn a_store_that_cannot_keep_a_run_is_a_503_that_may_be_tried_again() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    for slots in [false, true] {
        rig.slots.store(slots, Ordering::SeqCst);
        *rig.accept_error.lock().unwrap() = Some(StoreError::Unavailable("disk full".into()));
        let reply = call(&router, &v4("old/predict?async=true"), "{}").await;
        let message = reply.problem(503, "store_unavailable");
        assert!(!message.contains("disk"), "what is inside stays inside: {message}");
        assert_eq!(reply.headers["retry-after"], "1");
        *rig.accept_error.lock().unwrap() = Some(StoreError::Corrupt("page 7".into()));
        call(&router, &v4("old/predict?async=true"), "{}").await.problem(500, "store_corrupt");
    }
}

#[tokio::test]
async fn a_full_queue_is_a_429_that_says_when_to_come_back() {
    let rig = Rig::new();
    deploy(&rig.world);
    rig.world.hold().queue_full = true;
    let router = rig.router();
    for slots in [false, true] {
        rig.slots.store(slots, Ordering::SeqCst);
        let reply = call(&router, &v3("old/predict"), &with_webhook()).await;
        reply.problem(429, "queue_full");
        assert_eq!(reply.headers["retry-after"], "5");
    }
    assert!(rig.handed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ids_grow_with_time() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let first = run_id(&call(&router, &v3("old/predict"), &with_webhook()).await);
    rig.world.advance(Duration::from_millis(2));
    let second = run_id(&call(&router, &v3("old/predict"), &with_webhook()).await);
    assert!(first < second);
    assert_eq!(second.parse::<queue::RunId>().unwrap().accepted_at(), rig.world.now());
}

#[tokio::test]
async fn a_delayed_run_is_kept_and_waits_in_the_store() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let reply = call(&router, &v4("old/predict?async=true&delay=60&priority=5"), "{}").await;
    assert_eq!(reply.status, 202);
    let run = rig.world.hold().runs[&run_id(&reply).parse().unwrap()].clone();
    assert_eq!(run.not_before, Some(rig.world.now().plus(Duration::from_secs(60))));
    assert_eq!(run.priority, 5);
    assert!(rig.handed.lock().unwrap().is_empty(), "it has no place in memory");
    assert!(rig.world.hold().told.is_empty(), "and nobody is woken for it");
}

#[tokio::test]
async fn nobody_waits_for_a_delayed_run() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let message = call(&router, &v4("old/predict?delay=60"), "{}").await.problem(422, "invalid_parameter");
    assert!(message.contains("?async=true"), "{message}");
    let message = call(&router, &v4(&format!("old/predict?delay=60&webhookEndpoint={HOOK}")), "{}").await;
    message.problem(422, "invalid_parameter");
    assert!(rig.world.hold().runs.is_empty());
}
