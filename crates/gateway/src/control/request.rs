//! Reading requests: JSON objects whatever their Content-Type, query strings, and errors that name the
//! key, what it takes and what it got.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http_body_util::LengthLimitError;
use queue::{Timestamp, limits};
use serde_json::{Map, Value};

use crate::Gateway;
use crate::problem::{Answer, Problem, clip};

/// The code of every refusal that concerns one value of a JSON body.
const INVALID_VALUE: &str = "invalid_value";
/// Items of a page at most.
const PAGE_MAX: usize = 1_000;

/// A JSON object. An empty body is an empty object; null values count as absent.
pub(super) struct Fields(Map<String, Value>);

impl FromRequest<Gateway> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Gateway) -> Answer<Self> {
        let body = axum::body::to_bytes(request.into_body(), limits::CONTROL_BODY_BYTES_MAX)
            .await
            .map_err(|error| unreadable(&error))?;
        if body.trim_ascii().is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Problem::bad_request("invalid_json", "the body must be a JSON object")),
            Err(error) => {
                Err(Problem::bad_request("invalid_json", format!("the body is not valid JSON: {error}")))
            }
        }
    }
}

fn unreadable(error: &axum::Error) -> Problem {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            let limit = limits::CONTROL_BODY_BYTES_MAX;
            return Problem::too_large(format!("the body is larger than {limit} bytes"));
        }
        cause = error.source();
    }
    Problem::bad_request("body_unreadable", "the body ended before it was complete; send it again")
}

impl Fields {
    /// The first of `keys` that has a value. Later ones are other spellings of the first.
    pub(super) fn value<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &Value)> {
        keys.iter().find_map(|key| Some((*key, self.0.get(*key).filter(|value| !value.is_null())?)))
    }

    /// Of an object inside of another one.
    pub(super) fn of(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// All of them, `null` included.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// Refuses what is none of these keys: a misspelt one would be left out without a word.
    pub(super) fn only(&self, keys: &[&str]) -> Answer<()> {
        let Some(unknown) = self.0.keys().find(|key| !keys.contains(&key.as_str())) else { return Ok(()) };
        let known: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        Err(refused(format!(
            "`{}` is nothing that is taken here; there is {}",
            clip(unknown),
            known.join(", ")
        )))
    }

    /// A text, without white space around it; an empty one counts as absent.
    pub(super) fn text(&self, keys: &[&str]) -> Answer<Option<&str>> {
        let Some((key, value)) = self.value(keys) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| invalid(key, "a text", value))?.trim();
        Ok((!text.is_empty()).then_some(text))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, keys: &[&str]) -> Answer<Option<bool>> {
        let Some((key, value)) = self.value(keys) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| invalid(key, "true or false", value))
    }

    /// A whole number. `2.0` is one: some clients know only floats.
    pub(super) fn whole<T: TryFrom<u64>>(
        &self,
        keys: &[&str],
        range: RangeInclusive<u64>,
    ) -> Answer<Option<T>> {
        let Some((key, value)) = self.value(keys) else { return Ok(None) };
        whole(value)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| {
                invalid(key, &format!("a whole number from {} to {}", range.start(), range.end()), value)
            })
    }

    /// A number above zero, `max` at most.
    pub(super) fn positive(&self, keys: &[&str], max: f64) -> Answer<Option<f64>> {
        let Some((key, value)) = self.value(keys) else { return Ok(None) };
        value
            .as_f64()
            .filter(|number| *number > 0.0 && *number <= max)
            .map(Some)
            .ok_or_else(|| invalid(key, &format!("a number above 0, {max} at most"), value))
    }

    /// A list of texts. A single text is a list of one; empty texts are left out.
    pub(super) fn texts(&self, keys: &[&str]) -> Answer<Vec<String>> {
        let Some((key, value)) = self.value(keys) else { return Ok(Vec::new()) };
        let texts: Option<Vec<&str>> = match value {
            Value::String(text) => Some(vec![text.as_str()]),
            Value::Array(items) => items.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let texts = texts.ok_or_else(|| invalid(key, "a list of texts", value))?;
        Ok(texts.into_iter().filter(|text| !text.trim().is_empty()).map(str::to_owned).collect())
    }
}

fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number within these bounds"
        )]
        (0.0..=9e15).contains(&number).then_some(number as u64)
    })
}

/// 422 for a value that its key does not take.
pub(super) fn invalid(key: &str, wanted: &str, got: &Value) -> Problem {
    let got = got.to_string();
    Problem::unprocessable(INVALID_VALUE, format!("`{key}` must be {wanted}, not `{}`", clip(&got)))
}

/// 422 for a value that breaks a rule which takes a sentence to say.
pub(super) fn refused(message: impl Into<String>) -> Problem {
    Problem::unprocessable(INVALID_VALUE, message.into())
}

/// The query string. Of a key that is given twice the first counts; empty values count as absent.
pub(super) struct Params(Vec<(String, String)>);

impl FromRequestParts<Gateway> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Gateway) -> Answer<Self> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

impl Params {
    fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == key)?;
        (!value.is_empty()).then_some(value)
    }

    /// Every value of a key that may be given several times.
    pub(super) fn texts<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `true` and `1` are yes, `false` and `0` no, and so is nothing.
    pub(super) fn flag(&self, key: &str) -> Answer<bool> {
        match self.text(key).map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "1") => Ok(true),
            None | Some("false" | "0") => Ok(false),
            Some(other) => Err(unread(key, "`true` or `false`", other)),
        }
    }

    /// A word, when it is one of those that there are.
    pub(super) fn word(&self, key: &str, known: &[&'static str]) -> Answer<Option<&'static str>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let found = known.iter().find(|word| **word == text);
        found
            .map(|word| Some(*word))
            .ok_or_else(|| unread(key, &format!("one of {}", known.join(", ")), text))
    }

    /// How many to give: at least 1; more than [`PAGE_MAX`] is [`PAGE_MAX`].
    pub(super) fn limit(&self, key: &str, default: usize) -> Answer<usize> {
        let Some(text) = self.text(key) else { return Ok(default) };
        match text.parse::<usize>() {
            Ok(limit) if limit > 0 => Ok(limit.min(PAGE_MAX)),
            _ => Err(unread(key, &format!("a whole number from 1 to {PAGE_MAX}"), text)),
        }
    }

    /// A cursor, in the form its reader parses.
    pub(super) fn cursor<T: std::str::FromStr>(&self, key: &str) -> Answer<Option<T>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| unread(key, "a cursor that an earlier page gave", text))
    }

    /// A moment in time. Without a zone it is UTC.
    pub(super) fn moment(&self, key: &str) -> Answer<Option<Timestamp>> {
        let Some(text) = self.text(key) else { return Ok(None) };
        // A `+` of a zone that was not escaped arrives as a space.
        let text = text.trim().replace(' ', "+");
        Timestamp::parse_rfc3339(&text)
            .or_else(|| Timestamp::parse_rfc3339(&format!("{text}Z")))
            .map(Some)
            .ok_or_else(|| unread(key, "a time such as 2026-01-31T12:00:00Z", &text))
    }

    /// Seconds to wait: more than the most is the most.
    pub(super) fn wait(&self) -> Answer<Duration> {
        let Some(text) = self.text("wait") else { return Ok(Duration::ZERO) };
        let seconds: u64 = text.parse().map_err(|_| unread("wait", "a whole number of seconds", text))?;
        Ok(Duration::from_secs(seconds).min(limits::LONG_POLL_MAX))
    }
}

/// 400 for a query parameter that cannot be read.
pub(super) fn unread(key: &str, wanted: &str, got: &str) -> Problem {
    Problem::bad_request("invalid_query", format!("`?{key}=` must be {wanted}, not `{}`", clip(got)))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl From<Value> for Fields {
        fn from(json: Value) -> Self {
            let Value::Object(map) = json else { panic!("an object") };
            Self(map)
        }
    }

    #[test]
    fn numbers_of_every_dialect_are_read_and_others_refused_by_name() {
        let fields =
            Fields::from(serde_json::json!({"a": 2, "b": 2.0, "c": null, "d": 2.5, "e": "x", "f": 1e300}));
        assert_eq!(fields.whole::<u32>(&["a"], 0..=9).unwrap(), Some(2));
        assert_eq!(fields.whole::<u32>(&["c", "b"], 0..=9).unwrap(), Some(2));
        assert_eq!(fields.whole::<u32>(&["c"], 0..=9).unwrap(), None);
        for key in ["d", "e", "f"] {
            let problem = fields.whole::<u32>(&[key], 0..=9).unwrap_err();
            assert!(problem.message.contains(&format!("`{key}` must be a whole number from 0 to 9")));
        }
        assert!(fields.whole::<u32>(&["a"], 3..=9).is_err());
    }

    #[test]
    fn a_list_may_be_one_text_or_null() {
        let fields = Fields::from(serde_json::json!({"a": "CPU", "b": ["x", " ", "y"], "c": null, "d": [1]}));
        assert_eq!(fields.texts(&["a"]).unwrap(), ["CPU"]);
        assert_eq!(fields.texts(&["b"]).unwrap(), ["x", "y"]);
        assert!(fields.texts(&["c"]).unwrap().is_empty());
        assert!(fields.texts(&["d"]).is_err());
    }

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        let noon = Timestamp::parse_rfc3339("2026-01-31T12:00:00Z");
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "2026-01-31T13:00:00+01:00"] {
            assert_eq!(Params::parse(&format!("at={text}")).moment("at").unwrap(), noon, "{text}");
        }
        assert!(Params::parse("at=noon").moment("at").is_err());
    }

    #[test]
    fn what_is_neither_yes_nor_no_and_no_known_word_is_refused_with_what_there_is() {
        for (query, wanted) in
            [("", false), ("merge=", false), ("merge=True", true), ("merge=1", true), ("merge=0", false)]
        {
            assert_eq!(Params::parse(query).flag("merge").unwrap(), wanted, "{query}");
        }
        let refused = Params::parse("merge=maybe").flag("merge").unwrap_err();
        assert_eq!(refused.message, "`?merge=` must be `true` or `false`, not `maybe`");
        let ways = &["forward", "backward"];
        assert_eq!(Params::parse("direction=backward").word("direction", ways).unwrap(), Some("backward"));
        let refused = Params::parse("direction=up").word("direction", ways).unwrap_err();
        assert_eq!(refused.message, "`?direction=` must be one of forward, backward, not `up`");
    }

    #[test]
    fn waiting_is_bounded_and_the_first_of_two_counts() {
        assert_eq!(Params::parse("wait=9999").wait().unwrap(), limits::LONG_POLL_MAX);
        assert_eq!(Params::parse("wait=3&wait=x").wait().unwrap(), Duration::from_secs(3));
        assert_eq!(Params::parse("wait=").wait().unwrap(), Duration::ZERO);
        assert!(Params::parse("wait=-1").wait().is_err());
    }
}
