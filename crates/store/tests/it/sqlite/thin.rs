//! Deliveries whose receiver does not take the result: the thin form, and what it points at.

use std::time::Duration;

use queue::delivery::{DueDelivery, Verdict};
use queue::limits::RESULT_RETENTION;
use queue::outcome::Finished;
use queue::port::{Deliveries as _, Runs as _};
use queue::run::Generation;
use queue::{RunId, answer};
use store::Store;

use super::{after_a_kill, fresh};
use crate::world::{World, app, project, url};

const A: &str = "https://a.example/hook";
const BASE: &str = "https://models.example.com";

async fn next(world: &World<Store>) -> DueDelivery {
    world.settled().await;
    world.begin().await.remove(0)
}

fn fails(world: &World<Store>, due: &DueDelivery, status: u16) {
    world.end(due, Verdict::Retry(world.now()), status);
}

/// The link in a thin body.
fn link(due: &DueDelivery) -> String {
    let body: serde_json::Value = serde_json::from_slice(&due.body).unwrap();
    assert!(body["result"].is_null() && due.thin, "{body}");
    body["result_url"].as_str().unwrap().to_owned()
}

/// Has a run told to a receiver that says 413.
async fn too_large(world: &World<Store>) -> (RunId, DueDelivery) {
    let run = world.succeeded(&app("a"), &[A]).await;
    let full = next(world).await;
    assert!(!full.thin);
    assert_eq!(full.body, answer::body(run, Generation::V3, &world.success(), None));
    fails(world, &full, 413);
    (run, next(world).await)
}

#[tokio::test]
async fn after_a_413_every_attempt_is_thin_and_the_same() {
    let mut world = fresh();
    world.store.result_links(BASE);
    let (run, thin) = too_large(&world).await;
    assert!(link(&thin).starts_with(&format!("{BASE}/v2/projects/p-1/runs/{run}/result?expires=")));
    fails(&world, &thin, 500);
    world.pass(Duration::from_secs(3 * 86_400));
    let later = next(&world).await;
    assert_eq!((later.id, &later.body), (thin.id, &thin.body));
    // Also after a restart under way, which nobody saw the answer of.
    world = after_a_kill(&world);
    world.store.result_links(BASE);
    world.pass(Duration::from_secs(3_600));
    let again = next(&world).await;
    assert_eq!((again.attempt, again.thin, &again.body), (4, true, &thin.body));
    world.end(&again, Verdict::Delivered, 200);
    world.settled().await;
    let forms: Vec<_> = world.view(run).await.deliveries[0]
        .attempts
        .iter()
        .map(|attempt| attempt.report.as_ref().unwrap().thin)
        .collect();
    assert_eq!(forms, [false, true, true, true]);
}

#[tokio::test]
async fn without_a_result_or_a_place_for_it_there_is_no_thin_form() {
    let world = fresh();
    let (_, still_full) = too_large(&world).await;
    assert!(!still_full.thin, "nobody has said where this server is");
    world.end(&still_full, Verdict::Delivered, 200);
    world.store.result_links(BASE);
    let lease = world.leased(&app("a"), &[A]).await;
    world.finish(lease, world.failure(), &[]).await;
    let first = next(&world).await;
    fails(&world, &first, 413);
    let second = next(&world).await;
    assert_eq!((second.thin, &second.body), (false, &first.body));
}

#[tokio::test]
async fn a_result_that_was_told_by_link_is_kept_as_long_as_others_are() {
    let world = fresh();
    world.store.result_links(BASE);
    let (run, thin) = too_large(&world).await;
    fails(&world, &thin, 500);
    // Delivered when results of its age are removed already.
    world.pass(RESULT_RETENTION + Duration::from_secs(86_400));
    let thin = next(&world).await;
    world.end(&thin, Verdict::Delivered, 200);
    world.settled().await;
    world.pass(RESULT_RETENTION - Duration::from_secs(1));
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 0);
    assert!(world.view(run).await.result.is_some());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 1);
    assert!(world.store.run(&project(1), run).await.unwrap().is_none());
}

#[tokio::test]
async fn an_endpoint_with_a_limit_gets_larger_bodies_thin_from_the_first_attempt_on() {
    let mut world = fresh();
    world.store.result_links(BASE);
    let size = answer::body(world.run_id(), Generation::V3, &world.success(), None).len() as u64;
    let set = async |world: &World<Store>, max| {
        assert!(world.store.set_body_limit(&project(1), url(A), max).await.unwrap());
        world.store.endpoints(&project(1)).await.unwrap().remove(0)
    };
    for (max, thin) in [(Some(size), false), (Some(size - 1), true), (None, false)] {
        let shown = set(&world, max).await;
        assert_eq!((shown.body_bytes_max, shown.state), (max, queue::delivery::EndpointState::Enabled));
        // From memory, and from the store.
        let lease = world.leased(&app("a"), &[A]).await;
        let Finished::Recorded(first) = world.finish(lease, world.success(), &[true]).await else {
            panic!("the lease was current");
        };
        assert_eq!(first[0].thin, thin, "{max:?}");
        world.end(&first[0], Verdict::Delivered, 200);
        world.succeeded(&app("a"), &[A]).await;
        let due = next(&world).await;
        assert_eq!(due.thin, thin, "{max:?}");
        world.end(&due, Verdict::Delivered, 200);
    }
    // It outlives the process, and says nothing about why an endpoint is disabled.
    set(&world, Some(1_024)).await;
    world.settled().await;
    world = after_a_kill(&world);
    world.succeeded(&app("a"), &[A]).await;
    let due = next(&world).await;
    world.end(&due, Verdict::Disabled, 410);
    world.settled().await;
    let shown = set(&world, Some(2_048)).await;
    assert_eq!((shown.reason.as_str(), shown.body_bytes_max), ("http_status 410", Some(2_048)));
}
