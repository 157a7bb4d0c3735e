//! Which Python runs an app: a real interpreter by its absolute path, never a shim or another app's
//! environment, for those change their mind with the folder they are called in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::known::{Basis, Known};
use crate::command::{CommandError, Commands, Invocation, Stop};

/// Oldest Python that the runner works with.
const OLDEST: (u32, u32) = (3, 8);
/// Newest minor version that is looked for by name, to list what there is.
const NEWEST: u32 = 20;
/// Time an interpreter has to say who it is.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// Prints the real executable and the version. A virtual environment names the one it was made from.
const PROBE: &str = "import os,sys;print(os.path.realpath(getattr(sys,'_base_executable',None) or \
    sys.executable));print('%d.%d.%d'%sys.version_info[:3])";

/// A Python interpreter of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interpreter {
    /// `3.11.7`, as numbers.
    pub(crate) version: (u32, u32, u32),
    /// Its absolute, real path.
    pub(crate) path: PathBuf,
}

impl Interpreter {
    /// `3.11.7`.
    pub(crate) fn version_text(&self) -> String {
        let (major, minor, micro) = self.version;
        format!("{major}.{minor}.{micro}")
    }

    /// What makes environments of two interpreters differ.
    pub(crate) fn identity(&self) -> String {
        format!("python {} at {}", self.version_text(), self.path.display())
    }

    fn matches(&self, wanted: Option<&[u32]>) -> bool {
        let (major, minor, micro) = self.version;
        match wanted {
            Some(wanted) => [major, minor, micro].starts_with(wanted),
            None => (major, minor) >= OLDEST,
        }
    }
}

/// Finds interpreters in the folders of a search path.
pub(crate) struct Interpreters<'a> {
    pub(crate) commands: &'a Commands,
    pub(crate) search_path: &'a [PathBuf],
    pub(super) known: &'a Known,
}

impl Interpreters<'_> {
    /// The first interpreter of this version (`3.11`), or of any that the runner works with.
    pub(crate) async fn find(
        &self,
        version: Option<&str>,
        stop: &Stop,
    ) -> Result<Option<Interpreter>, CommandError> {
        let wanted: Option<Vec<u32>> =
            version.map(|version| version.split('.').filter_map(|part| part.parse().ok()).collect());
        for candidate in self.candidates(version) {
            if let Some(found) = self.probe(&candidate, stop).await?
                && found.matches(wanted.as_deref())
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Every interpreter there is, newest first, for the message that one is missing.
    pub(crate) async fn all(&self, stop: &Stop) -> Result<Vec<Interpreter>, CommandError> {
        let mut all = Vec::new();
        let versions = (OLDEST.1..=NEWEST).map(|minor| self.candidates(Some(&format!("3.{minor}"))));
        let candidates: BTreeSet<PathBuf> = versions.flatten().collect();
        for candidate in candidates {
            all.extend(self.probe(&candidate, stop).await?);
        }
        all.sort();
        all.dedup();
        all.reverse();
        Ok(all)
    }

    /// Asks an executable who it is; `None` when it is no working Python.
    pub(crate) async fn probe(
        &self,
        executable: &Path,
        stop: &Stop,
    ) -> Result<Option<Interpreter>, CommandError> {
        let basis = Basis::of(executable);
        if let Some(known) = basis.as_ref().and_then(|basis| self.known.get(executable, basis)) {
            return Ok(Some(known));
        }
        let stop =
            Stop { deadline: stop.deadline.min(tokio::time::Instant::now() + PROBE_LIMIT), ..stop.clone() };
        let invocation = Invocation {
            program: executable,
            arguments: ["-I", "-S", "-c", PROBE].map(Into::into).to_vec(),
            folder: Path::new("/"),
            environment: Vec::new(),
            strangers: None,
        };
        match self.commands.answer(invocation, &stop).await {
            Ok(answer) => {
                let found = read_probe(&answer);
                if let (Some(found), Some(basis)) = (&found, basis) {
                    self.known.put(executable, basis, found);
                }
                Ok(found)
            }
            Err(CommandError::Stopped) => Err(CommandError::Stopped),
            Err(_) => Ok(None),
        }
    }

    /// Executables that may be it, in the order in which a shell would find them.
    fn candidates(&self, version: Option<&str>) -> Vec<PathBuf> {
        let short = version.map(|version| version.split('.').take(2).collect::<Vec<_>>().join("."));
        let mut names: Vec<String> = short.iter().map(|short| format!("python{short}")).collect();
        names.extend(["python3".to_owned(), "python".to_owned()]);
        let mut candidates: Vec<PathBuf> = Vec::new();
        for name in &names {
            candidates.extend(self.search_path.iter().map(|folder| folder.join(name)));
        }
        // A folder of shims stands for the versions beside it (pyenv), which a shim hides unless chosen.
        if let Some(short) = &short {
            for folder in self.search_path.iter().filter(|folder| folder.ends_with("shims")) {
                let Some(root) = folder.parent() else { continue };
                let versions = std::fs::read_dir(root.join("versions")).into_iter().flatten().flatten();
                let mut versions: Vec<_> = versions
                    .map(|entry| entry.path())
                    .filter(|path| {
                        path.file_name().is_some_and(|name| {
                            name.to_string_lossy()
                                .strip_prefix(short.as_str())
                                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                        })
                    })
                    .map(|path| path.join("bin/python3"))
                    .collect();
                versions.sort();
                candidates.extend(versions.into_iter().rev());
            }
        }
        candidates.retain(|candidate| candidate.is_file());
        candidates
    }
}

fn read_probe(answer: &str) -> Option<Interpreter> {
    let mut lines = answer.lines();
    let path = PathBuf::from(lines.next()?);
    let mut parts = lines.next()?.split('.').map(str::parse);
    let version = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    path.is_absolute().then_some(Interpreter { version, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_matches_as_far_as_it_was_written() {
        let python = read_probe("/usr/bin/python3.11\n3.11.7\n").unwrap();
        assert!(python.matches(Some(&[3, 11])) && python.matches(Some(&[3, 11, 7])) && python.matches(None));
        assert!(!python.matches(Some(&[3, 1])) && !python.matches(Some(&[3, 11, 8])));
        assert!(!read_probe("/usr/bin/python2\n2.7.18\n").unwrap().matches(None));
        assert_eq!(read_probe("python3\n3.11.7\n"), None);
        assert_eq!(read_probe("pyenv: python3.9: command not found\n"), None);
    }
}
