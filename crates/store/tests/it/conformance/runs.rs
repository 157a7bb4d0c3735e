//! Runs: accepted, claimed, ended, shown.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use queue::RunId;
use queue::lease::{Lease, Release, Released};
use queue::limits;
use queue::outcome::{Code, Ending, Finish, Finished, Outcome, RunError};
use queue::port::{Accepted, Claim, StoreError};
use queue::run::{CallRecord, Generation, Idempotency, Mode, NewRun, RunFilter, RunState};
use queue::search::Search;
use queue::webhook::{EventFilter, Metadata};

use crate::world::{Engine, INLINE_RESULT_BYTES_MAX, QUEUED_MAX, World, app, eventually, project, url};

pub(crate) async fn an_accepted_run_is_claimed_with_all_it_was_given(world: World<impl Engine>) {
    let mut run = world.new_run(&app("a"), &["https://a.example/x", "https://b.example/y?z=1"]);
    run.generation = Generation::V4;
    run.mode = Mode::Sync;
    run.limit = Duration::from_millis(12_345);
    run.warning = Some("the name does not resolve".into());
    run.options.events = EventFilter::parse(["logs", "completed"]).unwrap();
    assert!(matches!(world.store.accept(run.clone(), Claim::Later).await.unwrap(), Accepted::Queued));

    let claimed = world.claim_one(&run.app).await;
    assert_eq!(claimed.lease.run, run.id);
    assert_eq!((claimed.lease.attempt, claimed.crashes), (1, 0));
    assert_eq!((claimed.app, claimed.function), (run.app, run.function));
    assert_eq!((claimed.generation, claimed.limit), (run.generation, run.limit));
    assert_eq!(claimed.events, run.options.events);
    assert_eq!((claimed.input, claimed.webhooks), (run.input, run.webhooks));
    assert_eq!(claimed.accepted_at, run.accepted_at);

    let view = world.view(run.id).await;
    assert_eq!((view.mode, view.warning), (run.mode, run.warning));
    assert_eq!(view.state, RunState::Running);
}

pub(crate) async fn runs_are_claimed_in_the_order_of_their_acceptance(world: World<impl Engine>) {
    let mut accepted = Vec::new();
    for _ in 0..5 {
        accepted.push(world.queued(&app("a"), &[]).await);
        world.queued(&app("b"), &[]).await;
    }
    let ids = |runs: Vec<queue::run::LeasedRun>| runs.iter().map(|run| run.lease.run).collect::<Vec<_>>();
    assert_eq!(ids(world.store.claim(&app("a"), 2, usize::MAX).await.unwrap()), accepted[..2]);
    assert_eq!(ids(world.store.claim(&app("a"), 9, usize::MAX).await.unwrap()), accepted[2..]);
    assert_eq!(world.store.claim(&app("a"), 9, usize::MAX).await.unwrap().len(), 0);
    assert_eq!(world.store.claim(&app("nobody"), 9, usize::MAX).await.unwrap().len(), 0);
}

pub(crate) async fn a_claim_takes_no_more_bytes_than_fit_but_always_one(world: World<impl Engine>) {
    for _ in 0..4 {
        let mut run = world.new_run(&app("a"), &[]);
        run.input = Bytes::from(vec![b' '; 1000]);
        world.store.accept(run, Claim::Later).await.unwrap();
    }
    assert_eq!(world.store.claim(&app("a"), 9, 0).await.unwrap().len(), 1);
    assert_eq!(world.store.claim(&app("a"), 9, 1000).await.unwrap().len(), 2);
    assert_eq!(world.store.claim(&app("a"), 9, 1000).await.unwrap().len(), 1);
}

pub(crate) async fn every_run_is_claimed_once_however_many_claim(world: World<impl Engine>) {
    for _ in 0..QUEUED_MAX {
        world.queued(&app("a"), &[]).await;
    }
    let a = app("a");
    let claims = join_all((0..32).map(|_| world.store.claim(&a, 1, usize::MAX))).await;
    let claimed: Vec<_> = claims.into_iter().flat_map(Result::unwrap).map(|run| run.lease.run).collect();
    assert_eq!(claimed.len() as u64, QUEUED_MAX);
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), claimed.len());
}

pub(crate) async fn a_run_can_be_accepted_and_leased_in_one_write(world: World<impl Engine>) {
    let run = world.new_run(&app("a"), &[]);
    let token = world.token();
    let Accepted::Leased(lease) = world.store.accept(run.clone(), Claim::Now(token)).await.unwrap() else {
        panic!("the run was not leased");
    };
    assert_eq!(lease, Lease { run: run.id, token, attempt: 1 });
    assert_eq!(world.store.claim(&app("a"), 1, usize::MAX).await.unwrap().len(), 0);
    let view = world.view(run.id).await;
    assert_eq!((view.state, view.started_at), (RunState::Running, Some(world.now())));
    assert_eq!(view.attempts.len(), 1);
    assert_eq!((view.attempts[0].number, &view.attempts[0].end), (1, &None));
}

fn named(world: &World<impl Engine>, name: &str, key: &str, fingerprint: u8) -> NewRun {
    let mut run = world.new_run(&app(name), &[]);
    run.options.idempotency = Some(Idempotency { key: key.into(), fingerprint: [fingerprint; 32] });
    run
}

pub(crate) async fn a_key_stands_for_one_run_as_long_as_that_is_kept(world: World<impl Engine>) {
    let first = named(&world, "a", "order-1", 1);
    let claim = Claim::Now(world.token());
    assert!(matches!(world.store.accept(first.clone(), claim).await.unwrap(), Accepted::Leased(_)));
    for claim in [Claim::Later, Claim::Now(world.token())] {
        let again = named(&world, "a", "order-1", 1);
        let id = again.id;
        let accepted = world.store.accept(again, claim).await.unwrap();
        assert!(matches!(accepted, Accepted::Replayed(run) if run == first.id), "{accepted:?}");
        assert!(world.store.run(&project(1), id).await.unwrap().is_none(), "nothing else was kept");
    }
    let other = world.store.accept(named(&world, "a", "order-1", 2), Claim::Later).await.unwrap();
    assert!(matches!(other, Accepted::KeyTaken(run) if run == first.id), "{other:?}");
    // What is known is told even when there is no room for anything new.
    for _ in 0..QUEUED_MAX {
        world.queued(&app("a"), &[]).await;
    }
    let full = world.store.accept(named(&world, "a", "order-1", 1), Claim::Later).await.unwrap();
    assert!(matches!(full, Accepted::Replayed(run) if run == first.id), "{full:?}");
}

pub(crate) async fn a_key_belongs_to_a_function_of_an_app(world: World<impl Engine>) {
    let mut other_function = named(&world, "a", "order-1", 2);
    other_function.function = "train".into();
    for run in [named(&world, "a", "order-1", 1), named(&world, "b", "order-1", 2), other_function] {
        assert!(matches!(world.store.accept(run, Claim::Later).await.unwrap(), Accepted::Queued));
    }
}

pub(crate) async fn of_many_runs_with_one_key_one_is_kept(world: World<impl Engine>) {
    let runs: Vec<_> = (0..100).map(|_| named(&world, "a", "order-1", 1)).collect();
    let accepted = join_all(runs.into_iter().map(|run| world.store.accept(run, Claim::Later))).await;
    let accepted: Vec<_> = accepted.into_iter().map(Result::unwrap).collect();
    assert_eq!(accepted.iter().filter(|accepted| matches!(accepted, Accepted::Queued)).count(), 1);
    let kept = list(&world, filter()).await;
    assert_eq!(kept.len(), 1);
    let told = |accepted: &&Accepted| matches!(accepted, Accepted::Replayed(run) if *run == kept[0]);
    assert_eq!(accepted.iter().filter(told).count(), 99);
}

pub(crate) async fn a_full_queue_turns_runs_down_until_there_is_room(world: World<impl Engine>) {
    for _ in 0..QUEUED_MAX {
        world.queued(&app("a"), &[]).await;
    }
    let late = world.new_run(&app("a"), &[]);
    assert!(matches!(world.store.accept(late.clone(), Claim::Later).await.unwrap(), Accepted::QueueFull));
    assert!(world.store.run(&project(1), late.id).await.unwrap().is_none());
    // Other apps do not feel it, nor does a run that need not queue.
    world.queued(&app("b"), &[]).await;
    let lease = world.leased(&app("a"), &[]).await;

    world.claim_one(&app("a")).await;
    assert!(matches!(world.store.accept(late.clone(), Claim::Later).await.unwrap(), Accepted::Queued));
    let late = world.new_run(&app("a"), &[]);
    assert!(matches!(world.store.accept(late, Claim::Later).await.unwrap(), Accepted::QueueFull));
    // What was promised comes back into the queue even when that is full.
    assert_eq!(world.store.release(lease, Release::Drained).await.unwrap(), Released::Queued);
}

pub(crate) async fn the_end_of_a_run_is_kept_to_the_byte(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &[]).await;
    let result = Bytes::from_static(b"{ \"n\": 123456789012345678901234567890, \"x\":1.0 }");
    world.pass(Duration::from_secs(3));
    let outcome = Outcome::succeeded(result.clone(), 201, 0.1 + 0.2, world.now())
        .served_by("b-0123456789abcdef".parse().unwrap());
    assert!(matches!(world.finish(lease, outcome, &[]).await, Finished::Recorded(due) if due.is_empty()));

    let view = world.view(lease.run).await;
    assert_eq!((view.state, view.result), (RunState::Succeeded, Some(result)));
    assert_eq!((view.status_code, view.run_time_ms), (Some(201), Some(0.1 + 0.2)));
    assert_eq!((view.ended_at, view.error), (Some(world.now()), None));
    assert_eq!(view.build.unwrap().as_str(), "b-0123456789abcdef");
    assert_eq!(view.attempts[0].end.as_deref(), Some("succeeded"));
    assert_eq!(view.attempts[0].ended_at, Some(world.now()));
}

pub(crate) async fn a_large_result_is_kept_to_the_byte(world: World<impl Engine>) {
    for bytes in [INLINE_RESULT_BYTES_MAX - 1, INLINE_RESULT_BYTES_MAX, 3 << 20] {
        let lease = world.leased(&app("a"), &["https://a.example/"]).await;
        let result = Bytes::from(format!("\"{}\"", "x".repeat(bytes - 2)));
        world.finish(lease, Outcome::succeeded(result.clone(), 200, 1.0, world.now()), &[]).await;
        assert_eq!(world.view(lease.run).await.result, Some(result.clone()));
        // The same lease once more is stale, and what came with it goes without a trace.
        let other = Bytes::from(vec![b'7'; bytes]);
        let again = world.finish(lease, Outcome::succeeded(other, 200, 1.0, world.now()), &[]).await;
        assert!(matches!(again, Finished::Stale));
        assert_eq!(world.view(lease.run).await.result, Some(result.clone()));
        let due = world.begin().await;
        let body: serde_json::Value = serde_json::from_slice(&due[0].body).unwrap();
        assert_eq!(body["result"].as_str().unwrap().len(), bytes - 2);
    }
}

pub(crate) async fn a_failed_run_says_why(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &[]).await;
    world.finish(lease, world.failure(), &[]).await;
    let view = world.view(lease.run).await;
    assert_eq!((view.state, view.result), (RunState::Failed, None));
    assert_eq!(view.error, world.failure().error);
    assert_eq!(view.attempts[0].end.as_deref(), Some("user_error"));
}

pub(crate) async fn a_stale_lease_changes_nothing(world: World<impl Engine>) {
    let old = world.leased(&app("a"), &["https://a.example/"]).await;
    assert_eq!(world.store.release(old, Release::Drained).await.unwrap(), Released::Queued);
    // Queued: nobody has a lease.
    assert!(matches!(world.finish(old, world.success(), &[true]).await, Finished::Stale));
    let new = world.claim_one(&app("a")).await.lease;
    assert_eq!(new.attempt, 2);
    // Leased to another attempt.
    assert!(matches!(world.finish(old, world.success(), &[true]).await, Finished::Stale));
    assert_eq!(world.store.release(old, Release::WorkerCrashed).await.unwrap(), Released::Stale);
    assert_eq!(world.view(old.run).await.state, RunState::Running);

    assert!(
        matches!(world.finish(new, world.failure(), &[true]).await, Finished::Recorded(due) if due.len() == 1)
    );
    // Ended: for good.
    assert!(matches!(world.finish(new, world.success(), &[true]).await, Finished::Stale));
    assert_eq!(world.store.release(new, Release::Drained).await.unwrap(), Released::Stale);
    let view = world.view(old.run).await;
    assert_eq!((view.state, view.deliveries.len(), view.attempts.len()), (RunState::Failed, 1, 2));
    assert_eq!(world.store.claim(&app("a"), 1, usize::MAX).await.unwrap().len(), 0);
}

pub(crate) async fn a_leased_run_cannot_expire(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &[]).await;
    let outcome = Outcome::failed(RunError::new(Code::Expired, "late"), 0.0, world.now());
    let finish = Finish { lease, outcome, first_attempts: Vec::new() };
    assert!(matches!(world.store.finish(finish).await, Err(StoreError::Unavailable(_))));
    assert_eq!(world.view(lease.run).await.state, RunState::Running);
}

pub(crate) async fn a_released_run_is_the_next_to_be_claimed(world: World<impl Engine>) {
    let lease = world.leased(&app("a"), &[]).await;
    world.queued(&app("a"), &[]).await;
    world.store.release(lease, Release::Drained).await.unwrap();
    let again = world.claim_one(&app("a")).await;
    assert_eq!(again.lease.run, lease.run);
    assert_eq!(&again.input[..], br#"{"delayMins":0}"#);
    assert_ne!(again.lease.token, lease.token);
}

pub(crate) async fn the_third_death_of_its_replica_ends_a_run(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &["https://a.example/"]).await;
    for crashes in 0..limits::CRASHES_MAX {
        let claimed = world.claim_one(&app("a")).await;
        assert_eq!(claimed.crashes, crashes);
        let released = world.store.release(claimed.lease, Release::WorkerCrashed).await.unwrap();
        let last = crashes + 1 == limits::CRASHES_MAX;
        assert_eq!(released, if last { Released::Ended(Code::CrashLoop) } else { Released::Queued });
    }
    let view = world.view(id).await;
    assert_eq!((view.state, view.error.unwrap().code), (RunState::Failed, Code::CrashLoop));
    let ends: Vec<_> = view.attempts.iter().map(|attempt| attempt.end.as_deref().unwrap()).collect();
    assert_eq!(ends, ["worker_crashed"; 3]);
    let due = world.begin().await;
    assert_eq!(due[0].id.run, id);
    assert!(String::from_utf8_lossy(&due[0].body).contains("crash_loop"));
}

pub(crate) async fn being_drained_counts_towards_nothing(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &[]).await;
    for _ in 0..limits::SERVER_LOSSES_MAX + 5 {
        let lease = world.claim_one(&app("a")).await.lease;
        world.store.started(vec![lease]);
        assert_eq!(world.store.release(lease, Release::Drained).await.unwrap(), Released::Queued);
    }
    assert_eq!(world.claim_one(&app("a")).await.crashes, 0);
    assert_eq!(world.view(id).await.attempts.len() as u32, limits::SERVER_LOSSES_MAX + 6);
}

pub(crate) async fn losing_the_server_counts_once_a_replica_had_the_run(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &[]).await;
    for _ in 0..limits::SERVER_LOSSES_MAX {
        // Claimed and never handed over.
        let lease = world.claim_one(&app("a")).await.lease;
        assert_eq!(world.store.release(lease, Release::ServerLost).await.unwrap(), Released::Queued);
    }
    for losses in 1..=limits::SERVER_LOSSES_MAX {
        let lease = world.claim_one(&app("a")).await.lease;
        world.store.started(vec![lease]);
        let released = world.store.release(lease, Release::ServerLost).await.unwrap();
        let last = losses == limits::SERVER_LOSSES_MAX;
        assert_eq!(released, if last { Released::Ended(Code::Interrupted) } else { Released::Queued });
    }
    let view = world.view(id).await;
    assert_eq!((view.state, view.error.unwrap().code), (RunState::Failed, Code::Interrupted));
}

pub(crate) async fn a_lease_that_nobody_took_is_given_back(world: World<impl Engine>) {
    // The caller goes away once the write is on its way. A store that answers before that is asked again.
    let run = loop {
        let run = world.new_run(&app("a"), &[]);
        match world.store.accept(run.clone(), Claim::Now(world.token())).now_or_never() {
            None => break run,
            Some(accepted) => drop(accepted.unwrap()),
        }
    };
    eventually(|| async {
        matches!(world.store.run(&project(1), run.id).await.unwrap(), Some(run) if run.state == RunState::Queued)
    })
    .await;
    let mut attempts = 2;
    while let Some(claimed) = world.store.claim(&app("a"), 1, usize::MAX).now_or_never() {
        world.store.release(claimed.unwrap()[0].lease, Release::Drained).await.unwrap();
        attempts += 1;
    }
    eventually(|| async { world.view(run.id).await.attempts.len() == attempts }).await;
    eventually(|| async { world.view(run.id).await.state == RunState::Queued }).await;
}

fn call(world: &World<impl Engine>) -> CallRecord {
    world.pass(Duration::from_millis(1));
    CallRecord {
        id: world.run_id(),
        app: app("a"),
        function: "hello".into(),
        generation: Generation::V4,
        build: Some("b-0123456789abcdef".parse().unwrap()),
        ending: Ending::Failed,
        error: Some(RunError::new(Code::Timeout, "too slow")),
        status_code: 504,
        run_time_ms: 2.5,
        accepted_at: world.now(),
        started_at: Some(world.now()),
        ended_at: world.now().plus(Duration::from_secs(1)),
        metadata: Some(Metadata::parse(r#"{"order":17}"#).unwrap()),
    }
}

pub(crate) async fn a_synchronous_call_leaves_its_record(world: World<impl Engine>) {
    let call = call(&world);
    world.store.record_call(call.clone());
    world.settled().await;
    let view = world.view(call.id).await;
    assert_eq!((view.app, view.function.as_str()), (call.app, "hello"));
    assert_eq!((view.generation, view.mode), (Generation::V4, Mode::Sync));
    assert_eq!((view.state, view.error), (RunState::Failed, call.error));
    assert_eq!((view.status_code, view.run_time_ms), (Some(504), Some(2.5)));
    assert_eq!((view.started_at, view.ended_at), (call.started_at, Some(call.ended_at)));
    assert_eq!((view.build, view.result), (call.build, None));
    assert_eq!(view.metadata, call.metadata);
    assert_eq!(view.attempts.len(), 1);
}

fn filter() -> RunFilter {
    RunFilter::of(project(1), 100)
}

async fn list(world: &World<impl Engine>, filter: RunFilter) -> Vec<RunId> {
    world.store.runs(filter).await.unwrap().runs.iter().map(|run| run.id).collect()
}

pub(crate) async fn runs_are_listed_newest_first_page_by_page(world: World<impl Engine>) {
    let mut newest_first = Vec::new();
    for name in ["a", "b", "a", "c", "b"] {
        newest_first.insert(0, world.queued(&app(name), &[]).await);
    }
    assert_eq!(list(&world, filter()).await, newest_first);
    let first = list(&world, RunFilter { limit: 2, ..filter() }).await;
    assert_eq!(first, newest_first[..2]);
    let second = list(&world, RunFilter { limit: 2, before: Some(first[1]), ..filter() }).await;
    assert_eq!(second, newest_first[2..4]);
}

pub(crate) async fn the_list_can_be_narrowed(world: World<impl Engine>) {
    let queued = world.queued(&app("a"), &[]).await;
    let succeeded = world.succeeded(&app("a"), &["https://a.example/"]).await;
    let other = world.queued(&app("b"), &[]).await;
    let call = call(&world);
    world.store.record_call(call.clone());
    world.settled().await;

    assert_eq!(list(&world, RunFilter { app: Some(app("b")), ..filter() }).await, [other]);
    assert_eq!(list(&world, RunFilter { state: Some(RunState::Succeeded), ..filter() }).await, [succeeded]);
    assert_eq!(list(&world, RunFilter { async_only: true, ..filter() }).await, [other, succeeded, queued]);
    assert_eq!(list(&world, filter()).await, [call.id, other, succeeded, queued]);
    assert_eq!(list(&world, RunFilter { app: Some(app("nobody")), ..filter() }).await, []);
    let listed =
        &world.store.runs(RunFilter { state: Some(RunState::Succeeded), ..filter() }).await.unwrap().runs[0];
    assert_eq!(listed.webhooks, [url("https://a.example/")]);
    assert!(listed.result.is_none() && listed.attempts.is_empty() && listed.deliveries.is_empty());
}

pub(crate) async fn the_list_can_be_searched(world: World<impl Engine>) {
    let mut order = world.new_run(&app("a"), &[]);
    order.options.metadata = Some(Metadata::parse(r#"{"order": 17, "who": "Ada"}"#).unwrap());
    let (order_id, then) = (order.id, order.accepted_at);
    world.store.accept(order, Claim::Later).await.unwrap();
    let succeeded = world.succeeded(&app("b"), &[]).await;
    let lease = world.leased(&app("a"), &[]).await;
    world.finish(lease, world.failure(), &[]).await;
    let failed = lease.run;

    let text = |text: &str| RunFilter { search: Search::new(Some(text), []).unwrap(), ..filter() };
    assert_eq!(list(&world, text("PREDICT")).await, [failed, succeeded, order_id]);
    assert_eq!(list(&world, text("delayed for 0")).await, [succeeded], "the result");
    assert_eq!(list(&world, text("valueerror")).await, [failed]);
    assert_eq!(list(&world, text("line 2")).await, [failed], "the traceback");
    assert_eq!(list(&world, text(&order_id.to_string())).await, [order_id]);
    assert_eq!(list(&world, RunFilter { project: project(2), ..text("predict") }).await, []);
    let said = |pair: &str| RunFilter { search: Search::new(None, [pair]).unwrap(), ..filter() };
    assert_eq!(list(&world, said("order=17")).await, [order_id]);
    assert_eq!(list(&world, said("order=1")).await, []);

    let later = then.plus(Duration::from_millis(1));
    assert_eq!(list(&world, RunFilter { since: Some(later), ..filter() }).await, [failed, succeeded]);
    assert_eq!(list(&world, RunFilter { until: Some(later), ..filter() }).await, [order_id]);
    assert_eq!(list(&world, RunFilter { since: Some(then), until: Some(then), ..filter() }).await, []);
    let queued = RunFilter { state: Some(RunState::Queued), since: Some(then), ..text("ada") };
    assert_eq!(list(&world, queued).await, [order_id]);
}

pub(crate) async fn the_list_of_a_state_has_all_of_its_runs_and_no_others(world: World<impl Engine>) {
    let queued = world.queued(&app("a"), &[]).await;
    let mut delayed = world.new_run(&app("a"), &[]);
    delayed.options.not_before = Some(world.now().plus(Duration::from_secs(60)));
    let later = delayed.id;
    world.store.accept(delayed, Claim::Later).await.unwrap();
    let running = world.leased(&app("a"), &[]).await.run;
    let ended = world.succeeded(&app("a"), &[]).await;
    let others = world.leased(&app("b"), &[]).await.run;

    let of = |state| RunFilter { state: Some(state), ..filter() };
    assert_eq!(list(&world, of(RunState::Queued)).await, [later, queued]);
    assert_eq!(list(&world, RunFilter { limit: 1, ..of(RunState::Queued) }).await, [later]);
    assert_eq!(list(&world, RunFilter { before: Some(later), ..of(RunState::Queued) }).await, [queued]);
    assert_eq!(list(&world, of(RunState::Running)).await, [others, running]);
    assert_eq!(list(&world, RunFilter { app: Some(app("a")), ..of(RunState::Running) }).await, [running]);
    assert_eq!(list(&world, of(RunState::Succeeded)).await, [ended]);
    assert_eq!(list(&world, of(RunState::Failed)).await, []);
    assert_eq!(list(&world, RunFilter { project: project(2), ..of(RunState::Queued) }).await, []);
}

pub(crate) async fn a_run_is_shown_to_its_own_project_only(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &[]).await;
    assert!(world.store.run(&project(1), id).await.unwrap().is_some());
    assert!(world.store.run(&project(2), id).await.unwrap().is_none());
    assert_eq!(list(&world, RunFilter { project: project(2), ..filter() }).await, []);
    assert_eq!(list(&world, RunFilter { project: project(2), app: Some(app("a")), ..filter() }).await, []);
}

pub(crate) async fn a_body_that_is_not_large_is_kept_with_its_run(world: World<impl Engine>) {
    for (bytes, is_kept) in [(limits::KEPT_INPUT_BYTES_MAX, true), (limits::KEPT_INPUT_BYTES_MAX + 1, false)]
    {
        let mut run = world.new_run(&app("a"), &[]);
        run.input = Bytes::from(vec![b' '; bytes]);
        world.store.accept(run.clone(), Claim::Later).await.unwrap();
        let lease = world.claim_one(&app("a")).await.lease;
        let input = async |project| world.store.input(&project, run.id).await.unwrap();
        assert_eq!(input(project(1)).await, Some(run.input.clone()));
        assert_eq!(input(project(2)).await, None, "it is another project's");
        world.finish(lease, world.success(), &[]).await;
        assert_eq!(input(project(1)).await, is_kept.then(|| run.input.clone()), "{bytes} bytes");
    }
    assert_eq!(world.store.input(&project(1), RunId::from_bytes([9; 16])).await.unwrap(), None);
}

pub(crate) async fn waiting_for_an_end_ends_with_it(world: World<impl Engine>) {
    const LONG: Duration = Duration::from_secs(60);
    let lease = world.leased(&app("a"), &[]).await;
    let wait = async {
        world.store.wait_for_end(lease.run, LONG).await;
        // The end is durable by then.
        assert_eq!(world.view(lease.run).await.state, RunState::Succeeded);
    };
    let finish = async { world.finish(lease, world.success(), &[]).await };
    let both = async { tokio::join!(wait, finish) };
    tokio::time::timeout(Duration::from_secs(10), both).await.expect("the end was missed");
    // It is past, or nobody knows it.
    let none = async {
        world.store.wait_for_end(lease.run, LONG).await;
        world.store.wait_for_end(world.run_id(), LONG).await;
    };
    tokio::time::timeout(Duration::from_secs(10), none).await.expect("there was nothing to wait for");
}

pub(crate) async fn waiting_for_an_end_is_bounded(world: World<impl Engine>) {
    let id = world.queued(&app("a"), &[]).await;
    let wait = world.store.wait_for_end(id, Duration::from_millis(20));
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the wait has a bound");
    assert_eq!(world.view(id).await.state, RunState::Queued);
}

pub(crate) async fn the_backlog_is_what_is_queued(world: World<impl Engine>) {
    assert_eq!(world.store.backlog().await.unwrap(), []);
    for name in ["a", "b", "a"] {
        world.queued(&app(name), &[]).await;
    }
    world.leased(&app("c"), &[]).await;
    let mut backlog = world.store.backlog().await.unwrap();
    backlog.sort();
    assert_eq!(backlog, [(app("a"), 2), (app("b"), 1)]);
}
