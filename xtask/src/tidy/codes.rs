//! `docs/errors/README.md` lists the code of every error answer that gateway and inboxes can give, and no other. Codes
//! stand in the sources as literals where a problem is made; those whose code is a variable name them nearby.

use std::collections::BTreeSet;

use super::text::TextFile;

const PAGE: &str = "docs/errors/README.md";
const SECTION: &str = "## A request was refused";
const SOURCES: [&str; 4] = [
    "crates/gateway/src/",
    "crates/delivery/src/rules.rs",
    "crates/delivery/src/guard.rs",
    "crates/inbox/src/capture.rs",
];

/// What stands right before a code, but for white space and a status.
const HEADS: [&str; 11] = [
    "::bad_request(",
    "::not_found(",
    "::conflict(",
    "::too_many(",
    "::unavailable(",
    "::unprocessable(",
    "::new(StatusCode::",
    "refuse(",
    "refused(",
    "rule:",
    "\"code\":",
];
/// What stands at the beginning of a line or a function that chooses between codes.
const CHOICES: [(&str, &str); 2] = [("let code =", ";"), ("fn code(", "\n    }")];

/// Codes without a line on the page, and lines whose code nobody gives.
pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return vec![format!("{PAGE}: is missing")];
    };
    let section =
        page.text.split_once(SECTION).map_or("", |(_, rest)| rest.split("\n## ").next().unwrap_or(rest));
    let listed: BTreeSet<_> = section.lines().flat_map(listed_codes).collect();
    let sources = files.iter().filter(|file| SOURCES.iter().any(|source| file.path.starts_with(source)));
    let given: BTreeSet<_> = sources.flat_map(|file| codes(&file.text)).collect();
    let missing = given.difference(&listed).map(|code| {
        format!("{PAGE}: the code `{code}` of an error answer is not listed below \"{SECTION}\"; add a row")
    });
    let unknown = listed
        .difference(&given)
        .map(|code| format!("{PAGE}: nobody gives the code `{code}`; remove its row"));
    missing.chain(unknown).collect()
}

/// The codes in the first cell of a row.
fn listed_codes(line: &str) -> Vec<String> {
    let Some(cell) = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next()) else {
        return Vec::new();
    };
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn codes(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let mut codes = Vec::new();
    for head in HEADS {
        for (at, _) in text.match_indices(head) {
            codes.extend(code_after(text, &text[at + head.len()..], head.ends_with("StatusCode::")));
        }
    }
    // A call whose arguments have lines of their own.
    for (at, _) in text.match_indices("::new(\n") {
        let rest = text[at + "::new(".len()..].trim_start();
        codes.extend(rest.strip_prefix("StatusCode::").and_then(|rest| code_after(text, rest, true)));
    }
    for (begin, end) in CHOICES {
        for (at, _) in text.match_indices(begin) {
            let choice = text[at..].split(end).next().unwrap_or_default();
            codes
                .extend(choice.split('"').skip(1).step_by(2).filter(|word| is_code(word)).map(str::to_owned));
        }
    }
    codes
}

/// The literal that follows, or the one that the constant stands for.
fn code_after(text: &str, rest: &str, behind_status: bool) -> Option<String> {
    let rest = if behind_status { rest.split_once(',')?.1 } else { rest }.trim_start();
    if let Some(literal) = rest.strip_prefix('"') {
        return literal.split('"').next().filter(|word| is_code(word)).map(str::to_owned);
    }
    let name: String =
        rest.chars().take_while(|letter| letter.is_ascii_uppercase() || *letter == '_').collect();
    let (_, value) = text.split_once(&format!("const {name}: &str = \""))?;
    value.split('"').next().filter(|word| is_code(word)).map(str::to_owned)
}

fn is_code(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_lowercase() || letter == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(source: &str, row: &str) -> Vec<String> {
        let page = format!(
            "# Errors\n\n{SECTION}\n\n| code | status |\n|---|---|\n{row}\n\n## Other\n\n| `other` |\n"
        );
        check(&[
            TextFile { path: PAGE.into(), text: page },
            TextFile { path: "crates/gateway/src/a.rs".into(), text: source.into() },
        ])
    }

    #[test]
    fn codes_and_rows_are_compared_in_both_directions() {
        for source in [
            "Problem::bad_request(\"too_deep\", x)",
            "Problem::unprocessable(\n    \"too_deep\",\n    x)",
            "Self::new(StatusCode::NOT_FOUND, \"too_deep\", x)",
            "Problem::new(\n    StatusCode::NOT_FOUND,\n    \"too_deep\",\n)",
            "const DEEP: &str = \"too_deep\";\nProblem::conflict(DEEP, x)",
            "let code = if deep { \"too_deep\" } else { return };",
            "    fn code(&self) {\n        match self {\n            A => \"too_deep\",\n        }\n    }\n",
            "const BODY: &str = r#\"{\"message\":\"x\",\"code\":\"too_deep\"}\"#;",
        ] {
            assert_eq!(findings(source, "| `too_deep` | 400 |"), [""; 0], "{source}");
            assert!(
                findings(source, "").concat().contains("`too_deep` of an error answer is not listed"),
                "{source}"
            );
        }
        assert!(findings("", "| `gone` | 400 |").concat().contains("nobody gives the code `gone`"));
        assert_eq!(findings("Problem::conflict(code, x)", ""), [""; 0]);
        assert_eq!(check(&[]), ["docs/errors/README.md: is missing"]);
    }
}
