//! What a call may say about its webhooks beyond their addresses: what they are told, which headers they
//! get from the caller, and what of the caller's own is told back. Read here, by one set of rules, from
//! whatever place it came.

mod schedule;

use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

pub use schedule::Schedule;

use crate::limits::{METADATA_BYTES_MAX, WEBHOOK_HEADERS_BYTES_MAX, WEBHOOK_HEADERS_MAX};

/// Why something about webhooks is not taken. Displays as a fragment that follows the name of its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// What endpoints can be told. The words are those that Replicate made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// An attempt of the run began.
    Start,
    /// A generator yielded.
    Output,
    /// Lines were printed.
    Logs,
    /// The run ended: its outcome.
    Completed,
}

impl Event {
    /// Every event, in the order in which they happen.
    pub const ALL: [Self; 4] = [Self::Start, Self::Output, Self::Logs, Self::Completed];

    /// The word used in requests, bodies and views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Output => "output",
            Self::Logs => "logs",
            Self::Completed => "completed",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Which events the endpoints of a run are told. The outcome alone, unless somebody says otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EventFilter(u8);

impl EventFilter {
    /// From words, in any order.
    ///
    /// # Errors
    /// When there is none, or one that is no event.
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, Invalid> {
        let mut bits = 0;
        for word in words {
            let known = Event::ALL.into_iter().find(|event| event.as_str() == word);
            let event = known.ok_or_else(|| {
                let word: String = word.chars().take(40).collect();
                Invalid(format!(
                    "names `{word}`; the events are {}",
                    Event::ALL.map(Event::as_str).join(", ")
                ))
            })?;
            bits |= event.bit();
        }
        if bits == 0 {
            let all = Event::ALL.map(Event::as_str).join(", ");
            return Err(Invalid(format!("names no event; name some of {all}, or leave it out")));
        }
        Ok(Self(bits))
    }

    /// Whether the endpoints are told of such events.
    pub const fn has(self, event: Event) -> bool {
        self.0 & event.bit() != 0
    }

    /// Whether they are told of anything before the outcome.
    pub const fn has_progress(self) -> bool {
        self.0 & !Event::Completed.bit() != 0
    }

    /// Its events.
    pub fn events(self) -> impl Iterator<Item = Event> {
        Event::ALL.into_iter().filter(move |event| self.has(*event))
    }
}

impl Default for EventFilter {
    fn default() -> Self {
        Self(Event::Completed.bit())
    }
}

impl fmt::Display for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.events().map(Event::as_str).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for EventFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventFilter({self})")
    }
}

impl Serialize for EventFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.events())
    }
}

impl<'de> Deserialize<'de> for EventFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Self::parse(words.iter().map(String::as_str)).map_err(D::Error::custom)
    }
}

/// A JSON object of the caller's, kept and told back as the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata(Arc<str>);

impl Metadata {
    /// Checks a text that somebody sent.
    ///
    /// # Errors
    /// When it is too long, or no JSON object.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.len() > METADATA_BYTES_MAX {
            return Err(Invalid(format!("has {} bytes; {METADATA_BYTES_MAX} are allowed", text.len())));
        }
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(Invalid(format!(
                "is no JSON object such as {{\"order\": 17}}: {}",
                without_place(&error)
            ))),
        }
    }

    /// From the text that [`Metadata::as_str`] gave.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// Headers that deliveries carry beside ours, for a gateway in front of the receiver. They may hold
/// secrets: their values are for the wire and the store, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookHeaders(Arc<[(Box<str>, Box<str>)]>);

/// Names that belong to the connection, to the message or to our own signature; beside those that begin
/// with one of [`RESERVED_PREFIXES`].
const RESERVED: &[&str] = &[
    "connection",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
const RESERVED_PREFIXES: &[&str] = &["content-", "proxy-", "webhook-", "x-cerebrium-"];

impl WebhookHeaders {
    /// Checks names and values; names become lower-case.
    ///
    /// # Errors
    /// When there are too many, a name is no name, ours or doubled, or a value has a control character.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Self, Invalid> {
        if pairs.len() > WEBHOOK_HEADERS_MAX {
            return Err(Invalid(format!("has {} headers; {WEBHOOK_HEADERS_MAX} are allowed", pairs.len())));
        }
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > WEBHOOK_HEADERS_BYTES_MAX {
            return Err(Invalid(format!("has {bytes} bytes; {WEBHOOK_HEADERS_BYTES_MAX} are allowed")));
        }
        let mut headers: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let shown: String = name.chars().take(100).collect();
            let name = name.to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(Invalid(format!("names `{shown}`, which cannot be the name of a header")));
            }
            if RESERVED.contains(&name.as_str())
                || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            {
                return Err(Invalid(format!(
                    "names `{shown}`, which the server sets itself or the connection needs; choose another name"
                )));
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                // The value may be a secret, so it is not repeated.
                return Err(Invalid(format!(
                    "has a value of `{shown}` with other characters than printable ASCII"
                )));
            }
            if headers.iter().any(|(known, _)| **known == *name) {
                return Err(Invalid(format!("names `{shown}` twice")));
            }
            headers.push((name.into(), value.trim_matches([' ', '\t']).into()));
        }
        Ok(Self(headers.into()))
    }

    /// Reads a JSON object of texts.
    ///
    /// # Errors
    /// As [`WebhookHeaders::new`], and when it is no such object.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let Pairs(pairs) = serde_json::from_str(text).map_err(|_| {
            // What a parser would repeat may be a secret.
            Invalid("is no JSON object of texts such as {\"X-Api-Key\": \"…\"}".to_owned())
        })?;
        Self::new(pairs)
    }

    /// These, and those of `others` that are not named here.
    #[must_use]
    pub fn over(&self, others: &Self) -> Self {
        let more = others.iter().filter(|(name, _)| self.iter().all(|(known, _)| known != *name));
        Self(self.iter().chain(more).map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The same with `${NAME}` in values replaced by what `variable` says.
    ///
    /// # Errors
    /// When it knows no such variable, or what it says cannot stand in a header.
    pub fn filled_in(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Invalid> {
        let fill = |value: &str| {
            let (mut filled, mut rest) = (String::new(), value);
            while let Some((before, (name, after))) =
                rest.split_once("${").and_then(|(before, after)| Some((before, after.split_once('}')?)))
            {
                let value = variable(name).ok_or_else(|| {
                    Invalid(format!("needs the environment variable `{name}`, which is not set"))
                })?;
                filled.extend([before, &value]);
                rest = after;
            }
            Ok(filled + rest)
        };
        Self::new(
            self.iter().map(|(name, value)| Ok((name.to_owned(), fill(value)?))).collect::<Result<_, _>>()?,
        )
    }

    /// Names and values, for the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The names alone.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

impl fmt::Debug for WebhookHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Serialize for WebhookHeaders {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for WebhookHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Pairs(pairs) = Pairs::deserialize(deserializer)?;
        Self::new(pairs).map_err(D::Error::custom)
    }
}

/// An object of texts with all its keys, doubled ones too.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What serde says, without line and column: the text is one line of somebody's header.
fn without_place(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.split(" at line ").next().unwrap_or(&said).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_by_its_words() {
        let filter = EventFilter::parse(["completed", "start"]).unwrap();
        assert_eq!(filter.to_string(), "start,completed");
        assert!(filter.has(Event::Start) && !filter.has(Event::Logs) && filter.has_progress());
        assert_eq!(EventFilter::parse(["completed"]).unwrap(), EventFilter::default());
        assert!(!EventFilter::default().has_progress());
        assert!(EventFilter::parse(["begin"]).unwrap_err().to_string().contains("start, output, logs"));
        assert!(EventFilter::parse([]).is_err());
        let back: EventFilter = serde_json::from_str(&serde_json::to_string(&filter).unwrap()).unwrap();
        assert_eq!(back, filter);
    }

    #[test]
    fn metadata_is_kept_to_the_byte_or_refused() {
        let text = r#"{"order": 123456789012345678901234567890, "b":[1, 2]}"#;
        let kept = Metadata::parse(&format!(" {text}\n")).unwrap();
        assert_eq!(kept.as_str(), text);
        assert_eq!(serde_json::to_string(&kept).unwrap(), text);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(METADATA_BYTES_MAX));
        for refused in ["", "17", "[1]", "null", "{\"a\":}", "{} {}", &deep, &long] {
            assert!(Metadata::parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn headers_are_taken_by_rule_and_never_shown() {
        let headers =
            WebhookHeaders::parse(r#"{"X-Api-Key":"s3cret","Authorization":" Bearer x "}"#).unwrap();
        assert_eq!(
            headers.iter().collect::<Vec<_>>(),
            [("x-api-key", "s3cret"), ("authorization", "Bearer x")]
        );
        assert_eq!(format!("{headers:?}"), r#"{"x-api-key", "authorization"}"#);
        for (refused, why) in [
            (r#"{"Host":"a"}"#, "sets itself"),
            (r#"{"Content-Length":"1"}"#, "sets itself"),
            (r#"{"webhook-id":"a"}"#, "sets itself"),
            (r#"{"X-Cerebrium-Webhook-Timestamp":"a"}"#, "sets itself"),
            (r#"{"Transfer-Encoding":"chunked"}"#, "sets itself"),
            (r#"{"Proxy-Authorization":"a"}"#, "sets itself"),
            (r#"{"a b":"c"}"#, "cannot be the name"),
            (r#"{"":"c"}"#, "cannot be the name"),
            (r#"{"é":"c"}"#, "cannot be the name"),
            ("{\"x-a\":\"s3cret\\r\\nwebhook-id: 1\"}", "printable ASCII"),
            (r#"{"x-a":"1","X-A":"2"}"#, "twice"),
            (r#"{"x-a":1}"#, "object of texts"),
            (r#"["x-a"]"#, "object of texts"),
        ] {
            let said = WebhookHeaders::parse(refused).unwrap_err().to_string();
            assert!(said.contains(why) && !said.contains("s3cret"), "{refused}: {said}");
        }
        let many: Vec<_> =
            (0..=WEBHOOK_HEADERS_MAX).map(|number| (format!("x-{number}"), String::new())).collect();
        assert!(WebhookHeaders::new(many).is_err());
        let long = vec![("x-a".to_owned(), "a".repeat(WEBHOOK_HEADERS_BYTES_MAX))];
        assert!(WebhookHeaders::new(long).is_err());
    }

    #[test]
    fn variables_stand_for_what_the_file_is_not_to_hold() {
        let headers = WebhookHeaders::parse(r#"{"a":"Bearer ${KEY}","b":"$x ${"}"#).unwrap();
        let filled = headers.filled_in(|name| (name == "KEY").then(|| "s3cret".to_owned())).unwrap();
        assert_eq!(filled.iter().collect::<Vec<_>>(), [("a", "Bearer s3cret"), ("b", "$x ${")]);
        assert!(headers.filled_in(|_| None).unwrap_err().to_string().contains("`KEY`"));
        assert!(headers.filled_in(|_| Some("a\r\nb".to_owned())).is_err());
    }

    #[test]
    fn a_calls_headers_win_over_its_apps() {
        let call = WebhookHeaders::parse(r#"{"X-A":"call"}"#).unwrap();
        let app = WebhookHeaders::parse(r#"{"x-a":"app","x-b":"app"}"#).unwrap();
        assert_eq!(call.over(&app).iter().collect::<Vec<_>>(), [("x-a", "call"), ("x-b", "app")]);
    }
}
