//! A new build, a new configuration, a build that is given up, an app that is deleted.

use queue::app::AppConfig;
use queue::outcome::Ending;
use queue::port::{Dispatch as _, Replicas as _};

use crate::house::{House, app_of, build, is_alive, text, until};

const OLD: &str = r#"
import os, time

def version():
    return "old"

def wait(seconds):
    time.sleep(seconds)
    return "old"

def who():
    return os.getpid()
"#;
const NEW: &str = "import os\ndef version():\n    return 'new'\ndef wait(seconds):\n    return 'new'\ndef who():\n    return os.getpid()\n";

fn folder_with(code: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.py"), code).unwrap();
    folder
}

#[tokio::test]
async fn a_new_build_gets_new_work_while_old_calls_end_where_they_began() {
    let mut house = House::of(OLD).await;
    let old = text(&house.call("who", "{}").await).parse::<i32>().unwrap();
    let under_way = house.submit(house.run("wait", r#"{"seconds":1}"#));
    until("the run is under way", || house.memory.started_runs().contains(&under_way).then_some(())).await;
    let folder = folder_with(NEW);
    house.deploy(&build(2, folder.path(), AppConfig::default())).await.unwrap();
    assert_eq!(text(&house.call("version", "{}").await), r#""new""#);
    assert_eq!(house.result(under_way).await, r#""old""#);
    until("the old replica is gone", || (!is_alive(old)).then_some(())).await;
    assert_eq!(house.replicas(), 1);
}

#[tokio::test]
async fn waiting_work_goes_to_the_live_build() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let plan = crate::house::Plan { config: config.clone(), ..Default::default() };
    let mut house = House::with(OLD, plan).await;
    house.submit(house.run("wait", r#"{"seconds":15}"#));
    let waiting = house.submit(house.run("version", "{}"));
    let folder = folder_with(NEW);
    house.deploy(&build(2, folder.path(), config)).await.unwrap();
    assert_eq!(house.result(waiting).await, r#""new""#);
}

#[tokio::test]
async fn a_build_that_fails_leaves_the_old_one_serving() {
    let mut house = House::of(OLD).await;
    let folder = folder_with("raise ValueError('half-written')\n");
    assert!(house.deploy(&build(2, folder.path(), AppConfig::default())).await.is_err());
    assert_eq!(text(&house.call("version", "{}").await), r#""old""#);
}

#[tokio::test]
async fn a_build_that_is_given_up_loses_its_replica() {
    let house = House::of(OLD).await;
    let code = format!(
        "import os\nwith open(os.path.join(os.path.dirname(__file__), 'pid'), 'w') as f:\n    f.write('%d\\n' % os.getpid())\n{NEW}"
    );
    let folder = folder_with(&code);
    let given_up = build(2, folder.path(), AppConfig::default());
    house.handle.start_first(&given_up).await.unwrap();
    let pid: i32 = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
    assert!(is_alive(pid));
    house.handle.discard(&given_up.id);
    until("its replica is gone", || (!is_alive(pid)).then_some(())).await;
    assert_eq!(text(&house.call("version", "{}").await), r#""old""#);
}

#[tokio::test]
async fn another_concurrency_takes_effect_without_a_new_build() {
    let house = House::of(OLD).await;
    let before = text(&house.call("who", "{}").await);
    let live = house.app.live.clone().unwrap();
    let config = AppConfig { replica_concurrency: Some(1), ..live.config.clone() };
    let functions = live.functions.clone();
    house.handle.switch(&app_of(queue::registry::Build { config, ..live }, functions));
    until("the old replica leaves", || (!is_alive(before.parse().unwrap())).then_some(())).await;
    assert_ne!(text(&house.call("who", "{}").await), before);
}

#[tokio::test]
async fn a_deleted_app_ends_its_waiting_calls_and_lets_running_ones_finish() {
    let config = AppConfig { replica_concurrency: Some(1), ..AppConfig::default() };
    let plan = crate::house::Plan { config, ..Default::default() };
    let house = House::with(OLD, plan).await;
    let running = house.submit(house.run("wait", r#"{"seconds":1}"#));
    let run = house.submit(house.run("version", "{}"));
    until("the first is under way", || house.memory.started_runs().contains(&running).then_some(())).await;
    let call = house.call("version", "{}");
    let retire = async {
        tokio::task::yield_now().await;
        house.handle.retire(&house.id());
    };
    let (call, ()) = tokio::join!(call, retire);
    assert_eq!(call.ending, Ending::Cancelled);
    assert_eq!(house.outcome(run).await.ending, Ending::Cancelled);
    assert_eq!(house.result(running).await, r#""old""#);
    until("no replica is left", || (house.replicas() == 0).then_some(())).await;
    assert!(house.handle.reserve(&house.app, 1).is_some(), "an app of the same name may come again");
}

/// Dies in the hands of the first replica that gets it, once told to, and ends in the second one's.
const FRAGILE: &str = r#"
import os, time
HERE = os.path.dirname(os.path.abspath(__file__))

def fragile():
    mark = os.path.join(HERE, "begun")
    if os.path.exists(mark):
        return "carried on"
    with open(mark, "w") as f:
        f.write("begun\n")
    while not os.path.exists(os.path.join(HERE, "die")):
        time.sleep(0.005)
    os._exit(3)
"#;

#[tokio::test]
async fn a_run_that_comes_back_after_its_app_was_deleted_goes_on_in_the_app_that_has_the_name_by_then() {
    let mut house = House::of(FRAGILE).await;
    let run = house.submit(house.run("fragile", "{}"));
    house.written("begun").await;
    house.handle.retire(&house.id());
    house.deploy(&build(2, house.folder.path(), AppConfig::default())).await.unwrap();
    std::fs::write(house.folder.path().join("die"), "").unwrap();
    assert_eq!(house.result(run).await, r#""carried on""#);
}

#[tokio::test]
async fn a_run_that_came_back_before_an_app_has_the_name_again_goes_on_when_one_has() {
    let mut house = House::of(FRAGILE).await;
    let run = house.submit(house.run("fragile", "{}"));
    house.written("begun").await;
    house.handle.retire(&house.id());
    std::fs::write(house.folder.path().join("die"), "").unwrap();
    until("the run went back", || (!house.memory.releases().is_empty()).then_some(())).await;
    house.deploy(&build(2, house.folder.path(), AppConfig::default())).await.unwrap();
    assert_eq!(house.result(run).await, r#""carried on""#);
}

#[tokio::test]
async fn a_run_of_a_deleted_app_can_be_cancelled_while_it_is_executed() {
    let house = House::of(OLD).await;
    let run = house.submit(house.run("wait", r#"{"seconds":600}"#));
    until("the run is under way", || house.memory.started_runs().contains(&run).then_some(())).await;
    house.handle.retire(&house.id());
    house.handle.cancel(&house.id(), run);
    assert_eq!(house.outcome(run).await.ending, Ending::Cancelled);
}

/// A build that takes over so slowly, with this code.
fn rolled_out(folder: &tempfile::TempDir, seconds: u64) -> queue::registry::Build {
    let config = AppConfig { roll_out_duration_seconds: Some(seconds), ..AppConfig::default() };
    build(2, folder.path(), config)
}

#[tokio::test]
async fn a_roll_out_keeps_the_old_replica_at_work_for_its_time() {
    let mut house = House::of(OLD).await;
    let folder = folder_with(NEW);
    house.deploy(&rolled_out(&folder, 2)).await.unwrap();
    until("both serve", || (house.replicas() == 2).then_some(())).await;
    let mut seen = std::collections::HashSet::new();
    let began = std::time::Instant::now();
    while house.replicas() == 2 {
        assert!(began.elapsed() < crate::house::PATIENCE, "the old one stays");
        // Two at once, so that both replicas are asked.
        let (a, b) = tokio::join!(house.call("version", "{}"), house.call("version", "{}"));
        seen.extend([text(&a), text(&b)]);
    }
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "it left too early");
    assert!(seen.contains(r#""old""#) && seen.contains(r#""new""#), "{seen:?}");
    assert_eq!(text(&house.call("version", "{}").await), r#""new""#);
}

#[tokio::test]
async fn a_build_with_other_functions_gets_all_new_work_at_once_however_slow_the_roll_out() {
    let mut house = House::of(OLD).await;
    let folder = folder_with(&format!("{NEW}def more():\n    return 'more'\n"));
    house.deploy(&rolled_out(&folder, 600)).await.unwrap();
    assert_eq!(text(&house.call("more", "{}").await), r#""more""#);
    assert_eq!(text(&house.call("version", "{}").await), r#""new""#);
    until("the old one is not counted", || (house.replicas() == 1).then_some(())).await;
}

#[tokio::test]
async fn a_call_of_a_new_function_that_meets_an_old_replica_waits_for_the_new_one() {
    let mut house = House::of(OLD).await;
    let folder = folder_with(&format!("{NEW}def more():\n    return 'more'\n"));
    let next = build(2, folder.path(), AppConfig::default());
    let functions = house.handle.start_first(&next).await.unwrap();
    // The gateway knows the new build, and the pool does not yet.
    let live = app_of(next, functions);
    let mut call = house.new_call("more", "{}", std::time::Duration::from_secs(20));
    call.app = std::sync::Arc::clone(&live);
    let run = house.submit(house.run("more", "{}"));
    let switch = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        house.handle.switch(&live);
    };
    let (answered, ()) = tokio::join!(house.handle.call(call), switch);
    assert_eq!(text(&answered.unwrap()), r#""more""#);
    assert_eq!(house.result(run).await, r#""more""#);
    house.app = live;
}

#[tokio::test]
async fn a_function_that_no_build_has_is_refused_with_those_there_are() {
    let house = House::of(OLD).await;
    let outcome = house.call("absent", "{}").await;
    let error = outcome.error.unwrap();
    assert!(error.message.contains("no function `absent`") && error.message.contains("version"), "{error:?}");
    let run = house.submit(house.run("absent", "{}"));
    assert_eq!(house.outcome(run).await.ending, Ending::Failed);
}
