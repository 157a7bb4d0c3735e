//! The vault: secrets leave for the database sealed, and only the key file opens them.
//!
//! XChaCha20-Poly1305 under a random nonce each. What authenticates a sealed value names its table, row,
//! column and key version, so that it opens in its own place only: rows cannot be swapped.
//!
//! ```text
//! sealed:  version, 4 bytes big-endian │ nonce, 24 bytes │ ciphertext and tag
//! ```

mod key_file;
mod reseal;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::newest_schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use queue::Entropy;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension as _};

use crate::OpenError;
use crate::fault::Fault;
use key_file::KeyFile;

pub use key_file::KeyFileError;

const VERSION_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;
/// What the vault's proof says once it is opened.
const PROOF: &[u8] = b"postback";
const PROOF_PLACE: Place<'static> = Place::new("vault", b"1", "proof");

/// Where a sealed value stands.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'a str,
    pub(crate) row: &'a [u8],
    pub(crate) column: &'a str,
}

impl<'a> Place<'a> {
    /// A column of a row.
    pub(crate) const fn new(table: &'a str, row: &'a [u8], column: &'a str) -> Self {
        Self { table, row, column }
    }

    /// Bytes that no other place under no other version has.
    fn bound_to(&self, version: u32) -> Vec<u8> {
        let mut bytes = b"postback sealed 1".to_vec();
        for part in [self.table.as_bytes(), self.row, self.column.as_bytes(), &version.to_be_bytes()] {
            bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }
}

/// Seals and opens. Clones share the keys.
#[derive(Clone)]
pub(crate) struct Vault {
    ring: Arc<RwLock<Ring>>,
    entropy: Arc<dyn Entropy>,
}

/// The keys, as the file has them and ready for work.
struct Ring {
    file: KeyFile,
    ciphers: BTreeMap<u32, XChaCha20Poly1305>,
}

impl Ring {
    fn new(file: KeyFile) -> Self {
        let cipher = |(version, key): (&u32, &[u8; 32])| (*version, XChaCha20Poly1305::new(key.into()));
        Self { ciphers: file.keys.iter().map(cipher).collect(), file }
    }

    /// New values are sealed with this key.
    fn newest(&self) -> (u32, &XChaCha20Poly1305) {
        let (version, cipher) = self.ciphers.last_key_value().expect("a key file holds a key");
        (*version, cipher)
    }
}

impl Vault {
    /// The vault of a database: with its key file, or with a fresh one when the database holds nothing
    /// that is sealed. Changes nothing when the file is not the right one.
    pub(crate) fn unlock(
        conn: &Connection,
        path: &Path,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        let refused = |why| OpenError::KeyFile { path: path.to_owned(), why };
        let sql = |source| OpenError::Database {
            path: conn.path().map_or_else(PathBuf::new, PathBuf::from),
            source,
        };
        let proof = proof(conn).map_err(sql)?;
        let file = match (KeyFile::read(path).map_err(refused)?, &proof) {
            (Some(file), _) => file,
            (None, Some(_)) => return Err(refused(KeyFileError::Missing)),
            (None, None) => {
                let made = KeyFile::create(path, &*entropy).map_err(refused)?;
                tracing::info!(
                    store.key_file = %path.display(),
                    "made the key file; keep a copy of it apart from the copies of the database"
                );
                made
            }
        };
        if file.keys.len() > 1 {
            tracing::warn!(
                store.key_file = %path.display(),
                "a change of the encryption key was not finished; `postback keys rotate --encryption` finishes it"
            );
        }
        let vault = Self { ring: Arc::new(RwLock::new(Ring::new(file.clone()))), entropy };
        if let Some(proof) = proof {
            for version in versions(conn).map_err(sql)? {
                if !vault.ring().ciphers.contains_key(&version) {
                    return Err(refused(KeyFileError::Lacks { version }));
                }
            }
            if !vault.open(PROOF_PLACE, &proof).is_ok_and(|opened| opened == PROOF) {
                return Err(refused(KeyFileError::Wrong));
            }
        }
        vault.teach(conn).map_err(sql)?;
        file.tidy();
        Ok(vault)
    }

    fn ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals with the newest key.
    pub(crate) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = self.entropy.bytes();
        let ring = self.ring();
        let (version, cipher) = ring.newest();
        let payload = Payload { msg: plain, aad: &place.bound_to(version) };
        let sealed =
            cipher.encrypt(&XNonce::from(nonce), payload).expect("what is sealed is far below 256 GiB");
        [&version.to_be_bytes()[..], &nonce, &sealed].concat()
    }

    /// Opens what was sealed for this place.
    pub(crate) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, Fault> {
        let open = || {
            let (version, sealed) = sealed.split_first_chunk::<VERSION_BYTES>()?;
            let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
            let version = u32::from_be_bytes(*version);
            let payload = Payload { msg: sealed, aad: &place.bound_to(version) };
            self.ring().ciphers.get(&version)?.decrypt(&XNonce::from(*nonce), payload).ok()
        };
        let Place { table, column, .. } = place;
        open().ok_or_else(|| Fault::Corrupt(format!("a sealed value in {table}.{column} does not open")))
    }

    /// Opens a text.
    pub(crate) fn open_text(&self, place: Place<'_>, sealed: &[u8]) -> Result<String, Fault> {
        let Place { table, column, .. } = place;
        String::from_utf8(self.open(place, sealed)?)
            .map_err(|_| Fault::Corrupt(format!("a sealed value in {table}.{column} is no text")))
    }

    /// Gives the migrations the function `seal`.
    fn teach(&self, conn: &Connection) -> rusqlite::Result<()> {
        let vault = self.clone();
        conn.create_scalar_function("seal", 4, FunctionFlags::SQLITE_UTF8, move |call| {
            let bytes = |argument| call.get_raw(argument).as_bytes().map_err(rusqlite::Error::from);
            let (table, column) = (call.get::<String>(0)?, call.get::<String>(2)?);
            Ok(vault.seal(Place::new(&table, bytes(1)?, &column), bytes(3)?))
        })
    }
}

/// The proof of the vault, in a database that has one.
fn proof(conn: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    let has_vault = conn.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'vault'")?.exists([])?;
    if !has_vault {
        return Ok(None);
    }
    conn.query_row("SELECT proof FROM vault", [], |row| row.get(0)).optional()
}

/// The versions of the keys that the database needs.
fn versions(conn: &Connection) -> rusqlite::Result<Vec<u32>> {
    let mut statement = conn.prepare(
        "SELECT substr(proof, 1, 4) FROM vault
         UNION SELECT substr(sealed, 1, 4) FROM project_secrets
         UNION SELECT substr(sealed_token, 1, 4) FROM inboxes WHERE sealed_token IS NOT NULL
         UNION SELECT version FROM (
             WITH RECURSIVE used (version) AS (
                 SELECT min(substr(caller_secret, 1, 4)) FROM runs WHERE caller_secret IS NOT NULL
                 UNION ALL
                 SELECT (SELECT min(substr(caller_secret, 1, 4)) FROM runs
                         WHERE caller_secret IS NOT NULL AND substr(caller_secret, 1, 4) > version)
                 FROM used WHERE version IS NOT NULL)
             SELECT version FROM used WHERE version IS NOT NULL)",
    )?;
    let number = |bytes: Vec<u8>| bytes.try_into().map_or(0, u32::from_be_bytes);
    let mut versions = Vec::new();
    for version in statement.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
        versions.push(number(version?));
    }
    // Asked before the schema is brought forward as well.
    for (table, column) in [("builds", "sealed_headers"), ("secrets", "sealed")] {
        let later = format!("SELECT 1 FROM pragma_table_info('{table}') WHERE name = '{column}'");
        if !conn.prepare(&later)?.exists([])? {
            continue;
        }
        let used = format!("SELECT DISTINCT substr({column}, 1, 4) FROM {table} WHERE {column} IS NOT NULL");
        for version in conn.prepare(&used)?.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
            let version = number(version?);
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
    }
    Ok(versions)
}
