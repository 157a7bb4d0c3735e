//! Runs that somebody wants to end.

use queue::lease::{Release, Released};
use queue::outcome::{Cancellation, Code, Finished};
use queue::port::{Accepted, Claim};
use queue::run::RunState;

use crate::world::{Engine, QUEUED_MAX, World, app, project};

pub(crate) async fn a_queued_run_ends_at_once_and_its_webhook_is_told(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &["https://a.example/"]).await;
    assert_eq!(world.store.cancel(&project(1), id).await.unwrap(), Cancellation::Done);
    let view = world.view(id).await;
    assert_eq!((view.state, view.error.unwrap().code), (RunState::Cancelled, Code::Cancelled));
    assert_eq!(world.store.claim(&app("a"), 9, usize::MAX).await.unwrap().len(), 0);
    let due = world.begin().await;
    assert_eq!((due.len(), due[0].id.run), (1, id));
    assert!(String::from_utf8_lossy(&due[0].body).contains(r#""code":"cancelled""#));
    // Its place in the queue is free.
    for _ in 0..QUEUED_MAX {
        world.queued(&app("a"), &[]).await;
    }
    let late = world.new_run(&app("a"), &[]);
    assert!(matches!(world.store.accept(late, Claim::Later).await.unwrap(), Accepted::QueueFull));
}

pub(crate) async fn a_cancelled_run_that_comes_back_is_not_executed_again(world: World<impl Engine>) {
    for release in [Release::Drained, Release::WorkerCrashed, Release::ServerLost] {
        let lease = world.leased(&app("a"), &["https://a.example/"]).await;
        assert_eq!(world.store.cancel(&project(1), lease.run).await.unwrap(), Cancellation::Asked);
        assert_eq!(world.view(lease.run).await.state, RunState::Running);
        let released = world.store.release(lease, release).await.unwrap();
        assert_eq!(released, Released::Ended(RunState::Cancelled));
        assert_eq!(world.view(lease.run).await.state, RunState::Cancelled);
        assert_eq!(world.begin().await[0].id.run, lease.run);
    }
    assert_eq!(world.store.backlog().await.unwrap(), []);
}

pub(crate) async fn a_run_that_finishes_before_it_lets_go_has_finished(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &["https://a.example/"]).await;
    assert_eq!(world.store.cancel(&project(1), lease.run).await.unwrap(), Cancellation::Asked);
    let finished = world.finish(lease, world.success(), &[true]).await;
    assert!(matches!(finished, Finished::Recorded(due) if due.len() == 1));
    let again = world.store.cancel(&project(1), lease.run).await.unwrap();
    assert_eq!(again, Cancellation::TooLate(RunState::Succeeded));
    assert_eq!(world.view(lease.run).await.state, RunState::Succeeded);
}

pub(crate) async fn nobody_cancels_runs_of_others(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &[]).await;
    assert_eq!(world.store.cancel(&project(2), id).await.unwrap(), Cancellation::Unknown);
    assert_eq!(world.store.cancel(&project(1), world.run_id()).await.unwrap(), Cancellation::Unknown);
    assert_eq!(world.view(id).await.state, RunState::Queued);
}
