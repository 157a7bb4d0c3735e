//! JSON as people write it into a form: looked at from outside, its values never re-written.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// The object of these keys and values.
pub(crate) fn object<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut json = String::from("{");
    for (key, value) in entries {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&text(key));
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
    json
}

/// A text as JSON.
pub(crate) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What somebody wrote for one value: as it is when it is JSON, else as text, and nothing when it is empty.
///
/// # Errors
/// When it begins like JSON that means more than a word, and is none.
pub(crate) fn value(written: &str) -> Result<Option<Cow<'_, str>>, String> {
    let written = written.trim();
    if written.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str::<&RawValue>(written) {
        Ok(_) => Ok(Some(Cow::Borrowed(written))),
        Err(error) if written.starts_with(['{', '[', '"']) => Err(error.to_string()),
        Err(_) => Ok(Some(Cow::Owned(text(written)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_taken_apart_and_put_together_digit_by_digit() {
        let json = " {\"b\" : 1.10 ,\"a\\u00e9\":[1, {}],\"c\":12345678901234567890123}";
        let taken = queue::json::entries(json).unwrap();
        let pairs = taken.iter().map(|(key, value)| (key.as_str(), value.get()));
        assert_eq!(object(pairs), "{\"b\":1.10,\"aé\":[1, {}],\"c\":12345678901234567890123}");
        assert_eq!(object([]), "{}");
    }

    #[test]
    fn a_word_need_not_be_quoted_and_broken_json_is_not_taken_for_one() {
        let taken = |written| value(written).map(|value| value.map(Cow::into_owned));
        assert_eq!(taken("  "), Ok(None));
        assert_eq!(taken(" 1.10 "), Ok(Some("1.10".into())));
        assert_eq!(taken("\"4\""), Ok(Some("\"4\"".into())));
        assert_eq!(taken("it's \"so\""), Ok(Some("\"it's \\\"so\\\"\"".into())));
        assert_eq!(taken("null"), Ok(Some("null".into())));
        for broken in ["{\"a\": 1", "[1, 2", "\"open"] {
            assert!(taken(broken).unwrap_err().contains("line 1 column"), "{broken}");
        }
    }
}
