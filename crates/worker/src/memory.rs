//! What the processes of a replica hold, looked at often enough that a replica beyond its bounds goes before
//! the machine is in need: memory, and how many processes and threads there are.
//!
//! Counted as memory is what belongs to the processes alone: anonymous and shared memory, not the pages of
//! files, which the system takes back by itself (weights that are mapped, for one). Where there is no `/proc`,
//! nothing is counted. A replica with a control group has these bounds from the kernel; then it is asked what
//! it had to do.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crate::contain::Group;

/// Between two looks at memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks at processes; after so many looks at memory the tree of processes is read anew.
const COUNT_EVERY: Duration = Duration::from_secs(1);
const LOOKS_PER_TREE: u32 = 20;
/// Processes whose memory is counted at most.
const PROCESSES_MAX: usize = 1_024;

/// What a replica may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    /// In bytes.
    pub(crate) memory: Option<u64>,
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Cores.
    pub(crate) cpu: Option<f64>,
}

/// Bytes in so many gigabytes.
pub(crate) fn bytes(gigabytes: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
    let bytes = (gigabytes * f64::from(1 << 30)) as u64;
    bytes
}

/// Over a tree of processes, and what it may hold.
#[derive(Debug)]
pub(crate) struct Watch {
    root: u32,
    bounds: Bounds,
    group: Option<Arc<Group>>,
    tree: Vec<u32>,
    tasks: u64,
    looks: u32,
}

/// More than allowed was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// In bytes.
    Memory { found: u64, limit: u64 },
    /// At least so many.
    Processes { found: u64, limit: u64 },
    /// In bytes.
    Disk { found: u64, limit: u64 },
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Memory { found, limit } => write!(
                f,
                "the replica held {} MiB of memory, more than the {} MiB of `memory` in the app's config, and was \
                 ended; raise `memory` or give it less to do at once",
                found >> 20,
                limit >> 20
            ),
            Self::Processes { found, limit } => write!(
                f,
                "the replica had {found} processes and threads, more than the {limit} of `processes` in the app's \
                 config, and was ended; raise `processes` or start fewer at once"
            ),
            Self::Disk { found, limit } => write!(
                f,
                "the replica wrote {} MiB to its folder and /tmp, more than the {} MiB of `disk` in the app's config, \
                 and was ended; raise `disk`, or keep what should stay in the persistent storage",
                found >> 20,
                limit >> 20
            ),
        }
    }
}

impl Watch {
    /// Over the process `root` and its descendants, which may be in a control group.
    pub(crate) fn new(root: u32, bounds: Bounds, group: Option<Arc<Group>>) -> Self {
        Self { root, bounds, group, tree: Vec::new(), tasks: 0, looks: 0 }
    }

    /// Between two looks. What the kernel bounds needs no haste.
    pub(crate) fn pause(&self) -> Duration {
        if self.bounds.memory.is_some() && self.group.is_none() { LOOK_EVERY } else { COUNT_EVERY }
    }

    /// Adds up.
    pub(crate) fn look(&mut self) -> Option<Excess> {
        let Bounds { memory, processes, .. } = self.bounds;
        if self.group.is_some() {
            // The kernel counts better: what forked processes share, once.
            return self.told();
        }
        if memory.is_none() || self.looks.is_multiple_of(LOOKS_PER_TREE) {
            self.read_tree();
            if self.tasks > processes {
                return Some(Excess::Processes { found: self.tasks, limit: processes });
            }
        }
        self.looks = self.looks.wrapping_add(1);
        let limit = memory?;
        let found = self.tree.iter().map(|pid| held_by(*pid)).sum();
        (found > limit).then_some(Excess::Memory { found, limit })
    }

    /// What the kernel says that it had to do. Asked after the end too.
    pub(crate) fn told(&self) -> Option<Excess> {
        let group = self.group.as_ref()?;
        let Bounds { memory, processes, .. } = self.bounds;
        if let Some(limit) = memory
            && group.out_of_memory() > 0
        {
            // The kernel keeps the peak at the limit; more was asked for.
            return Some(Excess::Memory { found: group.memory_peak().unwrap_or(limit).max(limit), limit });
        }
        (group.too_many_processes() > 0)
            .then_some(Excess::Processes { found: processes + 1, limit: processes })
    }

    fn read_tree(&mut self) {
        self.tree.clear();
        self.tasks = read_tree(self.root, &mut self.tree);
    }
}

/// Adds the process `root` and its descendants, as far as there is room for them; how many processes and threads
/// there are.
pub(crate) fn read_tree(root: u32, tree: &mut Vec<u32>) -> u64 {
    tree.push(root);
    let mut tasks = 0;
    let mut next = 0;
    while let Some(pid) = tree.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            tasks += 1;
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
            for child in children {
                if tree.len() < PROCESSES_MAX {
                    tree.push(child);
                } else {
                    // It is not looked into, but it is there.
                    tasks += 1;
                }
            }
        }
    }
    tasks
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

    fn watch(memory: Option<f64>, processes: u64) -> Watch {
        let bounds = Bounds { memory: memory.map(bytes), processes, cpu: None };
        Watch::new(std::process::id(), bounds, None)
    }

    #[test]
    fn what_the_own_process_holds_is_seen_and_compared() {
        let ballast = vec![1_u8; 64 << 20];
        let excess = watch(Some(0.03), 4_096).look().expect("64 MiB are more than 30");
        let Excess::Memory { found, limit } = excess else { panic!("{excess}") };
        assert!(found >= 64 << 20 && limit == 32_212_254, "{excess}");
        assert_eq!(watch(Some(4_096.0), 4_096).look(), None);
        assert_eq!(ballast.len(), 64 << 20);
    }

    #[test]
    fn children_are_counted_and_what_is_gone_counts_nothing() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut watching = watch(Some(1_000.0), 4_096);
        watching.look();
        assert!(watching.tree.contains(&child.id()), "{:?}", watching.tree);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(held_by(child.id()), 0);
    }

    #[test]
    fn threads_count_as_processes_do() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || ended.recv());
        // This one, the test's, and that.
        let excess = watch(None, 2).look().expect("three are more than two");
        assert!(matches!(excess, Excess::Processes { found: 3.., limit: 2 }), "{excess}");
        drop(end);
        thread.join().unwrap().unwrap_err();
    }
}
