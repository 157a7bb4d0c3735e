//! Large results on their way: how many of them, and who waits for whom.

use bytes::Bytes;
use queue::limits::RESULT_BYTES_MAX;
use queue::outcome::Outcome;
use queue::port::{Deliveries as _, Room};
use queue::run::EndpointUrl;
use store::Store;

use super::{after_a_kill, fresh};
use crate::world::{INLINE_RESULT_BYTES_MAX, World, app, room};

const A: &str = "https://a.example/hook";
const B: &str = "https://b.example/hook";
const C: &str = "https://c.example/hook";
const D: &str = "https://d.example/hook";

async fn told(world: &World<Store>, endpoint: &str, result_bytes: usize) {
    let lease = world.leased(&app("a"), &[endpoint]).await;
    let result = Bytes::from(format!("\"{}\"", "x".repeat(result_bytes - 2)));
    world.finish(lease, Outcome::succeeded(result, 200, 1.0, world.now()), &[]).await;
}

async fn begin(world: &World<Store>, bytes: usize) -> Vec<String> {
    let due = world.store.begin(world.now(), Room { bytes, ..room() }).await.unwrap();
    due.iter().map(|due| due.url.to_string()).collect()
}

#[tokio::test]
async fn large_results_begin_as_far_as_there_are_bytes_in_turn_and_small_ones_pass_them() {
    const SOME: usize = 1_000;
    let world = fresh();
    told(&world, A, 5 * SOME).await;
    told(&world, B, 3 * SOME).await;
    told(&world, C, INLINE_RESULT_BYTES_MAX - 1).await;
    told(&world, D, 2 * SOME).await;
    // `D` would fit as well, before `B`, which came first.
    assert_eq!(begin(&world, 7 * SOME).await, [A, C]);
    assert_eq!(begin(&world, 2 * SOME).await, [""; 0]);
    told(&world, C, 10).await;
    assert_eq!(begin(&world, 2 * SOME).await, [C]);
    // Nothing else is worth asking for before bytes come free.
    let tight = || Room { bytes: 2 * SOME, ..room() };
    assert_eq!(world.store.next_due(tight()).await.unwrap(), None);
    let wide = Room { bytes: RESULT_BYTES_MAX, ..room() };
    assert!(world.store.next_due(wide).await.unwrap().is_some());
    assert_eq!(begin(&world, 4 * SOME).await, [B]);
    assert_eq!(begin(&world, 2 * SOME).await, [D]);
}

#[tokio::test]
async fn a_small_result_passes_large_ones_to_the_same_receiver() {
    let world = fresh();
    for _ in 0..10 {
        told(&world, A, 5_000).await;
    }
    told(&world, A, 10).await;
    let tight = || Room { bytes: 4_000, total: 2, per_receiver: 2, ..room() };
    assert!(world.store.next_due(tight()).await.unwrap().is_some());
    let due = world.store.begin(world.now(), tight()).await.unwrap();
    assert_eq!(due.iter().map(|due| due.body.len() < 1_000).collect::<Vec<_>>(), [true]);
    assert_eq!(world.store.next_due(tight()).await.unwrap(), None);
    // After a restart it is known again that there are some, and how large.
    let world = after_a_kill(&world);
    let due = world.store.begin(world.now(), Room { bytes: 12_000, ..room() }).await.unwrap();
    assert_eq!(due.iter().filter(|due| due.body.len() > 5_000).count(), 2);
}

#[tokio::test]
async fn one_that_waits_for_bytes_has_the_next_and_keeps_nobody_else_from_a_turn() {
    let world = fresh();
    told(&world, A, 2_000).await;
    told(&world, B, 5_000).await;
    assert_eq!(begin(&world, 4_000).await, [A]);
    for _ in 0..3 {
        told(&world, A, 2_000).await;
        told(&world, D, 10).await;
    }
    // One place at a time: `B` takes none while it waits, and then the first.
    let one = |bytes| Room { bytes, total: 1, ..room() };
    for _ in 0..3 {
        let due = world.store.begin(world.now(), one(4_000)).await.unwrap();
        assert_eq!(due.iter().map(|due| due.url.as_str()).collect::<Vec<_>>(), [D]);
    }
    assert_eq!(begin(&world, 4_000).await, [""; 0]);
    let due = world.store.begin(world.now(), one(6_000)).await.unwrap();
    assert_eq!(due.iter().map(|due| due.url.as_str()).collect::<Vec<_>>(), [B]);
    // A receiver that may be sent nothing keeps nobody waiting.
    told(&world, B, 5_000).await;
    assert_eq!(begin(&world, 1_000).await, [""; 0]);
    let receivers = [(EndpointUrl::checked(A).receiver(), 0)].into();
    let without_a = Room { bytes: 5_000, receivers, ..room() };
    let due = world.store.begin(world.now(), without_a).await.unwrap();
    assert_eq!(due.iter().map(|due| due.url.as_str()).collect::<Vec<_>>(), [B]);
}
