//! One JSON text in the forms in which the usual libraries would have written it: with and without spaces,
//! with sorted keys, with escapes. A signature that fits one of them was made before somebody wrote it anew.

use serde_json::value::RawValue;

use crate::json;

/// Levels of nesting that are written anew; deeper bodies have no other form here.
const DEPTH_MAX: usize = 64;

/// A form of a body.
pub(super) struct Form {
    /// What it is, for people.
    pub(super) name: &'static str,
    /// The body in it.
    pub(super) bytes: Vec<u8>,
}

/// How a library writes.
#[derive(Clone, Copy)]
struct Style {
    between: &'static str,
    after_key: &'static str,
    /// Spaces of a level; 0 is one line.
    indent: usize,
    sorted: bool,
    /// Everything beyond ASCII as `\uXXXX`.
    ascii: bool,
    /// `1.0` as `1`, as JavaScript does.
    short_numbers: bool,
}

const COMPACT: Style =
    Style { between: ",", after_key: ":", indent: 0, sorted: false, ascii: false, short_numbers: false };
const SPACED: Style = Style { between: ", ", after_key: ": ", ..COMPACT };
const LINES: Style = Style { after_key: ": ", indent: 2, ..COMPACT };

const STYLES: &[(&str, Style)] = &[
    ("compact, as `JSON.stringify` writes it", COMPACT),
    ("compact with short numbers, as `JSON.stringify` writes it", Style { short_numbers: true, ..COMPACT }),
    ("compact with `\\u` escapes", Style { ascii: true, ..COMPACT }),
    ("with spaces, as Python's `json.dumps` writes it", Style { ascii: true, ..SPACED }),
    ("with spaces and without `\\u` escapes", SPACED),
    ("compact with sorted keys", Style { sorted: true, ..COMPACT }),
    ("compact with sorted keys and `\\u` escapes", Style { sorted: true, ascii: true, ..COMPACT }),
    ("with spaces and sorted keys", Style { sorted: true, ascii: true, ..SPACED }),
    ("with spaces, sorted keys and no `\\u` escapes", Style { sorted: true, ..SPACED }),
    ("over several lines, indented by 2", LINES),
    ("over several lines, indented by 4", Style { indent: 4, ..LINES }),
    ("over several lines, indented by 2, with sorted keys", Style { sorted: true, ..LINES }),
];

/// The other forms of `body`, one at a time.
pub(super) fn of(body: &[u8]) -> impl Iterator<Item = Form> {
    let node = std::str::from_utf8(body)
        .ok()
        .and_then(|text| serde_json::from_str::<&RawValue>(text).ok())
        .and_then(|raw| Node::read(raw, 0));
    let written = node.into_iter().flat_map(|node| {
        STYLES.iter().map(move |(name, style)| {
            let mut text = String::new();
            node.write(&mut text, *style, 0);
            Form { name, bytes: text.into_bytes() }
        })
    });
    let end = match body.strip_suffix(b"\n") {
        Some(rest) => Form { name: "without the line feed at its end", bytes: rest.to_vec() },
        None => Form { name: "with a line feed at its end", bytes: [body, b"\n"].concat() },
    };
    written.chain((!body.is_empty()).then_some(end)).filter(move |form| form.bytes != body)
}

/// A value; numbers and words are as they were written.
enum Node<'a> {
    Plain(&'a str),
    Text(String),
    List(Vec<Node<'a>>),
    Map(Vec<(String, Node<'a>)>),
}

impl<'a> Node<'a> {
    fn read(raw: &'a RawValue, depth: usize) -> Option<Self> {
        let text = raw.get();
        if depth > DEPTH_MAX {
            return None;
        }
        Some(match text.as_bytes().first()? {
            b'{' => {
                let read = |(key, raw)| Some((key, Self::read(raw, depth + 1)?));
                Self::Map(json::entries(text)?.into_iter().map(read).collect::<Option<_>>()?)
            }
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Self::List(items.into_iter().map(|raw| Self::read(raw, depth + 1)).collect::<Option<_>>()?)
            }
            b'"' => Self::Text(serde_json::from_str(text).ok()?),
            _ => Self::Plain(text),
        })
    }

    fn write(&self, to: &mut String, style: Style, depth: usize) {
        match self {
            Self::Plain(text) => match number(text).filter(|_| style.short_numbers) {
                Some(number) => to.push_str(&number),
                None => to.push_str(text),
            },
            Self::Text(text) => write_text(to, text, style),
            Self::List(items) => {
                let items = items.iter().map(|item| move |to: &mut String| item.write(to, style, depth + 1));
                write_items(to, ["[", "]"], items, style, depth);
            }
            Self::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                if style.sorted {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                let items = entries.into_iter().map(|(key, value)| {
                    move |to: &mut String| {
                        write_text(to, key, style);
                        to.push_str(style.after_key);
                        value.write(to, style, depth + 1);
                    }
                });
                write_items(to, ["{", "}"], items, style, depth);
            }
        }
    }
}

fn write_items(
    to: &mut String,
    [open, close]: [&str; 2],
    items: impl Iterator<Item = impl FnOnce(&mut String)>,
    style: Style,
    depth: usize,
) {
    let line = |to: &mut String, depth: usize| {
        if style.indent > 0 {
            to.push('\n');
            to.extend(std::iter::repeat_n(' ', style.indent * depth));
        }
    };
    to.push_str(open);
    let mut any = false;
    for item in items {
        if any {
            to.push_str(style.between);
        }
        any = true;
        line(to, depth + 1);
        item(to);
    }
    if any {
        line(to, depth);
    }
    to.push_str(close);
}

fn write_text(to: &mut String, text: &str, style: Style) {
    use std::fmt::Write as _;
    // A text is always written: serialising one cannot fail.
    let plain = serde_json::to_string(text).unwrap_or_default();
    if !style.ascii || plain.is_ascii() {
        to.push_str(&plain);
        return;
    }
    for char in plain.chars() {
        if char.is_ascii() {
            to.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(to, "\\u{unit:04x}");
        }
    }
}

/// A number as JavaScript writes it, where that has no exponent.
fn number(text: &str) -> Option<String> {
    let number: f64 = text.parse().ok()?;
    (number == 0.0 || (1e-6..1e21).contains(&number.abs())).then(|| format!("{}", number + 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(body: &str) -> Vec<String> {
        of(body.as_bytes()).map(|form| String::from_utf8(form.bytes).unwrap()).collect()
    }

    #[test]
    fn a_body_is_written_as_the_usual_libraries_would() {
        let forms = all(r#"{"b": [1.0, 12345678901234567890], "a":"é\n😀", "a": {}}"#);
        for form in [
            r#"{"b":[1.0,12345678901234567890],"a":"é\n😀","a":{}}"#,
            r#"{"b":[1,12345678901234567000],"a":"é\n😀","a":{}}"#,
            r#"{"b": [1.0, 12345678901234567890], "a": "\u00e9\n\ud83d\ude00", "a": {}}"#,
            r#"{"a":"é\n😀","a":{},"b":[1.0,12345678901234567890]}"#,
            "{\n  \"b\": [\n    1.0,\n    12345678901234567890\n  ],\n  \"a\": \"é\\n😀\",\n  \"a\": {}\n}",
        ] {
            assert!(forms.iter().any(|given| given == form), "{form} is not among {forms:#?}");
        }
    }

    #[test]
    fn what_is_no_json_has_its_end_alone() {
        assert_eq!(all("hello"), ["hello\n"]);
        assert_eq!(all("hello\n"), ["hello"]);
        assert!(all("").is_empty());
        assert_eq!(all(&format!("{}{}", "[".repeat(100), "]".repeat(100))).len(), 1);
    }
}
