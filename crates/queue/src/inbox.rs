//! An inbox: a temporary endpoint of our own that records what is posted to it.

mod reply;
mod share;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Entropy, Timestamp};
use crate::id::{InboxId, ProjectId};
use crate::limits::INBOX_NAME_CHARS_MAX;

pub use reply::{Does, InvalidReply, Reply, Script, Step};

/// Bytes of chance in the token that opens an inbox's page.
const VIEW_TOKEN_BYTES: usize = 16;

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
    /// What people call it.
    pub name: Option<String>,
    /// When it ends, with all that it recorded.
    pub expires_at: Option<Timestamp>,
    /// How it answers; `None` is 200 with the recorded request's id.
    pub reply: Option<Arc<Reply>>,
}

impl Inbox {
    /// A fresh one: nobody knows its id, and nobody its token.
    pub fn new(project: ProjectId, entropy: &dyn Entropy, created_at: Timestamp) -> Self {
        Self {
            id: InboxId::generate(entropy),
            project,
            view_token: Self::new_token(entropy),
            created_at,
            name: None,
            expires_at: None,
            reply: None,
        }
    }

    /// A token for the page of an inbox.
    pub fn new_token(entropy: &dyn Entropy) -> String {
        entropy.hex(VIEW_TOKEN_BYTES)
    }

    /// Sets what is to be set.
    pub fn set(&mut self, InboxChange { name, expires_at, reply, view_token }: InboxChange) {
        self.name = name.unwrap_or_else(|| self.name.take());
        self.expires_at = expires_at.unwrap_or(self.expires_at);
        self.reply = reply.unwrap_or_else(|| self.reply.take());
        self.view_token = view_token.unwrap_or_else(|| std::mem::take(&mut self.view_token));
    }

    /// Whether it is there at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// A name as it is kept; `None` for an empty one.
    ///
    /// # Errors
    /// When it is too long.
    pub fn checked_name(text: &str) -> Result<Option<String>, InvalidName> {
        let name = text.trim();
        if name.chars().count() > INBOX_NAME_CHARS_MAX || name.chars().any(char::is_control) {
            return Err(InvalidName);
        }
        Ok((!name.is_empty()).then(|| name.to_owned()))
    }
}

/// Why a text is no name of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of an inbox is one line of up to {INBOX_NAME_CHARS_MAX} characters")]
pub struct InvalidName;

/// What is to be set of an inbox. What is `None` stays as it is; an inner `None` takes the setting away.
#[derive(Clone, Debug, Default)]
pub struct InboxChange {
    /// Its name.
    pub name: Option<Option<String>>,
    /// When it ends.
    pub expires_at: Option<Option<Timestamp>>,
    /// How it answers; a script begins anew.
    pub reply: Option<Option<Arc<Reply>>>,
    /// What opens its page from now on, and nothing else.
    pub view_token: Option<String>,
}

/// On an answer that is not to be sent: its connection is to be reset instead, as a receiver's that died.
#[derive(Clone, Copy, Debug)]
pub struct ResetConnection;

/// A request that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Grows with every request.
    pub sequence: i64,
    /// The how-manieth it is since the reply was set, counted from 0.
    pub place: u64,
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
