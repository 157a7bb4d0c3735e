//! Which requests hold a text: in method, path, headers or body, whatever the case of ASCII letters.

use std::sync::Arc;

use queue::InboxId;
use queue::inbox::CapturedRequest;
use queue::port::Stored;

use crate::{Shared, aside};

/// Longest text that is searched for, in characters.
pub(crate) const TEXT_CHARS_MAX: usize = 200;
/// Requests read at once.
const READ_REQUESTS_MAX: usize = 200;
/// Bytes of bodies read at once, beyond the first request's.
const READ_BYTES_MAX: usize = 8 << 20;
/// Bytes of bodies looked through for one page; the next page goes on from there.
const LOOKED_BYTES_MAX: usize = 64 << 20;
/// Requests looked through for one page.
const LOOKED_REQUESTS_MAX: usize = 5_000;

/// What a search found, and how far it came.
#[derive(Default)]
pub(crate) struct Found {
    /// Newest first.
    pub(crate) requests: Vec<CapturedRequest>,
    /// The oldest one that was looked at, when there are more.
    pub(crate) looked_to: Option<i64>,
}

impl Shared {
    /// Requests below `before` that hold `text`, newest first, up to `limit`.
    pub(crate) async fn search(
        &self,
        inbox: &InboxId,
        text: &str,
        mut before: i64,
        limit: usize,
    ) -> Stored<Found> {
        let needle: Arc<[u8]> = text.to_ascii_lowercase().into_bytes().into();
        let (mut found, mut bytes, mut looked) = (Found::default(), 0, 0);
        loop {
            let page = self.inboxes.requests_before(inbox, before, READ_REQUESTS_MAX, READ_BYTES_MAX).await?;
            if page.is_empty() {
                return Ok(found);
            }
            let needle = Arc::clone(&needle);
            let page = aside(move || -> Vec<_> {
                page.into_iter().map(|request| (holds(&request, &needle), request)).collect()
            });
            for (holds, request) in page.await {
                before = request.sequence;
                bytes += request.body.len();
                looked += 1;
                if holds {
                    found.requests.push(request);
                }
                if found.requests.len() == limit || bytes > LOOKED_BYTES_MAX || looked == LOOKED_REQUESTS_MAX
                {
                    found.looked_to = Some(before);
                    return Ok(found);
                }
            }
        }
    }
}

fn holds(request: &CapturedRequest, needle: &[u8]) -> bool {
    let headers = || {
        request.headers.iter().any(|(name, value)| contains(format!("{name}: {value}").as_bytes(), needle))
    };
    contains(request.method.as_bytes(), needle)
        || contains(request.path.as_bytes(), needle)
        || headers()
        || contains(&request.body, needle)
}

/// Whether `text` holds `needle`, which is in lower case.
fn contains(text: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return true };
    let upper = first.to_ascii_uppercase();
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| byte == first || *byte == upper) {
        let behind = from + at + 1;
        if text.get(behind..behind + rest.len()).is_some_and(|text| text.eq_ignore_ascii_case(rest)) {
            return true;
        }
        from = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_whatever_its_case_and_place() {
        for (text, needle, expected) in [
            ("Hello World", "world", true),
            ("aab", "ab", true),
            ("aa", "aaa", false),
            ("", "a", false),
            ("x", "", true),
            ("\u{e9}T\u{e9}", "\u{e9}t\u{e9}", true),
            ("ab", "b", true),
        ] {
            assert_eq!(contains(text.as_bytes(), needle.as_bytes()), expected, "{text:?} {needle:?}");
        }
    }
}
