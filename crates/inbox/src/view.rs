//! What a page shows of a recorded request. The template and the live script read the same fields,
//! so a request looks the same whether it was there before the page or arrived under it.

use std::fmt::Write as _;

use queue::inbox::{CapturedRequest, SignatureState};
use queue::text::cut;
use serde::Serialize;

use crate::{curl, image};
use pages::inert::{self, visible};
use pages::{pretty, size};

/// Of a body, shown on the page; the rest is a download away.
const SHOWN_BYTES_MAX: usize = 32 << 10;
/// Bodies up to this size are parsed to be laid out; larger ones are shown as they are.
const PRETTY_BYTES_MAX: usize = 256 << 10;
/// Of a body that is no text, shown as bytes.
const HEX_BYTES_MAX: usize = 256;

/// A request as a page shows it: every text in it is safe to look at.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RequestView {
    pub(crate) sequence: i64,
    pub(crate) method: String,
    /// What follows the inbox's own address.
    pub(crate) path: String,
    /// When it arrived, for machines.
    pub(crate) at: String,
    /// The same for people, in UTC.
    pub(crate) time: String,
    pub(crate) size: String,
    /// `verified`, `invalid` or `missing`.
    pub(crate) verdict: &'static str,
    /// The verdict in a word or two.
    pub(crate) badge: &'static str,
    /// What was checked, or what is wrong.
    pub(crate) detail: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) header_count: String,
    /// `json`, `text`, `bytes` or `empty`.
    pub(crate) kind: &'static str,
    pub(crate) body: String,
    /// What is not shown, if anything.
    pub(crate) note: String,
    pub(crate) curl: String,
    /// Where the whole body is.
    pub(crate) download: String,
    /// Where the body is as a picture, when it is one.
    pub(crate) image: String,
    /// The request on a page of its own.
    pub(crate) open: String,
}

/// What the views of an inbox's requests have in common.
pub(crate) struct Views {
    /// Where senders post.
    pub(crate) address: String,
    /// The page's path.
    pub(crate) page: String,
    /// Its view token.
    pub(crate) token: String,
}

impl Views {
    /// Reads the whole body: nothing for a thread that serves connections.
    pub(crate) fn of(&self, request: &CapturedRequest) -> RequestView {
        let Self { address, page, token } = self;
        let (origin, prefix) = address.split_at(address.find("/inbox/").unwrap_or(address.len()));
        let body = Shown::of(&request.body);
        let at = request.received_at.to_rfc3339();
        let count = request.headers.len();
        RequestView {
            sequence: request.sequence,
            method: visible(&request.method).into_owned(),
            path: visible(request.path.strip_prefix(prefix).unwrap_or(&request.path)).into_owned(),
            time: at.get(11..19).map_or_else(|| at.clone(), |time| format!("{time} UTC")),
            at,
            size: size(request.body.len() as u64),
            verdict: verdict(request.signature.verdict),
            badge: badge(request.signature.verdict),
            detail: visible(&request.signature.detail).into_owned(),
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (visible(name).into_owned(), visible(value).into_owned()))
                .collect(),
            header_count: format!("{count} header{}", if count == 1 { "" } else { "s" }),
            kind: body.kind,
            body: body.text,
            note: body.note,
            curl: curl::command(request, origin),
            download: format!("{page}/requests/{}/body?token={token}", request.sequence),
            image: match image::kind(&request.body) {
                Some(_) => format!("{page}/requests/{}/image?token={token}", request.sequence),
                None => String::new(),
            },
            open: format!("{page}/requests/{}?token={token}", request.sequence),
        }
    }
}

const fn verdict(state: SignatureState) -> &'static str {
    match state {
        SignatureState::Verified => "verified",
        SignatureState::Invalid => "invalid",
        SignatureState::Missing => "missing",
    }
}

const fn badge(state: SignatureState) -> &'static str {
    match state {
        SignatureState::Verified => "✓ verified",
        SignatureState::Invalid => "✕ invalid signature",
        SignatureState::Missing => "– not signed",
    }
}

/// A body in the form that says most about it.
struct Shown {
    kind: &'static str,
    text: String,
    note: String,
}

impl Shown {
    fn of(body: &[u8]) -> Self {
        if body.is_empty() {
            return Self { kind: "empty", text: String::new(), note: "no body".into() };
        }
        let Ok(text) = std::str::from_utf8(body) else { return Self::bytes(body) };
        let laid_out = (text.len() <= PRETTY_BYTES_MAX).then(|| pretty(text, SHOWN_BYTES_MAX + 1)).flatten();
        let (kind, whole) = match &laid_out {
            Some(json) => ("json", json.as_str()),
            None if text.chars().take(1000).filter(|char| inert::acts(*char) && *char != '\r').count()
                > 100 =>
            {
                return Self::bytes(body);
            }
            None => ("text", text),
        };
        let shown = cut(whole, SHOWN_BYTES_MAX);
        let note = if shown.len() < whole.len() {
            format!("the first {} of {} are shown", size(shown.len() as u64), size(body.len() as u64))
        } else {
            String::new()
        };
        Self { kind, text: visible(shown).into_owned(), note }
    }

    fn bytes(body: &[u8]) -> Self {
        let shown = &body[..body.len().min(HEX_BYTES_MAX)];
        let picture = image::kind(body);
        let what = picture.unwrap_or("no text");
        // A picture stands in the place of its bytes.
        let note = if picture.is_none() && shown.len() < body.len() {
            format!("{what}; the first {} of {} are shown", size(shown.len() as u64), size(body.len() as u64))
        } else {
            what.into()
        };
        Self { kind: "bytes", text: hex(shown, 0), note }
    }
}

/// Sixteen bytes a line, the first of them at `from`: offset, hex, and the characters that print.
pub(crate) fn hex(bytes: &[u8], from: usize) -> String {
    let mut dump = String::with_capacity(bytes.len() * 5);
    for (line, chunk) in bytes.chunks(16).enumerate() {
        if line > 0 {
            dump.push('\n');
        }
        let _ = write!(dump, "{:04x}  ", from + line * 16);
        for index in 0..16 {
            let _ = match chunk.get(index) {
                Some(byte) => write!(dump, "{byte:02x} "),
                None => write!(dump, "   "),
            };
        }
        dump.push(' ');
        dump.extend(chunk.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '·',
        }));
    }
    dump
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_as_what_it_is() {
        let shown = |body: &[u8]| {
            let shown = Shown::of(body);
            (shown.kind, shown.text, shown.note)
        };
        assert_eq!(shown(b""), ("empty", String::new(), "no body".into()));
        assert_eq!(shown(br#"{"a":1}"#), ("json", "{\n  \"a\": 1\n}".into(), String::new()));
        assert_eq!(shown(b"hello"), ("text", "hello".into(), String::new()));
        let (kind, text, note) = shown(b"\xff\x00AB");
        assert_eq!((kind, note.as_str()), ("bytes", "no text"));
        assert_eq!(text, format!("0000  ff 00 41 42 {}··AB", "   ".repeat(12) + " "));
    }

    #[test]
    fn a_large_body_is_shown_in_part_and_says_so() {
        let long = "ä".repeat(1 << 20);
        let shown = Shown::of(long.as_bytes());
        assert!(shown.text.len() <= SHOWN_BYTES_MAX);
        assert_eq!(shown.note, "the first 32.0 KiB of 2.0 MiB are shown");
        let array = format!("[{}1]", "1,".repeat(100_000));
        assert!(Shown::of(array.as_bytes()).text.len() <= SHOWN_BYTES_MAX);
    }
}
