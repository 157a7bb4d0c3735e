//! Endpoints: disabled by what they answer, enabled by people.

use std::time::Duration;

use queue::delivery::{DeliveryState, EndpointState, Verdict};
use queue::{AppId, EndpointId};

use crate::world::{Engine, World, app, project, url};

const A: &str = "https://a.example/hook";

/// Has the endpoint say 410 to a delivery of its own.
async fn gone(world: &World<impl Engine>) {
    world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Disabled, 410);
    world.settled().await;
}

fn id() -> EndpointId {
    EndpointId::of(&project(1), &url(A))
}

pub(crate) async fn an_endpoint_shows_every_change(world: World<impl Engine>) {
    assert!(world.store.endpoints(&project(1)).await.unwrap().is_empty());
    gone(&world).await;
    let disabled_at = world.now();
    let shown = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert_eq!((&shown.id, &shown.url, shown.state), (&id(), &url(A), EndpointState::Disabled));
    assert_eq!((shown.since, shown.reason.as_str()), (disabled_at, "http_status 410"));

    world.pass(Duration::from_secs(60));
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Some(1));
    let shown = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert_eq!((shown.state, shown.since), (EndpointState::Enabled, world.now()));
    let changes: Vec<_> = shown.events.iter().map(|event| (event.at, event.state)).collect();
    assert_eq!(changes, [(disabled_at, EndpointState::Disabled), (world.now(), EndpointState::Enabled)]);
    assert!(world.store.endpoints(&project(2)).await.unwrap().is_empty());
}

pub(crate) async fn enabling_replays_what_waits(world: World<impl Engine>) {
    gone(&world).await;
    let mut waiting = Vec::new();
    for _ in 0..1_100 {
        waiting.push(world.succeeded(&app("a"), &[A]).await);
    }
    assert!(world.begin().await.is_empty());
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Some(1_101));
    assert_eq!(world.view(waiting[0]).await.deliveries[0].state, DeliveryState::Pending);
    let due = world.begin().await;
    assert_eq!((due.len(), due[0].step), (100, 1));
    // Outcomes that come later are told at once, and there is nothing left to enable.
    let later = world.succeeded(&app("a"), &[A]).await;
    assert_eq!(world.view(later).await.deliveries[0].state, DeliveryState::Pending);
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Some(0));
}

pub(crate) async fn an_endpoint_is_enabled_by_its_own_project_only(world: World<impl Engine>) {
    gone(&world).await;
    let other = AppId::new(&project(2), &"a".parse().unwrap());
    world.succeeded(&other, &[A]).await;
    world.end(&world.begin().await[0], Verdict::Disabled, 410);
    world.settled().await;
    assert_eq!(world.store.enable(&project(2), &id()).await.unwrap(), None);
    let theirs = EndpointId::of(&project(2), &url(A));
    assert_eq!(world.store.enable(&project(2), &theirs).await.unwrap(), Some(1));
    assert_eq!(world.begin().await[0].project, project(2));
    let ours = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert_eq!(ours.state, EndpointState::Disabled);
}
