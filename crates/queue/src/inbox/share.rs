//! Links that open the page of an inbox until a time.
//!
//! A link's token carries its own proof: it says when it ends and is signed with the token of the page, which nobody
//! can read from it. So it ends by itself, with the inbox, and with the page's token when that is replaced.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::Inbox;
use crate::clock::Timestamp;

/// What is signed, apart from everything else that is.
const PURPOSE: &[u8] = b"postback shared inbox 1";
const END_BYTES: usize = 8;

impl Inbox {
    /// A token that opens the page until a time, or for as long as there is the inbox when that is sooner; with the
    /// second at which it ends.
    pub fn link_token(&self, until: Timestamp) -> (String, Timestamp) {
        let until = self.expires_at.map_or(until, |end| end.min(until)).as_secs();
        let said = until.to_be_bytes();
        let mac = self.signer(&said).finalize().into_bytes();
        let token = URL_SAFE_NO_PAD.encode([&said[..], &mac].concat());
        (token, Timestamp::from_millis(until.saturating_mul(1_000)))
    }

    /// When a token that [`link_token`](Self::link_token) made ends; `None` for any other text.
    pub fn link_end(&self, token: &str) -> Option<Timestamp> {
        // Anybody could sign with nothing.
        if self.view_token.is_empty() {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (said, mac) = bytes.split_first_chunk::<END_BYTES>()?;
        self.signer(said).verify_slice(mac).ok()?;
        Some(Timestamp::from_millis(i64::from_be_bytes(*said).saturating_mul(1_000)))
    }

    fn signer(&self, said: &[u8; END_BYTES]) -> Hmac<Sha256> {
        let signer =
            Hmac::<Sha256>::new_from_slice(self.view_token.as_bytes()).expect("a key of any length will do");
        signer.chain_update(PURPOSE).chain_update(self.id.as_str()).chain_update(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn inbox() -> Inbox {
        Inbox {
            id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            project: "p-12345678".parse().unwrap(),
            view_token: "0f".repeat(16),
            created_at: at(0),
            name: None,
            expires_at: None,
            reply: None,
        }
    }

    #[test]
    fn a_link_says_when_it_ends_and_every_bit_of_it_counts() {
        let inbox = inbox();
        let (token, until) = inbox.link_token(Timestamp::from_millis(1_000_999));
        assert_eq!((until, inbox.link_end(&token)), (at(1_000), Some(at(1_000))));
        assert!(!token.contains(&inbox.view_token));
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(inbox.link_end(&URL_SAFE_NO_PAD.encode(bent)), None, "bit {bit}");
        }
        for no_link in ["", "AAAA", &token[1..], &format!("{token}A"), &inbox.view_token] {
            assert_eq!(inbox.link_end(no_link), None, "{no_link}");
        }
    }

    #[test]
    fn a_link_belongs_to_its_inbox_and_to_its_pages_token() {
        let mine = inbox();
        let (token, _) = mine.link_token(at(1_000));
        let replaced = Inbox { view_token: "aa".repeat(16), ..mine.clone() };
        let another = Inbox { id: "f".repeat(32).parse().unwrap(), ..mine.clone() };
        let without = Inbox { view_token: String::new(), ..mine.clone() };
        for other in [&replaced, &another, &without] {
            assert_eq!(other.link_end(&token), None);
        }
        assert_eq!(without.link_end(&without.link_token(at(1_000)).0), None, "signed with nothing");
        let ending = Inbox { expires_at: Some(at(500)), ..mine };
        assert_eq!(ending.link_token(at(1_000)).1, at(500));
    }
}
