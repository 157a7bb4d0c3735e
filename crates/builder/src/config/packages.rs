//! Package tables: `name = "version"` becomes the line that pip, apt or conda understands.

use super::document::{Node, Value};

/// What an app of 2023 found in its base image and could import without asking for it.
///
/// A range, not a version: the app runs on the interpreter of this machine, and each interpreter has
/// its own newest release. Code of 2023 used the API of pydantic 1 that pydantic 2 still carries.
pub const BASE_IMAGE_PACKAGES: &[&str] = &["pydantic>=1.10,<3"];

/// One line of `requirements.txt`.
pub(super) fn pip_line(name: &str, version: &str) -> String {
    line(name, version, "==")
}

/// One line of `conda_pkglist.txt`.
pub(super) fn conda_line(name: &str, version: &str) -> String {
    line(name, version, "=")
}

/// One line of `pkglist.txt`.
pub(super) fn apt_line(name: &str, version: &str) -> String {
    line(name, version, "=")
}

fn line(name: &str, version: &str, equals: &str) -> String {
    let version = version.trim();
    if version.is_empty() || version == "*" || version.eq_ignore_ascii_case("latest") {
        name.to_owned()
    } else if version.starts_with("git+") || version.starts_with("http://") || version.starts_with("https://")
    {
        // The table's key need not be the package's own name, so only the address counts.
        version.to_owned()
    } else if version.starts_with(['=', '<', '>', '!', '~', '@', '[']) {
        format!("{name}{version}")
    } else {
        format!("{name}{equals}{version}")
    }
}

/// Requirement lines of a text: no blank lines, no comments.
pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_once(" #").map_or(line, |(line, _)| line).trim())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The entries of a package table; `None` when a version is neither a text nor absent.
pub(super) fn table(node: &Node) -> Result<Vec<(String, String)>, (usize, String)> {
    let Value::Table(entries) = &node.value else {
        return Err((node.line, "is a table of `name = \"version\"` lines".into()));
    };
    entries
        .iter()
        .map(|entry| match &entry.node.value {
            Value::Text { text, .. } => Ok((entry.key.clone(), text.clone())),
            Value::Null => Ok((entry.key.clone(), String::new())),
            _ => Err((
                entry.line,
                format!("has a version for `{}` that is no text; write `{0} = \"latest\"`", entry.key),
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_version_means_one_thing() {
        for (version, pip, conda) in [
            ("latest", "numpy", "numpy"),
            ("Latest", "numpy", "numpy"),
            ("", "numpy", "numpy"),
            ("*", "numpy", "numpy"),
            ("2.1.0", "numpy==2.1.0", "numpy=2.1.0"),
            ("==2.1.0", "numpy==2.1.0", "numpy==2.1.0"),
            (">=2,<3", "numpy>=2,<3", "numpy>=2,<3"),
            ("~=2.1", "numpy~=2.1", "numpy~=2.1"),
            ("!=2.2", "numpy!=2.2", "numpy!=2.2"),
            (" >2 ", "numpy>2", "numpy>2"),
            ("git+https://h/numpy@v2", "git+https://h/numpy@v2", "git+https://h/numpy@v2"),
        ] {
            assert_eq!(
                (pip_line("numpy", version), conda_line("numpy", version)),
                (pip.into(), conda.into())
            );
        }
    }

    #[test]
    fn comments_and_blank_lines_are_no_requirements() {
        assert_eq!(lines("# all\n\nnumpy # fast\n  torch==2  \n"), ["numpy", "torch==2"]);
        assert_eq!(lines("x @ https://h/x.whl#sha256=1\n"), ["x @ https://h/x.whl#sha256=1"]);
    }
}
