//! Where a build's files are:
//!
//! ```text
//! <data>/builds/<build id>/archive.zip   until the build has ended
//!                          app/          what was in it: the folder with main.py
//!                          environment   the key of its environment
//! ```

use std::io;
use std::path::PathBuf;

use queue::BuildId;

use super::Receiving;

pub(super) struct Folders {
    root: PathBuf,
}

impl Folders {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn of(&self, build: &BuildId) -> PathBuf {
        self.root.join(build.as_str())
    }

    pub(super) fn archive(&self, build: &BuildId) -> PathBuf {
        self.of(build).join("archive.zip")
    }

    pub(super) fn app(&self, build: &BuildId) -> PathBuf {
        self.of(build).join("app")
    }

    fn environment_note(&self, build: &BuildId) -> PathBuf {
        self.of(build).join("environment")
    }

    /// A place for an archive; `None` when there is one already. An upload that broke off leaves nothing,
    /// so that a client may try again.
    pub(super) fn receive(&self, build: &BuildId) -> io::Result<Option<Receiving>> {
        let place = self.archive(build);
        if place.exists() {
            return Ok(None);
        }
        std::fs::create_dir_all(self.of(build))?;
        let partial = tempfile::Builder::new().prefix(".upload-").tempfile_in(self.of(build))?;
        let (file, partial) = partial.into_parts();
        Ok(Some(Receiving { partial, file: tokio::fs::File::from_std(file), place }))
    }

    pub(super) fn remove_archive(&self, build: &BuildId) {
        let _ = std::fs::remove_file(self.archive(build));
    }

    /// Removes what a build that broke off had made of its archive.
    pub(super) fn clear_for_restart(&self, build: &BuildId) {
        let _ = std::fs::remove_dir_all(self.app(build));
        for entry in std::fs::read_dir(self.of(build)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                let path = entry.path();
                let _ =
                    if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
    }

    /// Notes which environment a build uses, for as long as its folder is there.
    pub(super) fn note_environment(&self, build: &BuildId, key: &str) -> io::Result<()> {
        std::fs::write(self.environment_note(build), key)
    }

    /// The environment a build uses.
    pub(super) fn environment_of(&self, build: &BuildId) -> Option<String> {
        std::fs::read_to_string(self.environment_note(build)).ok()
    }

    /// Every build that has a folder.
    pub(super) fn all(&self) -> Vec<BuildId> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Removes all of a build.
    pub(super) fn remove(&self, build: &BuildId) {
        if let Err(error) = std::fs::remove_dir_all(self.of(build)) {
            tracing::warn!(build.id = %build, error = %error, "a build's folder could not be removed");
        }
    }
}
