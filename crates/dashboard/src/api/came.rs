//! What an operation was answered: its headers beside what every answer has.

use std::time::Duration;

use pages::inert::visible;
use queue::RunId;
use queue::request::ApiAnswer;
use queue::text::cut;
use serde::Deserialize;

use crate::answer::Answer;

/// Headers that are shown, and bytes of each.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 1_024;

/// An answer with its headers.
#[derive(Debug)]
pub(super) struct Came {
    pub(super) answer: Answer,
    pub(super) headers: Vec<(String, String)>,
}

/// The run that a body speaks of.
#[derive(Deserialize)]
struct About {
    #[serde(alias = "runId")]
    run_id: RunId,
}

impl Came {
    pub(super) fn of(came: &ApiAnswer, took: Duration) -> Self {
        let shown = |text: &str| visible(cut(text, HEADER_BYTES_MAX)).into_owned();
        let headers = came.headers.iter().take(HEADERS_MAX);
        let about = serde_json::from_slice::<About>(&came.body).ok();
        Self {
            answer: Answer::of(came.status, about.map(|about| about.run_id), &came.body, came.bytes, took),
            headers: headers.map(|(name, value)| (shown(name), shown(value))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn came(body: &'static str) -> Came {
        let answer = ApiAnswer {
            status: 202,
            headers: vec![("x-mine".into(), "a\u{202e}b".into()), ("x-long".into(), "x".repeat(5_000))],
            body: Bytes::from_static(body.as_bytes()),
            bytes: body.len() as u64,
        };
        Came::of(&answer, Duration::from_millis(17))
    }

    #[test]
    fn an_answer_is_text_with_the_run_that_it_is_about() {
        let run = "0190c4e0-0000-7000-8000-00000000abcd";
        let shown = came("{\"run_id\":\"0190c4e0-0000-7000-8000-00000000abcd\",\"message\":\"\u{1b}[31m\"}");
        assert_eq!(shown.answer.run, None, "a control character in a text is no JSON");
        assert!(shown.answer.body.contains("␛[31m"), "{}", shown.answer.body);
        assert_eq!(shown.headers[0].1, "a⟨U+202E⟩b");
        assert_eq!(shown.headers[1].1.len(), HEADER_BYTES_MAX);
        for key in [
            "{\"run_id\":\"0190c4e0-0000-7000-8000-00000000abcd\"}",
            "{\"runId\":\"0190c4e0-0000-7000-8000-00000000abcd\"}",
        ] {
            assert_eq!(came(key).answer.run.as_deref(), Some(run), "{key}");
        }
        assert_eq!(came("[]").answer.run, None);
    }
}
