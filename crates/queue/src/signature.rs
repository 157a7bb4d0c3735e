//! Standard Webhooks: how a delivery is signed and how it is checked. The symmetric scheme `v1` stands here,
//! the asymmetric one in [`ed25519`], and all that a project signs with at a time is a [`SigningKeys`].
//!
//! [`SigningKeys::check`] says what a signature that arrived is worth, and which mistake was made.
//!
//! A caller may bring a secret of its own, as Cerebrium's callers do; see [`CallerSecret`].
//!
//! Signed are the bytes `{webhook-id}.{webhook-timestamp}.{body}`, with HMAC-SHA256 and the bytes
//! behind the `whsec_` prefix. Source: the Standard Webhooks specification 1.0.0. Three rooms need it
//! (delivery signs, the inbox checks, the quickstart checks), so it stands here.

pub mod ed25519;
mod forms;
mod keys;
mod verdict;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::clock::{Entropy, Timestamp};
use crate::id::RunId;

pub use keys::{SigningKeys, WebhookSecret};
pub use verdict::SignatureHeaders;

/// Header with the delivery's stable id.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the attempt's time in Unix seconds.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with one or more signatures, separated by single spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// Header of an inference call with the caller's own secret for the run's deliveries.
pub const CALLER_SECRET_HEADER: &str = "x-webhook-secret";
/// Header of a delivery with the run's id, when the call brought a secret.
pub const CEREBRIUM_ID_HEADER: &str = "x-request-id";
/// Header of a delivery with the attempt's time in Unix seconds, when the call brought a secret.
pub const CEREBRIUM_TIMESTAMP_HEADER: &str = "x-cerebrium-webhook-timestamp";
/// Header of a delivery with the caller's signature, when the call brought a secret.
pub const CEREBRIUM_SIGNATURE_HEADER: &str = "x-cerebrium-webhook-signature";

/// How far a timestamp may lie from the receiver's clock, as in the reference libraries.
const TOLERANCE_SECS: u64 = 300;
const PREFIX: &str = "whsec_";

/// A key that signs and checks.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

/// Why a text is no signing secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is `whsec_` followed by 24 to 64 bytes in padded base64")]
pub struct InvalidSecret;

impl SigningKey {
    /// Reads `whsec_…`.
    ///
    /// # Errors
    /// When the prefix, the base64 or the length is wrong.
    pub fn parse(secret: &str) -> Result<Self, InvalidSecret> {
        let bytes = secret
            .strip_prefix(PREFIX)
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .ok_or(InvalidSecret)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidSecret) }
    }

    /// A fresh secret in its text form.
    pub fn generate(entropy: &dyn Entropy) -> String {
        format!("{PREFIX}{}", STANDARD.encode(entropy.bytes::<32>()))
    }

    /// The value of the signature header: `v1,` and base64.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, &at.as_secs().to_string(), body)))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
        mac(&self.0, id, timestamp, body)
    }
}

/// What a caller brought as `X-Webhook-Secret`. Its deliveries are signed with it beside the project's
/// signature, the way Cerebrium does: HMAC-SHA256 in hex, over `{run id}.{timestamp}.{body}`, with the
/// header's bytes as they are. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct CallerSecret(Arc<[u8]>);

impl CallerSecret {
    /// Wraps the header's bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value of the signature header: `v1,` and hex.
    pub fn sign(&self, run: RunId, at: Timestamp, body: &[u8]) -> String {
        let (mut id, at) = ([0; 36], at.as_secs().to_string());
        format!("v1,{}", hex::encode(mac(&self.0, run.encode(&mut id), &at, body)))
    }
}

impl fmt::Debug for CallerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerSecret(…)")
    }
}

fn mac(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    mac_over(key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body])
}

fn mac_over(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const AT: Timestamp = Timestamp::from_millis(1_614_265_330_000);

    fn key() -> SigningKey {
        SigningKey::parse(SECRET).unwrap()
    }

    #[test]
    fn the_published_vectors_hold() {
        assert_eq!(key().sign(ID, AT, BODY), SIGNATURE);
        let other = SigningKey::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let at = Timestamp::from_millis(1_649_367_553_000);
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            other.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", at, body),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn a_callers_secret_signs_as_cerebrium_does_and_is_never_shown() {
        let secret = CallerSecret::new(b"my own secret");
        let run: RunId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        // printf '%s' "$id.1614265330.$body" | openssl dgst -sha256 -hmac 'my own secret'
        assert_eq!(
            secret.sign(run, AT, BODY),
            "v1,b7335f954afadd194b92621e916262eda89e900de9c0aed0913fefd414a9c774"
        );
        assert_eq!(format!("{secret:?}"), "CallerSecret(…)");
    }

    #[test]
    fn secrets_of_another_form_are_refused() {
        for secret in ["", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!!"] {
            assert!(SigningKey::parse(secret).is_err(), "{secret:?}");
        }
    }
}
