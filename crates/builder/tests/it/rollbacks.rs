//! Back to a former build, and what is kept for it.

use queue::event::EventKind;
use queue::port::{Builds as _, RollbackError};
use queue::registry::BuildStatus;

use crate::world::{World, app_id};

const GOOD: &[(&str, &str)] = &[("main.py", "def predict(): ...")];

#[tokio::test]
async fn an_app_goes_back_one_build_at_a_time_or_to_the_one_that_is_named() {
    let world = World::new();
    let app = app_id("app");
    let none = world.builder.roll_back(&app, None).await;
    assert!(matches!(none, Err(RollbackError::NoFormerBuild)), "{none:?}");
    let first = world.deploy("app", GOOD, |_| ()).await;
    assert!(matches!(world.builder.roll_back(&app, None).await, Err(RollbackError::NoFormerBuild)));
    let second = world.deploy("app", GOOD, |_| ()).await;
    let broken = world.deploy("app", &[("main.py", "raise ValueError")], |_| ()).await;
    let third = world.deploy("app", GOOD, |_| ()).await;

    assert_eq!(world.builder.roll_back(&app, None).await.unwrap(), second);
    assert_eq!(world.live("app"), Some(second.clone()));
    assert_eq!(world.builder.roll_back(&app, None).await.unwrap(), first);
    assert_eq!(world.builder.roll_back(&app, Some(&third)).await.unwrap(), third);
    assert_eq!(world.replicas.switched.lock().unwrap()[3..], [second, first, third.clone()]);

    let again = world.builder.roll_back(&app, Some(&third)).await;
    assert!(matches!(again, Err(RollbackError::AlreadyLive(_))), "{again:?}");
    let never = world.builder.roll_back(&app, Some(&broken)).await;
    assert!(matches!(never, Err(RollbackError::NeverLive(_, BuildStatus::InitFailure))), "{never:?}");
    let unknown = "b-00000000000000ff".parse().unwrap();
    let unknown = world.builder.roll_back(&app, Some(&unknown)).await;
    assert!(matches!(unknown, Err(RollbackError::Unknown(_))), "{unknown:?}");
    let kinds: Vec<_> = world.registry.events.lock().unwrap().iter().map(|event| event.kind).collect();
    let (deployed, back) = (EventKind::Deployed, EventKind::RolledBack);
    assert_eq!(kinds, [deployed, deployed, EventKind::DeployFailed, deployed, back, back, back]);
}

#[tokio::test]
async fn a_build_that_does_not_start_any_more_leaves_the_live_one() {
    let world = World::new();
    let former = world.deploy("app", GOOD, |_| ()).await;
    let live = world.deploy("app", GOOD, |_| ()).await;
    std::fs::write(world.folder(&former).join("app/main.py"), "raise ValueError").unwrap();
    let failed = world.builder.roll_back(&app_id("app"), None).await;
    assert!(matches!(failed, Err(RollbackError::Start(_))), "{failed:?}");
    assert_eq!((world.live("app"), world.status(&former)), (Some(live), BuildStatus::Success));
    assert_eq!(*world.replicas.discarded.lock().unwrap(), *std::slice::from_ref(&former));
    std::fs::remove_dir_all(world.folder(&former).join("app")).unwrap();
    let gone = world.builder.roll_back(&app_id("app"), Some(&former)).await;
    assert!(matches!(gone, Err(RollbackError::Gone(_))), "{gone:?}");
}

#[tokio::test]
async fn files_are_kept_for_two_builds_back_and_as_long_as_a_replica_needs_them() {
    let world = World::new();
    let mut builds = Vec::new();
    for _ in 0..5 {
        builds.push(world.deploy("app", GOOD, |_| ()).await);
        // The first one works on something that takes long.
        *world.replicas.in_use.lock().unwrap() = vec![builds[0].clone()];
    }
    let there = |world: &World| builds.iter().map(|build| world.folder(build).exists()).collect::<Vec<_>>();
    world.until(|| (there(&world) == [true, false, true, true, true]).then_some(())).await;
    world.replicas.in_use.lock().unwrap().clear();
    world.builder.collect().await;
    assert_eq!(there(&world), [false, false, true, true, true]);
}

#[tokio::test]
async fn what_is_being_built_does_not_take_the_place_of_what_somebody_went_back_to() {
    let world = World::new();
    let former = world.deploy("app", GOOD, |_| ()).await;
    world.deploy("app", GOOD, |_| ()).await;
    let wait = "echo waiting now; sleep 987".to_owned();
    let under_way = world.begin("app", GOOD, |app| app.shell_commands = vec![wait]).await;
    world.printed("waiting ").await;
    world.registry.latest.lock().unwrap().insert(app_id("app"), under_way.clone());
    assert_eq!(world.builder.roll_back(&app_id("app"), None).await.unwrap(), former);
    assert_eq!(world.end_of(&under_way).await, BuildStatus::Cancelled);
    assert_eq!(world.live("app"), Some(former));
}
