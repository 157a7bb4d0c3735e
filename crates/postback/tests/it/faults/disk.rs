//! Small disks of a test's own: a tmpfs that can be filled and grown, and an ext4 whose power fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// Runs a program of the system. `Err` says what it answered.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> &str {
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

/// An ext4 on a loop file in memory. What its file holds is what a disk would after a power cut:
/// everything that was synced, and of the rest what the kernel had happened to write.
pub(super) struct Ext4 {
    memory: Tmpfs,
}

impl Ext4 {
    /// Makes and mounts one. `Err` is a reason to skip.
    pub(super) fn mount() -> Result<Self, String> {
        let disk = Self { memory: Tmpfs::mount("300m")? };
        let file = std::fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        file.set_len(96 << 20).map_err(|error| error.to_string())?;
        std::fs::create_dir(disk.path()).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", text(&disk.image())])?;
        disk.attach()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.memory.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.memory.path().join("image")
    }

    fn attach(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.image()), text(&self.path())])
    }

    /// Writes everything down, as a quiet minute would.
    pub(super) fn sync(&self) {
        run("sync", &["-f", text(&self.path())]).expect("it is mounted");
    }

    /// Keeps the disk as it is at this moment.
    ///
    /// The kernel may be writing to it meanwhile (what a stopped process had begun, the journal, pages whose time has
    /// come), and a copy that has the old state of one block and the new one of another is no moment of any
    /// disk. One that is equal to the disk afterwards has no such pair: the older block would have changed since.
    pub(super) fn freeze_copy(&self) {
        let (image, copy) = (self.image(), self.memory.path().join("copy"));
        let began = Instant::now();
        loop {
            run("cp", &["--sparse=always", text(&image), text(&copy)]).expect("there is memory for it");
            if run("cmp", &["-s", text(&image), text(&copy)]).is_ok() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the disk does not come to rest");
        }
    }

    /// Goes on with the disk as it was kept, once the replicas of the dead server are gone from it.
    pub(super) fn use_copy(&self) {
        let began = Instant::now();
        while let Err(reason) = run("umount", &[text(&self.path())]) {
            assert!(began.elapsed() < PATIENCE, "{reason}");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::rename(self.memory.path().join("copy"), self.image()).expect("it was kept");
        self.attach().expect("it was mounted before");
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.path())]);
    }
}
