//! Processes that the benchmark starts: each in a group of its own, and the whole group ends with its owner, together
//! with descendants that have left it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A started program with all that it started. Dropping it kills them.
pub(crate) struct Group {
    child: Child,
}

impl Group {
    /// Starts a program; what it says goes into a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("`{name}` cannot be started"))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let id = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Found before their parents end, since nobody knows whose they were after that.
        let descendants = tree(self.child.id());
        // Errors mean that they are gone.
        if let Some(group) = id(self.child.id()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        for process in descendants.into_iter().filter_map(id) {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A process and all that descends from it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (HashSet::new(), vec![root]);
    while let Some(pid) = next.pop() {
        if found.insert(pid) {
            next.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found.into_iter().collect()
}

/// The fields of `/proc/PID/stat` from the third on; the name before them may contain anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Memory of these processes in MB: what they share is divided among those that share it.
pub(crate) fn proportional_mb(pids: &[u32]) -> f64 {
    let of = |pid: &u32| -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    pids.iter().filter_map(of).sum::<f64>() / 1e3
}

/// Seconds of CPU that these processes have used.
pub(crate) fn cpu_seconds(pids: &[u32]) -> f64 {
    let of = |pid: &u32| -> Option<f64> {
        let fields = stat(*pid)?;
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    // The kernel tells ticks of a hundredth, whatever its own are.
    pids.iter().filter_map(of).sum::<f64>() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_group_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        // The inner shell has a session of its own, as some servers give their workers.
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 1000 & wait"]);
        let group = Group::start(&mut command, &folder.path().join("log")).unwrap();
        let began = std::time::Instant::now();
        let sleeper = loop {
            let found = tree(group.pid()).into_iter().find(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
            });
            if let Some(found) = found {
                break found;
            }
            assert!(began.elapsed().as_secs() < 30, "the sleeper never started");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        drop(group);
        let is_there =
            || stat(sleeper).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"));
        while is_there() {
            assert!(began.elapsed().as_secs() < 60, "the sleeper lives on");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
