//! Names of things. Each id is a type of its own, so that the compiler notices a mix-up.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock::{Entropy, Timestamp};
use crate::run::EndpointUrl;

/// Why a text is not the id it was taken for. Displays as a fragment for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidId {
    text: String,
    expected: &'static str,
}

macro_rules! text_id {
    ($(#[$docs:meta])* $name:ident, $expected:literal, $valid:expr) => {
        $(#[$docs])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(100).collect();
                    Err(InvalidId { text, expected: $expected })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The owner of everything: `p-` and 8 hex digits when we make it. Foreign ones (`dev-p-…`, or
    /// of another length) are accepted, since people move projects between servers.
    ProjectId, "a project id (`p-` followed by letters and digits)",
    |text| {
        let digits = text.strip_prefix("dev-p-").or_else(|| text.strip_prefix("p-"));
        digits.is_some_and(|digits| (1..=32).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }
}

text_id! {
    /// An app's name, unique in its project.
    AppName, "an app name (1 to 64 lower-case letters, digits and `-`, beginning with a letter or digit)",
    |text| (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

text_id! {
    /// An app in the world: `<project id>-<app name>`.
    AppId, "an app id (`<project id>-<app name>`)",
    |text| AppId::split(text).is_some()
}

text_id! {
    /// One uploaded version of an app: `b-` and 16 hex digits.
    BuildId, "a build id (`b-` and 16 hex digits)",
    |text| text.strip_prefix("b-").is_some_and(|digits| digits.len() == 16
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

text_id! {
    /// A temporary endpoint of our own: 32 hex digits, unguessable.
    InboxId, "an inbox id (32 hex digits)",
    |text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

text_id! {
    /// One worker process serving one build: `r-` and 8 hex digits.
    ReplicaId, "a replica id (`r-` and 8 hex digits)",
    |text| text.strip_prefix("r-").is_some_and(|digits| digits.len() == 8
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl ProjectId {
    /// A fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(format!("p-{}", entropy.hex(4)).into())
    }
}

impl AppId {
    /// The id of `project`'s app `name`.
    pub fn new(project: &ProjectId, name: &AppName) -> Self {
        Self(format!("{project}-{name}").into())
    }

    /// The project that owns the app.
    pub fn project(&self) -> ProjectId {
        ProjectId(Self::split(&self.0).map_or("", |(project, _)| project).into())
    }

    /// The app's name within its project.
    pub fn name(&self) -> AppName {
        AppName(Self::split(&self.0).map_or("", |(_, name)| name).into())
    }

    /// Project ids hold no hyphen after their prefix, so the next one ends them.
    fn split(text: &str) -> Option<(&str, &str)> {
        let prefix = if text.starts_with("dev-p-") { 6 } else { 2 };
        let (digits, name) = text.get(prefix..)?.split_once('-')?;
        let project = text.get(..prefix + digits.len())?;
        (project.parse::<ProjectId>().is_ok() && name.parse::<AppName>().is_ok()).then_some((project, name))
    }
}

impl BuildId {
    /// A fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(format!("b-{}", entropy.hex(8)).into())
    }
}

impl InboxId {
    /// A fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(entropy.hex(16).into())
    }
}

impl ReplicaId {
    /// A fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(format!("r-{}", entropy.hex(4)).into())
    }
}

/// One call of one function: a UUIDv7, so that ids sort by the time they were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A fresh one for a run accepted at `now`.
    pub fn generate(now: Timestamp, entropy: &dyn Entropy) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &entropy.bytes()).into_uuid())
    }

    /// What the ids of runs that were accepted at `at` or later are not below, and all others are.
    pub fn lowest(at: Timestamp) -> Self {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0).min((1 << 48) - 1);
        Self(Uuid::from_u128(u128::from(millis) << 80))
    }

    /// The 16 bytes, as the store keeps them.
    pub const fn into_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// From the 16 bytes that [`RunId::into_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 36 characters of the text form, without an allocation.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// When the run was accepted, to the millisecond.
    pub fn accepted_at(self) -> Timestamp {
        let bytes = self.into_bytes();
        let millis = bytes[..6].iter().fold(0, |millis, byte| millis << 8 | i64::from(*byte));
        Timestamp::from_millis(millis)
    }
}

impl FromStr for RunId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidId { text: text.chars().take(100).collect(), expected: "a run id (a UUID)" })
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 36]))
    }
}

/// One webhook's worth of a run: the run, what of it is told, and to which of its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The run that is told about.
    pub run: RunId,
    /// What is told: 0 for the outcome, else the number of an event on the way there.
    pub event: u32,
    /// Which of the run's endpoints, from 0.
    pub index: u16,
}

impl DeliveryId {
    /// The delivery of a run's outcome.
    pub const fn outcome(run: RunId, index: u16) -> Self {
        Self { run, event: 0, index }
    }

    /// Whether it tells what happened on the way and not the outcome.
    pub const fn is_progress(self) -> bool {
        self.event > 0
    }

    /// The `webhook-id` header: the same on every attempt, derived from the run so that a restart
    /// cannot change it. Standard Webhooks allows no `.` in it.
    pub fn webhook_id(self) -> String {
        let Self { run, event, index } = self;
        let run = run.0.simple();
        if event == 0 { format!("msg_{run}_{index}") } else { format!("msg_{run}_{index}_{event}") }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.webhook_id())
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parse = || {
            let (run, rest) = text.strip_prefix("msg_")?.split_once('_')?;
            let (index, event) = match rest.split_once('_') {
                None => (rest, 0),
                Some((index, event)) => (index, event.parse().ok().filter(|event| *event > 0)?),
            };
            Some(Self { run: RunId(Uuid::try_parse(run).ok()?), event, index: index.parse().ok()? })
        };
        parse().ok_or_else(|| InvalidId {
            text: text.chars().take(100).collect(),
            expected: "a delivery id (`msg_` + run + `_` + number)",
        })
    }
}

/// An endpoint: a project and an address, as `ep_` and 16 hex digits made from both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EndpointId(String);

impl EndpointId {
    /// The id of a project's endpoint.
    pub fn of(project: &ProjectId, url: &EndpointUrl) -> Self {
        let hash = Sha256::new().chain_update(project.as_str()).chain_update([0]).chain_update(url.as_str());
        Self(format!("ep_{}", hex::encode(&hash.finalize()[..8])))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Proof that an attempt is the current one. Every write about a leased run must match it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken([u8; 16]);

impl LeaseToken {
    /// A fresh one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(entropy.bytes())
    }

    /// The 16 bytes, as the store keeps them.
    pub const fn into_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From the 16 bytes that [`LeaseToken::into_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseToken({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting;
    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for (i, byte) in (0..).zip(bytes) {
                *byte = i;
            }
        }
    }

    #[test]
    fn an_app_id_falls_apart_into_what_it_was_made_of() {
        let project: ProjectId = "p-1234abcd".parse().unwrap();
        let name: AppName = "webhook-delay-example".parse().unwrap();
        let app = AppId::new(&project, &name);
        assert_eq!(app.as_str(), "p-1234abcd-webhook-delay-example");
        assert_eq!((app.project(), app.name()), (project, name));
        assert!("p-1234abcd".parse::<AppId>().is_err());
    }

    #[test]
    fn a_run_id_is_a_version_7_uuid_that_knows_its_time() {
        let at = Timestamp::from_millis(1_769_860_800_123);
        let run = RunId::generate(at, &Counting);
        assert_eq!(run.to_string().as_bytes()[14], b'7');
        assert_eq!(run.accepted_at(), at);
        assert_eq!(run.to_string().parse(), Ok(run));
    }

    #[test]
    fn a_webhook_id_is_derived_from_the_run_and_reads_back() {
        let run = RunId::generate(Timestamp::from_millis(1), &Counting);
        for id in [DeliveryId::outcome(run, 3), DeliveryId { run, event: 12, index: 3 }] {
            assert!(!id.webhook_id().contains('.'));
            assert_eq!(id.webhook_id().parse(), Ok(id));
        }
        assert_eq!(DeliveryId::outcome(run, 3).webhook_id(), format!("msg_{}_3", run.0.simple()));
        assert!(format!("msg_{}_3_0", run.0.simple()).parse::<DeliveryId>().is_err());
    }

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for name in ["", "-a", "A", "a/b", "..", "a b", "é"] {
            assert!(name.parse::<AppName>().is_err(), "{name:?}");
        }
        for id in ["p-", "p-a/b", "x-12345678", "p-1 2"] {
            assert!(id.parse::<ProjectId>().is_err(), "{id:?}");
        }
    }
}
