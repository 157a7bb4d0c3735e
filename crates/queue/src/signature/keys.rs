//! All that a project signs with at a time: the secret in force, those it replaced a while ago, and on request
//! Ed25519 keys. The one place that makes the signature header.

use super::ed25519::PrivateKey;
use super::{InvalidSecret, SigningKey};
use crate::clock::Timestamp;

/// A secret in its text form, and how long it signs.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    /// `whsec_…`, or `whsk_…` for an Ed25519 key.
    pub secret: String,
    /// When it was put in force.
    pub created_at: Timestamp,
    /// Until when it signs beside the one that replaced it; `None` for the one in force.
    pub expires_at: Option<Timestamp>,
}

impl WebhookSecret {
    /// One that is in force.
    pub const fn in_force(secret: String, created_at: Timestamp) -> Self {
        Self { secret, created_at, expires_at: None }
    }

    /// Whether it signs at `now`.
    pub fn signs_at(&self, now: Timestamp) -> bool {
        signs(self.expires_at, now)
    }
}

pub(super) fn signs(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_none_or(|expires_at| now < expires_at)
}

/// The keys of a project, newest first.
#[derive(Clone)]
pub struct SigningKeys {
    pub(super) symmetric: Vec<(SigningKey, Option<Timestamp>)>,
    asymmetric: Vec<(PrivateKey, Option<Timestamp>)>,
}

impl SigningKeys {
    /// From secrets of both kinds, each newest first.
    ///
    /// # Errors
    /// When there is no symmetric one, or one cannot be read.
    pub fn parse(symmetric: &[WebhookSecret], asymmetric: &[WebhookSecret]) -> Result<Self, InvalidSecret> {
        let parsed = |secret: &WebhookSecret| Ok((SigningKey::parse(&secret.secret)?, secret.expires_at));
        let symmetric = symmetric.iter().map(parsed).collect::<Result<Vec<_>, InvalidSecret>>()?;
        let parsed = |secret: &WebhookSecret| Ok((PrivateKey::parse(&secret.secret)?, secret.expires_at));
        let asymmetric = asymmetric.iter().map(parsed).collect::<Result<Vec<_>, InvalidSecret>>()?;
        if symmetric.is_empty() { Err(InvalidSecret) } else { Ok(Self { symmetric, asymmetric }) }
    }

    /// The value of the signature header: an item for each key that signs at `at`, newest first and `v1`
    /// before `v1a`, separated by single spaces.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        // The first one is in force, whatever the clock says: a delivery is never unsigned.
        let symmetric =
            self.symmetric.iter().enumerate().filter(|(place, (_, until))| *place == 0 || signs(*until, at));
        let symmetric = symmetric.map(|(_, (key, _))| key.sign(id, at, body));
        let asymmetric = self.asymmetric.iter().filter(|(_, until)| signs(*until, at));
        let asymmetric = asymmetric.map(|(key, _)| key.sign(id, at, body));
        symmetric.chain(asymmetric).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OLD: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const AT: Timestamp = Timestamp::from_millis(1_614_265_330_000);
    const BY_NEW: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const BY_OLD: &str = "v1,/485aUtxlie+TIScVpHggMfqOB4so2KWb7+Gf727B44=";
    const BY_PRIVATE: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    fn secret(text: &str, expires_at: Option<Timestamp>) -> WebhookSecret {
        WebhookSecret { secret: text.into(), created_at: AT, expires_at }
    }

    fn rotated(until: Timestamp) -> SigningKeys {
        SigningKeys::parse(&[secret(NEW, None), secret(OLD, Some(until))], &[secret(PRIVATE, None)]).unwrap()
    }

    #[test]
    fn the_published_vectors_stand_in_one_header_newest_first() {
        let keys = rotated(AT.plus(Duration::from_secs(1)));
        assert_eq!(keys.sign(ID, AT, BODY), format!("{BY_NEW} {BY_OLD} {BY_PRIVATE}"));
        let expired = rotated(AT);
        assert_eq!(expired.sign(ID, AT, BODY), format!("{BY_NEW} {BY_PRIVATE}"));
    }

    #[test]
    fn a_header_has_no_trap_for_the_public_libraries() {
        let header = rotated(AT.plus(Duration::from_secs(1))).sign(ID, AT, BODY);
        assert!(header.is_ascii() && header.trim() == header && !header.contains("  "));
        let items: Vec<_> = header.split(' ').map(|item| item.split(',').collect::<Vec<_>>()).collect();
        assert!(items.iter().all(|item| item.len() == 2), "one comma an item: {header}");
        assert_eq!(items.iter().map(|item| item[0]).collect::<Vec<_>>(), ["v1", "v1", "v1a"]);
        assert!(items.iter().all(|item| item[1].len() % 4 == 0 && !item[1].contains(['-', '_'])), "{header}");
    }

    #[test]
    fn a_signature_without_v1_cannot_be_made() {
        assert!(SigningKeys::parse(&[], &[secret(PRIVATE, None)]).is_err());
        // A clock far ahead, or a project whose only secret was ended by hand.
        let keys = SigningKeys::parse(&[secret(NEW, Some(AT))], &[]).unwrap();
        assert_eq!(keys.sign(ID, AT, BODY), BY_NEW);
    }
}
