//! Builds that are stopped: nothing of them runs on, and what the server's end stopped begins again.

use std::ffi::OsString;
use std::path::Path;

use queue::port::Builds as _;
use queue::registry::BuildStatus;

use crate::world::World;

const GOOD: &[(&str, &str)] = &[("main.py", "def predict(): ...")];

/// Prints the ids of itself and of a child, then both wait.
const WAITS: &str = "sleep 987 & echo child $!; echo self $$; wait";

fn runs(pid: &str) -> bool {
    // A zombie has ended; whoever adopted it has not looked yet.
    std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

async fn ends_with_all_it_started(world: World) {
    let build = world.begin("app", GOOD, |app| app.shell_commands = vec![WAITS.into()]).await;
    let (child, own) = (world.printed("child ").await, world.printed("self ").await);
    assert!(runs(&child) && runs(&own));
    assert!(world.builder.cancel(&build).await.unwrap());
    assert_eq!(world.status(&build), BuildStatus::Cancelled);
    world.until(|| (!runs(&child) && !runs(&own)).then_some(())).await;
    world.until(|| world.log().ends_with("==> the build was stopped\n").then_some(())).await;
    assert!(!world.builder.cancel(&build).await.unwrap(), "there is nothing left to stop");
    assert_eq!(world.live("app"), None);
}

#[tokio::test]
async fn a_cancelled_build_ends_with_all_it_started() {
    ends_with_all_it_started(World::new()).await;
}

#[tokio::test]
async fn a_supervised_build_ends_through_its_supervisor() {
    // Does what the product's supervisor does: takes the whole session with it on SIGTERM.
    let script = "setsid \"$@\" & child=$!; trap 'kill -9 -$child; exit 143' TERM; wait $child";
    let supervisor: Vec<OsString> = ["/bin/sh", "-c", script, "supervisor"].map(Into::into).to_vec();
    ends_with_all_it_started(World::with(|options| options.supervisor = supervisor)).await;
}

#[tokio::test]
async fn a_build_that_hangs_ends_at_its_limit_with_all_it_started() {
    let world = World::with(|options| options.build_limit = std::time::Duration::from_secs(3));
    let build = world.begin("app", GOOD, |app| app.shell_commands = vec![WAITS.into()]).await;
    assert_eq!(world.end_of(&build).await, BuildStatus::BuildFailure);
    let log = world.log();
    assert!(log.ends_with("shell_commands: the build took longer than 3 s\n"), "{log}");
    // On a machine that was too busy to begin with the commands there is nothing to look for.
    for line in log.lines() {
        let pid = line.strip_prefix("stdout| child ").or_else(|| line.strip_prefix("stdout| self "));
        if let Some(pid) = pid {
            world.until(|| (!runs(pid)).then_some(())).await;
        }
    }
    assert_eq!(world.live("app"), None);
}

#[tokio::test]
async fn the_newest_build_of_an_app_wins() {
    let world = World::new();
    let older = world.begin("app", GOOD, |app| app.shell_commands = vec![WAITS.into()]).await;
    world.printed("self ").await;
    let newer = world.deploy("app", GOOD, |_| ()).await;
    assert_eq!(world.end_of(&older).await, BuildStatus::Cancelled);
    assert_eq!((world.status(&newer), world.live("app")), (BuildStatus::Success, Some(newer)));
}

#[tokio::test]
async fn a_build_that_the_servers_end_stopped_begins_again() {
    let mut world = World::new();
    let flag = world.options.data_dir.join("flag");
    let command = format!("test -e {} || {{ {WAITS}; }}", flag.display());
    let build = world.begin("app", GOOD, |app| app.shell_commands = vec![command]).await;
    let own = world.printed("self ").await;
    world.builder.stop().await;
    assert!(!runs(&own));
    assert_eq!(world.status(&build), BuildStatus::Building, "no verdict: the build goes on");

    std::fs::write(flag, "").unwrap();
    world.restart();
    world.builder.resume().await.unwrap();
    assert_eq!(world.end_of(&build).await, BuildStatus::Success, "{}", world.log());
    assert_eq!(world.live("app"), Some(build));
}
