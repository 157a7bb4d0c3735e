//! The key file: who may hold it, what happens without it, and how its key is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use queue::app::AppConfig;
use queue::delivery::Verdict;
use queue::inbox::Inbox;
use queue::port::{Accepted, Claim, Inboxes as _, Registry as _, Runs as _, Secrets as _};
use queue::registry::{NewBuild, NewProject, SecretChange};
use queue::signature::CallerSecret;
use queue::webhook::WebhookHeaders;
use store::{KeyFileError, OpenError, Store};

use super::{again, dir, fresh};
use crate::world::{World, app, project};

const CALLERS: &[u8] = b"what the caller brought, in clear";
const TOKEN_SECRET: &[u8] = b"what signs tokens, in clear";
const HEADER: &str = "a header of the caller, in clear";
const APP_HEADER: &str = "a header of the app, in clear";
const SECRET: &str = "a secret of the project, in clear";
const BUILD: &str = "b-0123456789abcdef";
const TOKEN: &str = "view-token-in-clear";
const HOOK: &str = "https://a.test/hook";

fn key_file(world: &World<Store>) -> PathBuf {
    dir(world).join("secret.key")
}

/// A world with every kind of secret in it: a project's, an inbox's, a caller's.
async fn with_secrets() -> World<Store> {
    let world = fresh();
    let made = NewProject { token_secret: TOKEN_SECRET.to_vec(), ..world.new_project(1) };
    world.store.create_project(made).await.unwrap();
    let inbox = Inbox {
        id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        view_token: TOKEN.into(),
        ..Inbox::new(project(1), world.entropy.as_ref(), world.now())
    };
    assert!(world.store.create_inbox(inbox).await.unwrap());
    let mut run = world.new_run(&app("a"), &[HOOK]);
    run.options.caller_secret = Some(CallerSecret::new(CALLERS));
    run.options.webhook_headers = Some(headers(HEADER));
    let token = world.token();
    let accepted = world.store.accept(run, Claim::Now(token)).await.unwrap();
    let Accepted::Leased(lease) = accepted else { panic!("{accepted:?}") };
    world.finish(lease, world.success(), &[]).await;
    let build = NewBuild {
        id: BUILD.parse().unwrap(),
        app: app("a"),
        config: AppConfig { webhook_headers: Some(headers(APP_HEADER)), ..AppConfig::default() },
        upload_token_hash: [1; 32],
        created_at: world.now(),
    };
    world.store.register_build(build).await.unwrap();
    let change = SecretChange { set: [("TOKEN".into(), SECRET.into())].into(), remove: vec![] };
    assert!(world.store.change_secrets(&project(1), None, change).await.unwrap());
    world
}

fn headers(value: &str) -> WebhookHeaders {
    WebhookHeaders::new(vec![("X-Api-Key".into(), value.into())]).unwrap()
}

/// Every secret can still be read.
async fn assert_opens(world: &World<Store>) {
    let found = world.store.project(&project(1)).await.unwrap().unwrap();
    assert_eq!((found.webhook_secret(), found.token_secret.as_slice()), ("whsec_1", TOKEN_SECRET));
    let inbox = "0123456789abcdef0123456789abcdef".parse().unwrap();
    assert_eq!(world.store.inbox(&inbox).await.unwrap().unwrap().view_token, TOKEN);
    let due = world.begin().await;
    assert_eq!(due[0].caller_secret, Some(CallerSecret::new(CALLERS)));
    assert_eq!(due[0].headers, Some(headers(HEADER)));
    let build = world.store.build(&BUILD.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(build.config.webhook_headers, Some(headers(APP_HEADER)));
    assert_eq!(world.store.secrets_of(&app("a")).await.unwrap()["TOKEN"], SECRET);
    world.end(&due[0], Verdict::Retry(world.now()), 500);
    world.settled().await;
}

/// Names and bytes of everything in the folder but the lock, whose holder is written at each try, the reserve,
/// which holds nothing, and what SQLite keeps in shared memory.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| !name.contains("lock") && name != "reserve")
        .filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal"))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn no_secret_stands_in_clear_in_any_file() {
    let world = with_secrets().await;
    assert_opens(&world).await;
    let mode = fs::metadata(key_file(&world)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let check = || {
        for entry in fs::read_dir(dir(&world)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap_or_default();
            let headers = [HEADER.as_bytes(), APP_HEADER.as_bytes(), SECRET.as_bytes()];
            for secret in headers.into_iter().chain([CALLERS, TOKEN.as_bytes(), b"whsec_1", TOKEN_SECRET]) {
                let found = bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{} holds {}", path.display(), String::from_utf8_lossy(secret));
            }
        }
    };
    check();
    world.store.close().await;
    check();
}

#[tokio::test]
async fn without_the_right_key_file_nothing_is_opened_and_nothing_changed() {
    let world = with_secrets().await;
    world.store.close().await;
    let path = key_file(&world);
    let good = fs::read(&path).unwrap();
    let before = contents(dir(&world));
    let other = fresh();
    let foreign = fs::read(key_file(&other)).unwrap();
    let later = String::from_utf8(good.clone()).unwrap().replace("\n1 ", "\n2 ");

    type Spoil<'a> = Box<dyn Fn() + 'a>;
    type Expected = fn(&KeyFileError) -> bool;
    let write = |bytes: &[u8], mode| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let cases: Vec<(Spoil<'_>, Expected, &str)> = vec![
        (
            Box::new(|| fs::remove_file(&path).unwrap()),
            |why| matches!(why, KeyFileError::Missing),
            "--key-file",
        ),
        (Box::new(|| write(&foreign, 0o600)), |why| matches!(why, KeyFileError::Wrong), "another one"),
        (
            Box::new(|| write(later.as_bytes(), 0o600)),
            |why| matches!(why, KeyFileError::Lacks { version: 1 }),
            "version 1",
        ),
        (
            Box::new(|| write(&good, 0o640)),
            |why| matches!(why, KeyFileError::Exposed { mode: 0o640 }),
            "chmod 600",
        ),
        (
            Box::new(|| write(b"1 short\n", 0o600)),
            |why| matches!(why, KeyFileError::Damaged { line: 1 }),
            "line 1",
        ),
        (Box::new(|| write(b"", 0o600)), |why| matches!(why, KeyFileError::Empty), "no key"),
    ];
    for (spoil, expected, word) in cases {
        spoil();
        let spoilt = contents(dir(&world));
        let refused = again(&world).err().expect("it must not open");
        let said = refused.to_string();
        assert!(
            matches!(&refused, OpenError::KeyFile { path: named, why } if *named == path && expected(why)),
            "{said}"
        );
        assert!(said.contains(word) && said.contains(path.to_str().unwrap()), "{said}");
        assert!(contents(dir(&world)) == spoilt, "something was changed: {said}");
        write(&good, 0o600);
    }
    assert!(contents(dir(&world)) == before);
    let reopened = World { store: again(&world).unwrap(), ..world };
    assert_opens(&reopened).await;
}

#[tokio::test]
async fn a_key_file_of_somebody_else_is_refused() {
    let world = with_secrets().await;
    world.store.close().await;
    let given_away = std::os::unix::fs::chown(key_file(&world), Some(65_534), None);
    if let Err(error) = given_away {
        println!("SKIP: only root gives files away: {error}");
        return;
    }
    let refused = again(&world).err().unwrap();
    assert!(
        matches!(&refused, OpenError::KeyFile { why: KeyFileError::Foreign { owner: 65_534, .. }, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_key_file_from_elsewhere_is_used_and_made_there() {
    let keys = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = super::options(folder.path());
    options.key_file = keys.path().join("postback.key");
    let open = || Store::open(options.clone(), crate::world::clock(), crate::world::entropy());
    open().unwrap().close().await;
    assert!(options.key_file.exists() && !folder.path().join("secret.key").exists());
    open().unwrap().close().await;
    fs::rename(&options.key_file, keys.path().join("moved")).unwrap();
    assert!(matches!(open().err().unwrap(), OpenError::KeyFile { why: KeyFileError::Missing, .. }));
}

#[tokio::test]
async fn a_changed_key_seals_everything_anew_and_the_old_one_opens_nothing() {
    let world = with_secrets().await;
    let old = fs::read_to_string(key_file(&world)).unwrap();
    assert_eq!(world.store.rotate_encryption().await.unwrap(), 7);
    assert_opens(&world).await;
    let new = fs::read_to_string(key_file(&world)).unwrap();
    assert!(new.contains("\n2 ") && !new.contains("\n1 "), "the old key is gone");
    world.store.close().await;
    fs::write(key_file(&world), &old).unwrap();
    assert!(again(&world).is_err());
    fs::write(key_file(&world), &new).unwrap();
    let reopened = World { store: again(&world).unwrap(), ..world };
    assert_opens(&reopened).await;
}

#[tokio::test]
async fn a_change_of_the_key_that_was_cut_short_is_finished_by_the_next() {
    let world = with_secrets().await;
    world.store.close().await;
    // As a kill leaves it: the new key is in the file, and some values are sealed with it.
    let line = "2 AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\n";
    let old = fs::read_to_string(key_file(&world)).unwrap();
    fs::write(key_file(&world), old + line).unwrap();
    let world = World { store: again(&world).unwrap(), ..world };
    world.store.create_project(world.new_project(2)).await.unwrap();
    assert_opens(&world).await;
    let halfway = super::after_a_kill(&world);
    assert_opens(&halfway).await;
    assert_eq!(halfway.store.rotate_encryption().await.unwrap(), 7, "the second project is sealed already");
    assert_opens(&halfway).await;
    let file = fs::read_to_string(key_file(&halfway)).unwrap();
    assert!(file.ends_with(line) && !file.contains("\n1 "), "the key of the first try is the one that stays");
}
