//! What a replica is granted: its folders, a `/tmp` of its own, a home, and whom it runs as.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use queue::ReplicaId;
use queue::contain::{Identity, Network, Policy, Tier};
use queue::registry::{Build, Prepared};

use crate::Options;
use crate::contain::Group;
use crate::memory::{self, Bounds};

/// The home of an app's code below its storage.
const HOME: &str = ".home";

const NO_CONTAINMENT: &str = "`network = false` in the app's config needs containment, and this server has none; see \
                              `postback doctor`, or remove the key";

/// What a replica's process is started with.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    pub(crate) policy: Policy,
    /// Counts more than [`Options::environment`].
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Removed when the replica has ended.
    pub(crate) group: Option<Arc<Group>>,
    /// Removed with what is in it when the replica has ended.
    tmp: Option<Tmp>,
}

/// A folder that goes with its owner.
#[derive(Debug)]
struct Tmp(PathBuf);

impl Grants {
    /// Makes what a replica needs beside its build.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub(crate) fn make(
        options: &Options,
        id: &ReplicaId,
        build: &Build,
        prepared: &Prepared,
    ) -> io::Result<Self> {
        let mut grants = Self { policy: options.policy.clone(), ..Self::default() };
        let bounds = bounds(build);
        if let Some(groups) = &options.groups {
            let group = groups.make(id.as_str(), bounds)?;
            grants.policy.control_groups = group.folders().map(text).collect::<io::Result<_>>()?;
            grants.group = Some(Arc::new(group));
        }
        if grants.policy.tier == Tier::S0 {
            if build.config.no_network {
                return Err(io::Error::other(NO_CONTAINMENT));
            }
            return Ok(grants);
        }
        let identity = options.identities.then(|| Identity::of(&build.app));
        let tmp = make_tmp(options, id)?;
        grants.tmp = Some(Tmp(tmp.clone()));
        let storage = storage_folder(options, build);
        let mut home = storage.as_ref().unwrap_or(&tmp).join(HOME);
        if fs::create_dir_all(&home).is_err() {
            home.clone_from(&tmp);
        }
        if let Some(identity) = identity {
            own(&tmp, identity.user, identity.group, 0o700)?;
            give(Path::new(&prepared.folder), identity)?;
            if home != tmp {
                // Of the group too: apps of a project share it.
                own(&home, identity.user, identity.group, 0o2770)?;
            }
            if let Some(storage) = &storage {
                // Of the group, and so is what is made in it: apps of a project share it.
                own(storage, 0, identity.group, 0o2770)?;
            }
        }
        let policy = &mut grants.policy;
        policy.processes = Some(bounds.processes);
        policy.file_bytes = Some(build.config.disk());
        if build.config.no_network {
            policy.network = Network::Closed;
        }
        policy.identity = identity;
        policy.programs.push(prepared.python.clone());
        policy.read.push(text(&options.runner)?);
        policy.write.insert(0, prepared.folder.clone());
        for folder in storage.iter().chain(cache(options).as_ref()) {
            policy.write.push(text(folder)?);
        }
        policy.storage = storage.as_deref().map(text).transpose()?;
        policy.tmp = Some(text(&tmp)?);
        let own_tmp = if policy.tier >= Tier::S2 { PathBuf::from("/tmp") } else { tmp };
        grants.environment = vec![("HOME".into(), home.into()), ("TMPDIR".into(), own_tmp.into())];
        Ok(grants)
    }

    /// Those that hold nothing but what the replica wrote, or was deployed with.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let folder = self.policy.write.first().map(PathBuf::from);
        self.tmp.iter().map(|tmp| tmp.0.clone()).chain(folder).collect()
    }
}

impl Drop for Tmp {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the temporary files of a replica could not be removed");
        }
    }
}

/// Runs may end, and so must be able to begin, on a disk that is full: then there is the system's place.
fn make_tmp(options: &Options, id: &ReplicaId) -> io::Result<PathBuf> {
    let id = id.as_str();
    let tmp = options.scratch.join(id);
    if fs::create_dir_all(&tmp).is_ok() {
        return Ok(tmp);
    }
    let tmp = std::env::temp_dir().join(format!("postback-{id}"));
    fs::create_dir_all(&tmp)?;
    Ok(tmp)
}

/// What a replica of the build may hold.
pub(crate) fn bounds(build: &Build) -> Bounds {
    let config = &build.config;
    Bounds { memory: config.memory.map(memory::bytes), processes: config.processes(), cpu: config.cpu }
}

/// The folder of the app's project that outlives its replicas, if there is one.
pub(super) fn storage_folder(options: &Options, build: &Build) -> Option<PathBuf> {
    let storage = options.storage_of(&build.app.project())?;
    match fs::create_dir_all(&storage) {
        Ok(()) => Some(storage),
        Err(error) => {
            tracing::warn!(%error, folder = %storage.display(), "the storage of a project cannot be made");
            None
        }
    }
}

/// A cache of models that whoever started the server keeps elsewhere.
fn cache(options: &Options) -> Option<PathBuf> {
    let cache = options.environment.iter().find(|(name, _)| name == "HF_HOME")?;
    Some(PathBuf::from(&cache.1)).filter(|folder| folder.is_dir())
}

fn text(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))
}

/// Gives a folder with what is in it to an app's user, unless that was done before: the folder itself comes
/// last. Links are given, never what they lead to.
fn give(folder: &Path, identity: Identity) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::symlink_metadata(folder)?.uid() == identity.user {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), identity)?;
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(identity.user), Some(identity.group))?;
        }
    }
    std::os::unix::fs::lchown(folder, Some(identity.user), Some(identity.group))
}

fn own(folder: &Path, user: u32, group: u32, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::os::unix::fs::chown(folder, Some(user), Some(group))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}
