//! How much memory the processes of a replica hold, looked at often enough that a replica beyond its
//! limit goes before the machine is in need.
//!
//! Counted is what belongs to the processes alone: anonymous and shared memory, not the pages of files,
//! which the system takes back by itself (weights that are mapped, for one). Where there is no `/proc`,
//! nothing is counted.

use std::fs;
use std::time::Duration;

/// Between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks after which the tree of processes is read anew.
const LOOKS_PER_TREE: u32 = 20;
/// Processes counted at most.
const PROCESSES_MAX: usize = 1_024;

/// The memory of a tree of processes, and its limit.
#[derive(Debug)]
pub(crate) struct Watch {
    root: u32,
    limit: u64,
    tree: Vec<u32>,
    looks: u32,
}

/// More than allowed was found, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) found: u64,
    pub(crate) limit: u64,
}

impl Watch {
    /// Over the process `root` and its descendants; `gigabytes` is the limit.
    pub(crate) fn new(root: u32, gigabytes: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
        let limit = (gigabytes * f64::from(1 << 30)) as u64;
        Self { root, limit, tree: Vec::new(), looks: 0 }
    }

    /// Adds up.
    pub(crate) fn look(&mut self) -> Option<Excess> {
        if self.looks.is_multiple_of(LOOKS_PER_TREE) {
            self.read_tree();
        }
        self.looks = self.looks.wrapping_add(1);
        let found = self.tree.iter().map(|pid| held_by(*pid)).sum();
        (found > self.limit).then_some(Excess { found, limit: self.limit })
    }

    fn read_tree(&mut self) {
        self.tree.clear();
        self.tree.push(self.root);
        let mut next = 0;
        while let Some(pid) = self.tree.get(next).copied() {
            next += 1;
            let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for thread in threads.flatten() {
                let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
                let room = PROCESSES_MAX - self.tree.len();
                self.tree
                    .extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()).take(room));
            }
        }
    }
}

/// Zero for a process that is gone.
fn held_by(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    status
        .lines()
        .filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"))
        .filter_map(kilobytes)
        .map(|kilobytes| kilobytes << 10)
        .sum()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_own_process_holds_is_seen_and_compared() {
        let own = std::process::id();
        let ballast = vec![1_u8; 64 << 20];
        let mut watch = Watch::new(own, 0.03);
        let excess = watch.look().expect("64 MiB are more than 30");
        assert!(excess.found >= 64 << 20 && excess.limit == 32_212_254, "{excess:?}");
        assert_eq!(Watch::new(own, 4_096.0).look(), None);
        assert_eq!(ballast.len(), 64 << 20);
    }

    #[test]
    fn children_are_counted_and_what_is_gone_counts_nothing() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut watch = Watch::new(std::process::id(), 1.0);
        watch.look();
        assert!(watch.tree.contains(&child.id()), "{:?}", watch.tree);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(held_by(child.id()), 0);
    }
}
