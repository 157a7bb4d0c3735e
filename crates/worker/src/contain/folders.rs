//! What a contained process may read beside its own files: the system, and the installation of the programs
//! that it runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Programs, libraries, and what distributions put beside them.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix"];
/// Where names are resolved, where `/etc/resolv.conf` may point to.
const RESOLVER: &[&str] = &["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf"];
/// Devices that hold nothing of anybody.
const DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm"];
/// Beginnings of the names of devices that compute.
const ACCELERATORS: &[&str] = &["nvidia", "dri", "kfd", "dxg", "accel", "neuron"];
/// What of a program's prefix belongs to an installation. The prefix itself may be somebody's home.
const OF_PREFIX: &[&str] = &["bin", "lib", "lib64", "include", "share", "ssl", "etc"];
/// Symbolic links that a program's path may lead through.
const LINKS_MAX: usize = 16;
/// How deep `/etc` is looked through for what is not for everybody.
const DEPTH_MAX: u32 = 3;

fn there(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect()
}

/// The folders of the system.
pub(super) fn system() -> Vec<PathBuf> {
    there(SYSTEM)
}

/// What the resolver reads outside `/etc`.
pub(super) fn resolver() -> Vec<PathBuf> {
    there(RESOLVER)
}

/// Devices that may be written to.
pub(super) fn devices() -> Vec<PathBuf> {
    let mut devices = there(DEVICES);
    devices.extend(accelerators());
    devices
}

/// Devices that compute.
pub(super) fn accelerators() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_one = |name: &str| {
        ACCELERATORS.iter().any(|beginning| {
            name.strip_prefix(beginning)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_lowercase()))
        })
    };
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path()).collect()
}

/// What of `/etc` may be read. Root owns its secrets, so those are left out by what they are to others.
pub(super) fn settings(is_root: bool) -> Vec<PathBuf> {
    let etc = PathBuf::from("/etc");
    if !is_root {
        return vec![etc];
    }
    let mut public = Vec::new();
    add_public(&etc, DEPTH_MAX, &mut public);
    public
}

/// Adds `path`, or those parts of it that are for everybody; says whether it was all of it.
fn add_public(path: &Path, depth: u32, public: &mut Vec<PathBuf>) -> bool {
    let Ok(about) = fs::metadata(path) else { return false };
    let needed = if about.is_dir() { 0o005 } else { 0o004 };
    if about.mode() & needed != needed {
        return false;
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink());
    if about.is_dir() && !is_link && depth > 0 {
        let before = public.len();
        let mut all = true;
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            all &= add_public(&entry.path(), depth - 1, public);
        }
        if !all {
            return false;
        }
        public.truncate(before);
    }
    public.push(path.to_owned());
    true
}

/// What belongs to a program: itself, what its links lead to, and the libraries beside those.
pub(super) fn of_program(program: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = Some(program.to_owned());
    for _ in 0..LINKS_MAX {
        let Some(place) = next.take() else { break };
        add_prefix(&place, &mut found);
        if let Ok(target) = fs::read_link(&place) {
            next = place.parent().map(|folder| folder.join(target));
        }
    }
    // Folders on the way may be links too.
    if let Ok(real) = fs::canonicalize(program) {
        add_prefix(&real, &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn add_prefix(place: &Path, found: &mut Vec<PathBuf>) {
    found.push(place.to_owned());
    let Some(folder) = place.parent().filter(|folder| folder.ends_with("bin")) else { return };
    let Some(prefix) = folder.parent() else { return };
    if prefix.join("pyvenv.cfg").exists() {
        // An environment was made for this purpose, and packages put files beside its `lib`.
        found.push(prefix.to_owned());
        return;
    }
    found.extend(OF_PREFIX.iter().map(|part| prefix.join(part)).filter(|part| part.exists()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn the_installation_of_a_program_is_found_through_its_links() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("versions/3.11");
        let environment = folder.path().join("environment");
        for folder in [real.join("bin"), real.join("lib"), real.join("secrets"), environment.join("bin")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(real.join("bin/python3.11"), "").unwrap();
        symlink("python3.11", real.join("bin/python3")).unwrap();
        symlink(real.join("bin/python3"), environment.join("bin/python")).unwrap();
        fs::write(environment.join("pyvenv.cfg"), "").unwrap();
        let found = of_program(&environment.join("bin/python"));
        for part in [real.join("lib"), real.join("bin"), environment.clone()] {
            assert!(found.contains(&part), "{} not in {found:?}", part.display());
        }
        assert!(!found.contains(&real.join("secrets")) && !found.contains(&real), "{found:?}");
    }

    #[test]
    fn what_is_not_for_everybody_is_left_out_of_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, mode| {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(folder.path().join("ssl/private")).unwrap();
        fs::create_dir_all(folder.path().join("fonts")).unwrap();
        for file in ["shadow", "passwd", "ssl/ca.pem", "fonts/a"] {
            fs::write(folder.path().join(file), "").unwrap();
        }
        for (name, mode) in [("", 0o755), ("shadow", 0o640), ("passwd", 0o644), ("ssl/private", 0o700)] {
            set(name, mode);
        }
        let mut public = Vec::new();
        assert!(!add_public(folder.path(), 3, &mut public));
        public.sort();
        let expected = ["fonts", "passwd", "ssl/ca.pem"].map(|name| folder.path().join(name));
        assert_eq!(public, expected);
    }
}
