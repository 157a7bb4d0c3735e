//! Conda packages: micromamba makes the environment, with a Python of its own in place of the machine's.
//!
//! Settings of micromamba (`~/.mambarc`, `~/.condarc`: mirrors, further channels) are left as they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::EnvironmentError;
use crate::build_log::BuildLog;
use crate::command::{Commands, Invocation, Stop};

/// Where packages come from whose line names no channel.
const CHANNEL: &str = "conda-forge";

/// What a conda environment is made of.
#[derive(Debug)]
pub(super) struct Conda {
    program: PathBuf,
    /// Package lines, that of Python among them.
    lines: Vec<String>,
}

impl Conda {
    /// What micromamba is to be asked for. Python has the version `python`, unless the packages name one.
    pub(super) fn of(
        commands: &Commands,
        search_path: &[PathBuf],
        packages: &[String],
        python: Option<&str>,
    ) -> Result<Self, EnvironmentError> {
        let program = find(commands, search_path)
            .ok_or_else(|| EnvironmentError::NoConda { wanted: packages.join(", ") })?;
        let mut lines = packages.to_vec();
        if !packages.iter().any(|line| name(line) == "python") {
            lines.push(python.map_or_else(|| "python".to_owned(), |version| format!("python={version}")));
        }
        lines.sort();
        Ok(Self { program, lines })
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Makes the environment in `folder`; what is downloaded is kept below `cache`.
    pub(super) async fn make(
        &self,
        commands: &Commands,
        folder: &Path,
        cache: &Path,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), EnvironmentError> {
        log.say(format!("==> micromamba installs {}", self.lines.join(", ")));
        let options: [OsString; 8] = [
            "create".into(),
            "--yes".into(),
            "--root-prefix".into(),
            cache.join("conda").into(),
            "--channel".into(),
            CHANNEL.into(),
            "--prefix".into(),
            folder.into(),
        ];
        let invocation = Invocation {
            program: &self.program,
            arguments: options.into_iter().chain(self.lines.iter().map(OsString::from)).collect(),
            folder: Path::new("/"),
            environment: vec![("MAMBA_NO_BANNER".into(), "1".into())],
            strangers: None,
        };
        let made = commands.run(invocation, log, stop).await;
        made.map_err(super::step("the conda packages could not be installed"))?;
        if folder.join("bin/python").exists() {
            return Ok(());
        }
        Err(std::io::Error::other("micromamba made an environment without Python").into())
    }
}

/// The one that `MAMBA_EXE` names, as micromamba's own set-up does, else the first on the search path.
fn find(commands: &Commands, search_path: &[PathBuf]) -> Option<PathBuf> {
    let named = commands.environment.iter().find(|(name, _)| name == "MAMBA_EXE");
    let named = named.map(|(_, path)| PathBuf::from(path));
    let candidates = named.into_iter().chain(search_path.iter().map(|folder| folder.join("micromamba")));
    candidates.into_iter().find(|path| path.is_file())
}

/// The package's name in a line such as `nvidia::cuda-toolkit>=12` or `python 3.11`.
fn name(line: &str) -> &str {
    let line = line.rsplit_once("::").map_or(line, |(_, line)| line);
    line.split(['=', '<', '>', '!', '~', ' ', '[']).next().unwrap_or(line).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_package() {
        for (line, package) in [
            ("python=3.11", "python"),
            ("python", "python"),
            ("conda-forge::python>=3.10,<3.12", "python"),
            ("python 3.11", "python"),
            ("python-dateutil=2", "python-dateutil"),
            ("nvidia::cuda-toolkit", "cuda-toolkit"),
        ] {
            assert_eq!(name(line), package, "{line}");
        }
    }
}
