//! Who may open an inbox: whoever shows its view token, and until a time whoever shows a link made from it.

use queue::Timestamp;
use queue::inbox::Inbox;
use queue::port::Stored;
use subtle::ConstantTimeEq as _;

use crate::Shared;

/// An inbox for somebody who may look at it.
pub(crate) struct Opened {
    /// The inbox; its view token is the token that was shown, so that no page tells another one.
    pub(crate) inbox: Inbox,
    /// Until when, for whoever came by a link that ends.
    pub(crate) until: Option<Timestamp>,
}

impl Opened {
    /// Whether the link by which somebody came is over.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Shared {
    /// The inbox, for whoever shows its view token or a link. A wrong token, one that has ended and an unknown inbox
    /// are one answer.
    pub(crate) async fn open(&self, id: &str, token: Option<&str>) -> Stored<Option<Opened>> {
        let Ok(id) = id.parse() else { return Ok(None) };
        let Some(inbox) = self.inboxes.inbox(&id).await? else { return Ok(None) };
        let token = token.unwrap_or_default();
        let is_own =
            !inbox.view_token.is_empty() && bool::from(inbox.view_token.as_bytes().ct_eq(token.as_bytes()));
        let until = if is_own { None } else { inbox.link_end(token) };
        if !is_own && until.is_none() {
            return Ok(None);
        }
        let opened = Opened { inbox: Inbox { view_token: token.to_owned(), ..inbox }, until };
        Ok(Some(opened).filter(|opened| !opened.has_ended(self.clock.now())))
    }
}
