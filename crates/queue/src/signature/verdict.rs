//! What a signature is worth, and if nothing, which mistake was made.
//!
//! "No match" costs people hours: the same two words stand for a pasted prefix, a proxy that writes JSON anew
//! and a clock that is off. Here each of the known mistakes is made once more on purpose, and the one that
//! leads to the signature that arrived is the answer.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq as _;

use super::keys::{SigningKeys, signs};
use super::{
    ID_HEADER, PREFIX, SIGNATURE_HEADER, SigningKey, TIMESTAMP_HEADER, TOLERANCE_SECS, forms, mac_over,
};
use crate::clock::Timestamp;
use crate::inbox::{Mistake, SignatureState, SignatureVerdict};

/// Bodies up to this size are tried in other forms and with other keys: each try is a hash over the body.
const TRIED_BYTES_MAX: usize = 128 << 10;
/// Items of a signature header that are looked at.
const ITEMS_MAX: usize = 16;
/// Above this a time in seconds lies thousands of years ahead, and is one in milliseconds.
const MILLIS_FROM: i64 = 100_000_000_000;

/// The three headers as they arrived, each as often as it stood in the request.
#[derive(Clone, Debug, Default)]
pub struct SignatureHeaders<'a> {
    ids: Vec<&'a str>,
    timestamps: Vec<&'a str>,
    signatures: Vec<&'a str>,
}

impl<'a> FromIterator<(&'a str, &'a str)> for SignatureHeaders<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(headers: I) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            if name.eq_ignore_ascii_case(ID_HEADER) {
                found.ids.push(value);
            } else if name.eq_ignore_ascii_case(TIMESTAMP_HEADER) {
                found.timestamps.push(value);
            } else if name.eq_ignore_ascii_case(SIGNATURE_HEADER) {
                found.signatures.push(value);
            }
        }
        found
    }
}

/// Id, timestamp and signature, once each is there exactly once.
struct Headers<'a> {
    id: &'a str,
    timestamp: &'a str,
    signature: &'a str,
}

impl<'a> SignatureHeaders<'a> {
    fn each_once(&self) -> Result<Headers<'a>, SignatureVerdict> {
        let named = [
            (ID_HEADER, &self.ids),
            (TIMESTAMP_HEADER, &self.timestamps),
            (SIGNATURE_HEADER, &self.signatures),
        ];
        let missing: Vec<_> =
            named.iter().filter(|(_, values)| values.is_empty()).map(|(name, _)| *name).collect();
        if missing.len() == named.len() {
            return Err(SignatureVerdict {
                verdict: SignatureState::Missing,
                detail: format!("no {} header", missing.join(", no ")),
                mistake: None,
            });
        }
        if !missing.is_empty() {
            let detail = format!(
                "no {} header; a signed request has all three of {ID_HEADER}, {TIMESTAMP_HEADER} and \
                 {SIGNATURE_HEADER}",
                missing.join(", no ")
            );
            return Err(wrong(Mistake::MissingHeaders, detail));
        }
        if let Some((name, values)) = named.iter().find(|(_, values)| values.len() > 1) {
            let how = if *name == SIGNATURE_HEADER {
                "several signatures are items of one header, separated by single spaces"
            } else {
                "receivers would read one or the other"
            };
            let detail = format!("{} {name} headers, where one is meant; {how}", values.len());
            return Err(wrong(Mistake::RepeatedHeader, detail));
        }
        Ok(Headers { id: self.ids[0], timestamp: self.timestamps[0], signature: self.signatures[0] })
    }
}

fn wrong(mistake: Mistake, detail: String) -> SignatureVerdict {
    SignatureVerdict { verdict: SignatureState::Invalid, detail, mistake: Some(mistake) }
}

impl SigningKeys {
    /// Checks the three headers against a body, at `now`, with every symmetric key that signs then, and says
    /// of a signature that is not good which mistake made it so.
    pub fn check(&self, headers: &SignatureHeaders<'_>, body: &[u8], now: Timestamp) -> SignatureVerdict {
        let headers = match headers.each_once() {
            Ok(headers) => headers,
            Err(verdict) => return verdict,
        };
        let at = match seconds(headers.timestamp) {
            Ok(at) => at,
            Err(verdict) => return verdict,
        };
        let clock = Clock { ahead: at.saturating_sub(now.as_secs()) };
        // One comma an item and single spaces between: some libraries refuse anything else whole.
        let well_formed = headers.signature.split(' ').all(|item| item.matches(',').count() == 1);
        let good = self.in_force(now).filter(|_| well_formed).find(|(key, _)| {
            let expected = STANDARD.encode(key.over(&headers, body));
            let mut given = headers.signature.split(' ').filter_map(|item| item.strip_prefix("v1,"));
            given.any(|given| bool::from(given.as_bytes().ct_eq(expected.as_bytes())))
        });
        if let Some((_, until)) = good {
            if let Some(off) = clock.words() {
                return wrong(Mistake::ClockOff, format!("the signature is right, but {off}"));
            }
            let detail = match until {
                None => "signed by this project's webhook secret over these bytes".to_owned(),
                Some(until) => {
                    format!("signed by a former webhook secret of this project, good until {until}")
                }
            };
            return SignatureVerdict { verdict: SignatureState::Verified, detail, mistake: None };
        }
        let given = Given { items: items(headers.signature), headers, body };
        let (mistake, mut detail) = given
            .holds_none()
            .or_else(|| self.form_of_header(&given, now))
            .or_else(|| self.replaced(&given, now))
            .or_else(|| self.other_key(&given))
            .or_else(|| self.other_bytes(&given))
            .unwrap_or_else(|| self.nothing_fits(&given));
        if let Some(off) = clock.words() {
            detail.push_str("; besides, ");
            detail.push_str(&off);
        }
        wrong(mistake, detail)
    }

    /// The keys that sign at `now`, and until when those do that were replaced. The first one signs whatever
    /// the clock says.
    fn in_force(&self, now: Timestamp) -> impl Iterator<Item = (&SigningKey, Option<Timestamp>)> {
        let keys = self.symmetric.iter().enumerate();
        keys.filter(move |(place, (_, until))| *place == 0 || signs(*until, now))
            .map(|(place, (key, until))| (key, until.filter(|_| place > 0)))
    }

    /// The right signature, written into the header in a way that libraries do not read.
    fn form_of_header(&self, given: &Given<'_>, now: Timestamp) -> Option<(Mistake, String)> {
        let expected: Vec<_> =
            self.in_force(now).map(|(key, _)| key.over(&given.headers, given.body)).collect();
        let item = given.items.iter().find(|item| expected.iter().any(|expected| item.is(expected)))?;
        let (mistake, detail) = match (item.writing, item.place) {
            (Writing::UrlSafe, _) => (
                Mistake::UrlSafeBase64,
                "the signature is right, but in URL-safe base64; write it with `+` and `/` and with padding",
            ),
            (Writing::Unpadded, _) => {
                (Mistake::UnpaddedBase64, "the signature is right, but its base64 lacks the `=` at the end")
            }
            (Writing::Hex, _) => {
                (Mistake::HexSignature, "the signature is right, but in hex; write it in padded base64")
            }
            (Writing::Standard, Place::Bare) => {
                (Mistake::NoVersion, "the signature is right, but `v1,` is missing before it")
            }
            (Writing::Standard, _) => (
                Mistake::JoinedHeader,
                "the right signature is there, but the header is no list of `v1,…` items separated by single \
                 spaces, as when a proxy joins several lines by commas",
            ),
        };
        Some((mistake, detail.to_owned()))
    }

    /// A secret of this project that has ended.
    fn replaced(&self, given: &Given<'_>, now: Timestamp) -> Option<(Mistake, String)> {
        let mut ended = self.symmetric.iter().skip(1).filter(|(_, until)| !signs(*until, now));
        let (_, until) = ended.find(|(key, _)| given.is_signed_by(&key.0))?;
        let until = until.map(|until| until.to_string()).unwrap_or_default();
        let detail = format!(
            "signed by a webhook secret of this project that was replaced, and ended at {until}; sign with the \
             one in force"
        );
        Some((Mistake::ReplacedSecret, detail))
    }

    /// The right bytes under a key that is made from the secret in a wrong way.
    fn other_key(&self, given: &Given<'_>) -> Option<(Mistake, String)> {
        if !given.may_be_tried() {
            return None;
        }
        self.symmetric.iter().find_map(|(key, _)| {
            let encoded = STANDARD.encode(&key.0);
            let fits = |key: &[u8]| given.is_signed_by(key);
            let with_prefix = format!("{PREFIX}{encoded}");
            if fits(with_prefix.as_bytes()) || misread(&with_prefix).is_some_and(|key| fits(&key)) {
                let detail = format!(
                    "signed with the whole text of the secret as its key, `{PREFIX}` included; the key is what \
                     stands behind `{PREFIX}`, decoded from base64"
                );
                return Some((Mistake::PrefixInKey, detail));
            }
            fits(encoded.as_bytes()).then(|| {
                let detail = format!(
                    "signed with the text behind `{PREFIX}` as its key; that text is base64, and the key is what \
                     it decodes to"
                );
                (Mistake::UndecodedKey, detail)
            })
        })
    }

    /// The right key over other bytes than those that arrived.
    fn other_bytes(&self, given: &Given<'_>) -> Option<(Mistake, String)> {
        if !given.may_be_tried() {
            return None;
        }
        let fits =
            |parts: &[&[u8]]| self.symmetric.iter().any(|(key, _)| given.has(&mac_over(&key.0, parts)));
        let Given { headers: Headers { id, timestamp, .. }, body, .. } = *given;
        let (id, at) = (id.as_bytes(), timestamp.as_bytes());
        for (parts, what) in [
            (&[body] as &[&[u8]], "the body alone"),
            (&[at, b".", body], "`{timestamp}.{body}`"),
            (&[id, b".", body], "`{id}.{body}`"),
            (&[at, b".", id, b".", body], "`{timestamp}.{id}.{body}`"),
            (&[id, at, body], "id, timestamp and body without the dots"),
        ] {
            if fits(parts) {
                let detail =
                    format!("signed is {what}; Standard Webhooks signs `{{id}}.{{timestamp}}.{{body}}`");
                return Some((Mistake::OtherContent, detail));
            }
        }
        let form = forms::of(body).find(|form| fits(&[id, b".", at, b".", &form.bytes]))?;
        let detail = format!(
            "the signature fits another form of this body: {}. Something parsed the body and wrote it anew \
             between signing and here; sign the very bytes that are sent",
            form.name
        );
        Some((Mistake::ReserialisedBody, detail))
    }

    fn nothing_fits(&self, Given { items, body, .. }: &Given<'_>) -> (Mistake, String) {
        if items.iter().all(|item| item.place == Place::Public) {
            let detail =
                "only `v1a` signatures, which most libraries do not read; a `v1` one belongs beside them";
            return (Mistake::PublicKeyOnly, detail.to_owned());
        }
        if items.iter().all(|item| item.bytes.is_none()) {
            let detail =
                "no `v1` signature is base64 of the 32 bytes that HMAC-SHA256 gives; it may have been cut";
            return (Mistake::NoSignature, detail.to_owned());
        }
        let whose = match self.symmetric.len() {
            1 => "this project's webhook secret".to_owned(),
            count => format!("any of this project's {count} webhook secrets"),
        };
        let tried = if body.len() > TRIED_BYTES_MAX {
            ""
        } else if forms::of(body).next().is_some() {
            ", nor over another form of this JSON"
        } else {
            " as it arrived"
        };
        let detail = format!(
            "not signed by {whose} over this body{tried}: another secret was used, or the body was changed on its way"
        );
        (Mistake::WrongSecret, detail)
    }
}

impl SigningKey {
    fn over(&self, headers: &Headers<'_>, body: &[u8]) -> [u8; 32] {
        over(&self.0, headers, body)
    }
}

fn over(key: &[u8], headers: &Headers<'_>, body: &[u8]) -> [u8; 32] {
    mac_over(key, &[headers.id.as_bytes(), b".", headers.timestamp.as_bytes(), b".", body])
}

/// The whole secret as a decoder reads it that takes `_` for `/` and asks for no padding, such as Node's.
fn misread(secret: &str) -> Option<Vec<u8>> {
    let standard = secret.trim_end_matches('=').replace('_', "/");
    let whole = if standard.len() % 4 == 1 { standard.len() - 1 } else { standard.len() };
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
    );
    lenient.decode(&standard[..whole]).ok()
}

/// The timestamp as seconds.
fn seconds(text: &str) -> Result<i64, SignatureVerdict> {
    match text.parse::<i64>() {
        Ok(at) if at.abs() < MILLIS_FROM => Ok(at),
        Ok(_) => {
            let detail =
                format!("{TIMESTAMP_HEADER} is in milliseconds; it is a number of seconds since 1970");
            Err(wrong(Mistake::BadTimestamp, detail))
        }
        Err(_) => {
            let what = if Timestamp::parse_rfc3339(text).is_some() {
                "is a date"
            } else if text.parse::<f64>().is_ok() {
                "has a fraction"
            } else {
                "is no number"
            };
            let detail = format!("{TIMESTAMP_HEADER} {what}; it is a whole number of seconds since 1970");
            Err(wrong(Mistake::BadTimestamp, detail))
        }
    }
}

/// How far the sender's clock is from this one.
struct Clock {
    ahead: i64,
}

impl Clock {
    /// Nothing while receivers would take it.
    fn words(&self) -> Option<String> {
        let off = self.ahead.unsigned_abs();
        let side = if self.ahead > 0 { "ahead of" } else { "behind" };
        let or = if self.ahead > 0 { "" } else { ", or the request is an old one that was sent again" };
        (off > TOLERANCE_SECS).then(|| {
            format!(
                "{TIMESTAMP_HEADER} is {off} s {side} this clock, and receivers allow {TOLERANCE_SECS} s: the \
                 sender's clock is off{or}"
            )
        })
    }
}

/// A request whose signature is not good.
struct Given<'a> {
    headers: Headers<'a>,
    items: Vec<Item<'a>>,
    body: &'a [u8],
}

impl Given<'_> {
    fn has(&self, mac: &[u8; 32]) -> bool {
        self.items.iter().any(|item| item.is(mac))
    }

    fn is_signed_by(&self, key: &[u8]) -> bool {
        self.has(&over(key, &self.headers, self.body))
    }

    /// Whether other keys and other bytes are looked for: each is one more hash over the body.
    fn may_be_tried(&self) -> bool {
        self.body.len() <= TRIED_BYTES_MAX
    }

    /// Nothing in the header is a signature.
    fn holds_none(&self) -> Option<(Mistake, String)> {
        self.items.is_empty().then(|| {
            let detail = format!("{SIGNATURE_HEADER} holds no signature; it is `v1,` and base64 of 32 bytes");
            (Mistake::NoSignature, detail)
        })
    }
}

/// One signature of the header, read as generously as possible.
struct Item<'a> {
    bytes: Option<Cow<'a, [u8]>>,
    writing: Writing,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Standard,
    Unpadded,
    UrlSafe,
    Hex,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind `v1,`, however it is separated from the others.
    Version,
    /// Behind `v1a,`.
    Public,
    /// Behind nothing.
    Bare,
}

impl Item<'_> {
    fn is(&self, mac: &[u8; 32]) -> bool {
        self.bytes.as_deref().is_some_and(|bytes| bool::from(bytes.ct_eq(mac)))
    }
}

/// What stands in the header between spaces and commas, each with the version before it.
fn items(header: &str) -> Vec<Item<'_>> {
    let mut place = Place::Bare;
    let mut items = Vec::new();
    for word in header.split([' ', ',', '\t', ';']).filter(|word| !word.is_empty()) {
        match word {
            "v1" => place = Place::Version,
            "v1a" => place = Place::Public,
            _ => {
                let (bytes, writing) = decode(word.strip_prefix("v1=").unwrap_or(word));
                items.push(Item { bytes: bytes.map(Cow::Owned), writing, place });
                place = Place::Bare;
            }
        }
        if items.len() == ITEMS_MAX {
            break;
        }
    }
    items
}

fn decode(text: &str) -> (Option<Vec<u8>>, Writing) {
    let of_mac = |bytes: Vec<u8>| (bytes.len() == 32).then_some(bytes);
    if text.len() == 64
        && let Ok(bytes) = hex::decode(text)
    {
        return (of_mac(bytes), Writing::Hex);
    }
    let url_safe = text.contains(['-', '_']);
    for (engine, writing) in [
        (&STANDARD, Writing::Standard),
        (&STANDARD_NO_PAD, Writing::Unpadded),
        (&URL_SAFE, Writing::UrlSafe),
        (&URL_SAFE_NO_PAD, Writing::UrlSafe),
    ] {
        if url_safe == (writing == Writing::UrlSafe)
            && let Some(bytes) = engine.decode(text).ok().and_then(of_mac)
        {
            return (Some(bytes), writing);
        }
    }
    (None, Writing::Standard)
}

#[cfg(test)]
mod tests;
