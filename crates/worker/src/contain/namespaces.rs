//! The command that gives a process namespaces of its own: bubblewrap, with a file system that has the system
//! read-only, a private `/tmp`, and of everything else what the policy names.
//!
//! bubblewrap rather than our own calls: distributions give it the rights that unprivileged namespaces need,
//! and it has been looked at for ten years.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use queue::contain::{Network, Policy};

use super::folders;

/// Where the launcher is found inside.
const LAUNCHER: &str = "/run/postback";
/// What the launcher needs to become the app's user.
const CAPABILITIES: [&str; 3] = ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"];

/// What to run: `bwrap … -- <launcher> <its arguments>`, from `folder`, so that `program` can be run.
pub(super) fn command(
    policy: &Policy,
    bubblewrap: &str,
    launcher: &Path,
    folder: &Path,
    program: &Path,
) -> Vec<OsString> {
    let mut words = Words(vec![bubblewrap.into()], [PathBuf::from("/tmp")].into());
    words.flags(&["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]);
    words.flags(&["--die-with-parent", "--as-pid-1", "--new-session"]);
    if policy.identity.is_some() {
        CAPABILITIES.iter().for_each(|name| words.flags(&["--cap-add", name]));
    } else {
        words.flags(&["--unshare-user", "--disable-userns"]);
    }
    if policy.network == Network::Closed {
        words.flags(&["--unshare-net"]);
    }
    words.flags(&["--proc", "/proc", "--dev", "/dev"]);
    // First, since folders below may lie in the machine's own `/tmp`.
    match &policy.tmp {
        Some(tmp) => words.bind("--bind", tmp, "/tmp"),
        None => words.flags(&["--tmpfs", "/tmp"]),
    }
    words.flags(&["--dir", "/var", "--symlink", "/tmp", "/var/tmp"]);
    for place in folders::system() {
        match fs::read_link(&place) {
            Ok(target) => words.bind("--symlink", target, place),
            Err(_) => words.same("--ro-bind", &place),
        }
    }
    words.same("--ro-bind", "/etc");
    words.same("--ro-bind-try", "/sys");
    folders::resolver().iter().for_each(|place| words.same("--ro-bind-try", place));
    folders::accelerators().iter().for_each(|device| words.same("--dev-bind-try", device));
    // One without a place is looked for in those that are there, and one in the folder is there.
    let programs = policy.programs.iter().map(Path::new).chain([program]).filter(|path| path.is_absolute());
    for place in top(programs.flat_map(folders::of_program).collect()) {
        words.same("--ro-bind-try", &place);
    }
    for place in top(policy.read.iter().map(PathBuf::from).collect()) {
        words.same("--ro-bind-try", &place);
    }
    for place in &policy.write {
        words.same("--bind", place);
    }
    if let Some(storage) = &policy.storage {
        words.bind("--bind", storage, super::STORAGE);
    }
    words.way_to(Path::new(LAUNCHER));
    words.bind("--ro-bind", launcher, LAUNCHER);
    words.bind("--chdir", folder, "--");
    words.0.push(LAUNCHER.into());
    words.0
}

/// Without what lies below another one or belongs to the system: a link that is bound is no link any more.
fn top(mut places: Vec<PathBuf>) -> Vec<PathBuf> {
    places.retain(|place| !folders::system().iter().any(|system| place.starts_with(system)));
    places.sort();
    places.dedup_by(|place, kept| place.starts_with(kept));
    places
}

struct Words(Vec<OsString>, BTreeSet<PathBuf>);

impl Words {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn bind(&mut self, how: &str, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) {
        self.0.extend([how.into(), from.as_ref().to_owned(), to.as_ref().to_owned()]);
    }

    /// The folders in which a place will lie: bubblewrap would make them for their owner only, and apps have
    /// users of their own.
    fn way_to(&mut self, place: &Path) {
        let mut way: Vec<_> = place.ancestors().skip(1).filter(|folder| folder.parent().is_some()).collect();
        way.reverse();
        for folder in way {
            if self.1.insert(folder.to_owned()) {
                self.0.extend(["--perms".into(), "0755".into(), "--dir".into(), folder.into()]);
            }
        }
    }

    fn same(&mut self, how: &str, place: impl AsRef<OsStr>) {
        let place = place.as_ref();
        self.way_to(Path::new(place));
        self.bind(how, place, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(policy: &Policy) -> String {
        let words =
            command(policy, "bwrap", Path::new("/l"), Path::new("/app"), Path::new("/env/bin/python"));
        words.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn an_apps_user_has_no_user_namespace_and_whoever_has_none_gets_a_locked_one() {
        let identity = queue::contain::Identity { user: 1, group: 2 };
        let as_user = words(&Policy { identity: Some(identity), ..Policy::default() });
        assert!(as_user.contains("--cap-add CAP_SETUID") && !as_user.contains("--unshare-user"), "{as_user}");
        let plain = words(&Policy::default());
        assert!(plain.contains("--unshare-user --disable-userns") && !plain.contains("--cap-add"), "{plain}");
        assert!(!plain.contains("--unshare-net"));
        assert!(words(&Policy { network: Network::Closed, ..Policy::default() }).contains("--unshare-net"));
    }

    #[test]
    fn own_folders_come_after_what_they_may_lie_in() {
        let policy = Policy {
            tmp: Some("/data/tmp/1".into()),
            read: vec!["/tmp/x/env".into(), "/tmp/x/env/lib".into()],
            write: vec!["/tmp/x/app".into()],
            storage: Some("/tmp/x/storage".into()),
            ..Policy::default()
        };
        let words = words(&policy);
        let at = |part: &str| words.find(part).unwrap_or_else(|| panic!("{part} not in {words}"));
        assert!(at("--bind /data/tmp/1 /tmp") < at("--ro-bind-try /tmp/x/env /tmp/x/env"));
        assert!(at("--ro-bind-try /tmp/x/env") < at("--bind /tmp/x/app /tmp/x/app"));
        assert!(!words.contains("/tmp/x/env/lib"), "{words}");
        assert!(words.contains("--bind /tmp/x/storage /persistent-storage"), "{words}");
        assert!(at("--bind /data/tmp/1 /tmp") < at("--perms 0755 --dir /tmp/x"), "{words}");
        assert!(words.ends_with("--chdir /app -- /run/postback"), "{words}");
    }
}
