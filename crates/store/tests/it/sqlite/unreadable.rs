//! What cannot be read is not sent, and the attempt says why.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use queue::outcome::Outcome;
use queue::port::{Accepted, Claim, Deliveries as _, Runs as _};
use queue::signature::CallerSecret;
use queue::{DeliveryId, RunId, retry};
use store::Store;

use super::{dir, fresh};
use crate::world::{INLINE_RESULT_BYTES_MAX, World, app, project};

const A: &str = "https://a.example/hook";

/// Why the last attempt of the run's only delivery failed.
async fn reason(world: &World<Store>, run: RunId) -> Option<String> {
    world.settled().await;
    let id = DeliveryId::outcome(run, 0);
    let delivery = world.store.delivery(&project(1), id).await.unwrap().unwrap();
    assert!(delivery.next_attempt_at.unwrap() > world.now(), "it is tried again by the schedule");
    delivery.attempts.last()?.report.as_ref()?.reason.clone()
}

#[tokio::test]
async fn a_result_that_cannot_be_read_is_not_sent_until_it_can() {
    let world = fresh();
    let lease = world.leased(&app("a"), &[A]).await;
    let result = Bytes::from(format!("\"{}\"", "x".repeat(INLINE_RESULT_BYTES_MAX)));
    world.finish(lease, Outcome::succeeded(result, 200, 1.0, world.now()), &[]).await;
    let (results, aside) = (dir(&world).join("results"), dir(&world).join("aside"));
    fs::rename(&results, &aside).unwrap();
    assert!(world.begin().await.is_empty());
    assert_eq!(reason(&world, lease.run).await.as_deref(), Some("body_unreadable"));
    fs::rename(&aside, &results).unwrap();
    world.pass(2 * retry::SCHEDULE[1]);
    assert_eq!(world.begin().await[0].attempt, 2);
}

#[tokio::test]
async fn nothing_is_sent_unsigned_when_a_callers_secret_does_not_open() {
    let world = fresh();
    let mut run = world.new_run(&app("a"), &[A]);
    run.options.caller_secret = Some(CallerSecret::new(b"own"));
    let accepted = world.store.accept(run, Claim::Now(world.token())).await.unwrap();
    let Accepted::Leased(lease) = accepted else { panic!("{accepted:?}") };
    let conn = rusqlite::Connection::open(dir(&world).join("postback.db")).unwrap();
    // The last byte becomes another one.
    let damaged = "UPDATE runs SET caller_secret = CAST(substr(caller_secret, 1, length(caller_secret) - 1)
                   || iif(substr(caller_secret, -1) = x'00', x'01', x'00') AS BLOB)";
    assert_eq!(conn.execute(damaged, []).unwrap(), 1);
    world.finish(lease, world.success(), &[]).await;
    assert!(world.begin().await.is_empty());
    assert_eq!(reason(&world, lease.run).await.as_deref(), Some("no_signing_key"));
    world.pass(Duration::from_secs(60));
    assert!(world.begin().await.is_empty(), "nor at the next attempt");
}
