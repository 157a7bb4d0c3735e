//! Rules about the text of our own files: where things may appear, and how long a file may grow.

use std::path::Path;

use walkdir::WalkDir;

/// A text file of the repository.
#[derive(Debug)]
pub(super) struct TextFile {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

/// A file longer than this is two files.
const LINES_MAX: usize = 700;

/// A phrase that belongs to some folders only.
struct Territory {
    phrases: &'static [&'static str],
    allowed: &'static [&'static str],
    why: &'static str,
}

const TERRITORIES: [Territory; 4] = [
    Territory {
        phrases: &["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE FROM", "rusqlite::"],
        allowed: &["crates/store/", "crates/testkit/", "crates/postback/tests/", "bench/"],
        why: "only `store` contains SQL",
    },
    Territory {
        phrases: &["env::var", "env::vars"],
        allowed: &[
            "crates/postback/",
            "crates/worker/src/bin/",
            "crates/testkit/",
            "crates/store/src/mutant.rs",
            "crates/delivery/src/mutant.rs",
            "bench/",
            "xtask/",
        ],
        why: "only `postback` reads the environment",
    },
    Territory {
        phrases: &["Command::new"],
        allowed: &[
            "crates/worker/",
            "crates/builder/",
            "crates/postback/",
            "crates/testkit/",
            "bench/",
            "xtask/",
        ],
        why: "only `worker` and `builder` start processes",
    },
    Territory {
        phrases: &["SystemTime::now", "Timestamp::now("],
        allowed: &["crates/postback/", "crates/testkit/", "bench/", "xtask/"],
        why: "time is an argument: take a `queue::Clock`",
    },
];

/// Left-overs that must not land, assembled so that this file does not find itself.
fn left_overs() -> [String; 5] {
    [
        format!("{}!(", "todo"),
        format!("{}!(", "unimplemented"),
        format!("{}ME", "FIX"),
        format!("{}DO:", "TO"),
        format!("#[{}]", "ignore"),
    ]
}

/// Reads every source and prose file.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let skipped = |name: &str| name.starts_with('.') || name == "target" || name == "__pycache__";
    let mut files = Vec::new();
    let entries = WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !entry.file_name().to_str().is_some_and(skipped));
    for entry in entries {
        let entry = entry?;
        let extension = entry.path().extension().and_then(|extension| extension.to_str());
        if entry.file_type().is_file()
            && matches!(extension, Some("rs" | "py" | "html" | "css" | "js" | "md"))
        {
            let path = entry.path().strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            files.push(TextFile { path, text: std::fs::read_to_string(entry.path())? });
        }
    }
    Ok(files)
}

/// The places that break a rule.
pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let left_overs = left_overs();
    files.iter().flat_map(|file| check_file(file, &left_overs)).collect()
}

fn check_file(TextFile { path, text }: &TextFile, left_overs: &[String]) -> Vec<String> {
    let mut findings = Vec::new();
    let is_rust = path.ends_with(".rs");
    let code = is_rust || path.ends_with(".py");
    let lines = text.lines().count();
    if code && lines > LINES_MAX {
        findings.push(format!("{path}: {lines} lines; beyond {LINES_MAX} it is two files"));
    }
    if is_rust && !text.trim_start().starts_with("//!") {
        findings.push(format!("{path}: begins without a `//!` header that says what it is for"));
    }
    let mut in_tests = path.contains("/tests/");
    for (number, line) in (1..).zip(text.lines()) {
        // Unit tests stand at the end of a file; what they touch is their own business.
        in_tests |= line == "#[cfg(test)]";
        if code && let Some(phrase) = left_overs.iter().find(|phrase| line.contains(phrase.as_str())) {
            findings.push(format!("{path}:{number}: `{phrase}` is left over"));
        }
        if is_rust && !in_tests && !path.starts_with("xtask/") {
            for territory in &TERRITORIES {
                let inside = territory.allowed.iter().any(|allowed| path.starts_with(allowed));
                if !inside && territory.phrases.iter().any(|phrase| line.contains(phrase)) {
                    findings.push(format!("{path}:{number}: {}", territory.why));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[TextFile { path: path.into(), text: text.into() }])
    }

    #[test]
    fn each_rule_finds_its_case() {
        assert_eq!(findings("crates/queue/src/a.rs", "//! Fine.\n"), Vec::<String>::new());
        for (path, text) in [
            ("crates/queue/src/a.rs", "fn headless() {}\n".to_owned()),
            ("crates/queue/src/a.rs", format!("//! Long.\n{}", "\n".repeat(LINES_MAX))),
            ("crates/gateway/src/a.rs", "//! Q.\nconst Q: &str = \"SELECT 1\";\n".to_owned()),
            ("crates/gateway/src/a.rs", "//! E.\nfn e() { std::env::var(\"X\"); }\n".to_owned()),
            ("crates/gateway/src/a.rs", "//! P.\nfn p() { Command::new(\"sh\"); }\n".to_owned()),
            ("crates/store/src/a.rs", "//! T.\nfn t() { SystemTime::now(); }\n".to_owned()),
            ("crates/store/src/a.rs", format!("//! L.\nfn l() {{ {}!() }}\n", "todo")),
        ] {
            assert_eq!(findings(path, &text).len(), 1, "{path}: {text:.40}");
        }
    }
}
