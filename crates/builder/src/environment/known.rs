//! What executables answered when they were asked which Python they are. Asking takes as long as starting one, and by
//! a shim several times that, so an answer holds until something that decides about it has changed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::interpreter::Interpreter;

/// More answers than the search path of any machine has executables for.
const KNOWN_MAX: usize = 256;

/// A file as it is now; `None` where there is none.
type Mark = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// All that an answer depends on, as it was before the question.
#[derive(Debug, PartialEq)]
pub(super) struct Basis {
    real: PathBuf,
    is_program: bool,
    marks: Vec<Mark>,
    /// The versions that a shim chooses from.
    versions: Vec<OsString>,
}

/// Answers that still hold.
#[derive(Debug, Default)]
pub(super) struct Known {
    answers: Mutex<HashMap<PathBuf, (Basis, Mark, Interpreter)>>,
}

impl Known {
    /// What `executable` answered, if nothing has changed since.
    pub(super) fn get(&self, executable: &Path, basis: &Basis) -> Option<Interpreter> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, mark, interpreter) = answers.get(executable)?;
        (known == basis && mark.is_some() && *mark == mark_of(&interpreter.path)).then(|| interpreter.clone())
    }

    /// Keeps an answer, unless more may decide about it than is looked at: a program that answers for another one
    /// chooses it by rules of its own, as the shims of mise do.
    pub(super) fn put(&self, executable: &Path, basis: Basis, interpreter: &Interpreter) {
        if basis.is_program && basis.real != interpreter.path {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= KNOWN_MAX {
            answers.clear();
        }
        let mark = mark_of(&interpreter.path);
        answers.insert(executable.to_owned(), (basis, mark, interpreter.clone()));
    }
}

impl Basis {
    /// `None` where it cannot be told from outside: a script may answer what it likes.
    pub(super) fn of(executable: &Path) -> Option<Self> {
        let real = fs::canonicalize(executable).ok()?;
        let folder = executable.parent()?;
        let above = folder.parent()?;
        let mut versions = Vec::new();
        let is_program = is_program(&real);
        let beside = if is_program {
            // A virtual environment names the interpreter that it was made from.
            [folder.join("pyvenv.cfg"), above.join("pyvenv.cfg")]
        } else {
            // A shim of pyenv; questions are asked in the root folder.
            let there = fs::read_dir(above.join("versions")).ok().filter(|_| folder.ends_with("shims"))?;
            versions.extend(there.flatten().map(|entry| entry.file_name()));
            versions.sort();
            [above.join("version"), PathBuf::from("/.python-version")]
        };
        let marks = std::iter::once(&real).chain(&beside).map(|path| mark_of(path)).collect();
        Some(Self { real, is_program, marks, versions })
    }
}

fn is_program(file: &Path) -> bool {
    let mut start = [0; 4];
    fs::File::open(file).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == *b"\x7fELF"
}

fn mark_of(path: &Path) -> Mark {
    let file = fs::metadata(path).ok()?;
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.size(), modified.0, modified.1, changed.0, changed.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(path: &Path) -> Interpreter {
        Interpreter { version: (3, 11, 7), path: path.to_owned() }
    }

    #[test]
    fn an_answer_holds_until_the_program_or_its_environment_changes() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let python = bin.join("python3");
        fs::write(&python, b"\x7fELF one").unwrap();
        let known = Known::default();
        let knows = || Basis::of(&python).and_then(|basis| known.get(&python, &basis)).is_some();
        let learn = || {
            known.put(
                &python,
                Basis::of(&python).unwrap(),
                &interpreter(&fs::canonicalize(&python).unwrap()),
            );
        };
        assert!(!knows());
        learn();
        assert!(knows());
        fs::write(folder.path().join("pyvenv.cfg"), "home = /usr/bin").unwrap();
        assert!(!knows(), "it is in an environment now");
        learn();
        assert!(knows());
        fs::write(&python, b"\x7fELF another").unwrap();
        assert!(!knows(), "it was replaced");
        fs::write(&python, b"#!/bin/sh\n").unwrap();
        assert_eq!(Basis::of(&python), None);
    }

    #[test]
    fn a_program_that_answers_for_another_is_asked_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (shim, chosen) = (folder.path().join("mise"), folder.path().join("python3.11"));
        for program in [&shim, &chosen] {
            fs::write(program, b"\x7fELF").unwrap();
        }
        let known = Known::default();
        for (answers, holds) in [(&chosen, false), (&shim, true)] {
            known.put(&shim, Basis::of(&shim).unwrap(), &interpreter(&fs::canonicalize(answers).unwrap()));
            assert_eq!(known.get(&shim, &Basis::of(&shim).unwrap()).is_some(), holds);
        }
    }

    #[test]
    fn a_shim_is_known_until_another_version_is_chosen_or_installed_or_its_own_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for path in ["shims", "versions/3.11.7/bin"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        let (shim, real) = (at("shims/python3"), at("versions/3.11.7/bin/python3"));
        fs::write(&shim, "#!/bin/sh\n").unwrap();
        fs::write(&real, "").unwrap();
        let known = Known::default();
        let knows = || Basis::of(&shim).and_then(|basis| known.get(&shim, &basis)).is_some();
        let learn = || known.put(&shim, Basis::of(&shim).unwrap(), &interpreter(&real));
        learn();
        assert!(knows());
        fs::write(at("version"), "3.12.1\n").unwrap();
        assert!(!knows(), "another was chosen");
        learn();
        fs::create_dir(at("versions/3.13.0")).unwrap();
        assert!(!knows(), "another was installed");
        learn();
        assert!(knows());
        fs::remove_file(&real).unwrap();
        assert!(!knows(), "it is gone");
    }
}
