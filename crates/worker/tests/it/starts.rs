//! Replicas that do not start: what is said, how often it is tried, what becomes of waiting work.

use std::process::Command;
use std::time::Duration;

use queue::app::AppConfig;
use queue::log::Stream;
use queue::outcome::{Code, Ending};
use queue::port::Replicas as _;
use queue::registry::BuildStatus;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::house::{House, Plan, build, until};

fn not_deployed() -> Plan {
    Plan { not_deployed: true, ..Plan::default() }
}

#[tokio::test]
async fn an_import_that_raises_is_reported_with_its_traceback() {
    let house = House::with("import torch_of_the_future\n", not_deployed()).await;
    let build = build(2, house.folder.path(), AppConfig::default());
    let failure = house.handle.start_first(&build).await.unwrap_err();
    assert_eq!(failure.status, BuildStatus::InitFailure);
    assert_eq!(failure.error.kind, "ModuleNotFoundError");
    assert!(failure.error.traceback.unwrap().contains("line 1"));
    until("the build's log says it", || {
        let lines = house.memory.lines();
        let of_build = lines.iter().filter(|line| line.build.as_ref() == Some(&build.id));
        of_build.into_iter().any(|line| line.text.contains("torch_of_the_future")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_import_that_exits_is_reported_with_its_last_words() {
    let code = "import os, sys\nos.write(2, b'no GPU here\\n')\nos._exit(4)\n";
    let house = House::with(code, not_deployed()).await;
    let failure =
        house.handle.start_first(&build(2, house.folder.path(), AppConfig::default())).await.unwrap_err();
    assert_eq!(failure.status, BuildStatus::InitFailure);
    assert!(failure.error.message.contains("exit status 4"), "{}", failure.error.message);
    assert!(failure.error.traceback.unwrap().contains("no GPU here"));
}

#[tokio::test]
async fn an_import_that_takes_too_long_is_ended() {
    let house = House::with("import time\ntime.sleep(600)\n", not_deployed()).await;
    let config = AppConfig { start_limit_seconds: Some(1), ..AppConfig::default() };
    let failure = house.handle.start_first(&build(2, house.folder.path(), config)).await.unwrap_err();
    assert_eq!(failure.status, BuildStatus::InitTimeout);
    assert!(failure.error.message.contains("within 1 s"), "{}", failure.error.message);
}

#[tokio::test]
async fn an_interpreter_that_is_missing_is_named() {
    let house = House::with("", not_deployed()).await;
    let mut build = build(2, house.folder.path(), AppConfig::default());
    build.prepared.as_mut().unwrap().python = "/no/such/python".to_owned();
    let failure = house.handle.start_first(&build).await.unwrap_err();
    let said = format!("{} {:?}", failure.error.message, failure.error.traceback);
    assert!(said.contains("/no/such/python"), "{said}");
}

#[tokio::test]
async fn after_some_failed_starts_waiting_work_ends_and_starts_go_on_with_pauses() {
    let code = r#"
import os
with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as f:
    f.write("x\n")
raise RuntimeError("broken weights")

def predict():
    pass
"#;
    let house = House::with(code, not_deployed()).await;
    let run = house.submit(house.run("predict", "{}"));
    let call = house.call("predict", "{}").await;
    let error = call.error.unwrap();
    assert_eq!((error.code, call.status_code), (Code::FailedToStart, 503));
    assert!(error.message.contains("broken weights"), "{}", error.message);
    let outcome = house.outcome(run).await;
    assert_eq!((outcome.ending, outcome.error.unwrap().code), (Ending::Failed, Code::FailedToStart));
    let starts = house.written("starts").await.lines().count();
    assert_eq!(starts, 3);
}

#[tokio::test]
async fn work_that_waited_through_failed_starts_is_done_when_one_succeeds() {
    let code = r#"
import os
path = os.path.join(os.path.dirname(__file__), "starts")
with open(path, "a") as f:
    f.write("x\n")
if len(open(path).readlines()) < 3:
    raise RuntimeError("not yet")

def predict():
    return "done"
"#;
    let house = House::with(code, not_deployed()).await;
    let run = house.submit(house.run("predict", "{}"));
    assert_eq!(house.result(run).await, r#""done""#);
}

/// Counts its starts and has each of the first `killed` ended by a signal, as somebody or the system would.
fn killed_while_it_imports(killed: u32) -> String {
    format!(
        r#"
import os, signal
path = os.path.join(os.path.dirname(__file__), "starts")
with open(path, "a") as f:
    f.write("x\n")
if len(open(path).readlines()) <= {killed}:
    os.kill(os.getpid(), signal.SIGKILL)

def predict():
    return "done"
"#
    )
}

fn hurried() -> Plan {
    fn short(options: &mut worker::Options) {
        options.restart_pause = Duration::from_millis(1);
        options.restart_pause_max = Duration::from_millis(5);
    }
    Plan { adjust: Some(short), ..not_deployed() }
}

#[tokio::test]
async fn starts_that_are_killed_from_outside_cost_the_waiting_runs_nothing() {
    // More than failed imports may be.
    let house = House::with(&killed_while_it_imports(5), hurried()).await;
    let run = house.submit(house.run("predict", "{}"));
    assert_eq!(house.result(run).await, r#""done""#);
    assert_eq!(house.written("starts").await.lines().count(), 6);
    assert_eq!(house.memory.releases(), []);
}

#[tokio::test]
async fn starts_that_are_killed_time_after_time_end_what_waits_at_last() {
    let house = House::with(&killed_while_it_imports(1_000), hurried()).await;
    let run = house.submit(house.run("predict", "{}"));
    let error = house.outcome(run).await.error.unwrap();
    assert_eq!(error.code, Code::FailedToStart);
    assert!(error.message.contains("signal 9"), "{}", error.message);
    assert_eq!(house.written("starts").await.lines().count(), 20);
}

#[tokio::test]
async fn a_replica_that_dies_at_each_call_is_not_started_in_a_hot_loop() {
    let code = r#"
import os
with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as f:
    f.write("x\n")

def predict():
    os._exit(1)
"#;
    fn slow(options: &mut worker::Options) {
        options.restart_pause = Duration::from_millis(600);
    }
    let plan = Plan { adjust: Some(slow), ..Plan::default() };
    let house = House::with(code, plan).await;
    let begin = std::time::Instant::now();
    let run = house.submit(house.run("predict", "{}"));
    until("the crash loop", || house.memory.crash_loops().contains(&run).then_some(())).await;
    assert_eq!(house.written("starts").await.lines().count(), 3);
    assert!(begin.elapsed() > Duration::from_millis(600), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn what_a_first_replica_prints_belongs_to_the_builds_log_until_it_is_live() {
    let code = "print('loading weights')\ndef predict():\n    print('predicting')\n";
    let mut house = House::with(code, not_deployed()).await;
    let build = build(2, house.folder.path(), AppConfig::default());
    house.deploy(&build).await.unwrap();
    house.call("predict", "{}").await;
    let lines = until("both lines", || {
        let lines = house.memory.lines();
        lines.iter().any(|line| line.text == "predicting").then_some(lines)
    })
    .await;
    let of = |text: &str| lines.iter().find(|line| line.text == text).unwrap();
    assert_eq!(of("loading weights").build, Some(build.id));
    assert_eq!((of("predicting").build.as_ref(), of("predicting").stream), (None, Stream::Stdout));
    assert!(of("predicting").run.is_some());
}

#[tokio::test]
async fn code_of_2023_runs_in_the_main_thread_from_its_first_replica_on() {
    let code = r#"
import threading

def predict(item, run_id, logger):
    return threading.current_thread() is threading.main_thread()
"#;
    let house = House::of(code).await;
    assert_eq!(crate::house::text(&house.call("predict", "{}").await), "true");
}

/// Set in the process of its own that a test starts for itself.
const ALONE: &str = "POSTBACK_TEST_ALONE";

#[tokio::test]
async fn a_server_without_file_descriptors_blames_no_app_and_its_runs_wait() {
    if std::env::var_os(ALONE).is_none() {
        // The limit is the process's, and the neighbours of this test need theirs.
        let test = "starts::a_server_without_file_descriptors_blames_no_app_and_its_runs_wait";
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let status = alone.args(["--exact", test, "--nocapture"]).env(ALONE, "yes").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let house = House::with("def predict():\n    return 1\n", not_deployed()).await;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    let run = house.submit(house.run("predict", "{}"));
    // Three failed starts end what waits, and take less than a third of this.
    let ended = tokio::time::timeout(Duration::from_secs(2), house.outcome(run)).await;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(ended.is_err(), "it ended: {ended:?}");
    assert_eq!(house.result(run).await, "1");
    assert_eq!(house.memory.releases(), []);
}
