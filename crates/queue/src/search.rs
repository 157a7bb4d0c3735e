//! What a run has to say to be found: a text, and values of its metadata.
//!
//! A search looks at runs one by one, so how many it looks at is bounded where it is made, and how much of each here.

use crate::id::RunId;
use crate::limits::{SEARCH_METADATA_MAX, SEARCH_TEXT_BYTES_MAX, SEARCHED_BYTES_MAX};
use crate::outcome::RunError;

/// What a run must say. Without conditions every run does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// In small letters.
    text: Option<String>,
    metadata: Vec<(String, String)>,
}

/// A search that cannot be made, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSearch(String);

impl Search {
    /// Checks what somebody asked for. Each condition on the metadata is a `key=value`.
    ///
    /// # Errors
    /// When a text is too long, there are too many conditions, or one has no `=`.
    pub fn new<'a>(
        text: Option<&str>,
        metadata: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidSearch> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let metadata = metadata.into_iter().map(str::trim).filter(|pair| !pair.is_empty());
        let metadata: Vec<(String, String)> = metadata.map(pair).collect::<Result<_, _>>()?;
        if metadata.len() > SEARCH_METADATA_MAX {
            return Err(InvalidSearch(format!(
                "{} conditions on the metadata are too many; {SEARCH_METADATA_MAX} are allowed",
                metadata.len()
            )));
        }
        let longest = text.into_iter().chain(metadata.iter().flat_map(|(key, value)| [&**key, &**value]));
        match longest.map(str::len).max() {
            Some(bytes) if bytes > SEARCH_TEXT_BYTES_MAX => Err(InvalidSearch(format!(
                "a text of {bytes} bytes is too long to search for; {SEARCH_TEXT_BYTES_MAX} are allowed"
            ))),
            _ => Ok(Self { text: text.map(str::to_lowercase), metadata }),
        }
    }

    /// Whether every run fits.
    pub fn is_empty(&self) -> bool {
        self.text.is_none() && self.metadata.is_empty()
    }

    /// Whether results are looked at.
    pub fn reads_results(&self) -> bool {
        self.text.is_some()
    }

    /// Whether a run fits: the text stands in one of its words, whatever the case, and its metadata has each value.
    pub fn fits(&self, run: &Said<'_>) -> bool {
        let told = self.metadata.is_empty() || run.metadata.is_some_and(|text| self.has_values(text));
        told && self.text.as_deref().is_none_or(|text| run.has(text))
    }

    fn has_values(&self, metadata: &str) -> bool {
        let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(metadata) else {
            return false;
        };
        self.metadata.iter().all(|(key, wanted)| match object.get(key) {
            Some(serde_json::Value::String(text)) => text == wanted,
            // As it is written: `17`, `true`, `null`.
            Some(value) => serde_json::to_string(value).is_ok_and(|text| text == *wanted),
            None => false,
        })
    }
}

fn pair(text: &str) -> Result<(String, String), InvalidSearch> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(InvalidSearch(format!(
            "a condition on the metadata is written `key=value`, such as `order=17`, not `{}`",
            text.chars().take(100).collect::<String>()
        ))),
    }
}

/// What of a run is searched.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Its id.
    pub id: RunId,
    /// The function it calls.
    pub function: &'a str,
    /// Why it ended, when it did not succeed.
    pub error: Option<&'a RunError>,
    /// What its caller wants to be told back: a JSON object.
    pub metadata: Option<&'a str>,
    /// What its caller should know.
    pub warning: Option<&'a str>,
    /// Its result, or as much of it as is looked at.
    pub result: Option<&'a [u8]>,
}

impl Said<'_> {
    fn has(&self, text: &str) -> bool {
        let error = self.error.into_iter().flat_map(|error| {
            [Some(error.code.as_str()), Some(error.kind.as_str()), Some(error.message.as_str())]
                .into_iter()
                .chain([error.traceback.as_deref()])
                .flatten()
        });
        let mut said = [Some(self.function), self.metadata, self.warning].into_iter().flatten().chain(error);
        said.any(|said| has(said.as_bytes(), text))
            || has(self.id.encode(&mut [0; 36]).as_bytes(), text)
            || self.result.is_some_and(|result| has(result, text))
    }
}

fn has(said: &[u8], text: &str) -> bool {
    let said = &said[..said.len().min(SEARCHED_BYTES_MAX)];
    if said.is_ascii() {
        // Most are so. A copy in small letters is looked through in one pass, whatever stands in it.
        let small = said.to_ascii_lowercase();
        return std::str::from_utf8(&small).is_ok_and(|small| small.contains(text));
    }
    String::from_utf8_lossy(said).to_lowercase().contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Code;

    const ID: &str = "0190c4e0-0000-7000-8000-00000000abcd";

    fn fits<'a>(text: &str, metadata: &[&str], change: impl FnOnce(Said<'a>) -> Said<'a>) -> bool {
        let said = Said {
            id: ID.parse().unwrap(),
            function: "Transcribe",
            error: None,
            metadata: Some(r#"{"order": 17, "who": "Ada", "paid": true, "none": null}"#),
            warning: None,
            result: None,
        };
        Search::new(Some(text), metadata.iter().copied()).unwrap().fits(&change(said))
    }

    #[test]
    fn a_text_is_found_wherever_a_run_says_it() {
        for text in ["", "scribe", "TRANSCRIBE", "0190c4e0", "abcd", "ada"] {
            assert!(fits(text, &[], |said| said), "{text}");
        }
        assert!(!fits("kaput", &[], |said| said));
        assert!(fits("kaput", &[], |said| Said { warning: Some("Kaput"), ..said }));
        assert!(fits("kaput", &[], |said| Said { result: Some(b"[\"KAPUT\"]"), ..said }));
        let error = RunError {
            kind: "ValueError".into(),
            traceback: Some("line 3 in main.py".into()),
            ..RunError::new(Code::UserError, "Gr\u{f6}\u{df}e")
        };
        for text in ["user_error", "valueerror", "GR\u{d6}\u{df}E", "main.py"] {
            let search = Search::new(Some(text), []).unwrap();
            let id = ID.parse().unwrap();
            let said =
                Said { id, function: "f", error: Some(&error), metadata: None, warning: None, result: None };
            assert!(search.fits(&said), "{text}");
        }
    }

    #[test]
    fn what_lies_behind_the_bound_is_not_looked_at() {
        let mut result = vec![b'x'; SEARCHED_BYTES_MAX];
        result.extend(b"kaput");
        assert!(!fits("kaput", &[], |said| Said { result: Some(&result), ..said }));
        assert!(fits("kaput", &[], |said| Said { result: Some(&result[10..]), ..said }));
    }

    /// Compared anew at each place, this would be four thousand million comparisons.
    #[test]
    fn what_nearly_fits_everywhere_is_looked_through_in_one_pass() {
        let (result, text) = (vec![b'A'; SEARCHED_BYTES_MAX], "a".repeat(255) + "b");
        let began = std::time::Instant::now();
        for _ in 0..1_000 {
            assert!(!fits(&text, &[], |said| Said { result: Some(&result), ..said }));
        }
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }

    #[test]
    fn every_value_of_the_metadata_must_be_there() {
        for pairs in [&["order=17"][..], &["who=Ada", "order = 17"], &["paid=true"], &["none=null"]] {
            assert!(fits("", pairs, |said| said), "{pairs:?}");
            assert!(!fits("", pairs, |said| Said { metadata: None, ..said }), "{pairs:?}");
        }
        for pairs in [&["order=1"][..], &["who=ada"], &["order=17", "who=Bob"], &["other=17"]] {
            assert!(!fits("", pairs, |said| said), "{pairs:?}");
        }
    }

    #[test]
    fn what_cannot_be_searched_is_refused_with_the_way_to_write_it() {
        for (text, metadata, says) in [
            ("x".repeat(SEARCH_TEXT_BYTES_MAX + 1), vec![], "257 bytes"),
            (String::new(), vec!["order"], "`order=17`"),
            (String::new(), vec!["=17"], "not `=17`"),
            (String::new(), vec!["a=1"; SEARCH_METADATA_MAX + 1], "9 conditions"),
        ] {
            let error = Search::new(Some(&text), metadata).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Search::new(Some(" "), [""]).unwrap().is_empty());
    }
}
