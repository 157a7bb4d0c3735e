//! Runs that had to start by a certain time.

use std::time::Duration;

use queue::RunId;
use queue::lease::{Release, Released};
use queue::outcome::Code;
use queue::port::{Accepted, Claim};
use queue::run::RunState;

use crate::world::{Engine, World, app};

const MINUTE: Duration = Duration::from_secs(60);

/// A queued run that has a minute to start.
async fn hurried(world: &World<impl Engine>) -> RunId {
    let mut run = world.new_run(&app("a"), &["https://a.example/"]);
    run.options.start_by = Some(world.now().plus(MINUTE));
    let id = run.id;
    assert!(matches!(world.store.accept(run, Claim::Later).await.unwrap(), Accepted::Queued));
    id
}

async fn expire(world: &World<impl Engine>) -> Vec<RunId> {
    let expired = world.store.expire(world.now()).await.unwrap();
    expired.leased.into_iter().map(|(_, run)| run).collect()
}

pub(crate) async fn a_run_that_never_started_expires_and_its_webhook_is_told(world: World<impl Engine>) {
    let (id, patient) = (hurried(&world).await, world.queued(&app("a"), &[]).await);
    assert_eq!(expire(&world).await, []);
    assert_eq!(world.view(id).await.state, RunState::Queued);
    world.pass(MINUTE);
    assert_eq!(expire(&world).await, []);
    let view = world.view(id).await;
    assert_eq!((view.state, view.error.unwrap().code), (RunState::Expired, Code::Expired));
    assert_eq!(world.begin().await[0].id.run, id);
    assert_eq!(world.view(patient).await.state, RunState::Queued);
    assert_eq!(world.claim_one(&app("a")).await.lease.run, patient);
}

pub(crate) async fn a_leased_run_past_its_time_is_named_and_expires_when_it_comes_back(
    world: World<impl Engine>,
) {
    let id = hurried(&world).await;
    let lease = world.claim_one(&app("a")).await.lease;
    world.pass(MINUTE);
    assert_eq!(expire(&world).await, [id]);
    assert_eq!(world.view(id).await.state, RunState::Running, "nobody knows here whether it has begun");
    assert_eq!(world.store.release(lease, Release::Drained).await.unwrap(), Released::Ended(Code::Expired));
    assert_eq!(expire(&world).await, []);
    assert_eq!(world.view(id).await.state, RunState::Expired);
    assert_eq!(world.begin().await[0].id.run, id);
}

pub(crate) async fn a_run_that_has_started_once_does_not_expire(world: World<impl Engine>) {
    let id = hurried(&world).await;
    let lease = world.claim_one(&app("a")).await.lease;
    world.store.started(vec![lease]);
    world.pass(MINUTE);
    assert_eq!(expire(&world).await, [], "it is not asked for while it runs");
    assert_eq!(world.store.release(lease, Release::ServerLost).await.unwrap(), Released::Queued);
    world.pass(MINUTE);
    assert_eq!(expire(&world).await, []);
    assert_eq!(world.view(id).await.state, RunState::Queued);
}

pub(crate) async fn the_time_of_a_run_that_has_ended_means_nothing(world: World<impl Engine>) {
    let id = hurried(&world).await;
    let lease = world.claim_one(&app("a")).await.lease;
    world.finish(lease, world.success(), &[]).await;
    world.pass(MINUTE);
    assert_eq!(expire(&world).await, []);
    assert_eq!(world.view(id).await.state, RunState::Succeeded);
}
