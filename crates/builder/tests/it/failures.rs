//! Builds that cannot be: what is said, what is recorded, and that the live version stays.

use std::os::unix::fs::PermissionsExt as _;

use queue::registry::BuildStatus;

use crate::world::{World, set};

const GOOD: &[(&str, &str)] = &[("main.py", "def predict(): ...")];

#[tokio::test]
async fn an_import_that_fails_is_told_with_its_traceback_and_the_old_version_stays() {
    let world = World::new();
    let good = world.deploy("app", GOOD, |_| ()).await;
    let bad = world.deploy("app", &[("main.py", "import nothing_of_this_name\n")], |_| ()).await;
    assert_eq!(world.status(&bad), BuildStatus::InitFailure, "{}", world.log());
    assert_eq!(world.live("app"), Some(good));
    assert_eq!(world.replicas.discarded.lock().unwrap().as_slice(), std::slice::from_ref(&bad));
    let log = world.log();
    assert!(log.contains("stderr| ModuleNotFoundError: No module named 'nothing_of_this_name'"), "{log}");
    assert!(log.ends_with("system| ==> main.py could not be imported\n"), "{log}");
    world.until(|| (!world.folder(&bad).exists()).then_some(())).await;
}

#[tokio::test]
async fn a_command_that_fails_ends_the_build_with_its_status() {
    let world = World::new();
    let build = world
        .deploy("app", GOOD, |app| {
            app.shell_commands = vec!["echo first".into(), "(exit 3)".into(), "echo never".into()];
        })
        .await;
    let log = world.log();
    assert_eq!(world.status(&build), BuildStatus::BuildFailure, "{log}");
    assert!(log.contains("stdout| first") && !log.contains("stdout| never"), "{log}");
    assert!(log.contains("==> shell_commands: bash ended with exit status 3"), "{log}");
    // The environment that was begun is not taken for a whole one.
    let left: Vec<_> = std::fs::read_dir(world.options.data_dir.join("environments")).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

#[tokio::test]
async fn an_archive_that_breaks_a_rule_is_told_by_entry_and_rule() {
    let world = World::new();
    let build = world.register("app", queue::app::AppConfig::default());
    world.upload(&build, b"#!/bin/sh\nrm -rf / # not a zip at all".to_vec()).await.unwrap();
    assert_eq!(world.end_of(&build).await, BuildStatus::BuildFailure);
    assert!(world.log().contains("==> the archive cannot be used: it is no zip"), "{}", world.log());
}

#[tokio::test]
async fn a_python_that_is_not_there_is_told_with_those_that_are() {
    let world = World::new();
    let build = world.deploy("app", GOOD, |app| app.python_version = Some("3.77".into())).await;
    let log = world.log();
    assert_eq!(world.status(&build), BuildStatus::BuildFailure, "{log}");
    assert!(
        log.contains(
            "==> there is no Python 3.77 on this machine, and it could not be fetched; there are 3."
        ),
        "{log}"
    );
}

#[tokio::test]
async fn a_machine_without_python_is_told_what_to_install() {
    let world = World::with(|options| set(options, "PATH", "/nonexistent"));
    let build = world.deploy("app", GOOD, |_| ()).await;
    assert_eq!(world.status(&build), BuildStatus::BuildFailure);
    assert!(world.log().contains("install it (`apt install python3`)"), "{}", world.log());
}

#[tokio::test]
async fn a_machine_with_neither_uv_nor_pip_is_told_what_to_install() {
    let tools = tempfile::tempdir().unwrap();
    let python = tools.path().join("python3");
    // A Python that can make environments, and has neither pip nor a whole venv.
    let script = "#!/bin/sh\nPATH=/usr/bin:/bin\ncase \"$*\" in\n\
        *--without-pip*) for last; do :; done; mkdir -p \"$last/bin\"; cp \"$0\" \"$last/bin/python\";;\n\
        *\" -c \"*) echo \"$0\"; echo 3.11.0;;\n*) echo No module >&2; exit 1;;\nesac\n";
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let world = World::with(|options| {
        set(options, "PATH", tools.path());
        options.cache_dir = options.data_dir.join("empty-cache");
    });
    let build = world.deploy("app", GOOD, |app| app.pip = vec!["numpy".into()]).await;
    assert_eq!(world.status(&build), BuildStatus::BuildFailure);
    let log = world.log();
    assert!(log.contains("neither uv nor pip nor venv") && log.contains("apt install python3-pip"), "{log}");
}

#[tokio::test]
async fn packages_that_are_not_python_are_told_what_to_do_about() {
    let world = World::with(|options| {
        // A machine that has micromamba is taken for one that has not.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).filter(|folder| !folder.join("micromamba").exists());
        set(options, "PATH", std::env::join_paths(folders).unwrap());
        options.environment.retain(|(name, _)| name != "MAMBA_EXE");
    });
    let conda = world.deploy("app", GOOD, |app| app.conda = vec!["cuda=11.8".into()]).await;
    assert_eq!(world.status(&conda), BuildStatus::BuildFailure);
    let log = world.log();
    assert!(log.contains("need micromamba, which this machine does not have: cuda=11.8; put it on"), "{log}");
    let apt = world.deploy("app", GOOD, |app| app.apt = vec!["no-package-of-this-name=1".into()]).await;
    if world.log().contains("this machine has no dpkg") {
        return;
    }
    assert_eq!(world.status(&apt), BuildStatus::BuildFailure);
    assert!(world.log().contains("run `apt install no-package-of-this-name`, or"), "{}", world.log());
}

#[tokio::test]
async fn an_interpreter_that_is_not_there_is_fetched() {
    // Stands in for uv: it has no Python 3.66 until somebody fetches it.
    let tools = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let python =
        std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|path| path.is_file());
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n--version) echo uv 0.9.0;;\n\
         *find*) test -e \"$UV_PYTHON_INSTALL_DIR/fetched\" && echo {};;\n\
         *install*3.66*) mkdir -p \"$UV_PYTHON_INSTALL_DIR\"; : > \"$UV_PYTHON_INSTALL_DIR/fetched\"; echo fetched;;\n\
         *) echo no route to the index >&2; exit 2;;\nesac\n",
        python.unwrap().display()
    );
    let uv = tools.path().join("uv");
    std::fs::write(&uv, script).unwrap();
    std::fs::set_permissions(&uv, std::fs::Permissions::from_mode(0o755)).unwrap();
    let world = World::with(|options| {
        let folders = [tools.path().to_owned()].into_iter().chain(std::env::split_paths(&path));
        set(options, "PATH", std::env::join_paths(folders).unwrap());
        options.cache_dir = options.data_dir.join("empty-cache");
    });
    let absent = world.deploy("app", GOOD, |app| app.python_version = Some("3.77".into())).await;
    let log = world.log();
    assert_eq!(world.status(&absent), BuildStatus::BuildFailure, "{log}");
    assert!(log.contains("fetching python 3.77") && log.contains("no route to the index"), "{log}");
    assert!(log.contains("there is no Python 3.77 on this machine"), "{log}");

    let build = world.deploy("app", GOOD, |app| app.python_version = Some("3.66".into())).await;
    assert_eq!(world.status(&build), BuildStatus::Success, "{}", world.log());
}

/// Stands in for Debian's tools: nothing is installed until somebody installs it.
fn debian() -> tempfile::TempDir {
    let tools = tempfile::tempdir().unwrap();
    let folder = tools.path().display();
    for (name, script) in [
        ("dpkg-query", format!("for last; do :; done; test -e {folder}/has-$last && printf installed")),
        (
            "apt-get",
            format!(
                "echo \"apt-get $* ($DEBIAN_FRONTEND)\"; test $1 = update && exit 0\n\
                 for last; do :; done; test $last = no-such-package && exit 100; : > {folder}/has-$last"
            ),
        ),
    ] {
        let path = tools.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    tools
}

#[tokio::test]
async fn debian_packages_are_installed_where_the_server_may() {
    let tools = debian();
    let world = World::with(|options| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [tools.path().to_owned()].into_iter().chain(std::env::split_paths(&path));
        set(options, "PATH", std::env::join_paths(folders).unwrap());
        options.install_apt_packages = true;
    });
    let build = world.deploy("app", GOOD, |app| app.apt = vec!["ffmpeg=7:5.1".into()]).await;
    let log = world.log();
    if !rustix::process::geteuid().is_root() {
        assert_eq!(world.status(&build), BuildStatus::BuildFailure);
        assert!(log.contains("ffmpeg; the server may install them, but is not root"), "{log}");
        return;
    }
    assert_eq!(world.status(&build), BuildStatus::Success, "{log}");
    assert!(log.contains("apt-get update -qq (noninteractive)"), "{log}");
    assert!(
        log.contains("apt-get install -qq --yes --no-install-recommends -- ffmpeg (noninteractive)"),
        "{log}"
    );
    let again = world.deploy("app", GOOD, |app| app.apt = vec!["ffmpeg".into()]).await;
    assert_eq!(world.status(&again), BuildStatus::Success);
    assert_eq!(world.log().matches("apt-get install").count(), 1, "what is there is not installed again");

    let absent = world.deploy("app", GOOD, |app| app.apt = vec!["no-such-package".into()]).await;
    assert_eq!(world.status(&absent), BuildStatus::BuildFailure);
    assert!(
        world
            .log()
            .contains("the Debian packages could not be installed: apt-get ended with exit status 100"),
        "{}",
        world.log()
    );
}

#[tokio::test]
async fn a_package_that_does_not_exist_fails_with_the_words_of_the_installer() {
    let world = World::new();
    let build =
        world.deploy("app", GOOD, |app| app.pip = vec!["no-package-of-this-name-at-all==77.1".into()]).await;
    if world.is_offline(&build) {
        return;
    }
    let log = world.log();
    assert_eq!(world.status(&build), BuildStatus::BuildFailure, "{log}");
    assert!(log.contains("no-package-of-this-name-at-all"), "{log}");
    assert!(log.contains("==> the requirements could not be installed: uv ended with exit status"), "{log}");
}
