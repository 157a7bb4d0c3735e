//! Processes of a server, found by what they mention, and told apart from later ones of the same id.

use std::process::Command;

/// A process as it was when it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, …
    pub pid: u32,
    /// … and when it was started, in ticks since the boot: together they name one process for ever.
    started: String,
    /// Its command line.
    pub command: String,
}

impl Process {
    /// Whether that very process is still there and no zombie.
    pub fn is_alive(&self) -> bool {
        started(self.pid).is_some_and(|now| now == self.started)
    }

    /// Whether it only watches over another one.
    pub fn is_supervisor(&self) -> bool {
        ["__supervise", "__confine"].iter().any(|word| self.command.contains(word))
    }

    /// SIGKILL. `false` when it was gone already.
    pub fn kill(&self) -> bool {
        self.is_alive()
            && Command::new("kill")
                .args(["-KILL", &self.pid.to_string()])
                .status()
                .is_ok_and(|status| status.success())
    }
}

/// Processes whose command line, environment or folder mentions `marker`; not this one, and no tracer.
pub fn mentioning(marker: &str) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let of_entry = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let pid = path.file_name()?.to_str()?.parse::<u32>().ok()?;
        let read = |name: &str| std::fs::read(path.join(name)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let folder = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
        let mentions = command.contains(marker)
            || String::from_utf8_lossy(&environment).contains(marker)
            || folder.to_string_lossy().contains(marker);
        let counts = mentions && pid != std::process::id() && !command.starts_with("strace ");
        counts.then(|| Some(Process { pid, started: started(pid)?, command })).flatten()
    };
    entries.filter_map(|entry| of_entry(entry.ok()?)).collect()
}

/// When a process that is no zombie was started.
fn started(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything; what follows are the fields from the third on.
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let alive = !matches!(*fields.first()?, "Z" | "X");
    alive.then(|| fields.get(19).map(ToString::to_string)).flatten()
}
