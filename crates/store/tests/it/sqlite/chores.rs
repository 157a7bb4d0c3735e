//! Long work that the writer does in steps, and a store that goes away between two of them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use queue::delivery::{DeliveryFilter, DeliveryState, Enabled, Endpoints, Verdict};
use queue::port::{Deliveries as _, Registry as _, Runs as _};
use queue::run::RunState;
use queue::{EndpointId, RunId};
use store::{Bounds, Options, Store};

use super::{again, fresh, options};
use crate::conformance::registry::{deployed, with_project};
use crate::world::{World, app, eventually, project, url};

const A: &str = "https://a.example/gone";
const B: &str = "https://a.example/other";

/// More than two steps.
const MANY: usize = 600;

async fn waiting(world: &World<Store>) -> u64 {
    let known = world.store.endpoints(&project(1)).await.unwrap();
    known.iter().find(|known| known.url == url(A)).map_or(0, |known| known.waiting)
}

async fn count(world: &World<Store>, state: DeliveryState) -> usize {
    let (project, state) = (project(1), Some(state));
    let filter = DeliveryFilter { project, endpoints: None, state, after: None, limit: 10 * MANY };
    world.store.deliveries(filter).await.unwrap().len()
}

async fn is_delivered(world: &World<Store>, run: RunId) -> bool {
    world.view(run).await.deliveries[0].state == DeliveryState::Delivered
}

/// Runs that tell a gone endpoint, and one that tells its neighbour.
async fn many(world: &World<Store>) -> RunId {
    for _ in 0..MANY {
        world.succeeded(&app("a"), &[A]).await;
    }
    world.succeeded(&app("a"), &[B]).await
}

/// The world of a store that was closed right after what it was asked last, and opened again.
async fn reopened(world: World<Store>) -> World<Store> {
    world.store.close().await;
    World { store: again(&world).unwrap(), ..world }
}

/// Has the endpoint say 410 while many deliveries wait for it.
async fn gone(world: &World<Store>) {
    let due = world.begin().await;
    world.end(&due[0], Verdict::Disabled, 410);
    for due in &due[1..] {
        world.end(due, Verdict::Retry(world.now()), 503);
    }
}

#[tokio::test]
async fn a_disabling_is_done_in_steps_and_nothing_of_it_is_sent_meanwhile() {
    let world = fresh();
    let other = many(&world).await;
    gone(&world).await;
    // The steps ride beside these calls.
    while !is_delivered(&world, other).await {
        for due in world.begin().await {
            assert_eq!(due.url, url(B), "nothing more goes to the endpoint");
            world.end(&due, Verdict::Delivered, 200);
        }
        world.settled().await;
    }
    eventually(|| async { waiting(&world).await == MANY as u64 }).await;
}

#[tokio::test]
async fn an_endpoint_that_is_enabled_in_the_middle_of_its_disabling_gets_everything() {
    let world = fresh();
    many(&world).await;
    gone(&world).await;
    let id = EndpointId::of(&project(1), &url(A));
    eventually(|| async { !world.store.endpoints(&project(1)).await.unwrap().is_empty() }).await;
    assert_eq!(world.store.enable(&project(1), &id).await.unwrap(), Enabled::Replayed(MANY as u64));
    assert_eq!(count(&world, DeliveryState::Disabled).await, 0);
    assert_eq!(count(&world, DeliveryState::Pending).await, MANY + 1);
}

#[tokio::test]
async fn a_disabling_that_was_cut_short_goes_on_after_the_next_start() {
    let world = fresh();
    many(&world).await;
    gone(&world).await;
    let world = reopened(world).await;
    for due in world.begin().await {
        assert_eq!(due.url, url(B), "the endpoint is disabled");
    }
    eventually(|| async { waiting(&world).await == MANY as u64 }).await;
}

#[tokio::test]
async fn a_deletion_that_was_cut_short_goes_on_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds { queued_runs_per_app: u64::MAX, ..Bounds::default() };
    let (clock, entropy) = (crate::world::clock(), crate::world::entropy());
    let options = Options { bounds, ..options(dir.path()) };
    let store = Store::open(options, clock.clone(), entropy.clone()).unwrap();
    let world = World { store, clock, entropy, ground: Box::new(dir) };
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    for _ in 0..MANY {
        world.queued(&app("a"), &[A]).await;
    }
    let stays = world.queued(&app("b"), &[]).await;
    let a = app("a");
    let mut deletion = Box::pin(world.store.delete_app(&a));
    assert!(futures_util::poll!(deletion.as_mut()).is_pending());
    drop(deletion);
    let world = reopened(world).await;
    // Each of them tells its webhook.
    eventually(|| async { count(&world, DeliveryState::Pending).await == MANY }).await;
    assert_eq!(world.store.backlog().await.unwrap(), [(app("b"), 1)]);
    assert_eq!(world.view(stays).await.state, RunState::Queued);
}

#[tokio::test]
async fn what_was_to_be_delivered_once_more_is_although_the_store_went_away() {
    let world = fresh();
    many(&world).await;
    let since = world.now();
    let later = since.plus(Duration::from_secs(3_600));
    loop {
        let due = world.begin().await;
        if due.is_empty() {
            break;
        }
        for (number, due) in due.iter().enumerate() {
            let verdict = if number % 2 == 0 { Verdict::Exhausted } else { Verdict::Retry(later) };
            world.end(due, verdict, 500);
        }
    }
    let of_all = Endpoints::Of(url(A).receiver());
    let p = project(1);
    let mut wish = Box::pin(world.store.redeliver_failed(&p, of_all, since));
    assert!(futures_util::poll!(wish.as_mut()).is_pending());
    drop(wish);
    let world = reopened(world).await;
    let mut begun = HashSet::new();
    let began = Instant::now();
    while begun.len() < MANY + 1 {
        assert!(began.elapsed() < Duration::from_secs(10), "{} of {} are due", begun.len(), MANY + 1);
        begun.extend(world.begin().await.into_iter().map(|due| due.id));
        world.settled().await;
    }
}
