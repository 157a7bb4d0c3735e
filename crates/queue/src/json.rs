//! JSON looked at from outside: what an object holds, its values as they were written.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The keys of an object with their values as they stand there: in order, doubled ones included. `None` when it is none.
pub fn entries(json: &str) -> Option<Vec<(String, &RawValue)>> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(json);
    let entries = reader.deserialize_map(Entries).ok()?;
    reader.end().ok()?;
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn an_object_is_taken_apart_digit_by_digit() {
        let json = " {\"b\" : 1.10 ,\"a\\u00e9\":[1, {}],\"b\":12345678901234567890123}";
        let taken = entries(json).unwrap();
        let pairs: Vec<_> = taken.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
        assert_eq!(pairs, [("b", "1.10"), ("a\u{e9}", "[1, {}]"), ("b", "12345678901234567890123")]);
        for none in ["[]", "1", "{", "{} {}", ""] {
            assert!(entries(none).is_none(), "{none}");
        }
        assert!(entries("{}").unwrap().is_empty());
    }
}
