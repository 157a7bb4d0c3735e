//! Runs that are executed again after certain failures.

use std::sync::Arc;
use std::time::Duration;

use queue::lease::{Lease, Release, Released};
use queue::outcome::{Cancellation, Code, Finished, RunError};
use queue::port::{Accepted, Claim};
use queue::rerun::{RetryOn, RetryPolicy};
use queue::run::RunState;

use crate::world::{Engine, World, app, project};

const PAUSE_MAX: Duration = Duration::from_millis(1_200);

/// A leased run that may be retried twice.
async fn stubborn(world: &World<impl Engine>) -> Lease {
    bounded(world, None).await
}

/// A leased run that may be retried twice, and executed so often.
async fn bounded(world: &World<impl Engine>, max_attempts: Option<u32>) -> Lease {
    let mut run = world.new_run(&app("a"), &["https://a.example/"]);
    run.options.retry = Some(Arc::new(RetryPolicy { retries: 2, on: RetryOn::default() }));
    run.options.max_attempts = max_attempts;
    let claim = Claim::Now(world.token());
    match world.store.accept(run, claim).await.unwrap() {
        Accepted::Leased(lease) => lease,
        other => panic!("{other:?}"),
    }
}

fn raised() -> RunError {
    RunError { traceback: Some("line 1".into()), ..RunError::new(Code::UserError, "not yet") }
}

pub(crate) async fn a_failed_attempt_is_kept_with_its_error_and_the_run_waits(world: World<impl Engine>) {
    let lease = stubborn(&world).await;
    assert_eq!(world.store.retry(lease, raised()).await.unwrap(), Released::Queued);
    let view = world.view(lease.run).await;
    assert_eq!((view.state, view.error), (RunState::Queued, None));
    assert_eq!((view.attempts.len(), view.attempts[0].end.as_deref()), (1, Some("user_error")));
    assert_eq!(view.attempts[0].error, Some(raised()));
    let wait = view.not_before.unwrap().since(world.now());
    assert!((Duration::from_secs(1)..=PAUSE_MAX).contains(&wait), "{wait:?}");
    assert!(world.begin().await.is_empty(), "its webhook is not told");
    assert!(world.store.claim(&app("a"), 1, 1).await.unwrap().is_empty(), "not yet");

    world.pass(PAUSE_MAX);
    assert_eq!(world.store.ready(world.now()).await.unwrap().apps, [(app("a"), 0)]);
    let run = world.claim_one(&app("a")).await;
    assert_eq!((run.lease.attempt, run.failures, run.crashes), (2, 1, 0));
    assert_eq!(run.retry.as_ref().unwrap().retries, 2);
    let failure = world.failure();
    world.finish(run.lease, failure.clone(), &[]).await;
    let view = world.view(lease.run).await;
    assert_eq!((view.state, view.error), (RunState::Failed, failure.error));
    assert_eq!(view.attempts.len(), 2);
    assert_eq!(world.begin().await.len(), 1);
}

pub(crate) async fn pauses_grow_with_each_failure(world: World<impl Engine>) {
    let mut lease = stubborn(&world).await;
    for wait in [1, 2, 4, 8] {
        world.store.retry(lease, raised()).await.unwrap();
        let view = world.view(lease.run).await;
        let wanted = Duration::from_secs(wait);
        let found = view.not_before.unwrap().since(world.now());
        assert!((wanted..=wanted.mul_f64(1.2)).contains(&found), "{found:?}");
        world.pass(found);
        world.store.ready(world.now()).await.unwrap();
        lease = world.claim_one(&app("a")).await.lease;
    }
}

pub(crate) async fn a_run_between_two_attempts_can_be_cancelled(world: World<impl Engine>) {
    let lease = stubborn(&world).await;
    world.store.retry(lease, raised()).await.unwrap();
    assert_eq!(world.store.cancel(&project(1), lease.run).await.unwrap(), Cancellation::Done);
    assert_eq!(world.view(lease.run).await.state, RunState::Cancelled);
    world.pass(PAUSE_MAX);
    assert!(world.store.ready(world.now()).await.unwrap().apps.is_empty());

    let lease = stubborn(&world).await;
    assert_eq!(world.store.cancel(&project(1), lease.run).await.unwrap(), Cancellation::Asked);
    let released = world.store.retry(lease, raised()).await.unwrap();
    assert_eq!(released, Released::Ended(Code::Cancelled), "a failure is no way round a cancellation");
    assert_eq!(world.begin().await.len(), 2);
}

pub(crate) async fn a_stale_attempt_cannot_have_its_run_executed_again(world: World<impl Engine>) {
    let lease = stubborn(&world).await;
    let stale = Lease { token: world.token(), ..lease };
    assert_eq!(world.store.retry(stale, raised()).await.unwrap(), Released::Stale);
    assert!(world.view(lease.run).await.attempts[0].end.is_none());
    world.finish(lease, world.success(), &[]).await;
    assert_eq!(world.store.retry(lease, raised()).await.unwrap(), Released::Stale);
    assert_eq!(world.view(lease.run).await.state, RunState::Succeeded);
}

pub(crate) async fn failures_and_deaths_are_counted_apart(world: World<impl Engine>) {
    let lease = stubborn(&world).await;
    world.store.release(lease, Release::WorkerCrashed).await.unwrap();
    let lease = world.claim_one(&app("a")).await.lease;
    world.store.retry(lease, raised()).await.unwrap();
    world.pass(PAUSE_MAX);
    world.store.ready(world.now()).await.unwrap();
    let run = world.claim_one(&app("a")).await;
    assert_eq!((run.crashes, run.failures, run.lease.attempt), (1, 1, 3));
}

pub(crate) async fn a_run_is_executed_no_more_often_than_it_may(world: World<impl Engine>) {
    let ends = [
        (Release::WorkerCrashed, Code::WorkerCrashed),
        (Release::WorkerExited, Code::WorkerExited),
        (Release::OutOfMemory, Code::OutOfMemory),
        (Release::ProtocolError, Code::ProtocolError),
        (Release::CutShort, Code::Interrupted),
        (Release::ServerLost, Code::Interrupted),
    ];
    for (release, code) in ends {
        let lease = bounded(&world, Some(2)).await;
        assert_eq!(world.store.release(lease, release).await.unwrap(), Released::Queued);
        let last = world.claim_one(&app("a")).await;
        assert!(last.last_attempt);
        let released = world.store.release(last.lease, release).await.unwrap();
        assert_eq!(released, Released::Ended(code), "{release:?}");
        let view = world.view(lease.run).await;
        let error = view.error.unwrap();
        assert_eq!((error.code, view.max_attempts, view.attempts.len()), (code, Some(2), 2));
        assert!(error.message.contains("`max_attempts`"), "{}", error.message);
    }
    assert_eq!(world.begin().await.len(), ends.len(), "webhooks are told");
}

pub(crate) async fn what_was_never_handed_over_is_no_attempt_that_counts(world: World<impl Engine>) {
    let mut lease = bounded(&world, Some(1)).await;
    for _ in 0..3 {
        assert_eq!(world.store.release(lease, Release::Drained).await.unwrap(), Released::Queued);
        let run = world.claim_one(&app("a")).await;
        assert!(run.last_attempt);
        lease = run.lease;
    }
    let not_started = RunError::new(Code::FailedToStart, "no replica");
    assert_eq!(world.store.retry(lease, not_started).await.unwrap(), Released::Queued);
    world.pass(PAUSE_MAX);
    world.store.ready(world.now()).await.unwrap();
    let run = world.claim_one(&app("a")).await;
    assert!(matches!(world.finish(run.lease, world.success(), &[]).await, Finished::Recorded(_)));
}

pub(crate) async fn retries_stay_within_the_attempts_that_a_run_may_have(world: World<impl Engine>) {
    let lease = bounded(&world, Some(2)).await;
    assert_eq!(world.store.retry(lease, raised()).await.unwrap(), Released::Queued);
    world.pass(PAUSE_MAX);
    world.store.ready(world.now()).await.unwrap();
    let last = world.claim_one(&app("a")).await;
    assert!(last.last_attempt);
    // A worker ends such a run itself; one that does not is not followed.
    assert_eq!(world.store.retry(last.lease, raised()).await.unwrap(), Released::Ended(Code::UserError));
    let view = world.view(lease.run).await;
    assert_eq!((view.error, view.attempts.len()), (Some(raised()), 2));
}
