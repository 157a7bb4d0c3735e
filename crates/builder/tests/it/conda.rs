//! Conda packages: micromamba makes the environment, pip's packages come into it, and equal ones are shared.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;

use queue::app::AppConfig;
use queue::registry::BuildStatus;

use crate::world::{World, set};

const GOOD: &[(&str, &str)] = &[("main.py", "def predict(): ...")];

/// Stands in for micromamba: says what it was asked for, and makes what it is asked for out of the machine's
/// Python.
fn micromamba() -> tempfile::TempDir {
    let tools = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\necho \"asked $*\"\ntest \"$1\" = create || exit 2\n\
        for word; do\n  case \"$before\" in --prefix) prefix=$word;; esac\n  \
        case \"$word\" in *no-such-package*) echo 'nothing provides no-such-package' >&2; exit 1;; esac\n  before=$word\n\
        done\nexec python3 -m venv --without-pip \"$prefix\"\n";
    let program = tools.path().join("micromamba");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    tools
}

fn world(tools: &tempfile::TempDir) -> World {
    World::with(|options| set(options, "MAMBA_EXE", OsString::from(tools.path().join("micromamba"))))
}

fn asks(app: &mut AppConfig) {
    app.python_version = Some("3.11".into());
    app.conda = vec!["nvidia::cuda-toolkit=12.4".into(), "ffmpeg".into()];
}

#[tokio::test]
async fn micromamba_makes_the_environment_once_for_equal_packages() {
    let tools = micromamba();
    let world = world(&tools);
    let first = world.deploy("one", GOOD, asks).await;
    let log = world.log();
    assert_eq!(world.status(&first), BuildStatus::Success, "{log}");
    let python = world.build(&first).prepared.unwrap().python;
    let folder = python.strip_suffix("/bin/python").unwrap();
    let asked =
        format!("--channel conda-forge --prefix {folder} ffmpeg nvidia::cuda-toolkit=12.4 python=3.11\n");
    assert!(log.contains("stdout| asked create --yes --root-prefix ") && log.contains(&asked), "{log}");

    let second = world
        .deploy("two", GOOD, |app| {
            asks(app);
            app.conda.reverse();
        })
        .await;
    assert_eq!(world.build(&second).prepared.unwrap().python, python);
    let third =
        world.deploy("three", GOOD, |app| app.conda = vec!["ffmpeg".into(), "python=3.9".into()]).await;
    assert_ne!(world.build(&third).prepared.unwrap().python, python);
    let log = world.log();
    assert_eq!(log.matches("stdout| asked create").count(), 2, "{log}");
    assert!(log.contains(" ffmpeg python=3.9\n"), "the version that the packages name counts: {log}");
}

#[tokio::test]
async fn a_list_in_the_archive_counts_and_commands_run_in_the_environment() {
    let tools = micromamba();
    let world = world(&tools);
    let files = &[("main.py", "def predict(): ..."), ("conda_pkglist.txt", "# libraries\nffmpeg\n")];
    let build = world
        .deploy("app", files, |app| app.shell_commands = vec!["echo python $(command -v python)".into()])
        .await;
    let log = world.log();
    assert_eq!(world.status(&build), BuildStatus::Success, "{log}");
    let python = world.build(&build).prepared.unwrap().python;
    assert!(log.contains(" ffmpeg python=3.") && log.contains(&format!("stdout| python {python}")), "{log}");
}

#[tokio::test]
async fn what_micromamba_refuses_fails_the_build_in_its_words() {
    let tools = micromamba();
    let world = world(&tools);
    let build = world.deploy("app", GOOD, |app| app.conda = vec!["no-such-package".into()]).await;
    let log = world.log();
    assert_eq!(world.status(&build), BuildStatus::BuildFailure);
    assert!(log.contains("stderr| nothing provides no-such-package"), "{log}");
    assert!(
        log.contains("==> the conda packages could not be installed: micromamba ended with exit status 1"),
        "{log}"
    );
    let left: Vec<_> = std::fs::read_dir(world.options.data_dir.join("environments")).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
}
