//! Clients that go away between a write and its answer: what follows the write happens all the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use queue::EndpointId;
use queue::delivery::DeliveryState;
use queue::run::{EndpointUrl, RunState};
use serde_json::json;
use tower::ServiceExt as _;

use crate::control::a_run;
use crate::deliveries::{HOOK, told};
use crate::fakes::{PROJECT, World, function, private_key};

/// Time for what must happen anyway.
const SOON: Duration = Duration::from_secs(10);

/// Sends a request, goes away once its write has happened but not been answered, and waits until the
/// other rooms are told `expected`.
async fn hang_up(world: &Arc<World>, method: &str, path: &str, body: &str, expected: &str) {
    let before = world.writes.load(Ordering::SeqCst);
    let answers = world.answers.lock().await;
    let request = Request::builder()
        .method(method)
        .uri(format!("/v2/projects/{PROJECT}/{path}"))
        .header(header::AUTHORIZATION, private_key(PROJECT))
        .body(Body::from(body.to_owned()))
        .unwrap();
    let mut answer = Box::pin(world.router().oneshot(request));
    let written = async {
        while world.writes.load(Ordering::SeqCst) == before {
            assert!(
                futures_util::poll!(&mut answer).is_pending(),
                "{method} {path}: answered before its write"
            );
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, written).await.unwrap();
    drop(answer);
    drop(answers);
    let told = async {
        while !world.hold().told.iter().any(|told| told == expected) {
            tokio::task::yield_now().await;
        }
    };
    let told = tokio::time::timeout(SOON, told).await;
    assert!(told.is_ok(), "{method} {path}: nobody was told `{expected}`: {:?}", world.hold().told);
    world.hold().told.clear();
}

#[tokio::test]
async fn what_follows_a_write_happens_although_the_client_went_away() {
    let world = World::new();
    let app = world.live_app(PROJECT, "demo", vec![function("predict", &["item"])]);
    let run = a_run(&world, &app, RunState::Running);
    let id = run.id;
    world.put_run(run);
    hang_up(&world, "DELETE", &format!("apps/demo/runs/{id}"), "", &format!("cancel {app} {id}")).await;
    let scaling = json!({"maxReplicaCount": 3}).to_string();
    hang_up(&world, "PATCH", "apps/demo", &scaling, &format!("switch {app}")).await;

    let delivered = told(&world, PROJECT, &[DeliveryState::Exhausted]);
    let delivery = queue::DeliveryId::outcome(delivered, 0).webhook_id();
    hang_up(&world, "POST", &format!("deliveries/{delivery}/redeliver"), "", "wake").await;
    let failed = json!({"receiver": HOOK, "since": "2026-01-31T12:00:00Z"}).to_string();
    hang_up(&world, "POST", "deliveries/redeliver", &failed, "wake").await;
    let endpoint = EndpointId::of(&PROJECT.parse().unwrap(), &EndpointUrl::checked(HOOK));
    hang_up(&world, "POST", &format!("endpoints/{}/enable", endpoint.as_str()), "", "wake").await;

    hang_up(&world, "DELETE", "apps/demo", "", &format!("retire {app}")).await;
}
