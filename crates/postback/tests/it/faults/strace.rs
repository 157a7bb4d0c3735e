//! strace, attached to the server process only: its replicas run on undisturbed.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::Stage;

/// An strace that watches a server until it ends or this is dropped.
pub(super) struct Strace {
    child: Child,
    log: PathBuf,
}

impl Strace {
    /// Attaches to every thread of `pid` and injects as `arguments` say. `Err` is a reason to skip.
    ///
    /// Never with `--seccomp-bpf`: signals are not delivered then.
    pub(super) fn attach(pid: u32, log: PathBuf, arguments: &[String]) -> Result<Self, String> {
        let mut child = Command::new("strace")
            .args(["-f", "-b", "execve", "-ttt", "-p", &pid.to_string(), "-o"])
            .arg(&log)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace cannot be started: {error}"))?;
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        while !said.contains("attached") {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.wait();
                return Err(format!("strace cannot attach: {said}"));
            };
            said += &line;
        }
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, log })
    }

    /// Attaches to the server of `stage` and kills it in its `number`th syscall of this name. `Err` is a reason to skip.
    pub(super) fn kill_at(stage: &Stage, call: &str, number: usize) -> Result<Self, String> {
        let pid = stage.server.as_ref().expect("it runs").pid();
        Self::attach(pid, stage.home.scratch().join("strace"), &killing(call, number))
    }

    /// Waits for its end, after the server's, and returns what it wrote.
    pub(super) fn log(mut self) -> String {
        self.child.wait().expect("it is our child");
        std::fs::read_to_string(&self.log).expect("strace wrote its log")
    }
}

/// What makes strace kill in the `number`th syscall of this name.
pub(super) fn killing(call: &str, number: usize) -> [String; 4] {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=KILL:when={number}"));
    ["-e".into(), trace, "-e".into(), inject]
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When a line of an `-ttt` log that contains `text` was written, since 1970: the first such line.
pub(super) fn time_of(log: &str, text: &str) -> Option<Duration> {
    let line = log.lines().find(|line| line.contains(text))?;
    // The id of the thread, then the time.
    let seconds: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_secs_f64(seconds))
}
