//! Deliveries: begun when due, in fair turn, and ended.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use queue::delivery::{DeliveryState, DeliveryView, DueDelivery, Verdict};
use queue::outcome::{Finish, Finished};
use queue::port::{Accepted, Claim, Room};
use queue::run::Receiver;
use queue::signature::CallerSecret;
use queue::webhook::{EventFilter, Metadata, WebhookHeaders};
use queue::{AppId, DeliveryId, RunId, answer};

use crate::world::{Engine, TIMINGS, World, app, eventually, project, room};

const A: &str = "https://a.example/hook";
const B: &str = "https://b.example/hook";
const C: &str = "https://c.example/hook";

async fn delivery(world: &World<impl Engine>, run: RunId) -> DeliveryView {
    world.settled().await;
    world.view(run).await.deliveries.remove(0)
}

fn urls(due: &[DueDelivery]) -> Vec<&str> {
    due.iter().map(|due| due.url.as_str()).collect()
}

pub(crate) async fn the_first_attempt_rides_in_the_finish(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &[A, B, C]).await;
    let outcome = world.success();
    let Finished::Recorded(due) = world.finish(lease, outcome.clone(), &[true, false, true]).await else {
        panic!("the lease was current");
    };
    assert_eq!(urls(&due), [A, C]);
    assert_eq!(due[1].id, DeliveryId::outcome(lease.run, 2));
    assert_eq!((due[0].attempt, &due[0].project), (1, &project(1)));
    assert_eq!(due[0].body, answer::body(lease.run, queue::run::Generation::V3, &outcome, None));

    let deliveries = world.view(lease.run).await.deliveries;
    let states: Vec<_> = deliveries.iter().map(|delivery| delivery.state).collect();
    assert_eq!(states, [DeliveryState::Sending, DeliveryState::Pending, DeliveryState::Sending]);
    assert_eq!(deliveries[0].id, due[0].id.webhook_id());
    assert_eq!(deliveries[0].attempts.len(), 1);
    assert!(deliveries[0].attempts[0].report.is_none());
    // What is being sent is not begun again.
    assert_eq!(urls(&world.begin().await), [B]);
    assert_eq!(world.begin().await.len(), 0);
}

pub(crate) async fn a_delivery_without_an_attempt_is_due_at_once(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    assert_eq!(world.store.next_due(room()).await.unwrap(), Some(world.now()));
    let due = world.begin().await;
    assert_eq!((due[0].id, due[0].attempt), (DeliveryId::outcome(run, 0), 1));
    world.end(&due[0], Verdict::Delivered, 204);
    let delivery = delivery(&world, run).await;
    assert_eq!((delivery.state, delivery.next_attempt_at), (DeliveryState::Delivered, None));
    let report = delivery.attempts[0].report.as_ref().unwrap();
    assert_eq!((report.status_code, &report.reason), (Some(204), &None));
    assert_eq!(report.response.as_deref(), Some("said the receiver"));
    assert_eq!(report.duration, Duration::from_micros(1_234));
    assert_eq!(report.timings, TIMINGS);
    assert_eq!(delivery.attempts[0].ended_at, Some(world.now()));
    assert_eq!(world.store.next_due(room()).await.unwrap(), None);
}

pub(crate) async fn the_body_is_the_same_on_every_attempt(world: World<impl Engine>) {
    for outcome in [world.success(), world.failure()] {
        let lease = world.leased(&app("a"), &[A]).await;
        let Finished::Recorded(first) = world.finish(lease, outcome, &[true]).await else {
            panic!("the lease was current");
        };
        world.end(&first[0], Verdict::Retry(world.now()), 500);
        let second = world.begin().await;
        assert_eq!((second[0].id, second[0].attempt), (first[0].id, 2));
        assert_eq!(second[0].body, first[0].body);
        world.end(&second[0], Verdict::Delivered, 200);
        assert_eq!(delivery(&world, lease.run).await.state, DeliveryState::Delivered);
    }
}

pub(crate) async fn the_callers_secret_goes_with_every_attempt(world: World<impl Engine>) {
    let secret = CallerSecret::new(b"\xffown");
    let mut run = world.new_run(&app("a"), &[A]);
    run.options.caller_secret = Some(secret.clone());
    let Accepted::Leased(lease) = world.store.accept(run, Claim::Now(world.token())).await.unwrap() else {
        panic!("it is leased");
    };
    let Finished::Recorded(first) = world.finish(lease, world.success(), &[true]).await else {
        panic!("the lease was current");
    };
    assert_eq!(first[0].caller_secret, Some(secret.clone()));
    world.end(&first[0], Verdict::Retry(world.now()), 500);
    assert_eq!(world.begin().await[0].caller_secret, Some(secret));
    world.succeeded(&app("a"), &[A]).await;
    assert_eq!(world.begin().await[0].caller_secret, None);
}

pub(crate) async fn headers_and_metadata_go_with_every_attempt(world: World<impl Engine>) {
    let headers = WebhookHeaders::parse(r#"{"X-Api-Key":"s3cret"}"#).unwrap();
    let metadata = Metadata::parse(r#"{"order": 17}"#).unwrap();
    let mut run = world.new_run(&app("a"), &[A]);
    (run.options.webhook_headers, run.options.metadata) = (Some(headers.clone()), Some(metadata.clone()));
    let Accepted::Leased(lease) = world.store.accept(run, Claim::Now(world.token())).await.unwrap() else {
        panic!("it is leased");
    };
    let outcome = world.success();
    let Finished::Recorded(first) = world.finish(lease, outcome.clone(), &[true]).await else {
        panic!("the lease was current");
    };
    let body = answer::body(lease.run, queue::run::Generation::V3, &outcome, Some(&metadata));
    assert_eq!((&first[0].body, &first[0].headers), (&body, &Some(headers.clone())));
    world.end(&first[0], Verdict::Retry(world.now()), 500);
    let second = world.begin().await.remove(0);
    assert_eq!((second.body, second.headers), (body, Some(headers)));
    let view = world.view(lease.run).await;
    assert_eq!((view.webhook_headers, view.metadata), (vec!["x-api-key".to_owned()], Some(metadata)));
}

pub(crate) async fn endpoints_that_are_not_told_of_outcomes_get_none(world: World<impl Engine>) {
    let mut run = world.new_run(&app("a"), &[A, B]);
    run.options.events = EventFilter::parse(["start"]).unwrap();
    let Accepted::Leased(lease) = world.store.accept(run, Claim::Now(world.token())).await.unwrap() else {
        panic!("it is leased");
    };
    let finished = world.finish(lease, world.success(), &[true, true]).await;
    assert!(matches!(finished, Finished::Recorded(due) if due.is_empty()));
    assert!(world.begin().await.is_empty());
    let view = world.view(lease.run).await;
    assert_eq!((view.webhooks.len(), view.deliveries.len()), (2, 0));
}

pub(crate) async fn a_failed_run_is_told_as_well(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &[A]).await;
    world.finish(lease, world.failure(), &[]).await;
    let body: serde_json::Value = serde_json::from_slice(&world.begin().await[0].body).unwrap();
    assert_eq!(body["result"], serde_json::Value::Null);
    assert_eq!(body["error"]["type"], "ValueError");
    assert_eq!(body["run_time_ms"], 0.1 + 0.2);
}

pub(crate) async fn an_attempt_that_failed_is_made_again_when_it_is_due(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    let first = world.begin().await;
    let again = world.now().plus(Duration::from_secs(5));
    world.end(&first[0], Verdict::Retry(again), 503);
    assert_eq!(world.begin().await.len(), 0);
    assert_eq!(world.store.next_due(room()).await.unwrap(), Some(again));
    assert_eq!(delivery(&world, run).await.next_attempt_at, Some(again));

    world.pass(Duration::from_secs(5));
    let second = world.begin().await;
    assert_eq!((second[0].id, second[0].attempt), (first[0].id, 2));
    let delivery = delivery(&world, run).await;
    assert_eq!(delivery.state, DeliveryState::Sending);
    let numbers: Vec<_> = delivery.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2]);
    let report = delivery.attempts[0].report.as_ref().unwrap();
    assert_eq!((report.status_code, report.timings), (Some(503), TIMINGS));
    assert!(delivery.attempts[1].report.is_none());
}

pub(crate) async fn what_could_not_be_sent_takes_no_step_of_the_schedule(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    for attempt in 1..=20 {
        let due = world.begin().await;
        assert_eq!((due[0].attempt, due[0].step), (attempt, 1));
        let again = world.now().plus(Duration::from_secs(5));
        world.end(&due[0], Verdict::Postponed(again), 503);
        assert_eq!(world.store.next_due(room()).await.unwrap(), Some(again));
        world.pass(Duration::from_secs(5));
    }
    world.end(&world.begin().await[0], Verdict::Retry(world.now()), 503);
    assert_eq!(world.begin().await[0].step, 2);
    assert_eq!(delivery(&world, run).await.attempts.len(), 22);
}

pub(crate) async fn a_used_up_schedule_ends_a_delivery(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    assert_eq!(delivery(&world, run).await.state, DeliveryState::Exhausted);
    world.pass(Duration::from_secs(86_400));
    assert_eq!(world.begin().await.len(), 0);
}

pub(crate) async fn the_room_is_respected(world: World<impl Engine>) {
    for url in [A, B, C] {
        for _ in 0..4 {
            world.succeeded(&app("a"), &[url]).await;
        }
    }
    let begin = |room| world.store.begin(world.now(), room);
    assert_eq!(begin(Room { total: 0, per_receiver: 9, ..Room::default() }).await.unwrap().len(), 0);
    assert_eq!(begin(Room { total: 9, per_receiver: 0, ..Room::default() }).await.unwrap().len(), 0);
    let full = HashMap::from([
        (Receiver::stored("https://a.example"), 0),
        (Receiver::stored("https://b.example"), 1),
    ]);
    let mut begun =
        begin(Room { total: 9, per_receiver: 2, receivers: full, ..Room::default() }).await.unwrap();
    begun.sort_by(|a, b| a.url.as_str().cmp(b.url.as_str()));
    assert_eq!(urls(&begun), [B, C, C]);
    assert_eq!(begin(Room { total: 5, per_receiver: 9, ..Room::default() }).await.unwrap().len(), 5);
    assert_eq!(begin(room()).await.unwrap().len(), 4);
}

pub(crate) async fn receivers_take_turns(world: World<impl Engine>) {
    for url in [A, A, A, A, A, A, B, B, C] {
        world.succeeded(&app("a"), &[url]).await;
    }
    let one = || Room { total: 1, per_receiver: 1, ..Room::default() };
    let mut turns = Vec::new();
    for _ in 0..9 {
        let begun = world.store.begin(world.now(), one()).await.unwrap();
        turns.extend(urls(&begun).into_iter().map(str::to_owned));
    }
    assert_eq!(turns, [A, B, C, A, B, A, A, A, A]);
}

pub(crate) async fn the_oldest_delivery_of_a_receiver_goes_first(world: World<impl Engine>) {
    let mut runs = Vec::new();
    for path in ["z", "a", "m"] {
        runs.push(world.succeeded(&app("a"), &[&format!("https://a.example/{path}")]).await);
    }
    let two = Room { total: 2, per_receiver: 9, ..Room::default() };
    let begun = world.store.begin(world.now(), two).await.unwrap();
    assert_eq!(begun.iter().map(|due| due.id.run).collect::<Vec<_>>(), runs[..2]);
}

pub(crate) async fn the_next_due_time_looks_at_receivers_with_room(world: World<impl Engine>) {
    for (url, seconds) in [(A, 10), (B, 20)] {
        world.succeeded(&app("a"), &[url]).await;
        let due = world.begin().await;
        world.end(&due[0], Verdict::Retry(world.now().plus(Duration::from_secs(seconds))), 500);
    }
    let earliest = world.store.next_due(room()).await.unwrap().unwrap();
    let full = HashMap::from([(Receiver::stored("https://a.example"), 0)]);
    let later = world.store.next_due(Room { receivers: full, ..room() }).await.unwrap().unwrap();
    assert!(later > earliest.plus(Duration::from_secs(9)));
    assert_eq!(world.store.next_due(Room::default()).await.unwrap(), None);
}

pub(crate) async fn the_next_due_time_knows_of_attempts_that_just_ended(world: World<impl Engine>) {
    world.succeeded(&app("a"), &[A]).await;
    for _ in 0..20 {
        let due = world.begin().await;
        let again = world.now().plus(Duration::from_secs(1));
        world.end(&due[0], Verdict::Retry(again), 500);
        assert_eq!(world.store.next_due(room()).await.unwrap(), Some(again));
        world.pass(Duration::from_secs(1));
    }
}

pub(crate) async fn a_gone_endpoint_gets_nothing_more(world: World<impl Engine>) {
    let gone = world.succeeded(&app("a"), &[A]).await;
    let due = world.begin().await;
    let waiting = world.succeeded(&app("b"), &[A]).await;
    let neighbour = world.succeeded(&app("b"), &["https://a.example/other"]).await;
    world.end(&due[0], Verdict::Disabled, 410);
    assert_eq!(delivery(&world, gone).await.state, DeliveryState::Disabled);
    let view = delivery(&world, waiting).await;
    assert_eq!((view.state, view.next_attempt_at), (DeliveryState::Disabled, None));

    // Nor do outcomes that come later.
    let lease = world.leased(&app("a"), &[A]).await;
    let Finished::Recorded(first) = world.finish(lease, world.success(), &[true]).await else {
        panic!("the lease was current");
    };
    assert!(first.is_empty());
    let view = delivery(&world, lease.run).await;
    assert_eq!((view.state, view.attempts.len()), (DeliveryState::Disabled, 0));
    // The endpoint is the whole address, not the receiver.
    let begun = world.begin().await;
    assert_eq!(begun.iter().map(|due| due.id.run).collect::<Vec<_>>(), [neighbour]);
}

pub(crate) async fn a_gone_endpoint_of_another_project_is_another_endpoint(world: World<impl Engine>) {
    let other = AppId::new(&project(2), &"a".parse().unwrap());
    world.succeeded(&app("a"), &[A]).await;
    let due = world.begin().await;
    let theirs = world.succeeded(&other, &[A]).await;
    world.end(&due[0], Verdict::Disabled, 410);
    let begun = world.begin().await;
    assert_eq!(begun.iter().map(|due| due.id.run).collect::<Vec<_>>(), [theirs]);
    assert_eq!(begun[0].project, project(2));
}

pub(crate) async fn a_retry_to_an_endpoint_gone_meanwhile_waits(world: World<impl Engine>) {
    world.succeeded(&app("a"), &[A]).await;
    let slow = world.succeeded(&app("a"), &[A]).await;
    let due = world.begin().await;
    world.end(&due[0], Verdict::Disabled, 410);
    world.end(&due[1], Verdict::Retry(world.now()), 500);
    assert_eq!(delivery(&world, slow).await.state, DeliveryState::Disabled);
    assert_eq!(world.begin().await.len(), 0);
}

pub(crate) async fn an_end_of_an_attempt_that_is_over_changes_nothing(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    let first = world.begin().await;
    world.end(&first[0], Verdict::Retry(world.now()), 500);
    let second = world.begin().await;
    for (verdict, status) in [(Verdict::Delivered, 200), (Verdict::Disabled, 410)] {
        world.end(&first[0], verdict, status);
        assert_eq!(delivery(&world, run).await.state, DeliveryState::Sending);
    }
    assert!(world.store.endpoints(&project(1)).await.unwrap().is_empty());
    world.end(&second[0], Verdict::Delivered, 200);
    world.end(&second[0], Verdict::Retry(world.now()), 500);
    assert_eq!(delivery(&world, run).await.state, DeliveryState::Delivered);
}

pub(crate) async fn attempts_that_nobody_took_are_made_again(world: World<impl Engine>) {
    let run = world.succeeded(&app("a"), &[A]).await;
    // The caller goes away once the write is on its way. A store that answers before that is asked again.
    let mut attempts = 1;
    while let Some(due) = world.store.begin(world.now(), room()).now_or_never() {
        world.end(&due.unwrap()[0], Verdict::Retry(world.now()), 500);
        attempts += 1;
    }
    eventually(|| async {
        let delivery = delivery(&world, run).await;
        delivery.state == DeliveryState::Pending && delivery.attempts.len() == attempts
    })
    .await;
    let due = world.begin().await;
    assert_eq!(due[0].attempt as usize, attempts + 1);
    let reports = delivery(&world, run).await.attempts;
    let reason = reports[attempts - 1].report.as_ref().unwrap().reason.as_deref();
    assert_eq!(reason, Some("outcome_unknown"));
}

pub(crate) async fn a_first_attempt_that_nobody_took_is_made_again(world: World<impl Engine>) {
    let run = loop {
        let lease = world.leased(&app("a"), &[A]).await;
        let finish = Finish { lease, outcome: world.success(), first_attempts: vec![true] };
        match world.store.finish(finish).now_or_never() {
            None => break lease.run,
            Some(finished) => drop(finished.unwrap()),
        }
    };
    eventually(|| async { is_pending(&world, run).await }).await;
}

async fn is_pending(world: &World<impl Engine>, run: RunId) -> bool {
    world.settled().await;
    world.view(run).await.deliveries.first().is_some_and(|delivery| delivery.state == DeliveryState::Pending)
}
