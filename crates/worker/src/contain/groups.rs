//! Control groups: bounds of memory, processes and CPU that the kernel keeps for a replica with all it starts.
//!
//! Version 2 where its controllers are to be had, else version 1. A group is made below the one that the server
//! is in, so that the server's own bounds hold for replicas too. In version 2 a group with members cannot hand
//! controllers on: there the server first moves into a group of its own, which only the owner of the tree
//! (root, or whoever systemd delegated it to) can do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::memory::Bounds;

/// The beginning of the names of our groups; the server's process id follows.
const NAME: &str = "postback-";
/// Where the server itself is put, if it must make room.
const OWN: &str = "postback-server";
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// The period over which CPU time is counted, in microseconds.
const PERIOD: u64 = 100_000;
/// Time that the kernel gets to let go of a group whose processes have ended.
const REMOVE_LIMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);

/// The place below which groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    version: Version,
    /// One folder in version 2, else one for each controller of [`CONTROLLERS`].
    parents: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A replica's group.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    folders: Vec<PathBuf>,
}

impl Groups {
    /// Finds the place for groups of the process `server`, below `root` (`/sys/fs/cgroup`); `membership` is what
    /// `/proc/self/cgroup` says.
    ///
    /// # Errors
    /// When there is none, with the reason.
    pub(crate) fn find(root: &Path, membership: &str, server: u32) -> Result<Self, String> {
        let (one, two) = (Self::version_one(root, membership), Self::version_two(root, membership));
        // A machine has its controllers in one of the two.
        let mut groups = match (two, one) {
            (Ok(groups), _) | (Err(_), Ok(groups)) => groups,
            (Err(two), Err(one)) if two.is_empty() => return Err(one),
            (Err(two), Err(_)) => return Err(two),
        };
        for parent in &mut groups.parents {
            remove_left_over(parent);
            parent.push(format!("{NAME}{server}"));
            fs::create_dir_all(&*parent)
                .map_err(|error| format!("{} cannot be made: {error}", parent.display()))?;
            if groups.version == Version::Two {
                enable(parent)?;
            }
        }
        Ok(groups)
    }

    fn version_two(root: &Path, membership: &str) -> Result<Self, String> {
        let own = membership.lines().find_map(|line| line.strip_prefix("0::")).ok_or(String::new())?;
        let parent = root.join(own.trim_start_matches('/'));
        let there = fs::read_to_string(parent.join("cgroup.controllers")).map_err(|_| String::new())?;
        let has = |wanted: &str| there.split_whitespace().any(|name| name == wanted);
        if !CONTROLLERS[..2].iter().all(|wanted| has(wanted)) {
            return Err(match there.trim() {
                "" => String::new(),
                there => format!(
                    "the controllers `memory` and `pids` are not handed to this process, only {there}"
                ),
            });
        }
        if own != "/" && enable(&parent).is_err() {
            make_room(&parent)?;
        }
        enable(&parent)?;
        Ok(Self { version: Version::Two, parents: vec![parent] })
    }

    fn version_one(root: &Path, membership: &str) -> Result<Self, String> {
        let parent = |controller: &str| {
            let path = membership.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let controllers = parts.next()?;
                controllers.split(',').any(|name| name == controller).then(|| parts.next()).flatten()
            });
            let path = root.join(controller).join(path?.trim_start_matches('/'));
            path.join("cgroup.procs").exists().then_some(path)
        };
        let parents: Option<Vec<_>> = CONTROLLERS.iter().map(|controller| parent(controller)).collect();
        let parents = parents.ok_or("there are no control groups for memory, processes and CPU")?;
        Ok(Self { version: Version::One, parents })
    }

    /// Removes what was made by [`Groups::find`]. Groups of replicas that are still there keep it.
    pub fn remove(&self) {
        for parent in &self.parents {
            let _ = fs::remove_dir(parent);
        }
    }

    /// Makes a group.
    ///
    /// # Errors
    /// When the kernel refuses one of the bounds.
    pub(crate) fn make(&self, name: &str, bounds: Bounds) -> io::Result<Group> {
        let group = Group {
            version: self.version,
            folders: self.parents.iter().map(|parent| parent.join(name)).collect(),
        };
        for folder in &group.folders {
            fs::create_dir_all(folder)?;
        }
        group.bound(bounds)?;
        Ok(group)
    }
}

/// Hands the controllers on to the groups below.
fn enable(parent: &Path) -> Result<(), String> {
    let there = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    let wanted = CONTROLLERS.iter().filter(|wanted| there.split_whitespace().any(|name| name == **wanted));
    let wanted: Vec<_> = wanted.map(|name| format!("+{name}")).collect();
    fs::write(parent.join("cgroup.subtree_control"), wanted.join(" "))
        .map_err(|error| format!("the controllers of {} cannot be handed on: {error}", parent.display()))
}

/// Moves everything in a group, the server with what it has started, into one below it.
fn make_room(parent: &Path) -> Result<(), String> {
    let own = parent.join(OWN);
    let complain =
        |error: io::Error| format!("no control group can be made in {}: {error}", parent.display());
    fs::create_dir_all(&own).map_err(complain)?;
    let members = fs::read_to_string(parent.join("cgroup.procs")).map_err(complain)?;
    for member in members.lines() {
        fs::write(own.join("cgroup.procs"), member).map_err(complain)?;
    }
    Ok(())
}

/// Removes groups of servers that are gone. Those of living ones have members, or their process is there.
fn remove_left_over(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let server = name.to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
        if server.is_some_and(|server| !Path::new(&format!("/proc/{server}")).exists()) {
            for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(group.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Group {
    fn folder(&self, controller: &str) -> &Path {
        let index = CONTROLLERS.iter().position(|name| *name == controller).unwrap_or(0);
        self.folders.get(index).unwrap_or(&self.folders[0])
    }

    fn write(&self, controller: &str, file: &str, value: impl std::fmt::Display) -> io::Result<()> {
        fs::write(self.folder(controller).join(file), format!("{value}"))
    }

    fn bound(&self, Bounds { memory, processes, cpu }: Bounds) -> io::Result<()> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let quota = cpu.map(|cores| ((cores * PERIOD as f64) as u64).max(1_000));
        let two = self.version == Version::Two;
        self.write("pids", "pids.max", processes)?;
        if let Some(memory) = memory {
            self.write("memory", if two { "memory.max" } else { "memory.limit_in_bytes" }, memory)?;
            // Not every kernel counts swap. One process of many that is gone would leave a broken replica.
            let (swap, most) =
                if two { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", memory) };
            let _ = self.write("memory", swap, most);
            if two {
                let _ = self.write("memory", "memory.oom.group", 1);
            }
        }
        if let Some(quota) = quota {
            if two {
                self.write("cpu", "cpu.max", format!("{quota} {PERIOD}"))?;
            } else {
                self.write("cpu", "cpu.cfs_period_us", PERIOD)?;
                self.write("cpu", "cpu.cfs_quota_us", quota)?;
            }
        }
        Ok(())
    }

    /// The folders that a process joins.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(PathBuf::as_path)
    }

    /// The most memory that was held at once, in bytes.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        fs::read_to_string(self.folder("memory").join(file)).ok()?.trim().parse().ok()
    }

    /// Processes that the kernel ended for want of memory.
    pub(crate) fn out_of_memory(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        self.count("memory", file, "oom_kill")
    }

    /// Processes that were not started since there were too many.
    pub(crate) fn too_many_processes(&self) -> u64 {
        self.count("pids", "pids.events", "max")
    }

    fn count(&self, controller: &str, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.folder(controller).join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    /// Its processes are gone by now, but the kernel may take a moment to notice.
    fn drop(&mut self) {
        let began = Instant::now();
        for folder in &self.folders {
            while let Err(error) = fs::remove_dir(folder) {
                if error.kind() == io::ErrorKind::NotFound {
                    break;
                }
                if began.elapsed() > REMOVE_LIMIT {
                    tracing::warn!(%error, folder = %folder.display(), "a control group could not be removed");
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    const BOUNDS: Bounds = Bounds { memory: Some(1 << 30), processes: 64, cpu: Some(1.5) };

    #[test]
    fn version_two_is_bounded_below_the_servers_own_group() {
        let root = tempfile::tempdir().unwrap();
        let own = "user.slice/postback.service";
        let there = [("cgroup.controllers", "cpu memory pids\n"), ("cgroup.procs", "41\n42\n")];
        write(&root.path().join(own), &there);
        let server = std::process::id();
        // What the kernel would put into a new group.
        let ours = format!("{own}/postback-{server}");
        write(&root.path().join(&ours), &there[..1]);
        let groups = Groups::find(root.path(), &format!("0::/{own}\n"), server).unwrap();
        let handed_on = read(&root.path().join(own).join("cgroup.subtree_control"));
        assert_eq!(handed_on, "+memory +pids +cpu");
        let group = groups.make("r-1", BOUNDS).unwrap();
        let file = |name: &str| read(&root.path().join(&ours).join("r-1").join(name));
        assert_eq!(file("memory.max"), (1_u64 << 30).to_string());
        assert_eq!([file("memory.swap.max"), file("memory.oom.group")], ["0", "1"]);
        assert_eq!([file("pids.max"), file("cpu.max")], ["64", "150000 100000"]);
        let folder = root.path().join(&ours).join("r-1");
        write(&folder, &[("memory.peak", "77\n"), ("memory.events", "low 0\noom 3\noom_kill 2\n")]);
        write(&folder, &[("pids.events", "max 5\n")]);
        assert_eq!(
            (group.memory_peak(), group.out_of_memory(), group.too_many_processes()),
            (Some(77), 2, 5)
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn version_one_has_a_folder_for_each_controller() {
        let root = tempfile::tempdir().unwrap();
        let membership = "5:memory:/a/b\n8:pids:/\n2:cpu,cpuacct:/c\n0::/\n";
        for folder in ["memory/a/b", "pids", "cpu/c"] {
            write(root.path(), &[(&format!("{folder}/cgroup.procs"), "")]);
        }
        let groups = Groups::find(root.path(), membership, 7).unwrap();
        let group = groups.make("r-1", BOUNDS).unwrap();
        let file = |name: &str| read(&root.path().join(name));
        assert_eq!(file("memory/a/b/postback-7/r-1/memory.limit_in_bytes"), (1_u64 << 30).to_string());
        assert_eq!(file("pids/postback-7/r-1/pids.max"), "64");
        assert_eq!(file("cpu/c/postback-7/r-1/cpu.cfs_quota_us"), "150000");
        assert_eq!(group.folders().count(), 3);
        group.folders().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    }

    #[test]
    fn a_machine_that_hands_out_no_controllers_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let find = |membership: &str| Groups::find(root.path(), membership, 7).unwrap_err();
        assert!(find("0::/x\n").contains("no control groups"), "{}", find("0::/x\n"));
        write(root.path(), &[("x/cgroup.controllers", "cpu hugetlb\n")]);
        assert!(find("0::/x\n").contains("only cpu hugetlb"), "{}", find("0::/x\n"));
    }
}
