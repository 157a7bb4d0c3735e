//! Projects, keys, apps and builds.

use std::sync::Arc;
use std::time::Duration;

use queue::app::{AppConfig, Contract, Function};
use queue::lease::{Release, Released};
use queue::limits::{KEYS_MAX, WEBHOOK_SECRETS_MAX};
use queue::outcome::Code;
use queue::port::{Accepted, Claim, StoreError};
use queue::registry::{
    App, BuildStatus, FreshKeys, Identity, KeyMade, KeyView, NewBuild, NewProject, Prepared, Rotated, Scope,
};
use queue::run::RunState;
use queue::{AppId, BuildId, Timestamp};

use crate::world::{Engine, World, app, project};

fn build_id(number: u8) -> BuildId {
    format!("b-{number:016x}").parse().unwrap()
}

fn new_build(world: &World<impl Engine>, number: u8, app: &AppId) -> NewBuild {
    world.pass(Duration::from_millis(1));
    let config = AppConfig { cpu: Some(2.5), pip: vec!["numpy==2.1".into()], ..AppConfig::default() };
    let (id, app, created_at) = (build_id(number), app.clone(), world.now());
    NewBuild { id, app, config, upload_token_hash: [number; 32], created_at }
}

fn function(name: &str) -> Function {
    let (name, contract) = (name.to_owned(), Contract::Keywords);
    Function { name, contract, parameters: Vec::new(), takes_any: true, streams: false }
}

pub(crate) async fn with_project(world: &World<impl Engine>) {
    world.store.create_project(world.new_project(1)).await.unwrap();
}

/// Deploys an app with one function.
pub(crate) async fn deployed(world: &World<impl Engine>, number: u8, app: &AppId) -> Arc<App> {
    world.store.register_build(new_build(world, number, app)).await.unwrap();
    world
        .store
        .activate(&build_id(number), vec![function("predict")])
        .await
        .unwrap()
        .expect("it becomes live")
}

pub(crate) async fn a_project_is_made_once(world: World<impl Engine>) {
    assert!(world.store.projects().await.unwrap().is_empty());
    with_project(&world).await;
    world.pass(Duration::from_secs(1));
    world.store.create_project(world.new_project(2)).await.unwrap();
    let again = NewProject { webhook_secret: "whsec_other".into(), ..world.new_project(1) };
    world.store.create_project(again).await.unwrap();

    let ids: Vec<_> = world.store.projects().await.unwrap().into_iter().map(|project| project.id).collect();
    assert_eq!(ids, [project(1), project(2)]);
    let first = world.store.project(&project(1)).await.unwrap().unwrap();
    assert_eq!((first.webhook_secret(), first.token_secret.as_slice()), ("whsec_1", &[1; 32][..]));
    assert!(world.store.project(&project(3)).await.unwrap().is_none());
}

pub(crate) async fn keys_open_what_they_should_until_they_are_rotated(world: World<impl Engine>) {
    with_project(&world).await;
    let identity = |scope| Some(Identity { project: project(1), scope });
    assert_eq!(world.store.identify(&[1; 32]).await.unwrap(), identity(Scope::Inference));
    assert_eq!(world.store.identify(&[101; 32]).await.unwrap(), identity(Scope::Everything));
    assert_eq!(world.store.identify(&[9; 32]).await.unwrap(), None);

    let fresh = FreshKeys { public_key_hash: Some([7; 32]), ..FreshKeys::default() };
    assert_eq!(world.store.rotate_keys(&project(1), fresh.clone()).await.unwrap(), Rotated::Done);
    assert_eq!(world.store.identify(&[1; 32]).await.unwrap(), None);
    assert_eq!(world.store.identify(&[7; 32]).await.unwrap(), identity(Scope::Inference));
    assert_eq!(
        world.store.identify(&[101; 32]).await.unwrap(),
        identity(Scope::Everything),
        "this one stays"
    );
    let kept = world.store.project(&project(1)).await.unwrap().unwrap();
    assert_eq!((kept.webhook_secret(), kept.token_secret.as_slice()), ("whsec_1", &[1; 32][..]));
    let token = FreshKeys { token_secret: Some(vec![7; 32]), ..FreshKeys::default() };
    world.store.rotate_keys(&project(1), token).await.unwrap();
    assert_eq!(world.store.project(&project(1)).await.unwrap().unwrap().token_secret, [7; 32]);
    assert_eq!(world.store.rotate_keys(&project(8), fresh).await.unwrap(), Rotated::Unknown);
}

fn fresh_secret(number: usize, overlap: Duration) -> FreshKeys {
    FreshKeys { webhook_secret: Some(format!("whsec_fresh_{number}")), overlap, ..FreshKeys::default() }
}

/// The webhook secrets of the project 1, newest first, with how long each still signs.
async fn signing(world: &World<impl Engine>) -> Vec<(String, Option<Duration>)> {
    let found = world.store.project(&project(1)).await.unwrap().unwrap();
    let left = |until: Option<Timestamp>| until.map(|until| until.since(world.now()));
    found.webhook_secrets.into_iter().map(|secret| (secret.secret, left(secret.expires_at))).collect()
}

pub(crate) async fn a_replaced_secret_signs_until_its_overlap_is_over(world: World<impl Engine>) {
    const HOUR: Duration = Duration::from_secs(3_600);
    with_project(&world).await;
    world.store.rotate_keys(&project(1), fresh_secret(1, HOUR)).await.unwrap();
    world.pass(HOUR / 4);
    world.store.rotate_keys(&project(1), fresh_secret(2, HOUR)).await.unwrap();
    let expected = [
        ("whsec_fresh_2".to_owned(), None),
        ("whsec_fresh_1".to_owned(), Some(HOUR)),
        ("whsec_1".to_owned(), Some(HOUR * 3 / 4)),
    ];
    assert_eq!(signing(&world).await, expected);
    for number in 3..WEBHOOK_SECRETS_MAX {
        let rotated = world.store.rotate_keys(&project(1), fresh_secret(number, HOUR)).await.unwrap();
        assert_eq!(rotated, Rotated::Done);
    }
    let until = world.now().plus(HOUR * 3 / 4);
    let one_more = fresh_secret(9, HOUR);
    assert_eq!(
        world.store.rotate_keys(&project(1), one_more.clone()).await.unwrap(),
        Rotated::TooMany(until)
    );
    assert_eq!(signing(&world).await.len(), WEBHOOK_SECRETS_MAX, "nothing changed");
    world.pass(HOUR * 3 / 4);
    assert_eq!(world.store.rotate_keys(&project(1), one_more).await.unwrap(), Rotated::Done);
    // Whoever has lost a secret to somebody else does not want it to go on.
    world.store.rotate_keys(&project(1), fresh_secret(10, Duration::ZERO)).await.unwrap();
    assert_eq!(signing(&world).await, [("whsec_fresh_10".to_owned(), None)]);
}

pub(crate) async fn asymmetric_signing_is_switched_on_with_one_key_that_stays(world: World<impl Engine>) {
    with_project(&world).await;
    let found = || async { world.store.project(&project(1)).await.unwrap().unwrap() };
    let keys = |found: &queue::registry::Project| {
        found.webhook_keys.iter().map(|key| key.secret.clone()).collect::<Vec<_>>()
    };
    assert!(!found().await.sign_v1a && found().await.webhook_keys.is_empty());
    assert!(world.store.sign_v1a(&project(1), true, "whsk_a".into()).await.unwrap());
    assert!(world.store.sign_v1a(&project(1), false, "whsk_b".into()).await.unwrap());
    assert!(!found().await.sign_v1a);
    assert!(world.store.sign_v1a(&project(1), true, "whsk_c".into()).await.unwrap());
    assert!(found().await.sign_v1a);
    assert_eq!(keys(&found().await), ["whsk_a"]);
    let fresh = FreshKeys {
        webhook_key: Some("whsk_d".into()),
        overlap: Duration::from_secs(60),
        ..FreshKeys::default()
    };
    world.store.rotate_keys(&project(1), fresh).await.unwrap();
    assert_eq!(keys(&found().await), ["whsk_d", "whsk_a"]);
    assert!(!world.store.sign_v1a(&project(8), true, "whsk_e".into()).await.unwrap());
}

pub(crate) async fn a_build_becomes_live_with_its_functions(world: World<impl Engine>) {
    with_project(&world).await;
    let new = new_build(&world, 1, &app("a"));
    let build = world.store.register_build(new.clone()).await.unwrap();
    assert_eq!((build.status, &build.config), (BuildStatus::Pending, &new.config));
    let shown = world.store.app(&app("a")).await.unwrap().unwrap();
    assert!(shown.live.is_none());
    assert_eq!((&shown.latest_build, shown.latest_status), (&build.id, BuildStatus::Pending));

    let prepared = Prepared { folder: "/data/apps/a".into(), python: "/usr/bin/python3".into() };
    let status = |status, prepared| world.store.set_build_status(&build.id, status, prepared);
    assert!(status(BuildStatus::Building, Some(prepared.clone())).await.unwrap());
    assert!(status(BuildStatus::Initializing, None).await.unwrap());
    world.pass(Duration::from_secs(1));
    let live = world.store.activate(&build.id, vec![function("predict")]).await.unwrap().unwrap();
    assert_eq!((live.latest_status, live.updated_at), (BuildStatus::Success, world.now()));
    assert!(live.function("predict").is_some() && live.function("other").is_none());
    let served = live.live.as_ref().unwrap();
    assert_eq!((&served.id, &served.prepared), (&build.id, &Some(prepared)));
    assert_eq!((&served.config, served.upload_token_hash), (&new.config, [1; 32]));
    let read = world.store.build(&build.id).await.unwrap().unwrap();
    assert_eq!((read.status, read.functions), (BuildStatus::Success, vec![function("predict")]));
    assert!(world.store.build(&build_id(9)).await.unwrap().is_none());
}

pub(crate) async fn a_newer_build_cancels_an_unfinished_one(world: World<impl Engine>) {
    with_project(&world).await;
    world.store.register_build(new_build(&world, 1, &app("a"))).await.unwrap();
    world.store.register_build(new_build(&world, 2, &app("a"))).await.unwrap();
    world.store.register_build(new_build(&world, 3, &app("b"))).await.unwrap();
    assert_eq!(world.store.build(&build_id(1)).await.unwrap().unwrap().status, BuildStatus::Cancelled);
    assert_eq!(world.store.build(&build_id(2)).await.unwrap().unwrap().status, BuildStatus::Pending);
    assert!(world.store.activate(&build_id(1), Vec::new()).await.unwrap().is_none());
    assert_eq!(world.store.app(&app("a")).await.unwrap().unwrap().latest_build, build_id(2));
}

pub(crate) async fn a_final_build_does_not_move(world: World<impl Engine>) {
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    assert!(!world.store.set_build_status(&build_id(1), BuildStatus::Cancelled, None).await.unwrap());
    assert!(!world.store.set_build_status(&build_id(9), BuildStatus::Building, None).await.unwrap());
    assert_eq!(world.store.build(&build_id(1)).await.unwrap().unwrap().status, BuildStatus::Success);
}

pub(crate) async fn a_failed_build_leaves_the_old_one_live(world: World<impl Engine>) {
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    world.store.register_build(new_build(&world, 2, &app("a"))).await.unwrap();
    assert!(world.store.set_build_status(&build_id(2), BuildStatus::InitFailure, None).await.unwrap());
    let shown = world.store.app(&app("a")).await.unwrap().unwrap();
    assert_eq!(shown.live.as_ref().unwrap().id, build_id(1));
    assert_eq!((&shown.latest_build, shown.latest_status), (&build_id(2), BuildStatus::InitFailure));
}

pub(crate) async fn scaling_changes_the_live_configuration(world: World<impl Engine>) {
    with_project(&world).await;
    let config = AppConfig { max_replicas: Some(7), ..AppConfig::default() };
    assert!(world.store.reconfigure(&app("a"), config.clone()).await.unwrap().is_none());
    world.store.register_build(new_build(&world, 1, &app("a"))).await.unwrap();
    assert!(world.store.reconfigure(&app("a"), config.clone()).await.unwrap().is_none());
    world.store.activate(&build_id(1), Vec::new()).await.unwrap();
    let changed = world.store.reconfigure(&app("a"), config.clone()).await.unwrap().unwrap();
    assert_eq!(changed.live.as_ref().unwrap().config, config);
    assert_eq!(world.store.app(&app("a")).await.unwrap().unwrap().live.as_ref().unwrap().config, config);
}

pub(crate) async fn apps_are_listed_by_project_and_name(world: World<impl Engine>) {
    with_project(&world).await;
    world.store.create_project(world.new_project(2)).await.unwrap();
    let theirs = AppId::new(&project(2), &"m".parse().unwrap());
    for (number, app) in [(1, app("z")), (2, theirs.clone()), (3, app("b"))] {
        deployed(&world, number, &app).await;
    }
    let ids = |apps: Vec<Arc<App>>| apps.iter().map(|app| app.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(world.store.apps(Some(&project(1))).await.unwrap()), [app("b"), app("z")]);
    assert_eq!(ids(world.store.apps(None).await.unwrap()), [app("b"), app("z"), theirs]);
}

pub(crate) async fn deleting_an_app_cancels_its_queued_runs_and_tells_their_webhooks(
    world: World<impl Engine>,
) {
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(world.queued(&app("a"), &["https://a.example/"]).await);
    }
    let mut delayed = world.new_run(&app("a"), &["https://a.example/"]);
    delayed.options.not_before = Some(world.now().plus(Duration::from_secs(60)));
    queued.push(delayed.id);
    assert!(matches!(world.store.accept(delayed, Claim::Later).await.unwrap(), Accepted::Queued));
    let bystander = world.queued(&app("b"), &[]).await;
    let lease = world.leased(&app("a"), &[]).await;

    assert!(world.store.delete_app(&app("a")).await.unwrap());
    assert!(world.store.app(&app("a")).await.unwrap().is_none());
    assert!(world.store.build(&build_id(1)).await.unwrap().is_none());
    for run in &queued {
        let view = world.view(*run).await;
        assert_eq!((view.state, view.error.unwrap().code), (RunState::Cancelled, Code::Cancelled));
    }
    assert_eq!(world.begin().await.len(), 4);
    assert_eq!(world.view(bystander).await.state, RunState::Queued);
    assert_eq!(world.store.backlog().await.unwrap(), [(app("b"), 1)]);
    // What runs may end.
    world.finish(lease, world.success(), &[]).await;
    assert_eq!(world.view(lease.run).await.state, RunState::Succeeded);
    assert!(!world.store.delete_app(&app("a")).await.unwrap());
}

pub(crate) async fn a_run_released_after_its_app_was_deleted_is_cancelled(world: World<impl Engine>) {
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    let lease = world.leased(&app("a"), &["https://a.example/"]).await;
    world.store.delete_app(&app("a")).await.unwrap();
    assert_eq!(world.store.release(lease, Release::Drained).await.unwrap(), Released::Ended(Code::Cancelled));
    assert_eq!(world.view(lease.run).await.state, RunState::Cancelled);
    assert_eq!(world.begin().await.len(), 1);
}

pub(crate) async fn a_run_accepted_after_its_app_was_deleted_is_cancelled(world: World<impl Engine>) {
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    let (late, later) = (world.new_run(&app("a"), &["https://a.example/"]), world.new_run(&app("a"), &[]));
    world.store.delete_app(&app("a")).await.unwrap();
    for (run, claim) in [(late, Claim::Later), (later, Claim::Now(world.token()))] {
        assert!(matches!(world.store.accept(run.clone(), claim).await.unwrap(), Accepted::Queued));
        assert_eq!(world.view(run.id).await.state, RunState::Cancelled);
    }
    assert_eq!(world.begin().await.len(), 1);
    assert_eq!(world.store.backlog().await.unwrap(), []);
}

pub(crate) async fn a_deleted_app_can_come_back(world: World<impl Engine>) {
    with_project(&world).await;
    deployed(&world, 1, &app("a")).await;
    world.store.delete_app(&app("a")).await.unwrap();
    deployed(&world, 2, &app("a")).await;
    let run = world.queued(&app("a"), &[]).await;
    assert_eq!(world.claim_one(&app("a")).await.lease.run, run);
}

pub(crate) async fn unfinished_builds_are_found(world: World<impl Engine>) {
    with_project(&world).await;
    for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
        world.store.register_build(new_build(&world, number, &app(name))).await.unwrap();
    }
    world.store.set_build_status(&build_id(2), BuildStatus::BuildFailure, None).await.unwrap();
    world.store.set_build_status(&build_id(3), BuildStatus::Building, None).await.unwrap();
    let builds = world.store.unfinished_builds().await.unwrap();
    assert_eq!(builds.iter().map(|build| build.id.clone()).collect::<Vec<_>>(), [build_id(1), build_id(3)]);
}

pub(crate) async fn a_build_of_nobody_is_refused(world: World<impl Engine>) {
    let refused = world.store.register_build(new_build(&world, 1, &app("a"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    assert!(world.store.app(&app("a")).await.unwrap().is_none());
}

fn key(world: &World<impl Engine>, id: &str, scope: Scope, expires_at: Option<Timestamp>) -> KeyView {
    let created_at = world.now();
    KeyView { id: id.into(), name: "website".into(), scope, created_at, expires_at, last_used_at: None }
}

pub(crate) async fn a_named_key_opens_until_it_is_revoked_or_expires(world: World<impl Engine>) {
    const HOUR: Duration = Duration::from_secs(3_600);
    with_project(&world).await;
    let short = key(&world, "key_1", Scope::Inference, Some(world.now().plus(2 * HOUR)));
    world.pass(Duration::from_millis(1));
    let long = key(&world, "key_2", Scope::Everything, None);
    for (key, hash) in [(&short, [51; 32]), (&long, [52; 32])] {
        let made = world.store.create_key(&project(1), key.clone(), hash).await.unwrap();
        assert_eq!(made, KeyMade::Done);
    }
    let opens = async |hash| world.store.identify(&hash).await.unwrap();
    let identity = |scope| Some(Identity { project: project(1), scope });
    assert_eq!(opens([51; 32]).await, identity(Scope::Inference));
    assert_eq!(opens([52; 32]).await, identity(Scope::Everything));
    world.settled().await;
    let used = |at| KeyView { last_used_at: Some(at), ..long.clone() };
    let first = world.now();
    let shown = world.store.keys(&project(1)).await.unwrap();
    assert_eq!(shown, [used(first), KeyView { last_used_at: Some(first), ..short.clone() }]);

    // To the hour: no use in between is written down.
    world.pass(HOUR / 2);
    assert!(opens([52; 32]).await.is_some());
    world.settled().await;
    assert_eq!(world.store.keys(&project(1)).await.unwrap()[0], used(first));
    world.pass(HOUR);
    assert!(opens([52; 32]).await.is_some());
    world.settled().await;
    assert_eq!(world.store.keys(&project(1)).await.unwrap()[0], used(world.now()));

    world.pass(HOUR / 2);
    assert_eq!(opens([51; 32]).await, None, "it expired at this very moment");
    assert!(!world.store.revoke_key(&project(2), "key_2").await.unwrap(), "it is another project's");
    assert!(world.store.revoke_key(&project(1), "key_2").await.unwrap());
    assert_eq!(opens([52; 32]).await, None);
    assert!(!world.store.revoke_key(&project(1), "key_2").await.unwrap());
    assert_eq!(opens([1; 32]).await, identity(Scope::Inference), "the project's own stays");
}

pub(crate) async fn a_project_keeps_so_many_named_keys_and_says_so(world: World<impl Engine>) {
    with_project(&world).await;
    let create = async |number: usize| {
        let mut hash = [200; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        let key = key(&world, &format!("key_{number}"), Scope::Inference, None);
        world.store.create_key(&project(1), key, hash).await.unwrap()
    };
    for number in 0..KEYS_MAX {
        assert_eq!(create(number).await, KeyMade::Done);
    }
    assert_eq!(create(KEYS_MAX).await, KeyMade::TooMany);
    assert!(world.store.revoke_key(&project(1), "key_7").await.unwrap());
    assert_eq!(create(KEYS_MAX).await, KeyMade::Done);
    let nobody = key(&world, "key_x", Scope::Inference, None);
    assert_eq!(world.store.create_key(&project(2), nobody, [3; 32]).await.unwrap(), KeyMade::Unknown);
}
