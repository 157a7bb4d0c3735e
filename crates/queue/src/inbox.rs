//! An inbox: a temporary endpoint of our own that records what is posted to it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::{InboxId, ProjectId};

/// An inbox.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// Its id, and last segment of its address.
    pub id: InboxId,
    /// The project it belongs to, whose secret its verdicts are made with.
    pub project: ProjectId,
    /// Opens its page; unguessable.
    pub view_token: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a check of the signature headers said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureVerdict {
    /// `verified`, `invalid` or `missing`.
    pub verdict: SignatureState,
    /// One sentence: what was checked, or what is wrong.
    pub detail: String,
    /// Which mistake it is, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mistake: Option<Mistake>,
}

/// What is wrong with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mistake {
    /// Some of the three headers are not there.
    MissingHeaders,
    /// One of them is there several times.
    RepeatedHeader,
    /// The timestamp is no whole number of seconds.
    BadTimestamp,
    /// The signature is right, and the timestamp too far away.
    ClockOff,
    /// The items of the header are separated by commas, or by more than a space.
    JoinedHeader,
    /// The signature is right, without its version.
    NoVersion,
    /// The signature is right, in the alphabet of addresses.
    UrlSafeBase64,
    /// The signature is right, without the `=` at its end.
    UnpaddedBase64,
    /// The signature is right, in hex.
    HexSignature,
    /// Made with the text `whsec_…` as the key.
    PrefixInKey,
    /// Made with the base64 text as the key.
    UndecodedKey,
    /// Made with a secret that was replaced and has ended.
    ReplacedSecret,
    /// Made over other parts than id, timestamp and body.
    OtherContent,
    /// Made over another form of the same JSON.
    ReserialisedBody,
    /// There is nothing to compare.
    NoSignature,
    /// There are Ed25519 signatures only.
    PublicKeyOnly,
    /// No secret of the project fits these bytes.
    WrongSecret,
    /// The project has no secret to check with.
    NoSecret,
}

/// Whether a request carries a good Standard Webhooks signature of the inbox's project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureState {
    /// Signed by this project's secret, over these bytes.
    Verified,
    /// Headers are there and wrong.
    Invalid,
    /// No signature headers.
    Missing,
}

/// A request that an inbox recorded.
#[derive(Clone, Debug)]
pub struct CapturedRequest {
    /// Its own id (UUIDv7).
    pub id: Uuid,
    /// Grows with every request of the inbox; set by the store, 0 before.
    pub sequence: i64,
    /// The method.
    pub method: String,
    /// Path and query as they arrived.
    pub path: String,
    /// Headers in the order of arrival; values that are no UTF-8 are shown lossily.
    pub headers: Vec<(String, String)>,
    /// The body as it arrived.
    pub body: Bytes,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What the signature check said at that time.
    pub signature: SignatureVerdict,
}
