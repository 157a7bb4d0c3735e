//! Many deliveries: who waits for whom, and who does not.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use queue::delivery::{DeliveryState, Verdict};
use queue::limits::INLINE_RESULT_BYTES_MAX;
use queue::port::Outbox as _;
use queue::run::EndpointUrl;
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;
use tokio::time::timeout;

use crate::fakes::{Answer, PATIENCE, World};

#[tokio::test]
async fn what_is_due_at_the_start_goes_out_unasked() {
    let receiver = Recorder::start().await.unwrap();
    let world = World::new();
    // The engine has not run yet: a current-thread runtime has not polled it.
    let id = world.shelf.put(&receiver.url("x"));
    world.shelf.wait_until(|shelf| shelf.state(id) == DeliveryState::Delivered).await;
}

#[tokio::test]
async fn a_run_with_a_schedule_of_its_own_is_told_by_it() {
    let receiver = Evil::start(Fault::status("503 Service Unavailable", &[])).await.unwrap();
    let world = World::new();
    let once = world.shelf.put(&receiver.url("x"));
    world.shelf.schedule(once, "none");
    world.shelf.wait_until(|shelf| shelf.state(once) == DeliveryState::Exhausted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_and_fresh_outcomes_all_arrive_once() {
    let receiver = Recorder::start().await.unwrap();
    let world = World::new();
    for _ in 0..500 {
        world.shelf.put(&receiver.url("backlog"));
    }
    world.handle.wake();
    let url = EndpointUrl::checked(&receiver.url("fresh"));
    let (mut fresh, mut made) = (0, 0);
    let began = Instant::now();
    // On a busy machine the queue may have all places for a while.
    while made < 500 || (fresh == 0 && began.elapsed() < PATIENCE) {
        made += 1;
        match world.handle.reserve(&url, 0) {
            Some(departure) => {
                fresh += 1;
                departure.send(world.shelf.put_begun(url.as_str()));
            }
            None => {
                world.shelf.put(url.as_str());
                world.handle.wake();
            }
        }
        tokio::task::yield_now().await;
    }
    world.shelf.wait_until(|shelf| shelf.count(DeliveryState::Delivered) == 500 + made).await;
    let ids: HashSet<_> =
        receiver.arrivals().iter().map(|arrival| arrival.header("webhook-id").to_owned()).collect();
    assert_eq!((receiver.count(), ids.len()), (500 + made, 500 + made));
    assert!(fresh > 0, "the short way was open");
}

#[tokio::test]
async fn a_receiver_that_hangs_is_not_felt_by_others() {
    let hanging = Evil::start(Fault::Hang).await.unwrap();
    let good = Recorder::start().await.unwrap();
    let world = World::with(|options| options.attempt_limit = Duration::from_secs(60));
    for _ in 0..1_000 {
        world.shelf.put(&hanging.url("x"));
    }
    world.handle.wake();
    let began = Instant::now();
    while hanging.accepted() < 8 {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        let began = Instant::now();
        let id = world.deliver(&good.url("x"));
        world.shelf.first_end(id).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    assert_eq!(hanging.accepted(), 8, "its share of places and no more");
    assert!(world.handle.reserve(&EndpointUrl::checked(&hanging.url("x")), 0).is_none());
}

#[tokio::test]
async fn the_cap_of_a_receiver_grows_while_it_answers_well_and_holds() {
    let busy = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let url = slow_server(Arc::clone(&busy), Arc::clone(&most)).await;
    let world = World::new();
    for _ in 0..600 {
        world.shelf.put(&url);
    }
    world.handle.wake();
    world.shelf.wait_until(|shelf| shelf.count(DeliveryState::Delivered) == 600).await;
    let most = most.load(Ordering::SeqCst);
    assert!((9..=64).contains(&most), "{most} at once");
}

/// Takes 5 ms for each answer and counts how many it has at once.
async fn slow_server(busy: Arc<AtomicUsize>, most: Arc<AtomicUsize>) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (busy, most) = (Arc::clone(&busy), Arc::clone(&most));
            tokio::spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.unwrap_or(0) > 0 {
                    if !request.ends_with(b"}}") {
                        continue;
                    }
                    request.clear();
                    most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    busy.fetch_sub(1, Ordering::SeqCst);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn ten_outages_in_a_row_make_the_rest_wait_without_an_attempt() {
    let gone = Evil::honeypot().await.unwrap().url("x");
    let world = World::new();
    for _ in 0..100 {
        world.shelf.put(&gone);
    }
    world.handle.wake();
    world.shelf.wait_until(|shelf| shelf.ends.lock().unwrap().len() >= 10).await;
    // A delivery elsewhere, begun after the breaker opened, ends: the engine has looked again.
    let good = Recorder::start().await.unwrap();
    let id = world.deliver(&good.url("x"));
    world.shelf.first_end(id).await;
    let attempts = world.shelf.ends.lock().unwrap().len() - 1;
    // Ten to open it, and no more than were under way with the tenth.
    assert!((10..=17).contains(&attempts), "{attempts} attempts");
    assert_eq!(world.shelf.count(DeliveryState::Sending), 0);
    assert!(world.handle.reserve(&EndpointUrl::checked(&gone), 0).is_none());
}

#[tokio::test]
async fn a_failed_attempt_is_made_again_when_its_time_has_come() {
    let steps = [0, 50, 100].map(Duration::from_millis);
    let world = World::with(|options| options.schedule = steps.into());
    let failing = Evil::start(Fault::status("500 No", &[])).await.unwrap();
    let id = world.deliver(&failing.url("x"));
    world.shelf.wait_until(|shelf| shelf.state(id) == DeliveryState::Exhausted).await;
    let ends = world.shelf.ends_of(id);
    assert_eq!(ends.iter().map(|end| end.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    for (pair, step) in ends.windows(2).zip(&steps[1..]) {
        let gap = pair[1].ended_at.since(pair[0].ended_at);
        assert!(gap >= *step, "{gap:?} is not the {step:?} of the schedule");
    }
    assert_eq!(failing.accepted(), 3);
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_delays_and_loses_nothing() {
    let receiver = Recorder::start().await.unwrap();
    let world = World::new();
    world.shelf.broken.store(2, Ordering::SeqCst);
    let id = world.deliver(&receiver.url("x"));
    world.shelf.wait_until(|shelf| shelf.state(id) == DeliveryState::Delivered).await;
}

#[tokio::test]
async fn an_idle_engine_leaves_the_store_alone() {
    let receiver = Recorder::start().await.unwrap();
    let world = World::new();
    let id = world.deliver(&receiver.url("x"));
    world.shelf.first_end(id).await;
    let settled = Instant::now();
    let mut begins = usize::MAX;
    // Two looks at the counter, 300 ms apart, that agree.
    while begins != world.shelf.begins.load(Ordering::SeqCst) {
        assert!(settled.elapsed() < PATIENCE);
        begins = world.shelf.begins.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn shutdown_waits_for_attempts_under_way_and_begins_no_more() {
    let slow = Evil::start(Fault::Silent).await.unwrap();
    let mut world = World::with(|options| options.attempt_limit = Duration::from_millis(500));
    let id = world.deliver(&slow.url("x"));
    let began = Instant::now();
    while slow.accepted() == 0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    world.stop.cancel();
    let later = world.deliver(&slow.url("later"));
    timeout(PATIENCE, &mut world.running).await.expect("it ends").unwrap();
    assert_eq!(world.shelf.ends_of(id).len(), 1, "the attempt under way was seen to its end");
    assert_eq!(world.shelf.state(later), DeliveryState::Pending);
    assert!(world.handle.reserve(&EndpointUrl::checked(&slow.url("x")), 0).is_none());
}

#[tokio::test]
async fn a_backlog_does_not_hold_up_the_shutdown() {
    let receiver = Recorder::start().await.unwrap();
    let mut world = World::new();
    for _ in 0..20_000 {
        world.shelf.put(&receiver.url("x"));
    }
    world.handle.wake();
    world.shelf.wait_until(|shelf| shelf.ends.lock().unwrap().len() > 50).await;
    world.stop.cancel();
    timeout(PATIENCE, &mut world.running).await.expect("it ends").unwrap();
    assert!(world.shelf.count(DeliveryState::Pending) > 0, "it did not wait for the backlog");
    assert_eq!(world.shelf.count(DeliveryState::Sending), 0);
}

#[tokio::test]
async fn a_reserved_place_that_is_not_used_is_free_again() {
    let world = World::new();
    let url = EndpointUrl::checked("http://127.0.0.1:9/x");
    for _ in 0..100 {
        let places: Vec<_> = std::iter::from_fn(|| world.handle.reserve(&url, 0)).collect();
        assert!((4..=8).contains(&places.len()), "{} places", places.len());
    }
}

#[tokio::test]
async fn what_this_server_cannot_send_speaks_against_no_receiver_and_takes_no_step() {
    let receiver = Recorder::start().await.unwrap();
    let world = World::new();
    world.names.say_nothing("hooks.example.com", Answer::Shortage);
    let port = receiver.url("").rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let url = format!("http://hooks.example.com:{port}/x");
    let ids: Vec<_> = (0..20).map(|_| world.deliver(&url)).collect();
    world.shelf.wait_until(|shelf| ids.iter().all(|id| !shelf.ends_of(*id).is_empty())).await;
    for id in &ids {
        let end = &world.shelf.ends_of(*id)[0];
        assert_eq!(end.report.reason.as_deref(), Some("server_exhausted"));
        assert!(matches!(end.verdict, Verdict::Postponed(_)), "{:?}", end.verdict);
    }
    assert_eq!(receiver.count(), 0);
    // Had it counted as an outage, the breaker would be open now.
    world.names.say("hooks.example.com", &[&["127.0.0.1"]]);
    world.clock.advance(Duration::from_secs(10));
    world.handle.wake();
    world.shelf.wait_until(|shelf| shelf.count(DeliveryState::Delivered) == 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_results_under_way_are_bounded_in_bytes_and_small_ones_pass_them() {
    const RESULT: usize = 1 << 20;
    let mut hanging = Vec::new();
    for _ in 0..4 {
        hanging.push(Evil::start(Fault::Hang).await.unwrap());
    }
    let good = Recorder::start().await.unwrap();
    let world = World::with(|options| {
        options.attempt_limit = Duration::from_secs(60);
        options.caps.bytes = 5 * RESULT;
    });
    let body = bytes::Bytes::from(vec![b' '; RESULT]);
    for number in 0..40 {
        world.shelf.put_with(&hanging[number % 4].url("x"), body.clone(), RESULT);
    }
    world.handle.wake();
    let most = 5;
    let began = Instant::now();
    while world.shelf.count(DeliveryState::Sending) < most {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    // Fresh ones get no more of it either, and small ones are not in their shadow.
    assert!(world.handle.reserve(&EndpointUrl::checked(&good.url("x")), RESULT).is_none());
    for _ in 0..300 {
        world.deliver(&good.url("x"));
    }
    world.shelf.wait_until(|shelf| shelf.count(DeliveryState::Delivered) == 300).await;
    assert_eq!(world.shelf.count(DeliveryState::Sending), most);
}

#[tokio::test]
async fn what_stands_around_a_small_result_takes_none_of_the_bytes_of_large_ones() {
    const LARGE: usize = 1 << 20;
    let hanging = Evil::start(Fault::Hang).await.unwrap();
    let world = World::with(|options| {
        options.attempt_limit = Duration::from_secs(60);
        options.caps.bytes = 2 * LARGE;
    });
    // The result is small; its body has as many bytes as a large one.
    let body = bytes::Bytes::from(vec![b' '; INLINE_RESULT_BYTES_MAX + 100]);
    for _ in 0..8 {
        world.shelf.put_with(&hanging.url("x"), body.clone(), 0);
    }
    world.handle.wake();
    let began = Instant::now();
    while world.shelf.count(DeliveryState::Sending) < 8 {
        assert!(began.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    // Not while the store is asked for more.
    let other = EndpointUrl::checked("http://127.0.0.1:9/x");
    while world.handle.reserve(&other, LARGE).is_none() {
        assert!(began.elapsed() < PATIENCE, "their bytes are taken");
        tokio::task::yield_now().await;
    }
}

/// Looks up nothing: it panics.
struct Panics;

#[async_trait::async_trait]
impl delivery::Resolve for Panics {
    async fn resolve(&self, name: &str) -> Result<Vec<std::net::IpAddr>, delivery::ResolveError> {
        panic!("asked for {name}");
    }
}

#[tokio::test]
async fn an_attempt_that_panics_ends_as_unknown_and_gives_its_place_back() {
    let world = World::with(|options| options.resolver = Some(Arc::new(Panics)));
    // More than there are places.
    let ids: Vec<_> = (0..20).map(|_| world.deliver("https://panics.example/x")).collect();
    for id in ids {
        let end = world.shelf.first_end(id).await;
        assert_eq!(end.report.reason.as_deref(), Some("outcome_unknown"));
        assert_eq!(end.verdict, Verdict::Retry(end.ended_at.plus(Duration::from_secs(5))));
    }
}
