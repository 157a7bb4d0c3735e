//! Packs a folder: the files its config chooses, and the lists that the config itself spells out.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::files::Chosen;
use super::{
    APT_PACKAGES, CONDA_PACKAGES, ENTRIES_MAX, FILE_BYTES_MAX, GENERATED, REQUIREMENTS, TOTAL_BYTES_MAX,
};
use crate::Config;

/// A packed folder, ready to be sent.
#[derive(Debug)]
pub struct Packed {
    /// The zip, at its beginning. It has no name and vanishes when closed.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
    /// What is in it, sorted.
    pub files: Vec<String>,
}

/// Why a folder cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// There is no `main.py`.
    #[error(
        "there is no main.py in {folder}; it holds the functions that can be called, unless `[cerebrium.runtime.custom]` \
         starts a web server"
    )]
    NoMain {
        /// The folder.
        folder: PathBuf,
    },
    /// More than a server takes.
    #[error("{what}; leave files out with `exclude` in {config_file}")]
    TooMuch {
        /// Of what, and how much.
        what: String,
        /// Where to exclude.
        config_file: String,
    },
    /// A name that no archive may hold.
    #[error("the file name `{name}` cannot be packed: {why}")]
    Name {
        /// The file, relative to the folder.
        name: String,
        /// The rule.
        why: &'static str,
    },
    /// A pattern of the config.
    #[error("{0}")]
    Pattern(String),
    /// A file could not be read, or the zip not be written.
    #[error("cannot pack {path}: {source}")]
    Io {
        /// What was being read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Packs `folder` as `config` says. The same files give the same bytes.
///
/// # Errors
/// Without a `main.py`, unless it has a web server of its own, with more than a server takes, or when a file cannot be read.
pub fn pack(folder: &Path, config: &Config, config_file: &str) -> Result<Packed, PackError> {
    if config.app.runtime.is_none() && !folder.join("main.py").is_file() {
        return Err(PackError::NoMain { folder: folder.to_owned() });
    }
    let generated = generated(config);
    let mut files = chosen_files(folder, config, config_file)?;
    files.retain(|name| !generated.iter().any(|(generated, _)| generated == name));
    let too_much = |what| PackError::TooMuch { what, config_file: config_file.to_owned() };
    if files.len() + generated.len() > ENTRIES_MAX {
        return Err(too_much(format!("the app has {} files, and {ENTRIES_MAX} are the most", files.len())));
    }

    let failed = |path: &Path, source| PackError::Io { path: path.to_owned(), source };
    let zipped = |path: &Path, error: zip::result::ZipError| failed(path, io::Error::other(error));
    let target = Path::new("the archive");
    let mut zip = ZipWriter::new(tempfile::tempfile().map_err(|error| failed(target, error))?);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    for (name, text) in &generated {
        zip.start_file(*name, options).map_err(|error| zipped(target, error))?;
        zip.write_all(text.as_bytes()).map_err(|error| failed(target, error))?;
    }
    let mut total = 0;
    for name in &files {
        let path = folder.join(name);
        let file = File::open(&path).map_err(|error| failed(&path, error))?;
        let metadata = file.metadata().map_err(|error| failed(&path, error))?;
        let mode = if is_executable(&metadata) { 0o755 } else { 0o644 };
        zip.start_file(name.as_str(), options.unix_permissions(mode))
            .map_err(|error| zipped(&path, error))?;
        let mut bounded = file.take(FILE_BYTES_MAX + 1);
        let copied = io::copy(&mut bounded, &mut zip).map_err(|error| failed(&path, error))?;
        total += copied;
        if copied > FILE_BYTES_MAX {
            return Err(too_much(format!("{name} is larger than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        if total > TOTAL_BYTES_MAX {
            return Err(too_much(format!("the app's files are larger than {} MiB", TOTAL_BYTES_MAX >> 20)));
        }
    }
    let mut file = zip.finish().map_err(|error| zipped(target, error))?;
    let size = file.seek(SeekFrom::End(0)).map_err(|error| failed(target, error))?;
    file.rewind().map_err(|error| failed(target, error))?;
    files.extend(generated.into_iter().map(|(name, _)| name.to_owned()));
    files.sort();
    Ok(Packed { file, size, files })
}

/// The lists that the config spells out. They take the place of files of the same name, as in the
/// archives of Cerebrium's clients.
fn generated(config: &Config) -> Vec<(&'static str, String)> {
    let app = &config.app;
    [(REQUIREMENTS, &app.pip), (APT_PACKAGES, &app.apt), (CONDA_PACKAGES, &app.conda)]
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .map(|(name, lines)| (name, lines.iter().map(|line| format!("{line}\n")).collect()))
        .collect()
}

fn chosen_files(folder: &Path, config: &Config, config_file: &str) -> Result<Vec<String>, PackError> {
    let chosen = Chosen::new(folder, &config.include, &config.exclude).map_err(PackError::Pattern)?;
    let always = |name: &str| name == "main.py" || name == config_file || GENERATED[..3].contains(&name);
    let mut files = Vec::new();
    let entries = walkdir::WalkDir::new(folder)
        .min_depth(1)
        .into_iter()
        .filter_entry(|entry| !entry.file_name().to_str().is_some_and(|name| chosen.passes_by(name)));
    for entry in entries {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_owned();
            PackError::Io { path, source: error.into() }
        })?;
        // A link to a file is packed as the file; a link to a folder is left out, for it may lead in circles.
        let is_file = entry.file_type().is_file() || (entry.path_is_symlink() && entry.path().is_file());
        if !is_file {
            continue;
        }
        let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let Some(name) = relative.to_str() else {
            if chosen.has(&relative.to_string_lossy()) {
                let name = relative.to_string_lossy().into_owned();
                return Err(PackError::Name { name, why: "it is not UTF-8" });
            }
            continue;
        };
        if always(name) || chosen.has(name) {
            if let Some(why) = super::name::broken_rule(name) {
                return Err(PackError::Name { name: name.to_owned(), why });
            }
            files.push(name.to_owned());
        }
    }
    files.sort();
    Ok(files)
}

fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn packed(folder: &Path, file: &str) -> Packed {
        pack(folder, &Config::read(folder, file).unwrap(), file).unwrap()
    }

    fn text(packed: &Packed, name: &str) -> String {
        let mut zip = zip::ZipArchive::new(&packed.file).unwrap();
        io::read_to_string(zip.by_name(name).unwrap()).unwrap()
    }

    #[test]
    fn the_config_chooses_and_some_files_are_always_there() {
        let folder = folder(&[
            ("config.yaml", "exclude: '[./.*, ./__*, *.txt, main.py, config.yaml]'\n"),
            ("main.py", "def predict(item, run_id, logger): ..."),
            ("requirements.txt", "numpy\n"),
            ("notes.txt", ""),
            ("sub/mod.py", ""),
            ("sub/__pycache__/mod.pyc", ""),
            (".git/HEAD", ""),
            (".env", "SECRET=1"),
        ]);
        let packed = packed(folder.path(), "config.yaml");
        assert_eq!(packed.files, ["config.yaml", "main.py", "requirements.txt", "sub/mod.py"]);
        assert_eq!(packed.size, packed.file.metadata().unwrap().len());
    }

    #[test]
    fn lists_in_the_config_take_the_place_of_files_of_that_name() {
        let folder = folder(&[
            (
                "cerebrium.toml",
                "[cerebrium.dependencies.pip]\ntorch = '2.1'\n[cerebrium.dependencies.apt]\nffmpeg = ''\n",
            ),
            ("main.py", ""),
            ("requirements.txt", "numpy\n"),
        ]);
        let packed = packed(folder.path(), "cerebrium.toml");
        assert_eq!(packed.files, ["cerebrium.toml", "main.py", "pkglist.txt", "requirements.txt"]);
        assert_eq!(text(&packed, "requirements.txt"), "torch==2.1\n");
        assert_eq!(text(&packed, "pkglist.txt"), "ffmpeg\n");
    }

    #[test]
    fn the_same_folder_gives_the_same_bytes() {
        let folder = folder(&[("config.yaml", ""), ("main.py", "x = 1"), ("b/c.py", "")]);
        let bytes = || {
            let mut bytes = Vec::new();
            packed(folder.path(), "config.yaml").file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn what_cannot_be_packed_is_said() {
        let folder = folder(&[("config.yaml", "")]);
        let config = Config::read(folder.path(), "config.yaml").unwrap();
        let error = || pack(folder.path(), &config, "config.yaml").unwrap_err().to_string();
        assert!(error().starts_with("there is no main.py in "), "{}", error());
        std::fs::write(
            folder.path().join("cerebrium.toml"),
            "[cerebrium.runtime.custom]\nentrypoint = \"./run\"\n",
        )
        .unwrap();
        let server = Config::read(folder.path(), "cerebrium.toml").unwrap();
        assert!(pack(folder.path(), &server, "cerebrium.toml").is_ok());
        std::fs::write(folder.path().join("main.py"), "").unwrap();
        std::fs::write(folder.path().join("a\\b"), "").unwrap();
        assert_eq!(error(), "the file name `a\\b` cannot be packed: it has a backslash");
    }
}
