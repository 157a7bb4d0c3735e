//! Who may open an inbox.

use queue::inbox::Inbox;
use queue::port::Stored;
use subtle::ConstantTimeEq as _;

use crate::Shared;

impl Shared {
    /// The inbox, for whoever shows its view token. A wrong token and an unknown inbox are one answer.
    pub(crate) async fn open(&self, id: &str, token: Option<&str>) -> Stored<Option<Inbox>> {
        let Ok(id) = id.parse() else { return Ok(None) };
        let inbox = self.inboxes.inbox(&id).await?;
        let token = token.unwrap_or_default().as_bytes();
        Ok(inbox.filter(|inbox| {
            !inbox.view_token.is_empty() && bool::from(inbox.view_token.as_bytes().ct_eq(token))
        }))
    }
}
