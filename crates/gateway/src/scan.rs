//! One look at a request body: is it JSON, is it an object, which keys does it have, where does it
//! want its webhook.
//!
//! The body itself goes to the model untouched, so nothing is built here: no tree, no copies, no
//! recursion (nesting is a stack of bits). Strict RFC 8259, but for one thing said in `limits`: at most
//! [`JSON_DEPTH_MAX`] levels. What is accepted agrees with `serde_json`, which the tests hold it to.

use std::borrow::Cow;

use queue::limits::JSON_DEPTH_MAX;

/// The key that asks for a webhook.
pub(crate) const WEBHOOK_ENDPOINT: &str = "webhook_endpoint";
/// The key that stands for the run's id.
pub(crate) const RUN_ID: &str = "run_id";

/// What a body says about its webhook.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WebhookField<'a> {
    /// The key is missing, or `null`.
    Absent,
    /// An address, unchecked.
    Address(Cow<'a, str>),
    /// Something that is no text; what it is.
    NotText(&'static str),
}

/// Why a body is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("the body is not valid JSON: {reason} at {at}")]
    Syntax { reason: &'static str, at: Position },
    #[error("the body is not UTF-8 at {at}; send the JSON encoded as UTF-8")]
    NotUtf8 { at: Position },
    #[error("the body is nested deeper than {JSON_DEPTH_MAX} levels at {at}; send a flatter document")]
    TooDeep { at: Position },
    #[error(
        "the body is {found}, but a function is called with a JSON object such as {{\"prompt\": \"hello\"}}"
    )]
    NotAnObject { found: &'static str },
    #[error("the body has the key `{key}` twice, the second time at {at}; send it once")]
    Duplicate { key: &'static str, at: Position },
}

impl ScanError {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } | Self::NotUtf8 { .. } => "invalid_json",
            Self::TooDeep { .. } => "json_too_deep",
            Self::NotAnObject { .. } => "not_an_object",
            Self::Duplicate { .. } => "duplicate_key",
        }
    }
}

/// A place in a body, as editors count: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    line: usize,
    column: usize,
    offset: usize,
}

impl Position {
    fn of(body: &[u8], offset: usize) -> Self {
        let before = &body[..offset.min(body.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Self {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + String::from_utf8_lossy(&before[line_start..]).chars().count(),
            offset,
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {} (byte {})", self.line, self.column, self.offset)
    }
}

/// Whether there is nothing but white space, which stands for `{}`.
pub(crate) fn is_blank(body: &[u8]) -> bool {
    body.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
}

/// Checks `body` and tells `on_key` every key of its top level, unescaped, in order of appearance.
pub(crate) fn scan<'a>(body: &'a [u8], mut on_key: impl FnMut(&str)) -> Result<WebhookField<'a>, ScanError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ScanError::NotUtf8 { at: Position::of(body, error.valid_up_to()) })?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.document(&mut on_key).map_err(|fault| match fault {
        Fault::Syntax(reason) => ScanError::Syntax { reason, at: Position::of(body, scanner.at) },
        Fault::TooDeep => ScanError::TooDeep { at: Position::of(body, scanner.at) },
        Fault::NotAnObject(found) => ScanError::NotAnObject { found },
        Fault::Duplicate(key, offset) => ScanError::Duplicate { key, at: Position::of(body, offset) },
    })
}

enum Fault {
    Syntax(&'static str),
    TooDeep,
    NotAnObject(&'static str),
    Duplicate(&'static str, usize),
}

/// The open arrays and objects, innermost last: one bit each.
#[derive(Default)]
struct Nesting {
    depth: usize,
    objects: u128,
}

const _: () = assert!(JSON_DEPTH_MAX <= 128, "nesting is kept in 128 bits");

impl Nesting {
    fn open(&mut self, object: bool) -> Result<(), Fault> {
        if self.depth == JSON_DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        self.objects = self.objects << 1 | u128::from(object);
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn document(&mut self, on_key: &mut impl FnMut(&str)) -> Result<WebhookField<'a>, Fault> {
        self.white_space();
        let found = self.peek().map_or("empty", kind_of);
        let top_is_object = self.peek() == Some(b'{');
        let mut nesting = Nesting::default();
        let mut top = Top::default();
        'value: loop {
            self.white_space();
            match self.peek() {
                Some(b'{') => {
                    nesting.open(true)?;
                    self.at += 1;
                    self.white_space();
                    if self.peek() != Some(b'}') {
                        self.key(&nesting, top_is_object, &mut top, on_key)?;
                        continue 'value;
                    }
                    self.at += 1;
                    nesting.close();
                }
                Some(b'[') => {
                    nesting.open(false)?;
                    self.at += 1;
                    self.white_space();
                    if self.peek() != Some(b']') {
                        continue 'value;
                    }
                    self.at += 1;
                    nesting.close();
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(_) => return Err(Fault::Syntax("a value was expected")),
                None => return Err(Fault::Syntax("it ends where a value was expected")),
            }
            // A value has ended, and with it perhaps what holds it.
            while nesting.depth > 0 {
                if nesting.depth == 1 {
                    top.value_ended(self.at);
                }
                self.white_space();
                match (self.peek(), nesting.in_object()) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.white_space();
                        self.key(&nesting, top_is_object, &mut top, on_key)?;
                        continue 'value;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        continue 'value;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        nesting.close();
                    }
                    (Some(_), true) => return Err(Fault::Syntax("`,` or `}` was expected")),
                    (Some(_), false) => return Err(Fault::Syntax("`,` or `]` was expected")),
                    (None, true) => return Err(Fault::Syntax("it ends inside an object")),
                    (None, false) => return Err(Fault::Syntax("it ends inside an array")),
                }
            }
            break;
        }
        self.white_space();
        if self.at < self.text.len() {
            return Err(Fault::Syntax("there is more text after the end of the document"));
        }
        if !top_is_object {
            return Err(Fault::NotAnObject(found));
        }
        Ok(top.webhook(self.text))
    }

    /// Reads `"key":` and stops at the value.
    fn key(
        &mut self,
        nesting: &Nesting,
        top_is_object: bool,
        top: &mut Top,
        on_key: &mut impl FnMut(&str),
    ) -> Result<(), Fault> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => self.string()?,
            Some(_) => return Err(Fault::Syntax("a key in double quotes was expected")),
            None => return Err(Fault::Syntax("it ends inside an object")),
        }
        let end = self.at;
        self.white_space();
        if self.peek() != Some(b':') {
            return Err(Fault::Syntax("`:` was expected after a key"));
        }
        self.at += 1;
        self.white_space();
        if nesting.depth == 1 && top_is_object {
            let key = unescaped(&self.text[start + 1..end - 1]);
            if key == WEBHOOK_ENDPOINT {
                if top.webhook_start.replace(self.at).is_some() {
                    return Err(Fault::Duplicate(WEBHOOK_ENDPOINT, start));
                }
            } else if key == RUN_ID && std::mem::replace(&mut top.run_id_seen, true) {
                return Err(Fault::Duplicate(RUN_ID, start));
            }
            on_key(&key);
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn white_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Fault> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Fault::Syntax("a value was expected (`true`, `false` and `null` are the only words)"))
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => {
                self.at += 1;
                if let Some(b'0'..=b'9') = self.peek() {
                    return Err(Fault::Syntax("a number must not begin with 0"));
                }
            }
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(Fault::Syntax("a digit was expected")) } else { Ok(()) }
    }

    /// Passes a string, from quote to quote.
    fn string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        loop {
            self.plain_text();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0..0x20) => {
                    return Err(Fault::Syntax("a control character in a string must be escaped"));
                }
                Some(_) => self.at += 1,
                None => return Err(Fault::Syntax("it ends inside a string")),
            }
        }
    }

    /// Passes what needs no look, eight bytes at a time: images travel as long strings.
    fn plain_text(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGHS: u64 = ONES << 7;
        const fn has_zero(word: u64) -> u64 {
            word.wrapping_sub(ONES) & !word & HIGHS
        }
        while let Some(chunk) = self.text.as_bytes()[self.at..].first_chunk::<8>() {
            let word = u64::from_ne_bytes(*chunk);
            let quotes = has_zero(word ^ (ONES * b'"' as u64));
            let escapes = has_zero(word ^ (ONES * b'\\' as u64));
            let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            if quotes | escapes | controls != 0 {
                break;
            }
            self.at += 8;
        }
        while let Some(byte) = self.peek() {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                break;
            }
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(Fault::Syntax("four hex digits were expected after `\\u`"));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            Some(_) => Err(Fault::Syntax("there is no such escape in JSON")),
            None => Err(Fault::Syntax("it ends inside a string")),
        }
    }
}

/// What the top level has said so far.
#[derive(Default)]
struct Top {
    run_id_seen: bool,
    webhook_start: Option<usize>,
    webhook_end: Option<usize>,
}

impl Top {
    /// The first value that ends after the key was read is the key's.
    fn value_ended(&mut self, at: usize) {
        if self.webhook_start.is_some() && self.webhook_end.is_none() {
            self.webhook_end = Some(at);
        }
    }

    fn webhook<'a>(&self, text: &'a str) -> WebhookField<'a> {
        let (Some(start), Some(end)) = (self.webhook_start, self.webhook_end) else {
            return WebhookField::Absent;
        };
        let value = &text[start..end];
        match value.as_bytes().first() {
            Some(b'n') | None => WebhookField::Absent,
            Some(b'"') => WebhookField::Address(unescaped(&value[1..value.len() - 1])),
            Some(first) => WebhookField::NotText(kind_of(*first)),
        }
    }
}

fn kind_of(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// The text that the inside of a checked JSON string stands for. A lone half of a surrogate pair
/// becomes U+FFFD.
fn unescaped(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let kind = after.as_bytes().first().copied().unwrap_or(b'\\');
        rest = after.get(1..).unwrap_or("");
        match kind {
            b'b' => text.push('\u{8}'),
            b'f' => text.push('\u{c}'),
            b'n' => text.push('\n'),
            b'r' => text.push('\r'),
            b't' => text.push('\t'),
            b'u' => {
                let first = hex_unit(&mut rest);
                let low = rest.strip_prefix("\\u").filter(|_| (0xd800..0xdc00).contains(&first));
                let pair = low.and_then(|mut after| {
                    let second = hex_unit(&mut after);
                    char::decode_utf16([first, second]).next()?.ok().map(|character| (character, after))
                });
                if let Some((character, after)) = pair {
                    text.push(character);
                    rest = after;
                } else {
                    text.push(char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
            other => text.push(char::from(other)),
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Takes four hex digits off the front.
fn hex_unit(rest: &mut &str) -> u16 {
    let (digits, after) = rest.split_at_checked(4).unwrap_or((rest, ""));
    *rest = after;
    u16::from_str_radix(digits, 16).unwrap_or(0xfffd)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn keys(body: &str) -> Vec<String> {
        let mut keys = Vec::new();
        scan(body.as_bytes(), |key| keys.push(key.to_owned())).unwrap();
        keys
    }

    fn webhook(body: &str) -> WebhookField<'_> {
        scan(body.as_bytes(), |_| ()).unwrap()
    }

    fn error(body: impl AsRef<[u8]>) -> String {
        scan(body.as_ref(), |_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_keys_of_the_top_level_are_told_and_only_those() {
        assert_eq!(keys(r#"{"a":{"b":1},"c":[{"d":2}],"e":null}"#), ["a", "c", "e"]);
        assert_eq!(keys(r#" { "k\u00e9y\n" : 0 , "" : {} } "#), ["kéy\n", ""]);
        assert!(keys("{}").is_empty());
    }

    #[test]
    fn the_webhook_is_found_at_the_top_level_only() {
        assert_eq!(
            webhook(r#"{"x":{"webhook_endpoint":"no"},"webhook_endpoint":"https://a/\u00e9","y":1}"#),
            WebhookField::Address("https://a/é".into())
        );
        assert_eq!(webhook(r#"{"webhook\u005fendpoint":"s"}"#), WebhookField::Address("s".into()));
        assert_eq!(webhook(r#"{"webhook_endpoint":null}"#), WebhookField::Absent);
        assert_eq!(webhook(r#"{"x":[{"webhook_endpoint":1}]}"#), WebhookField::Absent);
        assert_eq!(webhook(r#"{"webhook_endpoint":{"a":[]},"b":"c"}"#), WebhookField::NotText("an object"));
        assert_eq!(webhook(r#"{"webhook_endpoint":-7}"#), WebhookField::NotText("a number"));
    }

    #[test]
    fn platform_keys_may_stand_there_once() {
        assert!(error(r#"{"run_id":1,"run_id":2}"#).contains("`run_id` twice"));
        assert!(
            error(r#"{"webhook_endpoint":null,"webhook_endpoin\u0074":"x"}"#)
                .contains("`webhook_endpoint` twice")
        );
        assert_eq!(keys(r#"{"a":1,"a":2,"b":{"run_id":1,"run_id":2}}"#), ["a", "a", "b"]);
    }

    #[test]
    fn an_error_says_where() {
        assert_eq!(
            error("{\n  \"é\": tru\n}"),
            "the body is not valid JSON: a value was expected (`true`, `false` and `null` are the only words) \
             at line 2, column 8 (byte 10)"
        );
        assert!(error("{\"a\": 1,}").contains("a key in double quotes was expected at line 1, column 9"));
        assert!(error("{\"a\": 1").contains("it ends inside an object"));
        assert!(error(b"{\"a\": \"\xff\"}").contains("not UTF-8 at line 1, column 8"));
        assert!(error("{\"a\": \"\n\"}").contains("control character"));
    }

    #[test]
    fn only_an_object_is_a_call() {
        for (body, found) in [
            ("[1]", "an array"),
            ("\"x\"", "a string"),
            ("17", "a number"),
            ("null", "null"),
            ("true", "a boolean"),
        ] {
            assert_eq!(scan(body.as_bytes(), |_| ()), Err(ScanError::NotAnObject { found }));
        }
    }

    #[test]
    fn the_128th_level_is_the_last() {
        let nested = |levels: usize| {
            let inner = levels - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
        };
        assert!(scan(nested(128).as_bytes(), |_| ()).is_ok());
        assert!(matches!(scan(nested(129).as_bytes(), |_| ()), Err(ScanError::TooDeep { .. })));
        assert!(error("[".repeat(100_000)).contains("deeper than 128 levels"));
    }

    #[test]
    fn blank_is_white_space_only() {
        assert!(is_blank(b"") && is_blank(b" \r\n\t"));
        assert!(!is_blank(b"{}") && !is_blank("\u{a0}".as_bytes()));
    }

    /// `serde_json` as the judge of syntax: skipping, it knows no depth.
    fn serde_accepts(body: &[u8]) -> bool {
        std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    }

    fn accepts(body: &[u8]) -> bool {
        match scan(body, |_| ()) {
            Ok(_) | Err(ScanError::NotAnObject { .. } | ScanError::Duplicate { .. }) => true,
            Err(ScanError::TooDeep { .. }) => serde_accepts(body),
            Err(_) => false,
        }
    }

    /// Text that is nearly JSON: its pieces, in any order.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"a\":",
            "\\",
            "\\u12",
            "\\ud83d",
            "\"\\ud83d\\ude00\"",
            "0",
            "-",
            "1",
            ".5",
            "e",
            "E+3",
            "true",
            "false",
            "null",
            "nul",
            " ",
            "\n",
            "\u{1}",
            "é",
            "\u{feff}",
            "{\"k\":",
            "]}",
            "\"x\\n\"",
            "01",
            "webhook_endpoint",
        ]);
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn any_bytes_get_an_answer(body in prop::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(accepts(&body), serde_accepts(&body));
        }

        #[test]
        fn what_is_nearly_json_is_judged_as_serde_json_does(body in nearly_json()) {
            prop_assert_eq!(accepts(body.as_bytes()), serde_accepts(body.as_bytes()), "{}", body);
        }

        #[test]
        fn keys_and_webhook_are_those_that_serde_json_sees(value in any_json(), url in any::<String>()) {
            let body = serde_json::json!({"x": value.clone(), "webhook_endpoint": url.clone(), "z": value});
            let text = serde_json::to_string_pretty(&body).unwrap();
            let mut seen = Vec::new();
            let found = scan(text.as_bytes(), |key| seen.push(key.to_owned())).unwrap();
            prop_assert_eq!(found, WebhookField::Address(url.into()));
            seen.sort();
            prop_assert_eq!(seen, ["webhook_endpoint", "x", "z"]);
        }

        #[test]
        fn a_document_cut_short_is_refused(value in any_json(), cut in any::<prop::sample::Index>()) {
            let text = serde_json::json!({"a": value}).to_string();
            let cut = cut.index(text.len());
            prop_assert!(scan(&text.as_bytes()[..cut], |_| ()).is_err());
        }
    }
}
