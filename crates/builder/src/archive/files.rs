//! Which files of a folder belong to an app: patterns as Python's `fnmatch` reads them.
//!
//! `*` crosses `/`, so that `./*` is everything; `.*` is what begins with a dot at the top. A file is
//! packed when a pattern includes it and none excludes it.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Folders nobody means to upload: they are packed only when an include pattern names them.
const NEVER_MEANT: [&str; 4] = [".git", "__pycache__", ".venv", "node_modules"];

/// The files an app's patterns choose.
pub(super) struct Chosen {
    include: GlobSet,
    exclude: GlobSet,
    left_out: Vec<&'static str>,
}

impl Chosen {
    /// By the patterns of a config, which were checked when it was read.
    pub(super) fn new(folder: &Path, include: &[String], exclude: &[String]) -> Result<Self, String> {
        let named = |name: &&str| include.iter().any(|pattern| pattern.split('/').any(|part| part == *name));
        Ok(Self {
            include: set(folder, include)?,
            exclude: set(folder, exclude)?,
            left_out: NEVER_MEANT.into_iter().filter(|name| !named(name)).collect(),
        })
    }

    /// Whether the file at this path, relative to the folder, is packed.
    pub(super) fn has(&self, path: &str) -> bool {
        self.include.is_match(path) && !self.exclude.is_match(path)
    }

    /// Whether a folder of this name is not looked into.
    pub(super) fn passes_by(&self, name: &str) -> bool {
        self.left_out.contains(&name)
    }
}

/// Whether a pattern can be understood; what is wrong with it if not.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    glob(pattern).map(drop)
}

fn set(folder: &Path, patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        // A folder's name, or a trailing `/`, means what is in it.
        if let Some(name) = pattern.strip_suffix('/') {
            set.add(glob(&format!("{name}/*"))?);
        } else {
            set.add(glob(pattern)?);
            if !pattern.is_empty() && folder.join(pattern).is_dir() {
                set.add(glob(&format!("{pattern}/*"))?);
            }
        }
    }
    set.build().map_err(|error| error.to_string())
}

/// A pattern of `fnmatch` in the language of `globset`: braces are letters, stars cross `/`.
fn glob(pattern: &str) -> Result<globset::Glob, String> {
    let mut translated = String::with_capacity(pattern.len() + 8);
    for letter in pattern.chars() {
        match letter {
            '*' if translated.ends_with('*') => {}
            '{' | '}' => translated.extend(['[', letter, ']']),
            letter => translated.push(letter),
        }
    }
    GlobBuilder::new(&translated)
        .literal_separator(false)
        .backslash_escape(false)
        .allow_unclosed_class(true)
        .build()
        .map_err(|error| format!("has the pattern `{pattern}`, which cannot be understood: {}", error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(include: &[&str], exclude: &[&str]) -> Chosen {
        let texts = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
        Chosen::new(Path::new("/nonexistent"), &texts(include), &texts(exclude)).unwrap()
    }

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, path, matches) in [
            ("./*", "main.py", true),
            ("./*", "sub/deep/mod.py", true),
            ("*", ".hidden", true),
            ("*.py", "sub/mod.py", true),
            ("**/*.py", "sub/mod.py", true),
            ("sub/", "sub/mod.py", true),
            ("sub/", "subway.py", false),
            ("main.py", "main.py", true),
            ("main.py", "sub/main.py", false),
            ("mai?.py", "main.py", true),
            ("[mn]ain.py", "nain.py", true),
            ("[!m]ain.py", "main.py", false),
            ("a{b,c}", "ab", false),
            ("a{b,c}", "a{b,c}", true),
            ("we[ird", "we[ird", true),
        ] {
            assert_eq!(chosen(&[pattern], &[]).has(path), matches, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_usual_exclusion_hides_only_dots_and_underscores_at_the_top() {
        let files = chosen(&["./*"], &["./.*", "./__*"]);
        for (path, kept) in [
            (".env", false),
            ("__x/y", false),
            ("sub/.keep", true),
            ("sub/__init__.py", true),
            ("a.py", true),
        ] {
            assert_eq!(files.has(path), kept, "{path}");
        }
    }

    #[test]
    fn folders_nobody_means_are_packed_only_when_named() {
        assert!(chosen(&["./*"], &[]).passes_by(".git"));
        assert!(!chosen(&["./*", ".venv/*"], &[]).passes_by(".venv"));
    }
}
