//! Environments: packages are there, made once, shared, and there without a network.

use std::time::{Duration, Instant};

use queue::registry::BuildStatus;

use crate::world::{DELAY_CONFIG, World, set};

const MAIN: &str = "from pydantic import BaseModel\n\
    class Item(BaseModel):\n    delayMins: int = 0\n\
    def predict(item, run_id, logger):\n    return {}\n";

const DELAY: &[(&str, &str)] = &[("main.py", MAIN), ("config.yaml", DELAY_CONFIG)];

#[tokio::test]
async fn the_delay_example_becomes_live_and_deploys_again_in_under_a_second() {
    let world = World::new();
    let first = world.deploy("delay", DELAY, |_| ()).await;
    if world.is_offline(&first) {
        return;
    }
    assert_eq!(world.status(&first), BuildStatus::Success, "{}", world.log());
    assert_eq!(world.live("delay"), Some(first.clone()));
    assert_eq!(world.replicas.switched.lock().unwrap().as_slice(), std::slice::from_ref(&first));
    let log = world.log();
    for step in
        ["==> unpacked 3 files", "==> resolving python", "==> installing 1 requirement", "==> ready in"]
    {
        assert!(log.contains(step), "no `{step}` in:\n{log}");
    }

    let again = Instant::now();
    let second = world.deploy("delay", DELAY, |_| ()).await;
    assert_eq!(world.status(&second), BuildStatus::Success, "{}", world.log());
    assert!(world.log().contains("the environment is there already"), "{}", world.log());
    // Two interpreters are started on the way; a loaded machine is slower than the promise.
    assert!(again.elapsed() < Duration::from_secs(5), "{:?}", again.elapsed());
    let python = |build| world.build(build).prepared.unwrap().python;
    assert_eq!(python(&first), python(&second));
}

#[tokio::test]
async fn what_was_downloaded_once_is_there_without_a_network() {
    let online = World::new();
    let first = online.deploy("delay", DELAY, |_| ()).await;
    if online.is_offline(&first) {
        return;
    }
    let offline = World::with(|options| {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            set(options, name, "http://127.0.0.1:9");
        }
        set(options, "UV_HTTP_RETRIES", "0");
        // Long past the time for which the cache's answers count as fresh.
        set(options, "UV_REFRESH", "1");
    });
    let build = offline.deploy("delay", DELAY, |_| ()).await;
    assert_eq!(offline.status(&build), BuildStatus::Success, "{}", offline.log());
}

#[tokio::test]
async fn an_app_without_packages_gets_an_environment_without_a_network() {
    let world = World::with(|options| {
        set(options, "HTTPS_PROXY", "http://127.0.0.1:9");
        options.cache_dir = options.data_dir.join("empty-cache");
    });
    let build = world.deploy("plain", &[("main.py", "def predict(): ...")], |_| ()).await;
    assert_eq!(world.status(&build), BuildStatus::Success, "{}", world.log());
    let python = world.build(&build).prepared.unwrap().python;
    assert!(python.starts_with(world.options.data_dir.to_str().unwrap()), "{python}");
}

#[tokio::test]
async fn commands_run_in_the_apps_folder_and_its_environment() {
    let world = World::new();
    let main = "import os\nassert os.path.exists('made-before') and os.path.exists('made-after')\ndef predict(): ...";
    let build = world
        .deploy("commands", &[("main.py", main)], |app| {
            app.pre_build_commands = vec!["touch made-before".into()];
            app.shell_commands = vec![
                "x=seen".into(),
                "echo variable $x".into(),
                "echo env $(command -v python)".into(),
                "touch made-after".into(),
            ];
        })
        .await;
    assert_eq!(world.status(&build), BuildStatus::Success, "{}", world.log());
    let python = world.build(&build).prepared.unwrap().python;
    assert!(world.log().contains("stdout| variable seen"), "{}", world.log());
    assert!(world.log().contains(&format!("stdout| env {python}")), "{}", world.log());
}

#[tokio::test]
async fn two_builds_of_the_same_environment_make_it_once() {
    let world = World::new();
    let files = &[("main.py", "def predict(): ...")];
    let first = world.begin("one", files, |_| ()).await;
    let second = world.begin("two", files, |_| ()).await;
    world.end_of(&first).await;
    world.end_of(&second).await;
    let log = world.log();
    assert_eq!(world.status(&second), BuildStatus::Success, "{log}");
    assert_eq!(log.matches("==> making the environment").count(), 1, "{log}");
}
