//! A small disk of a test's own, which can be filled and grown.

use std::path::Path;
use std::process::Command;

/// Runs a program of the system. `Err` says what it answered.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// A mounted tmpfs.
pub(super) struct Tmpfs {
    folder: tempfile::TempDir,
}

impl Tmpfs {
    /// Mounts one of this size. `Err` is a reason to skip.
    pub(super) fn mount(size: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "postback-test", text(folder.path())])?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes it larger while it is in use.
    pub(super) fn grow(&self, size: &str) {
        run("mount", &["-o", &format!("remount,size={size}"), text(self.path())]).expect("it was mounted");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(self.path())]);
    }
}
