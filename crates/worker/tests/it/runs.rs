//! Asynchronous runs: claimed, executed once, recorded once, their webhooks sent on their way.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue::Clock as _;
use queue::app::AppConfig;
use queue::lease::Release;
use queue::limits::{BUFFERED_RUNS_PER_APP_MAX, URGENT_RUNS_PER_APP_MAX};
use queue::outcome::{Code, Ending};
use queue::port::Dispatch as _;
use queue::rerun::{RetryOn, RetryPolicy};
use queue::webhook::{Event, EventFilter};

use crate::house::{House, Plan, text, until, webhook};
use crate::store::SystemClock;

const CODE: &str = r#"
import time

def predict(item, run_id, logger):
    return {"got": item.get("n"), "run": run_id}

def echo(n):
    return n

def wait(seconds):
    time.sleep(seconds)
    return seconds

def fail():
    raise ValueError("no")
"#;

/// Says and yields something again and again.
const TALKATIVE: &str = r#"
import time

def words(n, pause):
    for number in range(n):
        print("line", number)
        yield {"word": number}
        time.sleep(pause)
"#;

#[tokio::test]
async fn a_run_handed_over_from_memory_ends_and_its_webhook_leaves() {
    let house = House::of(CODE).await;
    let mut run = house.run("predict", r#"{"n":7}"#);
    run.webhooks = webhook("https://receiver.example/hook");
    let id = house.submit(run);
    assert_eq!(house.result(id).await, format!(r#"{{"got":7,"run":"{id}"}}"#));
    assert_eq!(house.memory.claims(), 0);
    let sent = until("the delivery", || Some(house.memory.sent()).filter(|sent| !sent.is_empty())).await;
    assert_eq!((sent.len(), sent[0].id.run, sent[0].attempt), (1, id, 1));
}

#[tokio::test]
async fn a_run_tells_of_its_start_its_lines_and_its_values_and_all_of_it_before_its_end() {
    let house = House::of(TALKATIVE).await;
    let mut run = house.run("words", r#"{"n":40,"pause":0.03}"#);
    run.webhooks = webhook("https://receiver.example/hook");
    run.events = EventFilter::parse(["start", "logs", "output"]).unwrap();
    let id = house.submit(run);
    house.outcome(id).await;
    let told = house.memory.told();
    assert!(told.iter().all(|progress| progress.lease.run == id && progress.dropped == 0));
    assert_eq!((told[0].event, &told[0].items[..]), (Event::Start, &b"[]"[..]));
    for (event, last) in [(Event::Logs, r#""line 39""#), (Event::Output, r#"{"word":39}"#)] {
        let of_kind: Vec<_> = told.iter().filter(|progress| progress.event == event).collect();
        // 1.2 s of work in windows of half a second.
        assert!((2..=4).contains(&of_kind.len()), "{event:?}: {}", of_kind.len());
        let items: Vec<Box<serde_json::value::RawValue>> = of_kind
            .iter()
            .flat_map(|progress| serde_json::from_slice::<Vec<_>>(&progress.items).unwrap())
            .collect();
        assert_eq!((items.len(), items[39].get()), (40, last));
        for pair in of_kind.windows(2) {
            // Times are told in whole milliseconds, of a clock of their own.
            let apart = pair[1].due_at.since(pair[0].due_at);
            assert!(apart >= Duration::from_millis(490), "{apart:?}");
        }
    }
}

#[tokio::test]
async fn a_run_that_was_not_asked_tells_nothing() {
    let house = House::of(TALKATIVE).await;
    let mut run = house.run("words", r#"{"n":3,"pause":0}"#);
    run.webhooks = webhook("https://receiver.example/hook");
    let id = house.submit(run);
    assert_eq!(house.result(id).await, r#"[{"word":0},{"word":1},{"word":2}]"#);
    assert!(house.memory.told().is_empty());
}

#[tokio::test]
async fn a_webhook_without_a_free_place_waits_in_the_store() {
    let house = House::of(CODE).await;
    house.memory.full_outbox.store(true, Ordering::Relaxed);
    let mut run = house.run("echo", r#"{"n":7}"#);
    run.webhooks = webhook("https://receiver.example/hook");
    let id = house.submit(run);
    house.outcome(id).await;
    until("the wake", || (house.memory.wakes() > 0).then_some(())).await;
    assert_eq!(house.memory.first_attempts(), [false]);
    assert!(house.memory.sent().is_empty());
}

#[tokio::test]
async fn runs_that_wait_in_the_store_are_claimed_in_batches_and_in_order() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let code = r#"
seen = []

def note(n):
    seen.append(n)
    return True if seen == list(range(len(seen))) else seen
"#;
    let house = House::with(code, Plan { config, ..Plan::default() }).await;
    let total = 1_000;
    let runs: Vec<_> = (0..total)
        .map(|n| {
            let run = house.run("note", &format!(r#"{{"n":{n}}}"#));
            let id = run.lease.run;
            house.memory.queue(run);
            id
        })
        .collect();
    house.handle.wake(&house.id(), 0);
    for run in runs {
        assert_eq!(house.result(run).await, "true");
    }
    let claims = house.memory.claims();
    assert!((4..=12).contains(&claims), "{claims} claims for {total} runs");
}

#[tokio::test]
async fn while_older_runs_wait_in_the_store_new_ones_queue_behind_them() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    for _ in 0..600 {
        house.memory.queue(house.run("echo", r#"{"n":1}"#));
    }
    house.handle.wake(&house.id(), 0);
    assert!(house.handle.reserve(&house.app, 10).is_none());
    until("the backlog is done", || (house.memory.ended() == 600).then_some(())).await;
    until("the short way is open again", || house.handle.reserve(&house.app, 10)).await;
}

#[tokio::test]
async fn queued_runs_of_an_earlier_life_are_found_at_the_start() {
    let memory = Arc::new(crate::store::Memory::default());
    // The first house only lends its shape to the run.
    let shape = House::with(CODE, Plan { not_deployed: true, ..Plan::default() }).await;
    let run = shape.run("echo", r#"{"n":5}"#);
    let id = run.lease.run;
    memory.queue(run);
    memory.refuse(1);
    let house = House::on(memory, CODE, Plan { not_deployed: true, ..Plan::default() }).await;
    assert_eq!(house.result(id).await, "5");
}

#[tokio::test]
async fn a_place_that_is_not_used_is_given_back() {
    let house = House::with(CODE, Plan { not_deployed: true, ..Plan::default() }).await;
    let places = std::iter::from_fn(|| house.handle.reserve(&house.app, 10)).collect::<Vec<_>>();
    assert_eq!(places.len(), BUFFERED_RUNS_PER_APP_MAX - URGENT_RUNS_PER_APP_MAX);
    drop(places);
    assert!(house.handle.reserve(&house.app, queue::limits::BUFFERED_BYTES_PER_APP_MAX).is_some());
    assert!(house.handle.reserve(&house.app, queue::limits::BUFFERED_BYTES_PER_APP_MAX + 1).is_none());
}

#[tokio::test]
async fn an_exception_fails_the_run_without_a_second_attempt() {
    let house = House::of(CODE).await;
    let id = house.submit(house.run("fail", "{}"));
    let outcome = house.outcome(id).await;
    assert_eq!((outcome.ending, outcome.error.unwrap().code), (Ending::Failed, Code::UserError));
    assert_eq!(house.memory.releases(), []);
}

#[tokio::test]
async fn a_result_is_kept_until_the_store_takes_it() {
    let house = House::of(CODE).await;
    house.memory.refuse(4);
    let id = house.submit(house.run("echo", r#"{"n":9}"#));
    assert_eq!(house.result(id).await, "9");
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_result_under_a_lost_lease_is_discarded() {
    let said = Said::default();
    let writer = said.clone();
    let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _listening = tracing::subscriber::set_default(lines);
    let house = House::of(CODE).await;
    let id = house.submit(house.run("wait", r#"{"seconds":0.2}"#));
    house.memory.steal(id);
    until("the stale result", || (house.memory.stale() == 1).then_some(())).await;
    assert!(house.memory.outcome(id).is_none());
    let line = until("the line in the log", || {
        let said = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        said.lines().find(|line| line.contains("lease_lost")).map(str::to_owned)
    })
    .await;
    assert!(line.contains(&id.to_string()) && line.contains("run.attempt=1"), "{line}");
    assert_eq!(house.memory.releases(), [], "it is nobody's attempt any more");
}

#[tokio::test]
async fn only_runs_that_take_a_while_are_reported_as_started() {
    let house = House::of(CODE).await;
    let short = house.submit(house.run("echo", r#"{"n":1}"#));
    let long = house.submit(house.run("wait", r#"{"seconds":1}"#));
    house.outcome(short).await;
    house.outcome(long).await;
    assert_eq!(house.memory.started_runs(), [long]);
}

#[tokio::test]
async fn finishing_does_not_keep_a_replica_from_its_next_call() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    // For over half a second the store takes nothing.
    house.memory.refuse(4);
    let stuck = house.submit(house.run("echo", r#"{"n":1}"#));
    let begin = std::time::Instant::now();
    house.call("echo", r#"{"n":2}"#).await;
    assert!(begin.elapsed() < Duration::from_millis(500));
    house.outcome(stuck).await;
}

#[tokio::test]
async fn a_claimed_run_whose_app_is_deleted_ends_as_cancelled() {
    use queue::port::Replicas as _;
    let house = House::of(CODE).await;
    let slot = house.handle.reserve(&house.app, 10).unwrap();
    house.handle.retire(&house.id());
    until("the replica is gone", || (house.replicas() == 0).then_some(())).await;
    let run = house.memory.lease(house.run("echo", r#"{"n":1}"#));
    let id = run.lease.run;
    slot.hand_over(run);
    assert_eq!(house.outcome(id).await.ending, Ending::Cancelled);
    assert!(!house.memory.releases().iter().any(|(_, release)| *release == Release::Drained));
}

#[tokio::test]
async fn a_delayed_run_starts_when_its_time_has_come_and_not_before() {
    let house = House::of(CODE).await;
    let run = house.run("echo", r#"{"n":1}"#);
    let (id, not_before) = (run.lease.run, SystemClock.now().plus(Duration::from_millis(1_500)));
    house.memory.delay(run, not_before);
    let outcome = house.outcome(id).await;
    assert_eq!(text(&outcome), "1");
    let late = outcome.ended_at.since(not_before);
    assert!(outcome.ended_at >= not_before && late < Duration::from_secs(5), "{late:?} late");
}

#[tokio::test]
async fn an_urgent_run_overtakes_those_that_wait_in_memory_and_in_the_store() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let code = r#"
import os, time

seen = []

def note(n, gate=""):
    seen.append(n)
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    return len(seen)
"#;
    let house = House::with(code, Plan { config, ..Plan::default() }).await;
    let gate = house.folder.path().join("gate");
    let first = house.submit(house.run("note", &format!(r#"{{"n":0,"gate":"{}"}}"#, gate.display())));
    until("the first one runs", || house.memory.started_runs().contains(&first).then_some(())).await;
    let ordinary: Vec<_> =
        (1..=600).map(|n| house.submit(house.run("note", &format!(r#"{{"n":{n}}}"#)))).collect();
    let mut run = house.run("note", r#"{"n":1000}"#);
    run.priority = 10;
    let urgent = house.submit(run);
    let in_the_store = 600 - (BUFFERED_RUNS_PER_APP_MAX - URGENT_RUNS_PER_APP_MAX);
    until("it is claimed", || (house.memory.queued() == in_the_store).then_some(())).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(house.result(urgent).await, "2", "only the one that ran already was before it");
    assert_eq!(house.result(ordinary[0]).await, "3");
}

#[tokio::test]
async fn a_failure_that_the_caller_chose_is_tried_again_until_it_is_the_last() {
    let house = House::of(CODE).await;
    let retry = |words: [&str; 1]| {
        let on = RetryOn::of(words).unwrap();
        Some(Arc::new(RetryPolicy { retries: 2, on }))
    };
    let mut run = house.run("fail", "{}");
    (run.retry, run.webhooks) = (retry(["user_error"]), webhook("https://receiver.example/hook"));
    let chosen = house.submit(run);
    let mut run = house.run("fail", "{}");
    run.retry = retry(["timeout"]);
    let other = house.submit(run);
    let mut run = house.run("fail", "{}");
    (run.retry, run.last_attempt) = (retry(["user_error"]), true);
    let last = house.submit(run);
    for run in [chosen, other, last] {
        assert_eq!(house.outcome(run).await.error.unwrap().code, Code::UserError);
    }
    assert_eq!(house.memory.retried(), [(chosen, Code::UserError); 2]);
    let sent = until("the delivery", || Some(house.memory.sent()).filter(|sent| !sent.is_empty())).await;
    assert_eq!(sent.len(), 1, "only the end is told");
}
