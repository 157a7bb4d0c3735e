//! Names an archive's entries may have, so that they stay below the folder they are unpacked into.

/// Longest component of a path, in bytes: what common file systems take.
const COMPONENT_BYTES_MAX: usize = 255;
/// Components of a path at most.
const DEPTH_MAX: usize = 32;
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 1024;

/// The rule that a file's path breaks, if it breaks one.
pub(super) fn broken_rule(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if path.len() > PATH_BYTES_MAX {
        return Some("it is longer than 1024 bytes");
    }
    if path.starts_with('/') {
        return Some("it is an absolute path");
    }
    if path.contains('\\') {
        return Some("it has a backslash");
    }
    if path.chars().any(char::is_control) {
        return Some("it has a control character");
    }
    let mut components = 0;
    for component in path.split('/') {
        components += 1;
        match component {
            "" => return Some("it has an empty component"),
            "." | ".." => return Some("it has a `.` or `..` component"),
            _ if component.len() > COMPONENT_BYTES_MAX => {
                return Some("a component is longer than 255 bytes");
            }
            _ => {}
        }
    }
    let drive = path.as_bytes();
    if drive.len() >= 2 && drive[1] == b':' && drive[0].is_ascii_alphabetic() {
        return Some("it begins with a drive letter");
    }
    (components > DEPTH_MAX).then_some("it has more than 32 components")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_lead_elsewhere_break_a_rule() {
        let deep = vec!["a"; 33].join("/");
        let long = "a".repeat(256);
        for name in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../x",
            "a/..",
            ".",
            "./x",
            "a//b",
            "a/",
            "a\\b",
            "..\\x",
            "C:x",
            "c:/x",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            &deep,
            &long,
        ] {
            assert!(broken_rule(name).is_some(), "{name:?}");
        }
        for name in ["main.py", "a/b/c.txt", "..a", "a..b", ".env", "ä/ö", "a b", "1:2"] {
            assert_eq!(broken_rule(name), None, "{name:?}");
        }
    }
}
