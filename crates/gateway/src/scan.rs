//! One look at a request body: is it JSON, is it an object, which keys does it have, where does it
//! want its webhook.
//!
//! The body itself goes to the model untouched, so nothing is built here: no tree, no copies, no
//! recursion (nesting is a stack of bits). Strict RFC 8259, but for one thing said in `limits`: at most
//! [`JSON_DEPTH_MAX`] levels. What is accepted agrees with `serde_json`, which the tests hold it to.

use std::borrow::Cow;

use queue::limits::{JSON_DEPTH_MAX, JSON_DIGITS_MAX};

/// The key that asks for a webhook.
pub(crate) const WEBHOOK_ENDPOINT: &str = "webhook_endpoint";
/// The key that says what webhooks are told.
pub(crate) const WEBHOOK_EVENTS: &str = "webhook_events_filter";
/// The key whose object is told back in webhooks.
pub(crate) const WEBHOOK_METADATA: &str = "webhook_metadata";
/// The key that stands for the run's id.
pub(crate) const RUN_ID: &str = "run_id";

/// The keys that are the platform's, and whose values are told.
const PLATFORM: [&str; 3] = [WEBHOOK_ENDPOINT, WEBHOOK_EVENTS, WEBHOOK_METADATA];

/// Whether a key is the platform's and not an argument of the function.
pub(crate) fn is_platform_key(key: &str) -> bool {
    key == RUN_ID || PLATFORM.contains(&key)
}

/// What a body says about its webhooks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said<'a> {
    /// Where they go.
    pub(crate) endpoint: WebhookField<'a>,
    /// The JSON of what they are told; `None` when the key is missing, or `null`.
    pub(crate) events: Option<&'a str>,
    /// The JSON of what they tell back, likewise.
    pub(crate) metadata: Option<&'a str>,
}

/// What a body says about the addresses of its webhooks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WebhookField<'a> {
    /// The key is missing, or `null`.
    Absent,
    /// An address, unchecked.
    Address(Cow<'a, str>),
    /// The JSON of an array.
    List(&'a str),
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
        "a number of the body has more than {JSON_DIGITS_MAX} digits in a row, up to {at}; send it as text"
    )]
    TooManyDigits { at: Position },
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
            Self::TooManyDigits { .. } => "number_too_long",
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
pub(crate) fn scan<'a>(body: &'a [u8], mut on_key: impl FnMut(&str)) -> Result<Said<'a>, ScanError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| ScanError::NotUtf8 { at: Position::of(body, error.valid_up_to()) })?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.document(&mut on_key).map_err(|fault| match fault {
        Fault::Syntax(reason) => ScanError::Syntax { reason, at: Position::of(body, scanner.at) },
        Fault::TooDeep => ScanError::TooDeep { at: Position::of(body, scanner.at) },
        Fault::TooManyDigits => ScanError::TooManyDigits { at: Position::of(body, scanner.at) },
        Fault::NotAnObject(found) => ScanError::NotAnObject { found },
        Fault::Duplicate(key, offset) => ScanError::Duplicate { key, at: Position::of(body, offset) },
    })
}

enum Fault {
    Syntax(&'static str),
    TooDeep,
    TooManyDigits,
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
    fn document(&mut self, on_key: &mut impl FnMut(&str)) -> Result<Said<'a>, Fault> {
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
        Ok(top.said(self.text))
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
            if let Some(index) = PLATFORM.iter().position(|known| key == *known) {
                if top.values[index].replace((self.at, self.at)).is_some() {
                    return Err(Fault::Duplicate(PLATFORM[index], start));
                }
                top.open = Some(index);
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
        match self.at - start {
            0 => Err(Fault::Syntax("a digit was expected")),
            1..=JSON_DIGITS_MAX => Ok(()),
            _ => Err(Fault::TooManyDigits),
        }
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
    /// Where the value of each of [`PLATFORM`] stands, from its first byte to the one after its last.
    values: [Option<(usize, usize)>; PLATFORM.len()],
    /// Which of them is being read.
    open: Option<usize>,
}

impl Top {
    /// The first value that ends after the key was read is the key's.
    fn value_ended(&mut self, at: usize) {
        if let Some((_, end)) = self.open.take().and_then(|index| self.values[index].as_mut()) {
            *end = at;
        }
    }

    fn said<'a>(&self, text: &'a str) -> Said<'a> {
        let [endpoint, events, metadata] = self
            .values
            .map(|place| place.map(|(start, end)| &text[start..end]).filter(|value| *value != "null"));
        let endpoint = match endpoint.map(|value| (value, value.as_bytes().first())) {
            None | Some((_, None)) => WebhookField::Absent,
            Some((value, Some(b'"'))) => WebhookField::Address(unescaped(&value[1..value.len() - 1])),
            Some((value, Some(b'['))) => WebhookField::List(value),
            Some((_, Some(first))) => WebhookField::NotText(kind_of(*first)),
        };
        Said { endpoint, events, metadata }
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
mod tests;
