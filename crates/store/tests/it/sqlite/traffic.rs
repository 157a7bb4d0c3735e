//! Figures of what happened: counted once, kept over a restart, gone with age.

use std::time::Duration;

use queue::delivery::Verdict;
use queue::port::{Runs as _, Traffic as _};
use queue::traffic::{Happened, Slice, Span};
use store::Store;

use super::fresh;
use crate::world::{World, app, project};

const A: &str = "https://a.example/hook";

fn times(slices: &[Slice], what: Happened) -> u64 {
    slices.iter().map(|slice| slice.of(what).times).sum()
}

async fn seen(world: &World<Store>, span: Span) -> Vec<Slice> {
    world.store.traffic(&project(1), None, span, world.now()).await.unwrap()
}

#[tokio::test]
async fn what_happened_is_counted_once_before_and_after_it_is_written_down() {
    let world = fresh();
    let lease = world.leased(&app("a"), &[A]).await;
    world.pass(Duration::from_millis(40));
    world.finish(lease, world.success(), &[]).await;
    let due = world.begin().await;
    world.end(&due[0], Verdict::Retry(world.now()), 503);
    world.settled().await;
    let due = world.begin().await;
    world.end(&due[0], Verdict::Delivered, 200);
    let lease = world.leased(&app("b"), &[]).await;
    world.finish(lease, world.failure(), &[]).await;
    let cancelled = world.queued(&app("b"), &[]).await;
    world.store.cancel(&project(1), cancelled).await.unwrap();
    world.settled().await;

    // Twice from memory, then from the disk, and never more for being asked or written again.
    for _ in 0..2 {
        for span in Span::ALL {
            let slices = seen(&world, span).await;
            assert_eq!(slices.len(), span.slices());
            let counted = Happened::ALL.map(|what| times(&slices, what));
            assert_eq!(counted, [1, 1, 1, 0, 1, 1], "{}", span.as_str());
            let last = slices.last().unwrap();
            assert!(last.of(Happened::Succeeded).millis >= 40);
            assert!(last.at <= world.now() && world.now() < last.at.plus(span.step()));
        }
        world.store.write_traffic();
        world.settled().await;
    }
    let of_b = world.store.traffic(&project(1), Some(&app("b")), Span::Hour, world.now()).await.unwrap();
    assert_eq!(Happened::ALL.map(|what| times(&of_b, what)), [0, 1, 1, 0, 0, 0]);
    let of_others = world.store.traffic(&project(2), None, Span::Hour, world.now()).await.unwrap();
    assert_eq!(Happened::ALL.map(|what| times(&of_others, what)), [0; 6]);
}

#[tokio::test]
async fn figures_outlive_a_close_and_go_when_no_span_reaches_them() {
    let world = fresh();
    world.succeeded(&app("a"), &[]).await;
    world.store.close().await;
    let world = super::after_a_kill(&world);
    assert_eq!(times(&seen(&world, Span::Hour).await, Happened::Succeeded), 1);
    world.pass(Duration::from_secs(2 * 3_600));
    world.store.prune(world.now()).await.unwrap();
    assert_eq!(times(&seen(&world, Span::Hour).await, Happened::Succeeded), 0);
    assert_eq!(times(&seen(&world, Span::Day).await, Happened::Succeeded), 1);
    world.pass(Duration::from_secs(9 * 86_400));
    world.store.prune(world.now()).await.unwrap();
    assert_eq!(times(&seen(&world, Span::Week).await, Happened::Succeeded), 0);
}

#[tokio::test]
async fn a_project_stands_as_its_own_runs_and_deliveries_do() {
    let world = fresh();
    assert_eq!(world.store.standing(&project(1)).await.unwrap(), queue::traffic::Standing::default());
    let since = world.queued(&app("a"), &[]).await.accepted_at();
    world.pass(Duration::from_secs(5));
    world.queued(&app("b"), &[]).await;
    world.leased(&app("c"), &[]).await;
    world.succeeded(&app("d"), &[A]).await;
    let standing = world.store.standing(&project(1)).await.unwrap();
    assert_eq!((standing.queued.count, standing.queued.more), (2, false));
    assert_eq!((standing.queued_since, standing.running), (Some(since), 1));
    assert_eq!(standing.pending.count, 1);
    assert_eq!(world.store.standing(&project(2)).await.unwrap(), queue::traffic::Standing::default());
}
