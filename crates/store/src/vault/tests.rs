//! Sealed values stay in their places, and databases from before the vault are sealed when they are opened.

use std::fs;

use queue::port::{Inboxes as _, Registry as _};
use queue::{Clock, Timestamp};
use rusqlite::params;

use super::*;
use crate::{Options, Store, migrate};

struct Still;
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }
}

/// No nonce comes twice.
struct Counting(std::sync::atomic::AtomicU8);
impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
    }
}

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(Counting(1.into()))
}

fn vault(path: &Path) -> Vault {
    let file = KeyFile::create(path, &*entropy()).unwrap();
    Vault { ring: Arc::new(RwLock::new(Ring::new(file))), entropy: entropy() }
}

/// A database in memory with the newest schema, for tests that look at plans.
pub(crate) fn newest_schema() -> Connection {
    let dir = tempfile::tempdir().unwrap();
    let conn = Connection::open_in_memory().unwrap();
    Vault::unlock(&conn, &dir.path().join("key"), entropy()).unwrap();
    migrate::run(&conn, Path::new("memory"), migrate::DATABASE).unwrap();
    conn
}

#[test]
fn a_sealed_value_opens_in_its_own_place_only() {
    let dir = tempfile::tempdir().unwrap();
    let vault = vault(&dir.path().join("key"));
    let place = Place::new("runs", b"one", "caller_secret");
    let sealed = vault.seal(place, b"mine");
    assert_eq!(vault.open(place, &sealed).unwrap(), b"mine");
    assert_ne!(vault.seal(place, b"mine"), sealed, "every nonce is a fresh one");
    for elsewhere in [
        Place::new("runs", b"two", "caller_secret"),
        Place::new("inboxes", b"one", "caller_secret"),
        Place::new("runs", b"one", "other"),
        // The same bytes in a row, cut elsewhere.
        Place::new("run", b"sone", "caller_secret"),
    ] {
        assert!(vault.open(elsewhere, &sealed).is_err());
    }
    for at in 0..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        assert!(vault.open(place, &damaged).is_err(), "byte {at} does not matter");
    }
    for length in 0..sealed.len() {
        assert!(vault.open(place, &sealed[..length]).is_err());
    }
}

#[test]
fn a_key_file_is_read_as_it_was_written_and_damage_is_named_by_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    assert!(KeyFile::read(&path).unwrap().is_none());
    let made = KeyFile::create(&path, &*entropy()).unwrap();
    assert!(KeyFile::create(&path, &*entropy()).is_err(), "an existing file is left alone");
    assert_eq!(KeyFile::read(&path).unwrap().unwrap().keys, made.keys);
    let more = made.replace(BTreeMap::from([(1, [1; 32]), (7, [7; 32])])).unwrap();
    assert_eq!(KeyFile::read(&path).unwrap().unwrap().keys, more.keys);
    let good = fs::read_to_string(&path).unwrap();
    for (text, line) in [
        (good.replace("7 ", "seven "), 4),
        (good.replace("1 ", "0 "), 3),
        (good.replace("7 ", "1 "), 4),
        (good.replace('=', ""), 3),
        (good.trim_end().trim_end_matches('=').trim_end_matches(char::is_alphanumeric).to_owned(), 4),
    ] {
        fs::write(&path, &text).unwrap();
        let refused = KeyFile::read(&path).err().unwrap();
        assert!(
            matches!(refused, KeyFileError::Damaged { line: found } if found == line),
            "{text}: {refused}"
        );
    }
    fs::write(&path, "# nothing\n").unwrap();
    assert!(matches!(KeyFile::read(&path), Err(KeyFileError::Empty)));
}

#[tokio::test]
async fn secrets_of_an_older_schema_are_sealed_and_leave_no_trace_in_the_files() {
    const SECRETS: [&str; 4] =
        ["whsec_of_an_older_schema", "token secret of old", "view-token-of-old", "what a caller brought"];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("postback.db");
    let vault_step = migrate::DATABASE.iter().position(|step| step.contains("CREATE TABLE vault")).unwrap();
    let conn = crate::connection::writer(&path, crate::connection::Durability::Full).unwrap();
    migrate::run(&conn, &path, &migrate::DATABASE[..vault_step]).unwrap();
    let run = [7u8; 16];
    conn.execute(
        "INSERT INTO projects (id, public_key_hash, private_key_hash, webhook_secret, token_secret, created_at)
         VALUES ('p-1', zeroblob(32), randomblob(32), ?1, ?2, 0)",
        params![SECRETS[0], SECRETS[1].as_bytes()],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO inboxes (id, project, view_token, created_at) VALUES (?1, 'p-1', ?2, 0)",
        params!["0123456789abcdef0123456789abcdef", SECRETS[2]],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO runs (id, app, function, generation, mode, state, accepted_at, caller_secret)
         VALUES (?1, 1, 'f', 'v3', 'async', 'queued', 0, ?2)",
        params![run, SECRETS[3].as_bytes()],
    )
    .unwrap();
    conn.execute("INSERT INTO app_numbers (number, app, project) VALUES (1, 'p-1-a', 'p-1')", []).unwrap();
    drop(conn);
    let holds = |secret: &str| {
        fs::read_dir(dir.path()).unwrap().any(|entry| {
            let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
            bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
        })
    };
    assert!(SECRETS.iter().all(|secret| holds(secret)), "they stood there in clear");

    let store = Store::open(Options::new(dir.path()), Arc::new(Still), entropy()).unwrap();
    for secret in SECRETS {
        assert!(!holds(secret), "`{secret}` is still in a file");
    }
    let project = store.project(&"p-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(
        (project.webhook_secret(), project.token_secret.as_slice()),
        (SECRETS[0], SECRETS[1].as_bytes())
    );
    let inbox = "0123456789abcdef0123456789abcdef".parse().unwrap();
    assert_eq!(store.inbox(&inbox).await.unwrap().unwrap().view_token, SECRETS[2]);
    let sealed: Vec<u8> = Connection::open(&path)
        .unwrap()
        .query_row("SELECT caller_secret FROM runs", [], |row| row.get(0))
        .unwrap();
    let place = Place::new("runs", &run, "caller_secret");
    assert_eq!(store.inner.vault.open(place, &sealed).unwrap(), SECRETS[3].as_bytes());
}
