//! The key file: the only place where the keys of the vault stand in clear.
//!
//! One key a line, `version base64`, readable by its owner alone. The file appears whole or not at all,
//! is durable before its keys are used, and is never made where another one belongs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use queue::Entropy;

/// A key of XChaCha20-Poly1305.
pub(super) type Key = [u8; 32];

/// More than any rotation leaves behind.
const FILE_BYTES_MAX: u64 = 64 << 10;
const HEAD: &str = "# postback: the keys that open the secrets in the database. Keep a copy of this file apart\n\
                    # from the copies of the database; without it they cannot be read. Never edit it.\n";

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there, although secrets are sealed with its keys.
    #[error(
        "it is missing, and the database holds secrets that nothing else opens; put it back from your copy, or \
         name its place with --key-file"
    )]
    Missing,
    /// Others may read it.
    #[error("its mode {mode:03o} lets others read it; make it its owner's alone with `chmod 600`")]
    Exposed {
        /// The permission bits.
        mode: u32,
    },
    /// It is somebody else's.
    #[error("it belongs to user {owner}, and this is user {user}; make it the server's own with `chown`")]
    Foreign {
        /// Whose it is.
        owner: u32,
        /// Who looks.
        user: u32,
    },
    /// It is no file.
    #[error("it is not a regular file; name a file with --key-file")]
    NoFile,
    /// It cannot be understood.
    #[error(
        "line {line} is not a version and a key, as postback writes them; put the file back from your copy"
    )]
    Damaged {
        /// Which line.
        line: usize,
    },
    /// It has no key.
    #[error("it holds no key; put it back from your copy")]
    Empty,
    /// It is the key file of another database.
    #[error(
        "its keys do not open the secrets in the database; it belongs to another one: put the right file back, or \
         name its place with --key-file"
    )]
    Wrong,
    /// It lacks a key that is still in use.
    #[error(
        "it has no key of version {version}, with which secrets in the database are sealed; put it back from your copy"
    )]
    Lacks {
        /// The version.
        version: u32,
    },
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The keys of a file, by version.
#[derive(Clone)]
pub(super) struct KeyFile {
    path: PathBuf,
    pub(super) keys: BTreeMap<u32, Key>,
}

impl KeyFile {
    /// Reads the file; `None` when there is none. What is checked is what is read, whoever moves names
    /// meanwhile.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, KeyFileError> {
        // A pipe or a device would keep the opener waiting.
        match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Err(KeyFileError::NoFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let mut file = File::open(path)?;
        let found = file.metadata()?;
        let (mode, owner, user) = (found.mode() & 0o7777, found.uid(), rustix::process::geteuid().as_raw());
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { mode });
        }
        if owner != user && owner != 0 {
            return Err(KeyFileError::Foreign { owner, user });
        }
        let mut text = String::new();
        (&mut file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(Self { path: path.to_owned(), keys: parse(&text)? }))
    }

    /// Makes the file with one fresh key. An existing one is never touched.
    pub(super) fn create(path: &Path, entropy: &dyn Entropy) -> Result<Self, KeyFileError> {
        let made = Self { path: path.to_owned(), keys: BTreeMap::from([(1, entropy.bytes())]) };
        let fresh = made.write_beside()?;
        // Unlike a rename, a link does not take the place of what is there.
        fs::hard_link(&fresh, path)?;
        fs::remove_file(&fresh)?;
        sync_folder(path)?;
        Ok(made)
    }

    /// The same file with these keys, in one durable step.
    pub(super) fn replace(&self, keys: BTreeMap<u32, Key>) -> Result<Self, KeyFileError> {
        let changed = Self { path: self.path.clone(), keys };
        fs::rename(changed.write_beside()?, &self.path)?;
        sync_folder(&self.path)?;
        Ok(changed)
    }

    /// Removes what a crash left beside the file: keys in clear that nobody looks after.
    pub(super) fn tidy(&self) {
        if let Err(error) = fs::remove_file(self.beside())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, store.file = %self.beside().display(), "could not remove what a crash left");
        }
    }

    fn beside(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        self.path.with_file_name(name)
    }

    /// Writes the file under another name, durably. What a crash left under that name was never used.
    fn write_beside(&self) -> io::Result<PathBuf> {
        let fresh = self.beside();
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let mut text = HEAD.to_owned();
        for (version, key) in &self.keys {
            text += &format!("{version} {}\n", STANDARD.encode(key));
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(fresh)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn parse(text: &str) -> Result<BTreeMap<u32, Key>, KeyFileError> {
    let mut keys = BTreeMap::new();
    for (line, content) in
        (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty())
    {
        let mut add = || {
            let (version, key) = content.trim().split_once(' ')?;
            let version = version.parse::<u32>().ok().filter(|version| *version > 0)?;
            let key = Key::try_from(STANDARD.decode(key).ok()?).ok()?;
            keys.insert(version, key).is_none().then_some(())
        };
        add().ok_or(KeyFileError::Damaged { line })?;
    }
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}
