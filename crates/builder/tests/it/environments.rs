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

/// A contained replica can write no bytecode: what is missing it would compile at every start.
#[tokio::test]
async fn packages_and_the_runner_are_compiled_once_by_the_build() {
    let runner = tempfile::tempdir().unwrap();
    std::fs::write(runner.path().join("loop.py"), "def run(): ...").unwrap();
    let place = tempfile::tempdir().unwrap();
    package(&place.path().join("one"), "one");
    let world = World::with(|options| options.runner = Some(runner.path().to_owned()));
    let requirement = format!("one @ file://{}", place.path().join("one").display());
    let files = [("main.py", "import one\ndef predict(): ..."), ("requirements.txt", requirement.as_str())];
    let build = world.deploy("compiled", &files, |_| ()).await;
    if world.is_offline(&build) {
        return;
    }
    assert_eq!(world.status(&build), BuildStatus::Success, "{}", world.log());
    let compiled = |folder: &std::path::Path, stem: &str| {
        let entries = std::fs::read_dir(folder.join("__pycache__")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(stem)).count()
    };
    let python = world.build(&build).prepared.unwrap().python;
    let lib = std::path::Path::new(&python).ancestors().nth(2).unwrap().join("lib");
    let version = std::fs::read_dir(lib).unwrap().next().unwrap().unwrap().path();
    assert_eq!(compiled(&version.join("site-packages"), "one."), 1);
    assert_eq!(compiled(runner.path(), "loop."), 1);
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

/// A package of one module, with a build backend of its own, so that nothing has to be fetched to build it.
fn package(folder: &std::path::Path, name: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let backend = format!(
        "import os, zipfile\n\
         def build_wheel(folder, config_settings=None, metadata_directory=None):\n    \
         name = '{name}-1.0-py3-none-any.whl'\n    \
         info = '{name}-1.0.dist-info/'\n    \
         with zipfile.ZipFile(os.path.join(folder, name), 'w') as wheel:\n        \
         wheel.writestr('{name}.py', 'here = True')\n        \
         wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n')\n        \
         wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n        \
         wheel.writestr(info + 'RECORD', '')\n    \
         return name\n"
    );
    std::fs::write(folder.join("backend.py"), backend).unwrap();
    let project = format!(
        "[project]\nname = \"{name}\"\nversion = \"1.0\"\n\
         [build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"
    );
    std::fs::write(folder.join("pyproject.toml"), project).unwrap();
}

fn committed(folder: &std::path::Path) {
    for arguments in [
        vec!["init", "--quiet", "--initial-branch", "main"],
        vec!["add", "."],
        vec!["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "first"],
        vec!["tag", "v1"],
    ] {
        let done = std::process::Command::new("git").current_dir(folder).args(&arguments).output().unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test]
async fn requirements_come_from_git_from_folders_and_from_files_that_files_name() {
    let place = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        package(&place.path().join(name), &format!("pb_test_{name}"));
    }
    committed(&place.path().join("one"));
    committed(&place.path().join("two"));
    let at = place.path().display();
    // The first as a table has it, `pb = "git+…"`, whose key need not be the package's name.
    let listed = format!("git+file://{at}/one\n# more\n-r more.txt\npb-test-two @ git+file://{at}/two@v1\n");
    let more = format!("file://{at}/three\n");
    let main = "import pb_test_one, pb_test_two, pb_test_three\ndef predict(): ...";
    let files = &[("main.py", main), ("requirements.txt", listed.as_str()), ("more.txt", more.as_str())];
    let world = World::new();
    let build = world.deploy("app", files, |_| ()).await;
    if world.is_offline(&build) {
        return;
    }
    assert_eq!(world.status(&build), BuildStatus::Success, "{}", world.log());
    // What lies in a folder of somebody's may change: no other build gets this environment.
    let again = world.deploy("app", files, |_| ()).await;
    let python = |build| world.build(build).prepared.unwrap().python;
    assert_eq!(world.status(&again), BuildStatus::Success, "{}", world.log());
    assert_ne!(python(&build), python(&again));
}

#[tokio::test]
async fn an_environment_that_nobody_uses_any_more_is_collected_with_age() {
    let world = World::new();
    let files = &[("main.py", "def predict(): ...")];
    let folder_of = |build: &queue::BuildId| {
        let python = world.build(build).prepared.unwrap().python;
        std::path::PathBuf::from(python.strip_suffix("/bin/python").unwrap())
    };
    let with_command = |app: &mut queue::app::AppConfig| app.shell_commands = vec!["true".into()];
    let used = world.deploy("used", files, |_| ()).await;
    let gone = world.deploy("gone", files, with_command).await;
    let (used, gone) = (folder_of(&used), (folder_of(&gone), gone));
    assert_ne!(used, gone.0);
    // Long ago, both; the app of the one was deleted since.
    for folder in [&used, &gone.0] {
        let marker = std::fs::File::options().append(true).open(folder.join("postback-complete")).unwrap();
        marker.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    world.builder.collect().await;
    assert!(used.exists() && gone.0.exists(), "each has a build");
    world.registry.live.lock().unwrap().remove(&crate::world::app_id("gone"));
    world.registry.builds.lock().unwrap().remove(&gone.1);
    world.builder.collect().await;
    assert!(used.exists() && !gone.0.exists());

    // One that was used lately stays for the next deploy.
    let late = world.deploy("late", files, with_command).await;
    let folder = folder_of(&late);
    world.registry.live.lock().unwrap().remove(&crate::world::app_id("late"));
    world.registry.builds.lock().unwrap().remove(&late);
    world.builder.collect().await;
    assert!(folder.exists() && !world.folder(&late).exists());
}
