//! Deliveries: listed, shown, and made once more because somebody asked.

use std::time::Duration;

use queue::delivery::{DeliveryFilter, DeliveryState, DeliveryView, Endpoints, Redelivered, Verdict};
use queue::run::Receiver;
use queue::{AppId, DeliveryId, RunId};

use crate::world::{Engine, World, app, project, url};

const A: &str = "https://a.example/hook";
const A_OTHER: &str = "https://a.example/other";
const B: &str = "https://b.example/hook";

fn first(run: RunId) -> DeliveryId {
    DeliveryId::outcome(run, 0)
}

fn filter() -> DeliveryFilter {
    DeliveryFilter { project: project(1), endpoints: None, state: None, after: None, limit: 100 }
}

fn receiver(origin: &str) -> Endpoints {
    Endpoints::Of(Receiver::stored(origin))
}

async fn shown(world: &World<impl Engine>, run: RunId) -> DeliveryView {
    world.settled().await;
    world.store.delivery(&project(1), first(run)).await.unwrap().expect("the delivery is there")
}

/// A run whose delivery had one attempt that ended so.
async fn attempted(world: &World<impl Engine>, url: &str, verdict: Verdict, status: u16) -> RunId {
    let run = world.succeeded(&app("a"), &[url]).await;
    let due = world.begin().await;
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [first(run)]);
    world.end(&due[0], verdict, status);
    world.settled().await;
    run
}

pub(crate) async fn a_delivery_is_shown_to_its_own_project_only(world: World<impl Engine>) {
    let run = attempted(&world, A, Verdict::Retry(world.now()), 500).await;
    world.end(&world.begin().await[0], Verdict::Delivered, 200);
    let view = shown(&world, run).await;
    assert_eq!((view.id.as_str(), view.run_id), (first(run).webhook_id().as_str(), run));
    let statuses: Vec<_> =
        view.attempts.iter().map(|attempt| attempt.report.as_ref().unwrap().status_code).collect();
    assert_eq!(statuses, [Some(500), Some(200)]);
    assert!(world.store.delivery(&project(2), first(run)).await.unwrap().is_none());
    assert!(world.store.delivery(&project(1), DeliveryId::outcome(run, 1)).await.unwrap().is_none());
    assert!(
        world.store.deliveries(DeliveryFilter { project: project(2), ..filter() }).await.unwrap().is_empty()
    );
}

pub(crate) async fn deliveries_are_listed_newest_first_page_by_page(world: World<impl Engine>) {
    let older = world.succeeded(&app("a"), &[A, B]).await;
    let newer = world.succeeded(&app("b"), &[A_OTHER]).await;
    let other = AppId::new(&project(2), &"a".parse().unwrap());
    world.succeeded(&other, &[A]).await;
    let all = [first(newer), DeliveryId::outcome(older, 1), first(older)];
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = world.store.deliveries(DeliveryFilter { after, limit: 2, ..filter() }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.parse().unwrap());
        seen.extend(page.iter().map(|view| view.id.clone()));
    }
    assert_eq!(seen, all.map(DeliveryId::webhook_id));
}

pub(crate) async fn the_list_of_deliveries_can_be_narrowed(world: World<impl Engine>) {
    let given_up = attempted(&world, A, Verdict::Exhausted, 500).await;
    let delivered = attempted(&world, A_OTHER, Verdict::Delivered, 200).await;
    let waiting = world.succeeded(&app("a"), &[B]).await;
    let list = async |filter| {
        let found = world.store.deliveries(filter).await.unwrap();
        found.into_iter().map(|view| view.run_id).collect::<Vec<_>>()
    };
    for (state, run) in [
        (DeliveryState::Exhausted, given_up),
        (DeliveryState::Delivered, delivered),
        (DeliveryState::Pending, waiting),
    ] {
        assert_eq!(list(DeliveryFilter { state: Some(state), ..filter() }).await, [run], "{state}");
    }
    let of = |endpoints| DeliveryFilter { endpoints: Some(endpoints), ..filter() };
    assert_eq!(list(of(receiver("https://a.example"))).await, [delivered, given_up]);
    assert_eq!(list(of(Endpoints::One(url(A)))).await, [given_up]);
    let both = DeliveryFilter { state: Some(DeliveryState::Pending), ..of(receiver("https://a.example")) };
    assert!(list(both).await.is_empty());
}

pub(crate) async fn a_redelivery_has_the_same_id_and_body_and_a_schedule_of_its_own(
    world: World<impl Engine>,
) {
    for verdict in [Verdict::Delivered, Verdict::Exhausted] {
        let run = world.succeeded(&app("a"), &[A]).await;
        let before = world.begin().await.remove(0);
        world.end(&before, Verdict::Retry(world.now()), 500);
        let before = world.begin().await.remove(0);
        assert_eq!((before.attempt, before.step), (2, 2));
        world.end(&before, verdict, if verdict == Verdict::Delivered { 200 } else { 500 });
        world.settled().await;
        assert!(world.begin().await.is_empty());

        let answer = world.store.redeliver(&project(1), first(run)).await.unwrap();
        assert_eq!(answer, Redelivered::Due);
        let again = world.begin().await.remove(0);
        assert_eq!((again.id, again.attempt, again.step), (before.id, 3, 1));
        assert_eq!(again.body, before.body);
        assert_eq!(shown(&world, run).await.attempts.len(), 3);
        world.end(&again, Verdict::Retry(world.now()), 500);
        let next = world.begin().await.remove(0);
        assert_eq!((next.attempt, next.step), (4, 2));
        world.end(&next, Verdict::Delivered, 200);
    }
}

pub(crate) async fn a_delivery_that_waits_is_brought_forward(world: World<impl Engine>) {
    let later = world.now().plus(Duration::from_secs(3_600));
    let run = attempted(&world, A, Verdict::Retry(later), 500).await;
    assert!(world.begin().await.is_empty());
    assert_eq!(world.store.redeliver(&project(1), first(run)).await.unwrap(), Redelivered::Due);
    assert_eq!(world.begin().await[0].id, first(run));
}

pub(crate) async fn what_cannot_be_redelivered_is_left_alone(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    let redeliver = async |project, id| world.store.redeliver(&project, id).await.unwrap();
    assert_eq!(redeliver(project(2), first(run)).await, Redelivered::Unknown);
    assert_eq!(redeliver(project(1), DeliveryId::outcome(run, 7)).await, Redelivered::Unknown);
    let due = world.begin().await;
    assert_eq!(redeliver(project(1), first(run)).await, Redelivered::UnderWay);
    world.end(&due[0], Verdict::Disabled, 410);
    assert_eq!(redeliver(project(1), first(run)).await, Redelivered::EndpointDisabled);
    assert!(world.begin().await.is_empty());
    assert_eq!(shown(&world, run).await.state, DeliveryState::Disabled);
}

pub(crate) async fn all_that_failed_since_a_time_is_redelivered(world: World<impl Engine>) {
    let hour = Duration::from_secs(3_600);
    let too_old = attempted(&world, A, Verdict::Exhausted, 500).await;
    world.pass(hour);
    let since = world.now();
    let given_up = attempted(&world, A, Verdict::Exhausted, 500).await;
    let waiting = attempted(&world, A_OTHER, Verdict::Retry(world.now().plus(hour)), 503).await;
    let delivered = attempted(&world, A, Verdict::Delivered, 200).await;
    let elsewhere = attempted(&world, B, Verdict::Exhausted, 500).await;

    let redeliver =
        async |project, endpoints| world.store.redeliver_failed(&project, endpoints, since).await.unwrap();
    assert_eq!(redeliver(project(2), receiver("https://a.example")).await, 0);
    assert_eq!(redeliver(project(1), Endpoints::One(url(A))).await, 1);
    assert_eq!(redeliver(project(1), receiver("https://a.example")).await, 1);
    // What is due already is not counted again.
    assert_eq!(redeliver(project(1), receiver("https://a.example")).await, 0);
    let mut begun: Vec<_> = world.begin().await.into_iter().map(|due| due.id.run).collect();
    begun.sort_unstable();
    assert_eq!(begun, [given_up, waiting]);
    for run in [too_old, elsewhere] {
        assert_eq!(shown(&world, run).await.state, DeliveryState::Exhausted);
    }
    assert_eq!(shown(&world, delivered).await.state, DeliveryState::Delivered);
}

pub(crate) async fn however_many_failed_all_are_redelivered(world: World<impl Engine>) {
    let endpoints = ["https://a.example/1"; 3].map(|_| A);
    let since = world.now();
    for _ in 0..700 {
        world.succeeded(&app("a"), &endpoints).await;
    }
    loop {
        let due = world.begin().await;
        if due.is_empty() {
            break;
        }
        due.iter().for_each(|due| world.end(due, Verdict::Exhausted, 500));
    }
    world.settled().await;
    let count = world.store.redeliver_failed(&project(1), Endpoints::One(url(A)), since).await.unwrap();
    assert_eq!(count, 2_100);
}
