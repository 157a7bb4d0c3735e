//! JSON laid out for reading, on its own bytes: numbers keep every digit, keys their order and
//! their doubles, strings their escapes. Nothing is decoded, so nothing can be lost.

use serde_json::value::RawValue;

/// Levels that get an indentation of their own; deeper ones share the last. Without this bound the
/// layout of a deeply nested body would grow with the square of its size.
const INDENTED_LEVELS_MAX: usize = 32;
/// Short arrays of plain values stay on one line up to this many bytes.
const LINE_BYTES_MAX: usize = 60;

/// `json` over several lines, or `None` when it is not JSON. Stops soon after `max` bytes.
pub fn pretty(json: &str, max: usize) -> Option<String> {
    serde_json::from_str::<&RawValue>(json).ok()?;
    let mut layout = Layout { text: String::with_capacity(json.len().min(max) * 2), depth: 0 };
    let mut rest = json.trim_ascii();
    while let Some(first) = rest.bytes().next() {
        if layout.text.len() >= max {
            break;
        }
        rest = match first {
            b'"' => layout.copy(rest, string_len(rest)),
            b'{' | b'[' => layout.open(rest),
            b'}' | b']' => layout.close(rest),
            b',' => layout.comma(rest),
            b':' => layout.colon(rest),
            b' ' | b'\n' | b'\r' | b'\t' => &rest[1..],
            _ => layout.copy(rest, scalar_len(rest)),
        };
    }
    Some(layout.text)
}

struct Layout {
    text: String,
    depth: usize,
}

impl Layout {
    fn copy<'a>(&mut self, json: &'a str, len: usize) -> &'a str {
        let (token, rest) = json.split_at(len);
        self.text.push_str(token);
        rest
    }

    fn open<'a>(&mut self, json: &'a str) -> &'a str {
        if let Some(len) = short_len(json) {
            return self.copy(json, len);
        }
        let rest = json[1..].trim_ascii_start();
        self.text.push_str(&json[..1]);
        if rest.starts_with(['}', ']']) {
            return self.copy(rest, 1);
        }
        self.depth += 1;
        self.line();
        rest
    }

    fn close<'a>(&mut self, json: &'a str) -> &'a str {
        self.depth = self.depth.saturating_sub(1);
        self.line();
        self.copy(json, 1)
    }

    fn comma<'a>(&mut self, json: &'a str) -> &'a str {
        self.text.push(',');
        self.line();
        &json[1..]
    }

    fn colon<'a>(&mut self, json: &'a str) -> &'a str {
        self.text.push_str(": ");
        &json[1..]
    }

    fn line(&mut self) {
        self.text.push('\n');
        for _ in 0..self.depth.min(INDENTED_LEVELS_MAX) {
            self.text.push_str("  ");
        }
    }
}

/// Length of the string literal at the beginning, quotes included.
fn string_len(json: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in json.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    json.len()
}

/// Length of the number, `true`, `false` or `null` at the beginning.
fn scalar_len(json: &str) -> usize {
    json.bytes()
        .position(|byte| matches!(byte, b',' | b':' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
        .unwrap_or(json.len())
        .max(1)
}

/// Length of the array at the beginning, if it holds numbers and words only and fits a line.
fn short_len(json: &str) -> Option<usize> {
    let inner = json.strip_prefix('[')?;
    let end = inner.bytes().take(LINE_BYTES_MAX).position(|byte| !is_plain(byte))?;
    (inner.as_bytes()[end] == b']').then_some(end + 2)
}

/// Whether a byte can be part of a list of numbers and words on one line.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b',' | b' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(json: &str) -> String {
        pretty(json, usize::MAX).unwrap()
    }

    #[test]
    fn objects_and_arrays_get_a_line_per_item() {
        let json = r#"{"a":{"b":[1, 2,3],"c":[{}, []]},"d":"x,{}\"["}"#;
        let expected = "{\n  \"a\": {\n    \"b\": [1, 2,3],\n    \"c\": [\n      {},\n      []\n    ]\n  },\n  \
                        \"d\": \"x,{}\\\"[\"\n}";
        assert_eq!(all(json), expected);
    }

    #[test]
    fn digits_order_and_doubled_keys_stay() {
        let json = r#"{"n":123456789012345678901234567890,"n":1.10e400,"a":-0.0}"#;
        assert_eq!(
            all(json),
            "{\n  \"n\": 123456789012345678901234567890,\n  \"n\": 1.10e400,\n  \"a\": -0.0\n}"
        );
    }

    #[test]
    fn what_is_not_json_is_left_alone() {
        for text in ["", "{", "hello", "{\"a\":1}{", "NaN"] {
            assert_eq!(pretty(text, usize::MAX), None, "{text}");
        }
    }

    #[test]
    fn deep_nesting_does_not_multiply() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert!(all(&deep).len() < deep.len() * 2 * (INDENTED_LEVELS_MAX + 1));
        assert!(pretty(&deep, 1000).unwrap().len() < 2000);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(serde_json::Value::String),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(".*", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_layout_changes_nothing_but_white_space(value in json()) {
            let text = value.to_string();
            let again: serde_json::Value = serde_json::from_str(&all(&text)).unwrap();
            prop_assert_eq!(again, value);
        }
    }
}
