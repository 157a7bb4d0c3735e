//! The limit of a run: told to the runner first, then enforced on the whole process tree.

use std::time::{Duration, Instant};

use queue::app::AppConfig;
use queue::lease::Release;
use queue::outcome::{Code, Ending};
use queue::port::Dispatch as _;

use crate::house::{House, Plan, is_alive, text, until};

const CODE: &str = r#"
import asyncio, os, re, signal, subprocess, time
HERE = os.path.dirname(os.path.abspath(__file__))

def note(name):
    with open(os.path.join(HERE, name), "a") as f:
        f.write("%d\n" % os.getpid())

async def sleepy():
    await asyncio.sleep(600)

def who():
    return os.getpid()

def stubborn():
    note("stubborn")
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass

def native():
    note("native")
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter's lock for ever

def stopped():
    note("stopped")
    os.kill(os.getpid(), signal.SIGSTOP)

def flood():
    import socket, stat, struct
    note("flood")

    def is_socket(descriptor):
        try:
            return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            return False

    worker = socket.socket(fileno=os.dup(next(filter(is_socket, range(3, 256)))))
    worker.setblocking(True)
    line = b"x" * 1000
    lines = (struct.pack(">IBIBQ", 14 + len(line), 20, 1, 1, 0) + line) * 500
    while True:
        try:
            while True:
                worker.sendall(lines)
        except Exception:
            os._exit(1)

def beside(seconds):
    note("beside")
    time.sleep(seconds)
    return seconds
"#;

fn at_once(concurrency: u32) -> Plan {
    Plan {
        config: AppConfig { replica_concurrency: Some(concurrency), ..AppConfig::default() },
        ..Plan::default()
    }
}

#[tokio::test]
async fn a_call_at_its_limit_is_cancelled_and_the_replica_lives_on() {
    let house = House::with(CODE, at_once(4)).await;
    let before = text(&house.call("who", "{}").await);
    let begin = Instant::now();
    let outcome =
        house.handle.call(house.new_call("sleepy", "{}", Duration::from_millis(300))).await.unwrap();
    assert!(begin.elapsed() < Duration::from_millis(1_300), "{:?}", begin.elapsed());
    assert_eq!((outcome.error.unwrap().code, outcome.status_code), (Code::Timeout, 504));
    // Beyond the grace: had the runner not let go of the call, the replica would be killed by now.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(text(&house.call("who", "{}").await), before);
}

async fn ends_at_its_limit(function: &str) {
    let house = House::with(CODE, at_once(1)).await;
    let mut run = house.run(function, "{}");
    run.limit = Duration::from_millis(500);
    let begin = Instant::now();
    let id = house.submit(run);
    let outcome = house.outcome(id).await;
    assert!(begin.elapsed() < Duration::from_millis(1_500), "{:?}", begin.elapsed());
    assert_eq!((outcome.ending, outcome.error.unwrap().code), (Ending::Failed, Code::Timeout));
    let pid: i32 = house.written(function).await.trim().parse().unwrap();
    until("the replica is killed", || (!is_alive(pid)).then_some(())).await;
    assert_eq!(house.memory.releases(), [], "a timeout is the run's end, not an attempt's");
    assert_ne!(text(&house.call("who", "{}").await), pid.to_string());
}

#[tokio::test]
async fn a_function_that_swallows_the_cancel_ends_at_its_limit() {
    ends_at_its_limit("stubborn").await;
}

#[tokio::test]
async fn native_code_that_holds_the_interpreter_ends_at_its_limit() {
    ends_at_its_limit("native").await;
}

#[tokio::test]
async fn a_replica_that_never_stops_talking_ends_at_its_limit() {
    ends_at_its_limit("flood").await;
}

#[tokio::test]
async fn a_stopped_process_ends_at_its_limit() {
    ends_at_its_limit("stopped").await;
}

#[tokio::test]
async fn calls_beside_one_that_hangs_run_again_uncharged_and_callers_hear_503() {
    let house = House::with(CODE, at_once(4)).await;
    let mut hanging = house.run("stubborn", "{}");
    hanging.limit = Duration::from_millis(400);
    let hanging = house.submit(hanging);
    let beside = house.submit(house.run("beside", r#"{"seconds":2}"#));
    let caller = house.call("beside", r#"{"seconds":60}"#).await;

    let error = caller.error.unwrap();
    assert_eq!((error.code, caller.status_code), (Code::Interrupted, 503));
    assert_eq!(house.outcome(hanging).await.error.unwrap().code, Code::Timeout);
    assert_eq!(house.result(beside).await, "2");
    assert_eq!(house.memory.releases(), [(beside, Release::CutShort)]);
}
