//! What a start finds after the process before it was killed.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use queue::delivery::{DeliveryState, Verdict};
use queue::limits;
use queue::outcome::{Code, Finish, Finished, Outcome};
use queue::port::{Accepted, Claim, Deliveries as _, Inboxes as _, Registry as _, Runs as _};
use queue::run::RunState;

use super::{after_a_kill, dir, fresh};
use crate::world::{INLINE_RESULT_BYTES_MAX, QUEUED_MAX, app, project};

const A: &str = "https://a.example/hook";

#[tokio::test]
async fn what_was_accepted_is_there_and_what_ran_is_queued_again() {
    let world = fresh();
    let queued = world.queued(&app("a"), &[A]).await;
    let lease = world.leased(&app("a"), &[A]).await;
    let ended = world.succeeded(&app("a"), &[]).await;

    let world = after_a_kill(&world);
    assert_eq!(world.store.backlog().await.unwrap(), [(app("a"), 2)]);
    assert_eq!(world.view(ended).await.state, RunState::Succeeded);
    let view = world.view(lease.run).await;
    assert_eq!(view.state, RunState::Queued);
    assert_eq!(view.attempts[0].end.as_deref(), Some("server_lost"));

    // The lease of the former process is worth nothing here.
    assert!(matches!(world.finish(lease, world.success(), &[true]).await, Finished::Stale));
    let claimed = world.store.claim(&app("a"), 9, usize::MAX).await.unwrap();
    assert_eq!(claimed.iter().map(|run| run.lease.run).collect::<Vec<_>>(), [queued, lease.run]);
    assert_eq!(claimed[1].lease.attempt, 2);
    assert_eq!(claimed[1].crashes, 0);
    assert!(matches!(world.finish(lease, world.success(), &[true]).await, Finished::Stale));
}

#[tokio::test]
async fn the_loss_of_the_server_counts_only_when_a_replica_had_the_run() {
    let mut world = fresh();
    let run = world.queued(&app("a"), &[A]).await;
    for _ in 0..3 {
        world.claim_one(&app("a")).await;
        world = after_a_kill(&world);
    }
    for losses in 1..=limits::SERVER_LOSSES_MAX {
        let lease = world.claim_one(&app("a")).await.lease;
        world.store.started(vec![lease]);
        world.settled().await;
        world = after_a_kill(&world);
        let last = losses == limits::SERVER_LOSSES_MAX;
        assert_eq!(world.view(run).await.state, if last { RunState::Failed } else { RunState::Queued });
    }
    assert_eq!(world.view(run).await.error.unwrap().code, Code::Interrupted);
    assert_eq!(world.begin().await[0].id.run, run);
}

/// Whether a replica had the run when the server died, nobody can know: the note about it may be lost.
#[tokio::test]
async fn a_run_that_may_be_executed_once_ends_with_the_server_that_had_it() {
    let world = fresh();
    let once = || {
        let mut run = world.new_run(&app("a"), &[A]);
        run.options.max_attempts = Some(1);
        run
    };
    let (waiting, noted, unnoted) = (once(), once(), once());
    let ids = [waiting.id, noted.id, unnoted.id];
    for run in [noted, unnoted] {
        let Accepted::Leased(lease) = world.store.accept(run, Claim::Now(world.token())).await.unwrap()
        else {
            panic!("nothing stands in the way of a lease");
        };
        if lease.run == ids[1] {
            world.store.started(vec![lease]);
        }
    }
    world.store.accept(waiting, Claim::Later).await.unwrap();
    world.settled().await;

    let world = after_a_kill(&world);
    for run in &ids[1..] {
        let view = world.view(*run).await;
        assert_eq!((view.state, view.error.unwrap().code), (RunState::Failed, Code::Interrupted));
        assert_eq!(view.attempts.len(), 1);
        assert_eq!(view.attempts[0].end.as_deref(), Some("server_lost"));
    }
    assert_eq!(world.begin().await.len(), 2);
    // What waited is not charged, and has its one attempt now.
    let run = world.claim_one(&app("a")).await;
    assert_eq!((run.lease.run, run.last_attempt), (ids[0], true));
    let world = after_a_kill(&world);
    assert_eq!(world.view(ids[0]).await.error.unwrap().code, Code::Interrupted);
    assert!(world.store.claim(&app("a"), 9, usize::MAX).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_attempt_of_unknown_outcome_is_made_again_with_the_same_id_and_body() {
    let world = fresh();
    let lease = world.leased(&app("a"), &[A]).await;
    let Finished::Recorded(first) = world.finish(lease, world.success(), &[true]).await else {
        panic!("the lease was current");
    };
    world.pass(Duration::from_secs(1));
    let world = after_a_kill(&world);
    let delivery = world.view(lease.run).await.deliveries.remove(0);
    assert_eq!(delivery.state, DeliveryState::Pending);
    assert_eq!(delivery.attempts[0].report.as_ref().unwrap().reason.as_deref(), Some("outcome_unknown"));
    // No later than the schedule's step and its jitter after the start of that attempt.
    let due_at = delivery.next_attempt_at.unwrap();
    assert!(due_at <= delivery.attempts[0].started_at.plus(Duration::from_secs(6)));

    world.pass(Duration::from_secs(5));
    let second = world.begin().await;
    assert_eq!((second[0].id, second[0].attempt), (first[0].id, 2));
    assert_eq!(second[0].body, first[0].body);
}

#[tokio::test]
async fn the_last_attempt_of_the_schedule_is_not_repeated() {
    let world = fresh();
    let run = world.succeeded(&app("a"), &[A]).await;
    for attempt in 1..=17 {
        let due = world.begin().await;
        assert_eq!(due[0].attempt, attempt);
        if attempt < 17 {
            world.end(&due[0], Verdict::Retry(world.now()), 500);
        }
    }
    let world = after_a_kill(&world);
    let delivery = world.view(run).await.deliveries.remove(0);
    assert_eq!((delivery.state, delivery.attempts.len()), (DeliveryState::Exhausted, 17));
}

#[tokio::test]
async fn a_schedule_of_a_runs_own_outlives_restarts_and_is_the_one_that_counts() {
    let world = fresh();
    let mut run = world.new_run(&app("a"), &[A]);
    run.options.schedule = "1h".parse().ok();
    let (id, schedule) = (run.id, run.options.schedule.clone());
    world.store.accept(run, Claim::Later).await.unwrap();
    let world = after_a_kill(&world);
    let lease = world.claim_one(&app("a")).await.lease;
    let Finished::Recorded(first) = world.finish(lease, world.success(), &[true]).await else {
        panic!("the lease was current");
    };
    assert_eq!(first[0].schedule, schedule);

    // The attempt is lost, and followed by the next one as late as that schedule has it.
    let world = after_a_kill(&world);
    let delivery = world.view(id).await.deliveries.remove(0);
    let waits = delivery.next_attempt_at.unwrap().since(delivery.attempts[0].started_at);
    assert!((3_600..=4_320).contains(&waits.as_secs()), "{waits:?}");
    world.pass(waits);
    let second = world.begin().await;
    assert_eq!((second[0].attempt, &second[0].schedule), (2, &schedule));
    let world = after_a_kill(&world);
    assert_eq!(world.view(id).await.deliveries[0].state, DeliveryState::Exhausted);
}

#[tokio::test]
async fn disabled_endpoints_inboxes_keys_and_queues_are_remembered() {
    let world = fresh();
    world.store.create_project(world.new_project(1)).await.unwrap();
    world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Disabled, 410);
    for _ in 0..QUEUED_MAX {
        world.queued(&app("a"), &[]).await;
    }
    let inbox = queue::inbox::Inbox::new(project(1), world.entropy.as_ref(), world.now());
    let id = inbox.id.clone();
    assert!(world.store.create_inbox(inbox).await.unwrap());
    let reply = queue::inbox::Reply::new("500,200".parse().unwrap(), vec![], None).unwrap();
    let change = queue::inbox::InboxChange {
        name: Some(Some("mine".into())),
        reply: Some(Some(std::sync::Arc::new(reply))),
        ..Default::default()
    };
    let set = world.store.change_inbox(&id, change).await.unwrap();

    let world = after_a_kill(&world);
    let lease = world.leased(&app("a"), &[A]).await;
    assert!(
        matches!(world.finish(lease, world.success(), &[true]).await, Finished::Recorded(due) if due.is_empty())
    );
    assert_eq!(format!("{:?}", world.store.inbox(&id).await.unwrap()), format!("{set:?}"));
    assert!(world.store.identify(&[1; 32]).await.unwrap().is_some());
    let late = world.new_run(&app("a"), &[]);
    assert!(matches!(world.store.accept(late, Claim::Later).await.unwrap(), Accepted::QueueFull));
}

#[tokio::test]
async fn result_files_that_nothing_points_at_are_swept_and_the_others_kept() {
    let world = fresh();
    let result = Bytes::from(format!("\"{}\"", "x".repeat(INLINE_RESULT_BYTES_MAX)));
    let outcome = Outcome::succeeded(result.clone(), 200, 1.0, world.now());
    let lease = world.leased(&app("a"), &[]).await;
    world.finish(lease, outcome.clone(), &[]).await;
    let files = |dir: &std::path::Path| fs::read_dir(dir.join("results")).unwrap().count();
    assert_eq!(files(dir(&world)), 1);

    // A stale attempt takes its file with it.
    let stale = queue::lease::Lease { attempt: 7, ..lease };
    let finish = Finish { lease: stale, outcome, first_attempts: Vec::new() };
    assert!(matches!(world.store.finish(finish).await.unwrap(), Finished::Stale));
    crate::world::eventually(|| async { files(dir(&world)) == 1 }).await;

    // What a crash in between leaves.
    let orphan = format!("{}-1.json", world.run_id());
    for name in [orphan.as_str(), "half.tmp"] {
        fs::write(dir(&world).join("results").join(name), "x").unwrap();
    }
    let world = after_a_kill(&world);
    assert_eq!(files(dir(&world)), 1);
    assert_eq!(world.view(lease.run).await.result, Some(result));
}

#[tokio::test]
async fn a_success_after_the_restart_ends_the_failing_of_an_endpoint() {
    let world = fresh();
    world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    world.settled().await;
    let world = after_a_kill(&world);
    world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Delivered, 200);
    world.pass(Duration::from_secs(30 * 86_400));
    for _ in 0..20 {
        world.succeeded(&app("a"), &[A]).await;
        world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    }
    world.settled().await;
    assert!(world.store.endpoints(&project(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_failing_of_an_endpoint_outlives_the_process() {
    let world = fresh();
    for _ in 0..20 {
        world.succeeded(&app("a"), &[A]).await;
        world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    }
    world.settled().await;
    let world = after_a_kill(&world);
    world.pass(Duration::from_secs(11 * 86_400));
    world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    world.settled().await;
    let endpoint = world.store.endpoints(&project(1)).await.unwrap().remove(0);
    assert!(endpoint.reason.starts_with("exhausted: 21 attempts"), "{}", endpoint.reason);
}
