//! A recorded request, sent once more to another address because a person asks for it.
//!
//! It is no delivery: nothing is promised, nothing is tried again, and nothing of it is kept. It goes out under the
//! rules, limits and times of a delivery's attempt.

use std::time::Duration;

use crate::delivery::Timings;
use crate::port::AddressRefused;
use crate::run::EndpointUrl;

/// Headers that belong to one connection (RFC 9110, 7.6.1), that name the first receiver, or by which the answer would
/// come in a form that nobody can read.
const OF_ONE_CONNECTION: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The recorded headers that go along: all but those of one connection, and those that a
/// `Connection` header names.
pub fn headers_sent(recorded: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    let is_named = |name: &str| {
        let connection = recorded.iter().filter(|(header, _)| header.eq_ignore_ascii_case("connection"));
        connection
            .flat_map(|(_, value)| value.split(','))
            .any(|named| named.trim().eq_ignore_ascii_case(name))
    };
    let stays = move |name: &str| {
        OF_ONE_CONNECTION.iter().any(|own| own.eq_ignore_ascii_case(name)) || is_named(name)
    };
    recorded.iter().filter(move |(name, _)| !stays(name)).map(|(name, value)| (name.as_str(), value.as_str()))
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// Where it went, in its normal form.
    pub url: EndpointUrl,
    /// The status, if one came.
    pub status_code: Option<u16>,
    /// The headers of the answer, as they came; values that are no UTF-8 are shown lossily.
    pub headers: Vec<(String, String)>,
    /// The first bytes of the answer's body, as text.
    pub response: Option<String>,
    /// Why no whole answer came, in the words of deliveries. Any status is an answer.
    pub reason: Option<String>,
    /// How long it took.
    pub duration: Duration,
    /// Where the time went.
    pub timings: Timings,
}

/// Why nothing was sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotReplayed {
    /// The address breaks a rule.
    #[error(transparent)]
    Refused(#[from] AddressRefused),
    /// Enough of them are under way.
    #[error("as many recorded requests are being sent as may be at once; try again in a moment")]
    Busy,
    /// Its method asks for something else than an answer.
    #[error("a `{0}` request cannot be sent once more: it asks for a tunnel, not for an answer")]
    Method(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_stays_behind_in_whatever_case() {
        let recorded = [
            ("Host", "inbox.example"),
            ("content-type", "application/json"),
            ("Connection", "keep-alive, X-Hop"),
            ("connection", "x-other"),
            ("x-hop", "1"),
            ("X-Other", "2"),
            ("Transfer-Encoding", "chunked"),
            ("content-length", "2"),
            ("webhook-id", "msg_1"),
            ("accept-encoding", "br"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ];
        let recorded = recorded.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sent: Vec<_> = headers_sent(&recorded).collect();
        assert_eq!(
            sent,
            [
                ("content-type", "application/json"),
                ("webhook-id", "msg_1"),
                ("x-twice", "1"),
                ("x-twice", "2")
            ]
        );
    }
}
