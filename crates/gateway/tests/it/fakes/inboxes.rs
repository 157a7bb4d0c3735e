//! Inboxes that live in memory, and what stands for the way to other addresses.

use std::time::Duration;

use async_trait::async_trait;
use queue::delivery::Timings;
use queue::inbox::{CapturedRequest, Inbox, InboxChange, Recorded};
use queue::port::{AddressGuard as _, Inboxes, Replays, Stored};
use queue::replay::{NotReplayed, Replayed, headers_sent};
use queue::{InboxId, ProjectId};

use super::World;

#[async_trait]
impl Inboxes for World {
    async fn create_inbox(&self, inbox: Inbox) -> Stored<bool> {
        self.checked()?.inboxes.insert(0, inbox);
        Ok(true)
    }

    async fn inbox(&self, id: &InboxId) -> Stored<Option<Inbox>> {
        Ok(self.checked()?.inboxes.iter().find(|inbox| inbox.id == *id).cloned())
    }

    async fn inboxes(&self, project: &ProjectId) -> Stored<Vec<Inbox>> {
        let held = self.checked()?;
        Ok(held.inboxes.iter().filter(|inbox| inbox.project == *project).cloned().collect())
    }

    async fn change_inbox(&self, id: &InboxId, change: InboxChange) -> Stored<Option<Inbox>> {
        let mut held = self.checked()?;
        let Some(inbox) = held.inboxes.iter_mut().find(|inbox| inbox.id == *id) else { return Ok(None) };
        inbox.set(change);
        Ok(Some(inbox.clone()))
    }

    async fn delete_inbox(&self, id: &InboxId) -> Stored<bool> {
        let mut held = self.checked()?;
        let before = held.inboxes.len();
        held.inboxes.retain(|inbox| inbox.id != *id);
        Ok(held.inboxes.len() < before)
    }

    async fn record(&self, inbox: &InboxId, mut request: CapturedRequest) -> Stored<Recorded> {
        let mut held = self.checked()?;
        request.sequence = i64::try_from(held.requests.len()).unwrap() + 1;
        let sequence = request.sequence;
        held.requests.push((inbox.clone(), request));
        Ok(Recorded { sequence, place: 0 })
    }

    async fn requests(&self, inbox: &InboxId, after: i64, limit: usize) -> Stored<Vec<CapturedRequest>> {
        {
            let mut held = self.hold();
            held.reads.0 += 1;
            held.reads.1 = held.reads.1.max(held.reads.0);
        }
        // So that others come meanwhile.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        self.hold().reads.0 -= 1;
        let held = self.checked()?;
        let wanted = held.requests.iter().filter(|(of, request)| of == inbox && request.sequence > after);
        Ok(wanted.take(limit).map(|(_, request)| request.clone()).collect())
    }

    async fn requests_before(&self, _: &InboxId, _: i64, _: usize, _: usize) -> Stored<Vec<CapturedRequest>> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Replays for World {
    /// Answers with what it was sent, and is busy once it was told to be.
    async fn replay(&self, request: &CapturedRequest, url: &str) -> Result<Replayed, NotReplayed> {
        if self.hold().told.iter().any(|told| told == "busy") {
            return Err(NotReplayed::Busy);
        }
        let sent = headers_sent(&request.headers).map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Replayed {
            url: self.check(url).await?.url,
            status_code: Some(201),
            headers: sent.collect(),
            response: Some(String::from_utf8_lossy(&request.body).into_owned()),
            reason: None,
            duration: Duration::from_micros(1_234_567),
            timings: Timings { connect: Some(Duration::from_millis(2)), ..Timings::default() },
        })
    }
}
