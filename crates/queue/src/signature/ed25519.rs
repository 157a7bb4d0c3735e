//! Standard Webhooks, asymmetric scheme `v1a`: receivers check with a public key and hold no secret.
//!
//! Ed25519 over the bytes that `v1` signs. The private key is told as `whsk_` and 64 bytes (seed, then public
//! key), the public one as `whpk_` and 32 bytes, both in padded base64.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign_byupdate};
use ed25519_dalek::{SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha512};

use super::InvalidSecret;
use crate::clock::{Entropy, Timestamp};

const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// A key that signs. Wiped when it is dropped, never shown.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Reads `whsk_…`.
    ///
    /// # Errors
    /// When the prefix or the base64 is wrong, or the two halves do not belong together.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = text.strip_prefix(PRIVATE_PREFIX).and_then(|encoded| STANDARD.decode(encoded).ok());
        let pair: [u8; 64] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidSecret)?;
        SigningKey::from_keypair_bytes(&pair).map(Self).map_err(|_| InvalidSecret)
    }

    /// A fresh one in its text form.
    pub fn generate(entropy: &dyn Entropy) -> String {
        let key = SigningKey::from_bytes(&entropy.bytes());
        format!("{PRIVATE_PREFIX}{}", STANDARD.encode(key.to_keypair_bytes()))
    }

    /// What receivers check with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// An item of the signature header: `v1a,` and base64.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let at = at.as_secs().to_string();
        // Hashes the parts where they lie: bodies are large, and Ed25519 reads its message twice.
        let message = |hash: &mut Sha512| {
            for part in [id.as_bytes(), b".", at.as_bytes(), b".", body] {
                hash.update(part);
            }
            Ok(())
        };
        let expanded = ExpandedSecretKey::from(self.0.as_bytes());
        let signature = raw_sign_byupdate::<Sha512, _>(&expanded, message, &self.0.verifying_key());
        format!("v1a,{}", STANDARD.encode(signature.expect("the parts are hashed without fail").to_bytes()))
    }
}

/// The half of the key that everybody may know.
#[derive(Clone, Copy)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// `whpk_…`
    pub fn as_text(&self) -> String {
        format!("{PUBLIC_PREFIX}{}", STANDARD.encode(self.0.as_bytes()))
    }

    /// The coordinate of a JSON Web Key.
    pub fn coordinate(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

    #[test]
    fn the_published_vector_holds() {
        let key = PrivateKey::parse(PRIVATE).unwrap();
        assert_eq!(key.public().as_text(), "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=");
        assert_eq!(key.public().coordinate(), "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4");
        let at = Timestamp::from_millis(1_614_265_330_000);
        assert_eq!(
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, br#"{"test": 2432232314}"#),
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
        );
    }

    #[test]
    fn halves_that_do_not_belong_together_are_refused() {
        let other = PRIVATE.replace("Fs6Kvg", "Fs6Kwg");
        for text in ["", "whsk_", "whsk_AAAA", other.as_str(), PRIVATE.trim_end_matches('='), &PRIVATE[5..]] {
            assert!(PrivateKey::parse(text).is_err(), "{text}");
        }
    }
}
