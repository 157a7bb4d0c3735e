//! Two requests beside each other: which headers differ, and which lines of their bodies.

use std::time::Duration;

use pages::inert::visible;
use pages::pretty;
use queue::inbox::CapturedRequest;
use queue::text::cut;
use similar::{ChangeTag, TextDiff};

/// Of each body, compared.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Lines that are shown.
const LINES_MAX: usize = 4_000;
/// Unchanged lines shown beside changed ones.
const CONTEXT_LINES: usize = 3;
/// Time after which two bodies that differ in everything are compared less finely.
const LIMIT: Duration = Duration::from_millis(200);

/// A line of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// `same`, `old`, `new` or `gap`.
    pub(crate) side: &'static str,
    /// What tells the sides apart without colour.
    pub(crate) sign: &'static str,
    pub(crate) text: String,
}

impl Line {
    fn new(tag: ChangeTag, text: &str) -> Self {
        let (side, sign) = match tag {
            ChangeTag::Equal => ("same", " "),
            ChangeTag::Delete => ("old", "−"),
            ChangeTag::Insert => ("new", "+"),
        };
        Self { side, sign, text: visible(text.trim_end_matches(['\n', '\r'])).into_owned() }
    }
}

/// Method, path and headers, a line each, headers by name.
pub(crate) fn heads(old: &CapturedRequest, new: &CapturedRequest) -> Vec<Line> {
    let head = |request: &CapturedRequest| {
        let mut headers: Vec<_> =
            request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        headers.sort();
        format!("{} {}\n{}\n", request.method, request.path, headers.join("\n"))
    };
    lines(&head(old), &head(new), usize::MAX)
}

/// The bodies, laid out when they are JSON; `None` when they are the same to the byte.
pub(crate) fn bodies(old: &CapturedRequest, new: &CapturedRequest) -> Option<Vec<Line>> {
    if old.body == new.body {
        return None;
    }
    let text = |request: &CapturedRequest| {
        let text = String::from_utf8_lossy(&request.body[..request.body.len().min(BODY_BYTES_MAX)]);
        let laid_out =
            (request.body.len() <= BODY_BYTES_MAX).then(|| pretty(&text, BODY_BYTES_MAX)).flatten();
        laid_out.unwrap_or_else(|| cut(&text, BODY_BYTES_MAX).to_owned())
    };
    Some(lines(&text(old), &text(new), CONTEXT_LINES))
}

fn lines(old: &str, new: &str, context: usize) -> Vec<Line> {
    let difference = TextDiff::configure().timeout(LIMIT).diff_lines(old, new);
    let mut lines = Vec::new();
    if context == usize::MAX {
        lines.extend(difference.iter_all_changes().map(|change| Line::new(change.tag(), change.value())));
    } else {
        for (at, group) in difference.grouped_ops(context).iter().enumerate() {
            if at > 0 {
                lines.push(Line { side: "gap", sign: "", text: "⋯".to_owned() });
            }
            for operation in group {
                let changes = difference.iter_changes(operation);
                lines.extend(changes.map(|change| Line::new(change.tag(), change.value())));
            }
        }
    }
    if lines.len() > LINES_MAX {
        lines.truncate(LINES_MAX);
        lines.push(Line { side: "gap", sign: "", text: "⋯ and more".to_owned() });
    }
    lines
}

#[cfg(test)]
mod tests {
    use testkit::recorded;

    use super::*;

    fn request(headers: &[(&str, &str)], body: &str) -> CapturedRequest {
        recorded("POST", "/inbox/1", headers, body.as_bytes())
    }

    fn told(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| format!("{}{}", line.sign, line.text)).collect()
    }

    #[test]
    fn headers_are_compared_whatever_their_order() {
        let old = request(&[("b", "1"), ("a", "2")], "");
        let new = request(&[("a", "2"), ("b", "\u{1b}[31m"), ("c", "3")], "");
        assert_eq!(told(&heads(&old, &new)), [" POST /inbox/1", " a: 2", "−b: 1", "+b: ␛[31m", "+c: 3"]);
    }

    #[test]
    fn json_is_compared_by_its_values_not_by_its_spaces() {
        let old = request(&[], r#"{"a": 1, "b": [true], "c": "x"}"#);
        let new = request(&[], "{\"a\":1,\n\"b\":[true],\"c\":\"y\"}");
        let lines = bodies(&old, &new).unwrap();
        assert_eq!(
            told(&lines),
            [" {", "   \"a\": 1,", "   \"b\": [true],", "−  \"c\": \"x\"", "+  \"c\": \"y\"", " }"]
        );
        assert_eq!(bodies(&old, &old), None);
    }

    #[test]
    fn large_bodies_are_compared_in_part() {
        let old = request(&[], &"a\n".repeat(BODY_BYTES_MAX));
        let new = request(&[], &"b\n".repeat(BODY_BYTES_MAX));
        assert!(bodies(&old, &new).unwrap().len() <= LINES_MAX + 1);
    }
}
