//! What travels inside the binary: the runner's files, the delay example, the pre-built models.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Unpacks the runner below `data_dir` and returns its folder.
///
/// The folder carries the version, so that replicas started by an older binary keep their files; its
/// files are written anew at each start, so that nobody has to trust what lies there. Bytecode made of other files
/// goes.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn unpack_runner(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let folder = data_dir.join("runner").join(env!("CARGO_PKG_VERSION"));
    let same = |(path, content): &(&str, &str)| {
        fs::read(folder.join(path)).is_ok_and(|there| there == content.as_bytes())
    };
    let bytecode = folder.join("__pycache__");
    if bytecode.exists() && !RUNNER.iter().all(same) {
        fs::remove_dir_all(&bytecode)
            .with_context(|| format!("failed to remove `{}`", bytecode.display()))?;
    }
    unpack(RUNNER, &folder)?;
    Ok(folder)
}

/// Writes the delay example into `folder`.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn unpack_delay_example(folder: &Path) -> anyhow::Result<()> {
    unpack(DELAY_EXAMPLE, folder)
}

/// The names of the pre-built models.
pub(crate) fn prebuilt_models() -> impl Iterator<Item = &'static str> {
    PREBUILT.iter().map(|(name, _)| *name)
}

/// A pre-built model.
#[derive(Clone, Copy)]
pub(crate) struct Prebuilt {
    /// Its name, and that of its app.
    pub(crate) name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

impl Prebuilt {
    /// The model of that name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        PREBUILT.iter().find(|(known, _)| *known == name).map(|(name, files)| Self { name, files })
    }

    /// The content of one of its files.
    pub(crate) fn file(self, name: &str) -> Option<&'static str> {
        self.files.iter().find(|(path, _)| *path == name).map(|(_, content)| *content)
    }

    /// Writes its files into `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn unpack(self, folder: &Path) -> anyhow::Result<()> {
        unpack(self.files, folder)
    }
}

fn unpack(files: &[(&str, &str)], folder: &Path) -> anyhow::Result<()> {
    for (path, content) in files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("failed to make `{}`", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(())
}
