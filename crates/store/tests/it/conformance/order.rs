//! In which order and from when on queued runs start.

use std::time::Duration;

use queue::lease::{Release, Released};
use queue::outcome::Cancellation;
use queue::port::{Accepted, Claim};
use queue::run::{NewRun, Ready, RunState};
use queue::{AppId, RunId};

use crate::world::{Engine, QUEUED_MAX, World, app, project};

const MINUTE: Duration = Duration::from_secs(60);

async fn accept(world: &World<impl Engine>, run: NewRun) -> RunId {
    let id = run.id;
    assert!(matches!(world.store.accept(run, Claim::Later).await.unwrap(), Accepted::Queued));
    id
}

async fn urgent(world: &World<impl Engine>, priority: i8) -> RunId {
    let mut run = world.new_run(&app("a"), &[]);
    run.options.priority = priority;
    accept(world, run).await
}

/// A run that starts in a minute.
fn later(world: &World<impl Engine>, of: &AppId) -> NewRun {
    let mut run = world.new_run(of, &["https://a.example/"]);
    run.options.not_before = Some(world.now().plus(MINUTE));
    run
}

async fn claimed(world: &World<impl Engine>) -> Vec<RunId> {
    let runs = world.store.claim(&app("a"), 100, usize::MAX).await.unwrap();
    runs.into_iter().map(|run| run.lease.run).collect()
}

pub(crate) async fn higher_priorities_are_claimed_first_and_the_oldest_among_equals(
    world: World<impl Engine>,
) {
    let mut wanted = Vec::new();
    for priority in [0, -100, 7, 0, 100, 7] {
        wanted.push((priority, urgent(&world, priority).await));
    }
    wanted.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    assert_eq!(world.view(wanted[0].1).await.priority, 100);
    assert_eq!(claimed(&world).await, wanted.iter().map(|(_, run)| *run).collect::<Vec<_>>());
}

pub(crate) async fn a_released_run_keeps_its_priority(world: World<impl Engine>) {
    let first = urgent(&world, 5).await;
    let run = world.claim_one(&app("a")).await;
    assert_eq!((run.lease.run, run.priority), (first, 5));
    urgent(&world, 0).await;
    assert_eq!(world.store.release(run.lease, Release::Drained).await.unwrap(), Released::Queued);
    assert_eq!(claimed(&world).await[0], first);
}

pub(crate) async fn a_delayed_run_waits_for_its_time(world: World<impl Engine>) {
    let mut run = later(&world, &app("a"));
    run.options.priority = 9;
    let (due, id) = (run.options.not_before, accept(&world, run).await);
    let other = accept(&world, later(&world, &app("b"))).await;
    let view = world.view(id).await;
    assert_eq!((view.state, view.not_before), (RunState::Queued, due));
    assert_eq!(world.store.ready(world.now()).await.unwrap(), Ready { apps: vec![], next: due });
    assert_eq!(claimed(&world).await, []);
    assert_eq!(world.store.backlog().await.unwrap(), []);
    world.pass(MINUTE - Duration::from_millis(1));
    let ready = world.store.ready(world.now()).await.unwrap();
    let next = due.map(|due| due.plus(Duration::from_millis(1)));
    assert_eq!(ready, Ready { apps: vec![(app("a"), 9)], next });
    assert_eq!(world.store.backlog().await.unwrap(), [(app("a"), 1)]);
    assert_eq!(claimed(&world).await, [id]);
    assert_eq!(world.view(id).await.not_before, due, "it can be seen afterwards as well");
    assert_eq!(world.view(other).await.state, RunState::Queued);
}

pub(crate) async fn a_delayed_run_is_never_leased_at_once(world: World<impl Engine>) {
    let accepted = world.store.accept(later(&world, &app("a")), Claim::Now(world.token())).await.unwrap();
    assert!(matches!(accepted, Accepted::Queued), "{accepted:?}");
    assert_eq!(claimed(&world).await, []);
}

pub(crate) async fn delayed_runs_count_in_the_bound_of_the_queue(world: World<impl Engine>) {
    for _ in 0..QUEUED_MAX {
        accept(&world, later(&world, &app("a"))).await;
    }
    let late = world.new_run(&app("a"), &[]);
    assert!(matches!(world.store.accept(late, Claim::Later).await.unwrap(), Accepted::QueueFull));
    world.pass(MINUTE);
    world.store.ready(world.now()).await.unwrap();
    assert_eq!(claimed(&world).await.len() as u64, QUEUED_MAX);
    accept(&world, world.new_run(&app("a"), &[])).await;
}

pub(crate) async fn a_delayed_run_can_be_cancelled_and_can_expire(world: World<impl Engine>) {
    let cancelled = accept(&world, later(&world, &app("a"))).await;
    let mut run = later(&world, &app("a"));
    run.options.start_by = run.options.not_before.map(|may_start| may_start.plus(MINUTE));
    let expired = accept(&world, run).await;
    assert_eq!(world.store.cancel(&project(1), cancelled).await.unwrap(), Cancellation::Done);
    assert_eq!(world.view(cancelled).await.state, RunState::Cancelled);
    world.pass(MINUTE);
    world.store.expire(world.now()).await.unwrap();
    assert_eq!(world.view(expired).await.state, RunState::Queued, "its time to start has just begun");
    world.pass(MINUTE);
    world.store.expire(world.now()).await.unwrap();
    assert_eq!(world.view(expired).await.state, RunState::Expired);
    assert_eq!(world.store.ready(world.now()).await.unwrap(), Ready::default());
    assert_eq!(world.begin().await.len(), 2);
}

pub(crate) async fn however_many_become_due_all_are_ready(world: World<impl Engine>) {
    for app in (0..150).map(|number| app(&format!("app-{number}"))) {
        for _ in 0..QUEUED_MAX {
            accept(&world, later(&world, &app)).await;
        }
    }
    world.pass(2 * MINUTE);
    let ready = world.store.ready(world.now()).await.unwrap();
    assert_eq!((ready.apps.len(), ready.next), (150, None));
    assert_eq!(
        world.store.backlog().await.unwrap().iter().map(|(_, runs)| runs).sum::<u64>(),
        150 * QUEUED_MAX
    );
}
