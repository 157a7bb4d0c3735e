//! Replicas that die: who is charged, who runs again, what callers hear.

use std::sync::atomic::Ordering;

use queue::app::AppConfig;
use queue::event::{AppEvent, EventKind};
use queue::lease::Release;
use queue::outcome::Code;
use queue::port::Replicas as _;
use queue::registry::BuildStatus;
use queue::webhook::EventFilter;

use crate::house::{House, Plan, build, is_alive, until, webhook};
use crate::store::POISON;

const CODE: &str = r#"
import ctypes, os, subprocess, sys, time

def echo(n):
    return n

def who():
    return os.getpid()

def segfault():
    ctypes.string_at(0)

def hoard(megabytes, seconds):
    held = b"x" * (megabytes << 20)
    time.sleep(seconds)
    return len(held) >> 20

def nap():
    while not os.path.exists(os.path.join(os.path.dirname(__file__), "wake")):
        time.sleep(0.01)
    return "rested"

def leave():
    os._exit(0)

def poison_or(n):
    attempts = os.path.join(os.path.dirname(__file__), "attempts")
    with open(attempts, "a") as f:
        f.write("%s\n" % n)
    if open(attempts).read().split().count(str(n)) == 1:
        # Everybody is inside when the poisoned one strikes.
        while n != 0 or len(open(attempts).read().split()) < 10:
            time.sleep(0.01)
    if n == 0:
        os._exit(3)
    return n

def mumble(said="ff" * 64):
    os.write(int([f for f in os.listdir("/proc/self/fd") if "socket" in link(f)][0]), bytes.fromhex(said))
    time.sleep(60)

def link(f):
    try:
        return os.readlink("/proc/self/fd/" + f)
    except OSError:
        return ""

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(os.path.join(os.path.dirname(__file__), "daemon"), "w") as f:
                f.write("%d\n" % os.getpid())
            time.sleep(600)
        os._exit(0)
    os.wait()
    return None
"#;

#[tokio::test]
async fn a_caller_hears_how_the_replica_died_and_the_next_one_is_served() {
    let house = House::of(CODE).await;
    let crashed = house.call("segfault", "{}").await;
    let error = crashed.error.unwrap();
    assert_eq!((error.code, crashed.status_code), (Code::WorkerCrashed, 500));
    assert!(error.message.contains("signal 11"), "{}", error.message);

    let exited = house.call("leave", "{}").await.error.unwrap();
    assert_eq!(exited.code, Code::WorkerExited);
    assert!(exited.message.contains("exit status 0"), "{}", exited.message);

    let begin = std::time::Instant::now();
    assert_eq!(crate::house::text(&house.call("echo", r#"{"n":4}"#).await), "4");
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn a_replica_that_talks_nonsense_is_ended() {
    let house = House::of(CODE).await;
    let error = house.call("mumble", "{}").await.error.unwrap();
    assert_eq!(error.code, Code::ProtocolError);
    assert_eq!(crate::house::text(&house.call("echo", r#"{"n":4}"#).await), "4");
}

/// A frame as a replica might forge it.
fn frame(kind: u8, call: u32, payload: &[u8]) -> String {
    let length = u32::try_from(payload.len() + 5).unwrap();
    let bytes = [&length.to_be_bytes()[..], &[kind], &call.to_be_bytes(), payload].concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_replica_that_forges_frames_is_ended_and_touches_nobody_elses_run() {
    // The kinds of `protocol/README.md`.
    let (call, ready, result, error, log, output) = (2, 16, 18, 19, 20, 21);
    let mut plan = Plan::at_once(1);
    plan.config.max_replicas = Some(2);
    let house = House::with(CODE, plan).await;
    let bystander = house.submit(house.run("nap", "{}"));
    until("it runs", || (house.memory.queued() == 0).then_some(())).await;
    let succeeded = [&200_u16.to_be_bytes()[..], &1_f64.to_be_bytes(), b"\"forged\""].concat();
    let forged = [
        // About a call that this replica does not have: of another one, of an earlier attempt, of nobody.
        frame(result, 77, &succeeded),
        frame(error, 77, b"\0\0\0\0\0\0\0\0{}"),
        frame(log, 77, b"\x01\0\0\0\0\0\0\0\0said"),
        frame(output, 77, b"1"),
        frame(ready, 0, b"{}"),
        // What only the worker says, an unknown kind, too short and far too long.
        frame(call, 1, b""),
        frame(99, 1, b""),
        "0000000005".to_owned(),
        "7fffffff1200000001".to_owned(),
    ];
    for said in forged {
        let error = house.call("mumble", &format!(r#"{{"said":"{said}"}}"#)).await.error.unwrap();
        assert_eq!(error.code, Code::ProtocolError, "{said}: {}", error.message);
    }
    std::fs::write(house.folder.path().join("wake"), "").unwrap();
    assert_eq!(house.result(bystander).await, "\"rested\"");
    assert_eq!(house.memory.releases(), [], "nobody else's run was touched");
}

#[tokio::test]
async fn a_run_that_kills_its_replica_is_charged_and_ends_as_crash_loop() {
    let house = House::with(CODE, Plan::at_once(1)).await;
    let id = house.submit(house.run("segfault", "{}"));
    until("the crash loop", || house.memory.crash_loops().contains(&id).then_some(())).await;
    assert_eq!(house.memory.releases(), [(id, Release::WorkerCrashed); 3]);
    until("deliveries are woken", || (house.memory.wakes() > 0).then_some(())).await;
}

#[tokio::test]
async fn an_attempt_says_how_its_replica_died() {
    let house = House::with(CODE, Plan::at_once(1)).await;
    for (function, release) in [("leave", Release::WorkerExited), ("mumble", Release::ProtocolError)] {
        let id = house.submit(house.run(function, "{}"));
        until("the crash loop", || house.memory.crash_loops().contains(&id).then_some(())).await;
        let mine = house.memory.releases().into_iter().filter(|(run, _)| *run == id);
        assert_eq!(mine.collect::<Vec<_>>(), [(id, release); 3]);
    }
}

#[tokio::test]
async fn a_replica_beyond_its_memory_is_ended_and_the_attempt_says_so() {
    let mut plan = Plan::at_once(1);
    plan.config.memory = Some(0.1);
    let house = House::with(CODE, plan).await;
    let hoard = r#"{"megabytes":200,"seconds":60}"#;
    let outcome = house.call("hoard", hoard).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.code, outcome.status_code), (Code::OutOfMemory, 500));
    assert!(error.message.contains("102 MiB") && error.message.contains("`memory`"), "{}", error.message);

    let id = house.submit(house.run("hoard", hoard));
    until("the crash loop", || house.memory.crash_loops().contains(&id).then_some(())).await;
    assert_eq!(house.memory.releases(), [(id, Release::OutOfMemory); 3]);
    let modest = house.call("hoard", r#"{"megabytes":20,"seconds":0.2}"#).await;
    assert_eq!(crate::house::text(&modest), "20");
}

#[tokio::test]
async fn those_who_shared_a_replica_with_a_poisoned_run_are_not_charged_and_succeed() {
    let house = House::with(CODE, Plan::at_once(10)).await;
    let runs: Vec<_> =
        (0..10).map(|n| house.submit(house.run("poison_or", &format!(r#"{{"n":{n}}}"#)))).collect();
    for (run, n) in runs.iter().zip(0..).skip(1) {
        assert_eq!(house.result(*run).await, n.to_string());
    }
    let poison = runs[0];
    until("the poisoned run ends", || house.memory.crash_loops().contains(&poison).then_some(())).await;
    let charged: Vec<_> =
        house.memory.releases().into_iter().filter(|(_, release)| release.is_death()).collect();
    assert_eq!(charged, [(poison, Release::WorkerExited); 3]);
    let drained = house.memory.releases().len() - charged.len();
    assert_eq!(drained, 10, "all ten were given back once");
}

#[tokio::test]
async fn nothing_that_a_replica_started_outlives_it() {
    let mut house = House::of(CODE).await;
    house.call("daemon", "{}").await;
    let daemon: i32 = house.written("daemon").await.trim().parse().unwrap();
    assert!(is_alive(daemon));
    house.stop().await;
    assert!(!is_alive(daemon));
}

#[tokio::test]
async fn a_run_whose_replicas_task_panicked_is_executed_again() {
    let code = r#"
import os, time

def speak(word):
    marker = os.path.join(os.path.dirname(__file__), "spoken")
    if not os.path.exists(marker):
        open(marker, "w").close()
        print(word)
        time.sleep(600)
    return "spoken"
"#;
    let house = House::of(code).await;
    let run = house.submit(house.run("speak", &format!("{{\"word\":\"{POISON}\"}}")));
    assert_eq!(house.result(run).await, "\"spoken\"");
    assert_eq!(house.memory.releases(), [(run, Release::WorkerCrashed)]);
}

#[tokio::test]
async fn a_replica_whose_task_panicked_counts_no_more() {
    let code = "import time\n\ndef speak(word):\n    print(word)\n    time.sleep(600)\n";
    let house = House::of(code).await;
    let outcome = house.call("speak", &format!("{{\"word\":\"{POISON}\"}}")).await;
    assert_eq!(outcome.error.unwrap().code, Code::Interrupted);
    let gone = || (house.handle.builds_in_use(&house.id()).is_empty() && house.replicas() == 0).then_some(());
    until("it is gone, and its build is in use no more", gone).await;
    let died = |event: &AppEvent| event.kind == EventKind::ReplicaDied && event.text.contains("server's log");
    assert!(house.memory.events().iter().any(died), "{:?}", house.memory.events());
}

#[tokio::test]
async fn a_deploy_hears_that_the_task_of_its_first_replica_panicked() {
    let mut house = House::of("def echo(n):\n    return n\n").await;
    let folder = tempfile::tempdir().unwrap();
    let code = format!("import time\nprint({POISON:?})\ntime.sleep(600)\n");
    std::fs::write(folder.path().join("main.py"), code).unwrap();
    let failure = house.deploy(&build(2, folder.path(), AppConfig::default())).await.unwrap_err();
    assert_eq!((failure.status, failure.error.code), (BuildStatus::InitFailure, Code::FailedToStart));
    assert!(failure.error.message.contains("the server's log says how"), "{}", failure.error.message);
    assert_eq!(crate::house::text(&house.call("echo", r#"{"n":4}"#).await), "4", "the one before serves");
}

#[tokio::test]
async fn what_a_replica_had_taken_and_not_begun_when_its_task_panicked_runs_again_uncharged() {
    let house = House::with("def echo(n):\n    return n\n", Plan::at_once(10)).await;
    house.memory.poisoned_start.store(true, Ordering::Relaxed);
    let mut first = house.run("echo", r#"{"n":1}"#);
    first.events = EventFilter::parse(["start"]).unwrap();
    first.webhooks = webhook("https://example.com/hook");
    // Both wait before the replica comes to take them.
    let first = house.submit(first);
    let second = house.submit(house.run("echo", r#"{"n":2}"#));
    assert_eq!(house.result(second).await, "2");
    assert_eq!(house.result(first).await, "1");
    let mut releases = house.memory.releases();
    releases.sort_by_key(|(run, _)| *run);
    assert_eq!(releases, [(first, Release::WorkerCrashed), (second, Release::Drained)]);
}
