//! Live pages: server-sent events, one per recorded request.
//!
//! The store is the source: a subscriber reads what lies after the last request it told of, and
//! waits only when there is nothing. An announcement merely ends the wait, so a lost one, a slow
//! browser or a reconnect (`Last-Event-ID`) cannot make a gap. What another node recorded is found
//! by looking again now and then.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use queue::InboxId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::door::Opened;
use crate::page::{Ask, gone, unavailable};
use crate::{Shared, aside};

/// Live pages of one inbox.
const SUBSCRIBERS_PER_INBOX_MAX: usize = 16;
/// Live pages in all.
const SUBSCRIBERS_MAX: usize = 256;
/// Silence after which a comment is sent, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Silence after which the store is looked at without having been told to.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// What a browser waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Who watches which inbox.
#[derive(Default)]
pub(crate) struct Hub {
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    inboxes: HashMap<InboxId, watch::Sender<()>>,
    subscribers: usize,
}

impl Hub {
    /// Something was recorded.
    pub(crate) fn announce(&self, inbox: &InboxId) {
        if let Some(bell) = self.lock().inboxes.get(inbox) {
            bell.send_replace(());
        }
    }

    /// A place among the watchers of an inbox, while there are any.
    fn subscribe(self: &Arc<Self>, inbox: &InboxId) -> Option<Subscription> {
        let mut watched = self.lock();
        let here = watched.inboxes.get(inbox).map_or(0, watch::Sender::receiver_count);
        if here >= SUBSCRIBERS_PER_INBOX_MAX || watched.subscribers >= SUBSCRIBERS_MAX {
            return None;
        }
        watched.subscribers += 1;
        metrics::gauge!("postback_inbox_live_pages").increment(1);
        let bell = watched.inboxes.entry(inbox.clone()).or_insert_with(|| watch::channel(()).0).subscribe();
        Some(Subscription { hub: Arc::clone(self), inbox: inbox.clone(), bell: Some(bell) })
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watcher; leaves by being dropped.
struct Subscription {
    hub: Arc<Hub>,
    inbox: InboxId,
    /// `Some` until the drop.
    bell: Option<watch::Receiver<()>>,
}

impl Subscription {
    /// Forgets announcements so far: the store is about to be read.
    fn hush(&mut self) {
        if let Some(bell) = &mut self.bell {
            bell.mark_unchanged();
        }
    }

    /// Returns at the first announcement since [`Subscription::hush`].
    async fn rung(&mut self) {
        match &mut self.bell {
            // The hub keeps the sender while a receiver lives, so this is always a ring.
            Some(bell) => drop(bell.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.hub.lock();
        drop(self.bell.take());
        watched.subscribers -= 1;
        metrics::gauge!("postback_inbox_live_pages").decrement(1);
        if watched.inboxes.get(&self.inbox).is_some_and(|bell| bell.receiver_count() == 0) {
            watched.inboxes.remove(&self.inbox);
        }
    }
}

/// `/inboxes/{id}/events?token=…&after=…`
pub(crate) async fn events(
    State(room): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
) -> Response {
    let opened = match room.open(&id, ask.token.as_deref()).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return gone(),
        Err(error) => return unavailable(&error),
    };
    let Some(subscription) = room.hub.subscribe(&opened.inbox.id) else {
        let message = "too many live pages are open; close one\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], message).into_response();
    };
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = resumed.or(ask.after).unwrap_or(0);
    let look_again = Instant::now() + LOOK_AGAIN;
    let feed = Feed { room, opened, subscription, after, greeted: false, look_again };
    let events = stream::unfold(Some(feed), |feed| async move { feed?.next().await });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// One live page's view of its inbox.
struct Feed {
    room: Arc<Shared>,
    opened: Opened,
    subscription: Subscription,
    /// The last request told of.
    after: i64,
    greeted: bool,
    /// When to ask again whether it may still be looked at.
    look_again: Instant,
}

type Told = (Result<Event, Infallible>, Option<Feed>);

impl Feed {
    /// The next event, and the feed unless it ends with it.
    async fn next(mut self) -> Option<Told> {
        if !self.greeted {
            self.greeted = true;
            return Some((Ok(Event::default().comment("listening").retry(RECONNECT)), Some(self)));
        }
        let room = Arc::clone(&self.room);
        let stopped = room.options.shutdown.cancelled();
        tokio::select! {
            () = stopped => None,
            told = self.look() => told,
        }
    }

    async fn look(mut self) -> Option<Told> {
        loop {
            self.subscription.hush();
            if let Some(why) = self.is_over().await {
                return Some((Ok(Event::default().event("gone").data(why)), None));
            }
            let inbox = &self.opened.inbox;
            match self.room.inboxes.requests(&inbox.id, self.after, 1).await {
                Ok(mut found) => {
                    if let Some(request) = found.pop() {
                        self.after = request.sequence;
                        let views = self.room.views(inbox);
                        let event = Event::default().id(request.sequence.to_string());
                        let event = aside(move || event.json_data(views.of(&request))).await.ok()?;
                        return Some((Ok(event), Some(self)));
                    }
                }
                Err(error) => {
                    // The browser comes back by itself, with the id of the last event it has.
                    tracing::warn!(error = %error, inbox.id = %inbox.id, "A live page could not be fed");
                    return None;
                }
            }
            tokio::select! {
                () = self.subscription.rung() => {}
                () = sleep_until(self.look_again) => {}
            }
        }
    }

    /// Why nothing more may be shown here: the inbox is `deleted`, or the address has `ended`. The store is asked now
    /// and then; that a link ends is known without it.
    async fn is_over(&mut self) -> Option<&'static str> {
        let Opened { inbox, .. } = &self.opened;
        if self.opened.has_ended(self.room.clock.now()) {
            return Some("ended");
        }
        if Instant::now() < self.look_again {
            return None;
        }
        self.look_again = Instant::now() + LOOK_AGAIN;
        match self.room.open(inbox.id.as_str(), Some(&inbox.view_token)).await {
            Ok(None) if matches!(self.room.inboxes.inbox(&inbox.id).await, Ok(None)) => Some("deleted"),
            Ok(None) => Some("ended"),
            Ok(Some(_)) | Err(_) => None,
        }
    }
}
