//! What runs tell on their way to their outcome.

use bytes::Bytes;
use queue::delivery::{DeliveryState, Enabled, Endpoints, Verdict};
use queue::lease::Lease;
use queue::limits::PROGRESS_UNDELIVERED_MAX;
use queue::outcome::Finished;
use queue::port::{Accepted, Claim, Room};
use queue::progress::{self, Progress};
use queue::run::Generation;
use queue::webhook::{Event, EventFilter, Metadata};
use queue::{DeliveryId, LeaseToken};

use crate::world::{BEGINNING, Engine, World, app, project, room, url};

const A: &str = "https://a.example/hook";
const B: &str = "https://b.example/hook";

async fn leased(world: &World<impl Engine>, webhooks: &[&str]) -> Lease {
    let mut run = world.new_run(&app("a"), webhooks);
    run.options.events = EventFilter::parse(["start", "logs", "completed"]).unwrap();
    run.options.metadata = Some(Metadata::parse(r#"{"order":17}"#).unwrap());
    match world.store.accept(run, Claim::Now(world.token())).await.unwrap() {
        Accepted::Leased(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn tell(world: &World<impl Engine>, lease: Lease, event: Event, items: &'static str) {
    let items = Bytes::from_static(items.as_bytes());
    world.store.progress(Progress { lease, event, items, dropped: 2, due_at: world.now() });
}

pub(crate) async fn what_a_run_tells_is_a_delivery_for_each_endpoint(world: World<impl Engine>) {
    let lease = leased(&world, &[A, B]).await;
    tell(&world, lease, Event::Start, "[]");
    tell(&world, lease, Event::Logs, r#"["one","two"]"#);
    let mut due = world.begin().await;
    due.sort_by_key(|due| due.id);
    let id = |event, index| DeliveryId { run: lease.run, event, index };
    let ids: Vec<_> = due.iter().map(|due| due.id).collect();
    assert_eq!(ids, [id(1, 0), id(1, 1), id(2, 0), id(2, 1)]);
    let told = progress::Told { event: Event::Logs, attempt: 1, items: br#"["one","two"]"#, dropped: 2 };
    let metadata = Metadata::parse(r#"{"order":17}"#).unwrap();
    let body = progress::body(lease.run, Generation::V3, &told, Some(&metadata));
    assert_eq!((&due[2].body, &due[3].body), (&body, &body));

    // The same on the next attempt, whatever became of the run meanwhile.
    world.end(&due[2], Verdict::Retry(world.now()), 500);
    let Finished::Recorded(first) = world.finish(lease, world.success(), &[true, false]).await else {
        panic!("the lease was current");
    };
    assert_eq!(first.iter().map(|due| due.id).collect::<Vec<_>>(), [id(0, 0)]);
    let again = world.begin().await;
    let again = again.iter().find(|due| due.id == id(2, 0)).unwrap();
    assert_eq!((again.attempt, &again.body), (2, &body));

    let view = world.view(lease.run).await;
    let shown: Vec<_> =
        view.deliveries.iter().map(|delivery| (delivery.event, delivery.id.clone())).collect();
    assert_eq!(shown.len(), 6);
    assert_eq!(shown[0], (Event::Completed, id(0, 0).webhook_id()));
    assert_eq!(shown[2], (Event::Start, id(1, 0).webhook_id()));
    assert_eq!(shown[5], (Event::Logs, id(2, 1).webhook_id()));
}

pub(crate) async fn an_event_is_not_due_before_its_time(world: World<impl Engine>) {
    let lease = leased(&world, &[A]).await;
    let later = world.now().plus(std::time::Duration::from_millis(500));
    let items = Bytes::from_static(b"[]");
    world.store.progress(Progress { lease, event: Event::Logs, items, dropped: 0, due_at: later });
    assert!(world.begin().await.is_empty());
    assert_eq!(world.store.next_due(room()).await.unwrap(), Some(later));
}

pub(crate) async fn a_stale_attempt_tells_nothing(world: World<impl Engine>) {
    let lease = leased(&world, &[A]).await;
    tell(&world, Lease { token: LeaseToken::from_bytes([9; 16]), ..lease }, Event::Start, "[]");
    assert!(world.begin().await.is_empty());
    world.finish(lease, world.success(), &[true]).await;
    tell(&world, lease, Event::Logs, "[]");
    assert!(world.begin().await.is_empty());
}

pub(crate) async fn an_endpoint_that_does_not_keep_up_is_told_less(world: World<impl Engine>) {
    let lease = leased(&world, &[A]).await;
    for _ in 0..PROGRESS_UNDELIVERED_MAX + 5 {
        tell(&world, lease, Event::Logs, r#"["a"]"#);
    }
    let due = world.begin().await;
    assert_eq!(due.len(), PROGRESS_UNDELIVERED_MAX as usize);
    world.end(&due[0], Verdict::Delivered, 200);
    tell(&world, lease, Event::Logs, r#"["b"]"#);
    assert_eq!(world.begin().await.len(), 1);
}

pub(crate) async fn an_outcome_goes_before_what_was_told_on_the_way(world: World<impl Engine>) {
    let lease = leased(&world, &[A]).await;
    for _ in 0..3 {
        tell(&world, lease, Event::Logs, r#"["a"]"#);
    }
    world.pass(std::time::Duration::from_secs(1));
    world.finish(lease, world.success(), &[]).await;
    let one = Room { total: 1, per_receiver: 1, ..Room::default() };
    let due = world.store.begin(world.now(), one).await.unwrap();
    assert_eq!(due[0].id, DeliveryId::outcome(lease.run, 0));
}

pub(crate) async fn what_is_told_on_the_way_waits_for_no_disabled_endpoint(world: World<impl Engine>) {
    let lease = leased(&world, &[A]).await;
    tell(&world, lease, Event::Start, "[]");
    tell(&world, lease, Event::Logs, r#"["a"]"#);
    let begun = world.store.begin(world.now(), Room { total: 1, per_receiver: 1, ..Room::default() });
    let sending = begun.await.unwrap().remove(0);
    let other = world.succeeded(&app("a"), &[A]).await;
    let outcome = world.begin().await;
    let outcome = outcome.iter().find(|due| due.id.run == other).unwrap();
    world.end(outcome, Verdict::Disabled, 410);
    world.end(&sending, Verdict::Retry(world.now()), 500);
    tell(&world, lease, Event::Logs, r#"["b"]"#);
    world.settled().await;
    let states: Vec<_> =
        world.view(lease.run).await.deliveries.iter().map(|delivery| delivery.state).collect();
    assert!(
        !states.contains(&DeliveryState::Disabled) && !states.contains(&DeliveryState::Pending),
        "{states:?}"
    );

    let endpoint = queue::EndpointId::of(&project(1), &url(A));
    assert_eq!(
        world.store.enable(&project(1), &endpoint).await.unwrap(),
        Enabled::Replayed(1),
        "the outcome alone"
    );
    let endpoints = Endpoints::One(url(A));
    let redelivered = world.store.redeliver_failed(&project(1), endpoints, BEGINNING).await.unwrap();
    assert_eq!(redelivered, 0, "nor is it news later");
}
