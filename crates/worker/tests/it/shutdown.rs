//! The server stops: nothing is lost, nothing is charged, nothing is left behind.

use std::time::{Duration, Instant};

use queue::app::AppConfig;
use queue::lease::Release;
use queue::outcome::Code;
use queue::port::{Dispatch as _, Refused};

use crate::house::{House, Plan, is_alive, text, until};

const CODE: &str = r#"
import os, time
HERE = os.path.dirname(os.path.abspath(__file__))

def wait(seconds):
    with open(os.path.join(HERE, "pid"), "w") as f:
        f.write("%d\n" % os.getpid())
    time.sleep(seconds)
    return seconds
"#;

fn one_at_a_time(adjust: Option<fn(&mut worker::Options)>) -> Plan {
    Plan {
        config: AppConfig { replica_concurrency: Some(1), ..AppConfig::default() },
        adjust,
        ..Plan::default()
    }
}

#[tokio::test]
async fn calls_under_way_end_and_waiting_runs_go_back_uncharged() {
    let mut house = House::with(CODE, one_at_a_time(None)).await;
    let under_way = house.submit(house.run("wait", r#"{"seconds":0.5}"#));
    house.written("pid").await;
    let waiting: Vec<_> = (0..5).map(|_| house.submit(house.run("wait", r#"{"seconds":0.5}"#))).collect();
    house.stop().await;
    assert_eq!(text(&house.memory.outcome(under_way).unwrap()), "0.5");
    let mut released = house.memory.releases();
    released.sort_by_key(|(run, _)| *run);
    assert_eq!(released, waiting.iter().map(|run| (*run, Release::Drained)).collect::<Vec<_>>());
    assert_eq!((house.memory.queued(), house.memory.leased()), (5, 0));
}

#[tokio::test]
async fn what_does_not_end_in_time_is_given_back_and_its_replica_killed() {
    fn soon(options: &mut worker::Options) {
        options.drain_timeout = Duration::from_millis(300);
    }
    let mut house = House::with(CODE, one_at_a_time(Some(soon))).await;
    let run = house.submit(house.run("wait", r#"{"seconds":600}"#));
    let pid: i32 = house.written("pid").await.trim().parse().unwrap();
    let begin = Instant::now();
    house.stop().await;
    assert!(begin.elapsed() < Duration::from_millis(1_300), "{:?}", begin.elapsed());
    assert_eq!(house.memory.releases(), [(run, Release::CutShort)]);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn waiting_calls_are_served_or_told_and_new_ones_refused() {
    fn soon(options: &mut worker::Options) {
        options.drain_timeout = Duration::from_millis(1_500);
    }
    let mut house = House::with(CODE, one_at_a_time(Some(soon))).await;
    let handle = house.handle.clone();
    let calls: Vec<_> = ["0.3", "0.3", "600", "600"]
        .map(|seconds| {
            let call =
                house.new_call("wait", &format!(r#"{{"seconds":{seconds}}}"#), Duration::from_secs(90));
            let handle = handle.clone();
            tokio::spawn(async move { handle.call(call).await })
        })
        .into();
    house.written("pid").await;
    house.begin_stop();
    let refused = until("new calls are refused", || {
        let call = house.new_call("wait", r#"{"seconds":0}"#, Duration::from_secs(1));
        let mut call = Box::pin(handle.call(call));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match call.as_mut().poll(&mut context) {
            std::task::Poll::Ready(answer) => Some(answer),
            std::task::Poll::Pending => None,
        }
    });
    assert!(matches!(refused.await, Err(Refused::Stopping)));
    assert!(handle.reserve(&house.app, 1).is_none());
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| answer.error.is_none()).count(), 2);
    for answer in &answers[2..] {
        assert_eq!(answer.error.as_ref().unwrap().code, Code::Interrupted);
    }
    house.stop().await;
}

#[tokio::test]
async fn a_worker_at_rest_stops_at_once() {
    let mut house = House::of(CODE).await;
    let begin = Instant::now();
    house.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}
