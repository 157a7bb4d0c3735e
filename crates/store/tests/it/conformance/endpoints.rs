//! Endpoints: disabled by what they answer, enabled by people.

use std::collections::HashSet;
use std::time::Duration;

use queue::delivery::{DeliveryState, Enabled, EndpointState, EndpointView, Redelivered, Verdict};
use queue::port::Claim;
use queue::retry::{SCHEDULE, next_attempt};
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
    assert_eq!(shown.waiting, 1);

    world.pass(Duration::from_secs(60));
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Replayed(1));
    let shown = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert_eq!((shown.state, shown.since, shown.waiting), (EndpointState::Enabled, world.now(), 0));
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
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Replayed(1_101));
    assert_eq!(world.view(waiting[0]).await.deliveries[0].state, DeliveryState::Pending);
    let due = world.begin().await;
    assert_eq!((due.len(), due[0].step), (100, 1));
    // Outcomes that come later are told at once, and there is nothing left to enable.
    let later = world.succeeded(&app("a"), &[A]).await;
    assert_eq!(world.view(later).await.deliveries[0].state, DeliveryState::Pending);
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Already);
}

pub(crate) async fn enabling_what_is_enabled_changes_nothing_and_says_so(world: World<impl Engine>) {
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Unknown);
    assert!(world.store.set_body_limit(&project(1), url(A), Some(2_000)).await.unwrap());
    let before = world.store.endpoints(&project(1)).await.unwrap();
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Already);
    assert_eq!(world.store.endpoints(&project(1)).await.unwrap(), before);
    gone(&world).await;
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Replayed(1));
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Already);
}

pub(crate) async fn an_endpoint_is_enabled_by_its_own_project_only(world: World<impl Engine>) {
    gone(&world).await;
    let other = AppId::new(&project(2), &"a".parse().unwrap());
    world.succeeded(&other, &[A]).await;
    world.end(&world.begin().await[0], Verdict::Disabled, 410);
    world.settled().await;
    assert_eq!(world.store.enable(&project(2), &id()).await.unwrap(), Enabled::Unknown);
    let theirs = EndpointId::of(&project(2), &url(A));
    assert_eq!(world.store.enable(&project(2), &theirs).await.unwrap(), Enabled::Replayed(1));
    assert_eq!(world.begin().await[0].project, project(2));
    let ours = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert_eq!(ours.state, EndpointState::Disabled);
}

async fn endpoint(world: &World<impl Engine>) -> Option<EndpointView> {
    world.settled().await;
    let mut all = world.store.endpoints(&project(1)).await.unwrap();
    (!all.is_empty()).then(|| all.remove(0))
}

/// Has every due delivery fail, following the schedule, until the oldest one's is used up; `then` is asked
/// after each step.
async fn fail_for_a_whole_schedule(world: &World<impl Engine>, then: impl AsyncFn(u32)) {
    for step in 1..=u32::try_from(SCHEDULE.len()).unwrap() {
        world.pass(SCHEDULE[usize::try_from(step - 1).unwrap()]);
        for due in world.begin().await {
            let next = next_attempt(&SCHEDULE, due.step, world.now(), 0.0, None);
            world.end(&due, next.map_or(Verdict::Exhausted, Verdict::Retry), 503);
        }
        then(step).await;
    }
    world.settled().await;
}

pub(crate) async fn an_endpoint_that_takes_nothing_for_a_whole_schedule_is_disabled(
    world: World<impl Engine>,
) {
    let began = world.now().plus(Duration::from_millis(1));
    let first = world.succeeded(&app("a"), &[A]).await;
    let mut runs = HashSet::from([first]);
    fail_for_a_whole_schedule(&world, async |step| {
        assert!(endpoint(&world).await.is_none_or(|_| step == 17), "too early: attempt {step}");
    })
    .await;
    let shown = endpoint(&world).await.expect("it is disabled");
    assert_eq!((shown.state, shown.since, shown.waiting), (EndpointState::Disabled, world.now(), 1));
    let expected =
        format!("exhausted: 17 attempts failed since {}, the last with http_status 503", began.to_rfc3339());
    assert_eq!(shown.reason, expected);
    // What comes later waits as well, and nothing of it is sent.
    runs.insert(world.succeeded(&app("b"), &[A]).await);
    world.pass(Duration::from_secs(86_400));
    assert!(world.begin().await.is_empty());
    assert_eq!(world.view(first).await.deliveries[0].state, DeliveryState::Disabled);
    assert_eq!(endpoint(&world).await.unwrap().waiting, 2);
    // Enabled, it gets all of it, under the same ids and with a schedule that begins anew.
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Replayed(2));
    let due = world.begin().await;
    assert_eq!(due.iter().map(|due| due.id.run).collect::<HashSet<_>>(), runs);
    assert!(due.iter().all(|due| due.step == 1));
    // Its past does not count against it.
    for due in &due {
        world.end(due, Verdict::Exhausted, 503);
    }
    assert_eq!(endpoint(&world).await.unwrap().state, EndpointState::Enabled);
}

pub(crate) async fn what_is_pending_and_under_way_waits_with_its_endpoint(world: World<impl Engine>) {
    world.succeeded(&app("a"), &[A]).await;
    let last = u32::try_from(SCHEDULE.len()).unwrap();
    fail_for_a_whole_schedule(&world, async |step| {
        if step == last - 1 {
            world.succeeded(&app("a"), &[A]).await;
            let later = world.now().plus(Duration::from_secs(2 * 86_400));
            world.end(&world.begin().await[0], Verdict::Retry(later), 503);
            // These two are under way together with the last attempt of the first.
            world.succeeded(&app("a"), &[A]).await;
            world.succeeded(&app("a"), &[A]).await;
        }
    })
    .await;
    assert_eq!(endpoint(&world).await.unwrap().waiting, 4);
    assert_eq!(world.store.next_due(crate::world::room()).await.unwrap(), None);
}

pub(crate) async fn one_success_within_the_schedule_keeps_an_endpoint(world: World<impl Engine>) {
    let unlucky = world.succeeded(&app("a"), &[A]).await;
    fail_for_a_whole_schedule(&world, async |step| {
        if step == 3 {
            world.succeeded(&app("a"), &[A]).await;
            world.end(&world.begin().await[0], Verdict::Delivered, 200);
        }
    })
    .await;
    assert!(endpoint(&world).await.is_none());
    let delivery = world.view(unlucky).await.deliveries.remove(0);
    assert_eq!(delivery.state, DeliveryState::Exhausted);
    let id = delivery.id.parse().unwrap();
    assert_eq!(world.store.redeliver(&project(1), id).await.unwrap(), Redelivered::Due);
    assert_eq!(world.begin().await[0].id, id);
}

pub(crate) async fn a_delivery_given_up_early_says_nothing_about_its_endpoint(world: World<impl Engine>) {
    for _ in 0..30 {
        world.succeeded(&app("a"), &[A]).await;
        world.end(&world.begin().await[0], Verdict::Exhausted, 500);
        world.pass(Duration::from_secs(600));
    }
    assert!(endpoint(&world).await.is_none());
}

pub(crate) async fn an_endpoint_fails_by_a_schedule_of_a_runs_own_that_is_long_and_not_by_a_short_one(
    world: World<impl Engine>,
) {
    // One attempt and no more; then three over five days; then three over twelve.
    for (schedule, is_disabled) in [("none", false), ("2d,3d", false), ("6d,6d", true)] {
        let mut run = world.new_run(&app("a"), &[A]);
        run.options.schedule = schedule.parse().ok();
        let id = run.id;
        world.store.accept(run, Claim::Later).await.unwrap();
        let lease = world.claim_one(&app("a")).await.lease;
        world.finish(lease, world.success(), &[]).await;
        loop {
            let Some(due) = world.begin().await.pop() else { break };
            let waits = due.schedule.as_ref().expect("the delivery has its run's schedule").waits();
            match next_attempt(waits, due.step, world.now(), 0.0, None) {
                Some(next) => {
                    world.end(&due, Verdict::Retry(next), 503);
                    world.pass(next.since(world.now()));
                }
                None => world.end(&due, Verdict::Exhausted, 503),
            }
        }
        world.settled().await;
        let view = world.view(id).await;
        let expected = if is_disabled { DeliveryState::Disabled } else { DeliveryState::Exhausted };
        assert_eq!(view.deliveries[0].state, expected, "{schedule}");
        assert_eq!(view.schedule, schedule.parse().ok());
        assert_eq!(endpoint(&world).await.is_some(), is_disabled, "{schedule}");
    }
}

pub(crate) async fn an_endpoint_is_disabled_as_asked_and_what_is_due_there_waits(world: World<impl Engine>) {
    let due = world.succeeded(&app("a"), &[A]).await;
    assert!(world.store.disable(&project(1), url(A)).await.unwrap());
    assert!(!world.store.disable(&project(1), url(A)).await.unwrap(), "it is already");
    let later = world.succeeded(&app("a"), &[A]).await;
    for run in [due, later] {
        assert_eq!(world.view(run).await.deliveries[0].state, DeliveryState::Disabled);
    }
    assert!(world.begin().await.is_empty());
    let shown = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert_eq!(
        (shown.state, shown.reason.as_str(), shown.waiting),
        (EndpointState::Disabled, "requested", 2)
    );
    // The same address of another project is another endpoint.
    assert!(world.store.disable(&project(2), url(A)).await.unwrap());
    assert_eq!(world.store.enable(&project(1), &id()).await.unwrap(), Enabled::Replayed(2));
    assert_eq!(world.begin().await.len(), 2);
}

pub(crate) async fn how_an_endpoint_does_is_counted_from_its_attempts(world: World<impl Engine>) {
    const B: &str = "https://a.example/other";
    let run = world.succeeded(&app("a"), &[A]).await;
    // One that fails first and is taken then, one that fails, one that is due, one of another endpoint.
    let again = world.now().plus(Duration::from_secs(60));
    world.end(&world.begin().await[0], Verdict::Retry(world.now()), 500);
    world.settled().await;
    world.end(&world.begin().await[0], Verdict::Delivered, 200);
    let failing = world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Retry(again), 503);
    let due = world.succeeded(&app("a"), &[A]).await;
    world.succeeded(&app("a"), &[B]).await;
    world.settled().await;

    let figures = world.store.endpoint_figures(&project(1)).await.unwrap();
    let urls: Vec<_> = figures.iter().map(|figures| figures.url.as_str()).collect();
    assert_eq!(urls, [B, A], "the last used first");
    let figures = &figures[1];
    assert_eq!((figures.attempts, figures.succeeded, figures.success_percent()), (3, 1, Some(33.3)));
    assert_eq!(
        (figures.p50, figures.p95),
        (Some(Duration::from_micros(1_234)), Some(Duration::from_micros(1_234)))
    );
    assert_eq!((figures.pending, figures.pending_more), (2, false));
    let next: Vec<_> = figures.next.iter().map(|next| next.run_id).collect();
    assert_eq!(next, [due, failing]);
    assert_eq!(figures.next[1].at, again);
    let last: Vec<_> = figures.last.iter().map(|last| (last.run_id, last.attempt.number)).collect();
    assert_eq!(last, [(failing, 1), (run, 2), (run, 1)]);
    assert!(world.store.endpoint_figures(&project(2)).await.unwrap().is_empty());
}
