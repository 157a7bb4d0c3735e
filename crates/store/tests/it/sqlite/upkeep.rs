//! What goes with age, and what stays.

use std::fs;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use queue::delivery::{AttemptEnd, AttemptReport, Redelivered, Verdict};
use queue::log::{LogLine, LogQuery, LogScope, Stream};
use queue::outcome::{Code, Outcome};
use queue::port::{Accepted, Claim, Deliveries as _, Logs as _, Registry as _, Runs as _};
use queue::progress::Progress;
use queue::run::{Idempotency, RunState};
use queue::webhook::Event;
use queue::{RunId, limits};
use store::{Pruned, Store};

use super::{after_a_kill, dir, fresh};
use crate::conformance::registry::{deployed, with_project};
use crate::world::{INLINE_RESULT_BYTES_MAX, World, app, eventually, project};

const A: &str = "https://a.example/hook";
const DAY: Duration = Duration::from_secs(86_400);
const TICK: Duration = Duration::from_millis(1);

async fn is_there(world: &World<Store>, run: RunId) -> bool {
    world.store.run(&project(1), run).await.unwrap().is_some()
}

#[tokio::test]
async fn runs_that_ended_long_ago_are_removed_with_all_that_is_theirs() {
    let world = fresh();
    let lease = world.leased(&app("a"), &[A]).await;
    let result = Bytes::from(format!("\"{}\"", "x".repeat(INLINE_RESULT_BYTES_MAX)));
    world.finish(lease, Outcome::succeeded(result, 200, 1.0, world.now()), &[]).await;
    world.end(&world.begin().await[0], Verdict::Delivered, 200);
    let mut many = Vec::new();
    for _ in 0..450 {
        many.push(world.succeeded(&app("b"), &[]).await);
    }
    world.pass(limits::RESULT_RETENTION + Duration::from_millis(1));
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 451);
    assert!(!is_there(&world, lease.run).await);
    assert!(!is_there(&world, many[449]).await);
    let conn = rusqlite::Connection::open(dir(&world).join("postback.db")).unwrap();
    let inputs: i64 = conn.query_row("SELECT count(*) FROM inputs", [], |row| row.get(0)).unwrap();
    assert_eq!(inputs, 0, "the bodies went with their runs");
    assert_eq!(fs::read_dir(dir(&world).join("results")).unwrap().count(), 0);
    assert_eq!(world.store.prune(world.now()).await.unwrap(), Pruned::default());
    // The number of the forgotten app may be given again.
    world.queued(&app("c"), &[]).await;
    world.queued(&app("b"), &[]).await;
    assert_eq!(world.store.backlog().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_run_told_on_its_way_keeps_nothing() {
    let world = fresh();
    let lease = world.leased(&app("a"), &[A]).await;
    let told = Progress {
        lease,
        event: Event::Logs,
        items: Bytes::from_static(b"[]"),
        dropped: 0,
        due_at: world.now(),
    };
    world.store.progress(told);
    world.finish(lease, world.success(), &[true]).await;
    let outcome = world.view(lease.run).await.deliveries;
    assert_eq!(outcome.len(), 2);
    let id = queue::DeliveryId::outcome(lease.run, 0);
    let end = AttemptEnd {
        id,
        project: None,
        url: crate::world::url(A),
        attempt: 1,
        ended_at: world.now(),
        verdict: Verdict::Delivered,
        report: AttemptReport { status_code: Some(200), ..AttemptReport::default() },
    };
    world.store.complete(end);
    world.settled().await;
    world.pass(limits::RESULT_RETENTION + Duration::from_millis(1));
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 1);
    assert!(world.begin().await.is_empty());
}

#[tokio::test]
async fn a_key_is_free_again_when_its_run_is_removed() {
    let world = fresh();
    let named = || {
        let mut run = world.new_run(&app("a"), &[]);
        run.options.idempotency = Some(Idempotency { key: "order-1".into(), fingerprint: [1; 32] });
        run
    };
    let claim = Claim::Now(world.token());
    let Accepted::Leased(lease) = world.store.accept(named(), claim).await.unwrap() else {
        panic!("the run was not leased");
    };
    world.finish(lease, world.success(), &[]).await;
    world.pass(limits::RESULT_RETENTION + Duration::from_millis(1));
    let kept = world.store.accept(named(), Claim::Later).await.unwrap();
    assert!(matches!(kept, Accepted::Replayed(run) if run == lease.run));
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 1);
    assert!(matches!(world.store.accept(named(), Claim::Later).await.unwrap(), Accepted::Queued));
}

#[tokio::test]
async fn a_deletion_that_was_cut_short_is_finished() {
    let world = fresh();
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    let run = world.queued(&app("a"), &[A]).await;
    let bystander = world.queued(&app("b"), &[]).await;
    let a = app("a");
    let mut deletion = Box::pin(world.store.delete_app(&a));
    let begun = std::future::poll_fn(|cx| Poll::Ready(deletion.as_mut().poll(cx).is_pending()));
    assert!(begun.await);
    while world.store.app(&a).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    drop(deletion);
    eventually(|| async { world.view(run).await.state == RunState::Cancelled }).await;
    let view = world.view(run).await;
    assert_eq!((view.state, view.error.unwrap().code), (RunState::Cancelled, Code::Cancelled));
    assert_eq!(world.begin().await.len(), 1);
    assert_eq!(world.view(bystander).await.state, RunState::Queued);
}

#[tokio::test]
async fn a_call_that_was_on_its_way_when_its_app_was_deleted_ends_whatever_upkeep_does_meanwhile() {
    let world = fresh();
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    assert!(world.store.delete_app(&app("a")).await.unwrap());
    world.store.prune(world.now()).await.unwrap();
    let run = world.queued(&app("a"), &[A]).await;
    assert_eq!(world.view(run).await.state, RunState::Cancelled);
    assert_eq!(world.begin().await.len(), 1);
}

#[tokio::test]
async fn a_redelivery_that_is_asked_for_while_upkeep_looks_keeps_its_run() {
    for _ in 0..50 {
        let world = fresh();
        let run = world.succeeded(&app("a"), &[A]).await;
        world.end(&world.begin().await[0], Verdict::Delivered, 200);
        world.settled().await;
        world.pass(limits::RESULT_RETENTION + TICK);
        let mut pruning = Box::pin(world.store.prune(world.now()));
        let begun = std::future::poll_fn(|cx| Poll::Ready(pruning.as_mut().poll(cx).is_pending()));
        assert!(begun.await);
        // There is one connection for such questions: this one waits until upkeep has found the run.
        let found = is_there(&world, run).await;
        let delivery = queue::DeliveryId::outcome(run, 0);
        let redelivered = world.store.redeliver(&project(1), delivery).await.unwrap();
        let removed = pruning.await.unwrap().runs;
        if redelivered == Redelivered::Due {
            assert!(found && removed == 0 && is_there(&world, run).await);
            assert_eq!(world.begin().await.len(), 1);
            return;
        }
        assert_eq!((redelivered, removed), (Redelivered::Unknown, 1), "upkeep was quicker");
    }
    panic!("upkeep was quicker each time");
}

#[tokio::test]
async fn runs_that_somebody_waits_for_stay() {
    let world = fresh();
    let queued = world.queued(&app("a"), &[]).await;
    let running = world.leased(&app("b"), &[]).await.run;
    let gone = world.succeeded(&app("a"), &[A]).await;
    let due = world.begin().await;
    world.end(&due[0], Verdict::Disabled, 410);
    let sending = world.succeeded(&app("a"), &["https://b.example/"]).await;
    world.begin().await;
    let pending = world.succeeded(&app("a"), &["https://c.example/"]).await;
    world.pass(limits::RESULT_RETENTION + DAY);
    let recent = world.succeeded(&app("a"), &[]).await;
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 0);
    for run in [queued, running, gone, sending, pending, recent] {
        assert!(is_there(&world, run).await);
    }
}

#[tokio::test]
async fn a_run_that_was_never_delivered_stays_longer() {
    let world = fresh();
    let run = world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    world.settled().await;
    world.pass(29 * DAY);
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 0);
    world.pass(2 * DAY);
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 1);
    assert!(!is_there(&world, run).await);
}

#[tokio::test]
async fn what_waits_for_its_endpoint_stays_as_long_and_no_longer() {
    let world = fresh();
    let refused = world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Disabled, 410);
    world.settled().await;
    world.pass(DAY);
    // Its endpoint is disabled already: no attempt is made.
    let untried = world.succeeded(&app("a"), &[A]).await;
    assert!(world.begin().await.is_empty());
    assert!(world.view(untried).await.deliveries[0].attempts.is_empty());
    let kept_until = world.now().plus(limits::UNDELIVERED_RETENTION);
    assert_eq!(world.view(untried).await.kept_until(), Some(kept_until));
    // The clock of this world moves on with each run.
    let refused_until = world.view(refused).await.kept_until().unwrap();
    assert_eq!(refused_until.plus(DAY + TICK), kept_until);

    world.pass(limits::UNDELIVERED_RETENTION - DAY - TICK);
    let pruned = world.store.prune(world.now()).await.unwrap();
    assert_eq!((pruned.runs, pruned.going_undelivered), (0, 1), "the second one is a day away");
    world.pass(2 * TICK);
    let pruned = world.store.prune(world.now()).await.unwrap();
    assert_eq!((pruned.runs, pruned.going_undelivered), (1, 1));
    assert!(!is_there(&world, refused).await && is_there(&world, untried).await);
    world.pass(DAY);
    assert_eq!(world.store.prune(world.now()).await.unwrap().runs, 1);
    assert!(!is_there(&world, untried).await);
}

#[tokio::test]
async fn what_was_warned_about_is_not_warned_about_again_after_a_restart() {
    let world = fresh();
    world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    world.settled().await;
    world.pass(limits::UNDELIVERED_RETENTION - limits::UNDELIVERED_WARNING);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.store.prune(world.now()).await.unwrap().going_undelivered, 1);
    let world = after_a_kill(&world);
    assert_eq!(world.store.prune(world.now()).await.unwrap().going_undelivered, 0);
}

#[tokio::test]
async fn what_goes_undelivered_is_warned_about_once_and_a_day_before() {
    let world = fresh();
    let run = world.succeeded(&app("a"), &[A]).await;
    world.end(&world.begin().await[0], Verdict::Exhausted, 500);
    world.settled().await;
    let kept_until = world.view(run).await.kept_until().unwrap();
    assert_eq!(kept_until, world.now().plus(limits::UNDELIVERED_RETENTION));
    let warned = async || world.store.prune(world.now()).await.unwrap().going_undelivered;
    world.pass(limits::UNDELIVERED_RETENTION - limits::UNDELIVERED_WARNING);
    assert_eq!(warned().await, 0);
    world.pass(Duration::from_secs(60));
    assert_eq!(warned().await, 1);
    world.pass(Duration::from_secs(60));
    assert_eq!(warned().await, 0, "once is enough");
    world.pass(DAY);
    assert_eq!(warned().await, 0);
    assert!(!is_there(&world, run).await);
}

#[tokio::test]
async fn the_removal_of_a_run_is_remembered_for_a_while_and_told_to_its_project_only() {
    let world = fresh();
    let run = world.succeeded(&app("a"), &[]).await;
    let removed = async |project| world.store.removed(&project, run).await.unwrap();
    assert_eq!(world.view(run).await.kept_until(), Some(world.now().plus(limits::RESULT_RETENTION)));
    assert_eq!(removed(project(1)).await, None);
    world.pass(limits::RESULT_RETENTION + Duration::from_millis(1));
    let at = world.now();
    assert_eq!(world.store.prune(at).await.unwrap().runs, 1);
    assert_eq!(removed(project(1)).await, Some(at));
    assert_eq!(removed(project(2)).await, None);
    world.pass(limits::REMOVED_RUNS_REMEMBERED);
    world.store.prune(world.now()).await.unwrap();
    assert_eq!(removed(project(1)).await, Some(at));
    world.pass(Duration::from_millis(1));
    world.store.prune(world.now()).await.unwrap();
    assert_eq!(removed(project(1)).await, None);
}

#[tokio::test]
async fn old_lines_of_log_are_removed() {
    let world = fresh();
    let line = |text: &str| LogLine {
        at: world.now(),
        app: app("a"),
        build: None,
        run: None,
        replica: None,
        stream: Stream::Stdout,
        text: text.to_owned(),
    };
    world.store.append((0..5000).map(|_| line("old")).collect());
    world.pass(limits::RESULT_RETENTION + DAY);
    world.store.append(vec![line("new")]);
    assert_eq!(world.store.prune(world.now()).await.unwrap().log_lines, 5000);
    let scope = LogScope::App(app("a"));
    let query = LogQuery { scope, after: None, since: None, limit: 9, newest: false };
    let left = world.store.read(query).await.unwrap();
    assert_eq!(left.iter().map(|stored| stored.line.text.as_str()).collect::<Vec<_>>(), ["new"]);
}
