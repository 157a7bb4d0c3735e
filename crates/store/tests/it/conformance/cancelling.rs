//! Runs that somebody wants to end.

use std::collections::HashMap;

use futures_util::future::join_all;
use queue::delivery::Verdict;
use queue::lease::{Lease, Release, Released};
use queue::outcome::{Cancellation, Code, Finished};
use queue::port::{Accepted, Claim};
use queue::run::RunState;
use tokio::join;

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
        assert_eq!(released, Released::Ended(Code::Cancelled));
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

/// A cancellation, a result and a replica that lets go, all at once, ten thousand times.
pub(crate) async fn whoever_wins_a_race_there_is_one_end_that_everybody_is_told(world: World<impl Engine>) {
    const RACES: usize = 10_000;
    const AT_ONCE: usize = 500;
    let (mut races, mut endings) = (0, HashMap::<RunState, usize>::new());
    while races < RACES {
        let mut leases = Vec::new();
        for _ in 0..AT_ONCE {
            leases.push(world.new_run(&app("a"), &["https://a.example/"]));
        }
        let accepted =
            join_all(leases.into_iter().map(|run| world.store.accept(run, Claim::Now(world.token()))));
        let leases = accepted.await.into_iter().map(|accepted| match accepted.unwrap() {
            Accepted::Leased(lease) => lease,
            other => panic!("{other:?}"),
        });
        let here = project(1);
        let race = |(number, lease): (usize, Lease)| {
            let (world, here) = (&world, &here);
            let cancel = world.store.cancel(here, lease.run);
            let finish = world.finish(lease, world.success(), &[]);
            let release = world.store.release(lease, Release::Drained);
            async move {
                // Each of the six orders has its turn.
                let (cancelled, finished, released) = match number % 6 {
                    0 => join!(cancel, finish, release),
                    1 => {
                        let (c, r, f) = join!(cancel, release, finish);
                        (c, f, r)
                    }
                    2 => {
                        let (f, c, r) = join!(finish, cancel, release);
                        (c, f, r)
                    }
                    3 => {
                        let (f, r, c) = join!(finish, release, cancel);
                        (c, f, r)
                    }
                    4 => {
                        let (r, c, f) = join!(release, cancel, finish);
                        (c, f, r)
                    }
                    _ => {
                        let (r, f, c) = join!(release, finish, cancel);
                        (c, f, r)
                    }
                };
                (lease.run, cancelled.unwrap(), finished, released.unwrap())
            }
        };
        let ended = join_all(leases.enumerate().map(race)).await;
        races += ended.len();
        let mut states = HashMap::new();
        for (run, cancelled, finished, released) in ended {
            let state = world.view(run).await.state;
            let told = format!("{run} is {state}: {cancelled:?}, {finished:?}, {released:?}");
            match state {
                RunState::Succeeded => assert_eq!(released, Released::Stale, "{told}"),
                RunState::Cancelled => assert_ne!(released, Released::Stale, "{told}"),
                _ => panic!("{told}"),
            }
            assert_eq!(matches!(finished, Finished::Recorded(_)), state == RunState::Succeeded, "{told}");
            match cancelled {
                Cancellation::Done => assert_eq!(state, RunState::Cancelled, "{told}"),
                Cancellation::TooLate(seen) => assert_eq!(seen, state, "{told}"),
                Cancellation::Asked => {}
                Cancellation::Unknown => panic!("{told}"),
            }
            *endings.entry(state).or_default() += 1;
            states.insert(run, state);
        }
        // Each webhook is told once, and what the record says.
        while !states.is_empty() {
            let due = world.begin().await;
            assert!(!due.is_empty(), "{} ends were told to nobody", states.len());
            for due in due {
                let state = states.remove(&due.id.run).expect("one delivery per run");
                let said_cancelled = due.body.windows(9).any(|window| window == b"cancelled");
                assert_eq!(said_cancelled, state == RunState::Cancelled, "{}", due.id);
                world.end(&due, Verdict::Delivered, 200);
            }
        }
        assert!(world.begin().await.is_empty());
    }
    assert!(endings.len() == 2, "both ends must be seen: {endings:?}");
}
