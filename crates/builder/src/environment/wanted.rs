//! What an app asks of its environment, and the name under which it is kept.

use std::path::Path;

use queue::BuildId;
use queue::app::AppConfig;
use sha2::{Digest as _, Sha256};

use crate::archive;
use crate::config::requirement_lines;

/// What an app asks of its environment, from its config and the lists in its archive.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) requirements: Vec<String>,
    /// Count instead of what packages ask for.
    pub(super) overrides: Vec<String>,
    pub(super) apt: Vec<String>,
    pub(super) conda: Vec<String>,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
}

impl Wanted {
    pub(super) fn of(config: &AppConfig, folder: &Path) -> std::io::Result<Self> {
        let listed = |name: &str, configured: &[String]| -> std::io::Result<Vec<String>> {
            let mut lines = configured.to_vec();
            if let Some(text) = read_if_there(&folder.join(name))? {
                for line in requirement_lines(&text) {
                    if !lines.contains(&line) {
                        lines.push(line);
                    }
                }
            }
            Ok(lines)
        };
        // The clients send commands in the request and in the archive; the request's are the plain ones.
        let script = |name: &str, configured: &[String]| -> std::io::Result<Vec<String>> {
            if !configured.is_empty() {
                return Ok(configured.to_vec());
            }
            let text = read_if_there(&folder.join(name))?.unwrap_or_default();
            let lines = text.lines().map(str::trim_end);
            Ok(lines
                .filter(|line| !line.is_empty() && !line.starts_with("#!") && line.trim() != "set -e")
                .map(str::to_owned)
                .collect())
        };
        Ok(Self {
            requirements: listed(archive::REQUIREMENTS, &config.pip)?,
            overrides: config.pip_overrides.clone(),
            apt: listed(archive::APT_PACKAGES, &config.apt)?,
            conda: listed(archive::CONDA_PACKAGES, &config.conda)?,
            before: script(archive::PRE_BUILD_COMMANDS, &config.pre_build_commands)?,
            after: script(archive::SHELL_COMMANDS, &config.shell_commands)?,
        })
    }

    /// The environment's name: a hash of all that decides what is in it.
    /// `base` is what it begins with.
    pub(super) fn key(&self, base: &str, build: &BuildId) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(base.as_bytes());
        let mut requirements = self.requirements.clone();
        requirements.sort();
        for line in &requirements {
            add(line.as_bytes());
        }
        if !self.overrides.is_empty() {
            add(b"overrides");
            self.overrides.iter().for_each(|line| add(line.as_bytes()));
        }
        let of_this_build = !self.before.is_empty()
            || !self.after.is_empty()
            || self.requirements.iter().any(|line| reads_files_of_the_app(line));
        if of_this_build {
            add(build.as_str().as_bytes());
        }
        hex::encode(&hash.finalize()[..16])
    }
}

/// Whether a requirement line points into the app's folder: `-r more.txt`, `-e .`, `./wheels/a.whl`.
fn reads_files_of_the_app(line: &str) -> bool {
    let option = ["-r", "-c", "-e", "--requirement", "--constraint", "--editable", "--find-links", "-f"];
    line.starts_with('.')
        || line.ends_with(".whl") && !line.contains("://")
        || line.contains("file:")
        || option.iter().any(|option| line.starts_with(option))
}

fn read_if_there(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(text_of(&bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists are UTF-8, but for those that PowerShell wrote: `pip freeze > requirements.txt` makes UTF-16 there.
fn text_of(bytes: &[u8]) -> String {
    let units = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> String {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        bytes => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpreter::Interpreter;
    use super::*;

    fn wanted(config: &AppConfig, files: &[(&str, &str)]) -> Wanted {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Wanted::of(config, folder.path()).unwrap()
    }

    fn key(requirements: &[&str], commands: &[&str], version: (u32, u32, u32), build: &str) -> String {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let config =
            AppConfig { pip: texts(requirements), shell_commands: texts(commands), ..AppConfig::default() };
        let interpreter = Interpreter { version, path: "/usr/bin/python3".into() };
        wanted(&config, &[]).key(&interpreter.identity(), &build.parse().unwrap())
    }

    const A: &str = "b-000000000000000a";
    const B: &str = "b-000000000000000b";

    #[test]
    fn the_same_packages_are_the_same_environment_whatever_the_build() {
        let base = key(&["a", "b"], &[], (3, 11, 7), A);
        assert_eq!(base, key(&["b", "a"], &[], (3, 11, 7), B));
        assert_ne!(base, key(&["a"], &[], (3, 11, 7), A));
        assert_ne!(base, key(&["ab"], &[], (3, 11, 7), A));
        assert_ne!(base, key(&["a", "b"], &[], (3, 11, 8), A));
    }

    #[test]
    fn what_overrides_requirements_makes_another_environment() {
        let interpreter = Interpreter { version: (3, 11, 7), path: "/usr/bin/python3".into() };
        let key = |overrides: &[&str]| {
            let pip_overrides = overrides.iter().map(|&line| line.to_owned()).collect();
            let config = AppConfig { pip: vec!["a".into()], pip_overrides, ..AppConfig::default() };
            wanted(&config, &[]).key(&interpreter.identity(), &A.parse().unwrap())
        };
        assert_ne!(key(&[]), key(&["b; python_version < '0'"]));
        assert_eq!(key(&["b"]), key(&["b"]));
    }

    #[test]
    fn what_depends_on_the_apps_files_is_not_shared_between_builds() {
        for (requirements, commands) in [
            (vec!["a"], vec!["make"]),
            (vec!["-e ."], vec![]),
            (vec!["./x.whl"], vec![]),
            (vec!["-r more.txt"], vec![]),
        ] {
            assert_ne!(
                key(&requirements, &commands, (3, 11, 7), A),
                key(&requirements, &commands, (3, 11, 7), B)
            );
        }
    }

    #[test]
    fn lists_that_other_systems_wrote_are_read() {
        let utf_16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}numpy\r\ntorch==2\r\n".encode_utf16().flat_map(unit).collect()
        };
        let with_mark = "\u{feff}numpy\r\ntorch==2\r\n".as_bytes().to_vec();
        for bytes in [with_mark, utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes)] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("requirements.txt"), &bytes).unwrap();
            let wanted = Wanted::of(&AppConfig::default(), folder.path()).unwrap();
            assert_eq!(wanted.requirements, ["numpy", "torch==2"], "{bytes:?}");
        }
    }

    #[test]
    fn lists_and_scripts_of_the_archive_count_like_the_config() {
        let config = AppConfig { pip: vec!["numpy".into()], ..AppConfig::default() };
        let wanted = wanted(
            &config,
            &[
                ("requirements.txt", "numpy\n# more\ntorch==2\n"),
                ("pkglist.txt", "ffmpeg\n"),
                ("shell_commands.sh", "#!/bin/bash\nset -e\n\necho one\necho two\n"),
                ("pre_build_commands.sh", "set -e \necho zero\n"),
            ],
        );
        let expected = Wanted {
            requirements: vec!["numpy".into(), "torch==2".into()],
            overrides: vec![],
            apt: vec!["ffmpeg".into()],
            conda: vec![],
            before: vec!["echo zero".into()],
            after: vec!["echo one".into(), "echo two".into()],
        };
        assert_eq!(wanted, expected);
    }
}
