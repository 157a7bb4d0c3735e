//! Synchronous calls: an answer for every caller, and a record of every call.

use std::time::Duration;

use queue::app::AppConfig;
use queue::outcome::{Code, Ending};
use queue::port::{Dispatch as _, Refused};

use crate::house::{House, Plan, text, until};

const CODE: &str = r#"
import asyncio, os, time

def add(a, b=1):
    return {"sum": a + b}

def whole(**body):
    return body

def teapot():
    return {"status_code": 418, "why": "tea"}

def fail():
    raise ValueError("no such voice")

def wait(seconds):
    time.sleep(seconds)
    return seconds

def who():
    return os.getpid()

def environment():
    return {name: os.environ.get(name) for name in ("APP_NAME", "PROJECT_ID", "BUILD_ID", "SECRET_OF_THE_SERVER")}
"#;

#[tokio::test]
async fn a_call_is_answered_with_the_result_as_the_model_wrote_it() {
    let house = House::of(CODE).await;
    let outcome = house.call("add", r#"{"a": 123456789012345678901234567890}"#).await;
    assert_eq!(text(&outcome), r#"{"sum":123456789012345678901234567891}"#);
    assert_eq!((outcome.ending, outcome.status_code), (Ending::Succeeded, 200));
    assert_eq!(outcome.build, Some(house.app.live.as_ref().unwrap().id.clone()));
    assert_eq!(house.call("teapot", "{}").await.status_code, 418);
}

#[tokio::test]
async fn an_exception_is_an_answer_with_its_traceback() {
    let house = House::of(CODE).await;
    let outcome = house.call("fail", "").await;
    let error = outcome.error.unwrap();
    assert_eq!((outcome.ending, error.code, outcome.status_code), (Ending::Failed, Code::UserError, 500));
    assert_eq!((error.kind.as_str(), error.message.as_str()), ("ValueError", "no such voice"));
    assert!(error.traceback.unwrap().contains("in fail"));
}

#[tokio::test]
async fn a_large_body_and_a_large_result_pass_unchanged() {
    let house = House::of(CODE).await;
    let body = format!(r#"{{"text":"{}"}}"#, "0123456789abcdef".repeat(200_000));
    assert_eq!(text(&house.call("whole", &body).await), body);
}

#[tokio::test]
async fn every_call_leaves_a_record() {
    let house = House::of(CODE).await;
    house.call("add", r#"{"a":1}"#).await;
    house.call("fail", "{}").await;
    let records = house.memory.recorded_calls();
    let seen: Vec<_> =
        records.iter().map(|record| (&*record.function, record.ending, record.status_code)).collect();
    assert_eq!(seen, [("add", Ending::Succeeded, 200), ("fail", Ending::Failed, 500)]);
    assert!(records.iter().all(|record| record.started_at.is_some() && record.build.is_some()));
}

#[tokio::test]
async fn a_replica_sees_its_app_and_nothing_of_the_server() {
    let house = House::of(CODE).await;
    assert_eq!(
        text(&house.call("environment", "{}").await),
        r#"{"APP_NAME":"model","PROJECT_ID":"p-1234abcd","BUILD_ID":"b-0000000000000001","SECRET_OF_THE_SERVER":null}"#
    );
}

#[tokio::test]
async fn calls_run_at_once_up_to_the_concurrency_and_no_further() {
    let config = AppConfig { replica_concurrency: Some(2), ..AppConfig::default() };
    let code = r#"
import threading, time
lock = threading.Lock()
now = most = 0

def work():
    global now, most
    with lock:
        now += 1
        most = max(most, now)
    time.sleep(0.05)
    with lock:
        now -= 1
    return most
"#;
    let house = House::with(code, Plan { config, ..Plan::default() }).await;
    let calls = (0..8).map(|_| house.call("work", "{}"));
    let outcomes = futures_util::future::join_all(calls).await;
    assert_eq!(outcomes.iter().map(text).max().as_deref(), Some("2"));
    assert_eq!(house.replicas(), 1);
}

#[tokio::test]
async fn a_call_that_waits_beyond_its_limit_ends_as_timeout_and_never_runs() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    let (first, second) = tokio::join!(
        house.handle.call(house.new_call("wait", r#"{"seconds":1}"#, Duration::from_secs(20))),
        house.handle.call(house.new_call("who", "{}", Duration::from_millis(200))),
    );
    assert_eq!(text(&first.unwrap()), "1");
    let second = second.unwrap();
    let error = second.error.unwrap();
    assert_eq!((error.code, second.status_code), (Code::Timeout, 504));
    assert!(error.message.contains("webhook_endpoint"), "{}", error.message);
    let record = house.memory.recorded_calls().into_iter().find(|record| &*record.function == "who").unwrap();
    assert_eq!(record.started_at, None);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_waiting_call_along() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    let slow = house.call("wait", r#"{"seconds":0.5}"#);
    tokio::pin!(slow);
    let gone = tokio::time::timeout(Duration::from_millis(100), async {
        tokio::join!(&mut slow, house.call("who", "{}"))
    });
    assert!(gone.await.is_err());
    let record = until("the record", || house.memory.recorded_calls().into_iter().next()).await;
    assert_eq!((&*record.function, record.ending), ("who", Ending::Cancelled));
    assert_eq!(text(&slow.await), "0.5");
}

#[tokio::test]
async fn more_waiting_calls_than_there_may_be_are_refused() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let house = House::with(CODE, Plan { config, ..Plan::default() }).await;
    let mut refused = 0;
    let mut waiting = Vec::new();
    for _ in 0..queue::limits::WAITING_CALLS_PER_APP_MAX + 10 {
        let mut call =
            Box::pin(house.handle.call(house.new_call("wait", r#"{"seconds":60}"#, Duration::from_secs(90))));
        match futures_util::poll!(&mut call) {
            std::task::Poll::Ready(Err(Refused::Busy)) => refused += 1,
            other => {
                assert!(other.is_pending());
                waiting.push(call);
            }
        }
    }
    assert!((9..=10).contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_function_that_the_live_build_lacks_is_named_with_those_it_has() {
    let house = House::of(CODE).await;
    let error = house.call("subtract", "{}").await.error.unwrap();
    assert!(error.message.contains("`subtract`") && error.message.contains("add"), "{}", error.message);
}
