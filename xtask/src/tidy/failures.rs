//! `docs/failures.md` says what happens under each fault and names the tests that show it: each row names at least one,
//! and each named test exists.

use super::text::TextFile;

const PAGE: &str = "docs/failures.md";

/// The rows without a test, and the tests that are not there.
pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return vec![format!("{PAGE}: is missing")];
    };
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(page.text.lines()).filter(|(_, line)| is_row(line)) {
        let tests: Vec<_> = named_tests(line).collect();
        if tests.is_empty() {
            findings.push(format!("{PAGE}:{number}: names no test that shows it"));
        }
        let unknown = tests.iter().filter(|(path, name)| !exists(files, path, name));
        findings
            .extend(unknown.map(|(path, name)| format!("{PAGE}:{number}: there is no test {path}::{name}")));
    }
    findings
}

/// A row of a table, but for its head and the line below that.
fn is_row(line: &str) -> bool {
    line.starts_with("| ") && !line.starts_with("| fault ")
}

/// What stands between backticks in the form `path::name`.
fn named_tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|code| code.rsplit_once("::"))
}

fn exists(files: &[TextFile], path: &str, name: &str) -> bool {
    let definition = if path.ends_with(".py") { format!("def {name}(") } else { format!("fn {name}(") };
    files.iter().any(|file| file.path == path && file.text.contains(&definition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(row: &str) -> Vec<String> {
        let page = format!("# Faults\n\n| fault | seen | shown by |\n|---|---|---|\n{row}\n");
        let test = "//! Tests.\n#[test]\nfn it_holds() {}\n";
        check(&[
            TextFile { path: PAGE.into(), text: page },
            TextFile { path: "crates/store/tests/it/a.rs".into(), text: test.into() },
        ])
    }

    #[test]
    fn a_row_names_a_test_that_exists() {
        assert_eq!(findings("| `kill -9` | nothing | `crates/store/tests/it/a.rs::it_holds` |"), [""; 0]);
        assert!(findings("| fire | smoke | by `hand` |")[0].contains("names no test"));
        assert!(
            findings("| fire | smoke | `crates/store/tests/it/a.rs::gone` |")[0].contains("there is no test")
        );
        assert!(findings("| fire | smoke | `crates/gone.rs::it_holds` |")[0].contains("there is no test"));
        assert_eq!(check(&[]), ["docs/failures.md: is missing"]);
    }
}
