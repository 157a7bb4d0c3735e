//! What happened to an app, over HTTP.

use async_trait::async_trait;
use queue::event::{AppEvent, EventKind, StoredEvent};
use queue::port::{AppEvents, Stored};
use queue::{AppId, Timestamp};
use serde_json::json;

use crate::fakes::{OTHER_PROJECT, PROJECT, World, function, private_key, public_key, send};

#[async_trait]
impl AppEvents for World {
    fn note(&self, event: AppEvent) {
        let mut held = self.hold();
        let id = i64::try_from(held.events.len()).unwrap() + 1;
        held.events.push(StoredEvent { id, event });
    }

    async fn events(&self, app: &AppId, after: Option<i64>, limit: usize) -> Stored<Vec<StoredEvent>> {
        let held = self.hold();
        let of_app = held.events.iter().filter(|stored| stored.event.app == *app);
        let wanted: Vec<_> =
            of_app.filter(|stored| after.is_none_or(|after| stored.id > after)).cloned().collect();
        let skipped = if after.is_none() { wanted.len().saturating_sub(limit) } else { 0 };
        Ok(wanted.into_iter().skip(skipped).take(limit).collect())
    }
}

fn note(world: &World, text: &str) {
    world.note(AppEvent {
        at: Timestamp::from_millis(0),
        app: format!("{PROJECT}-demo").parse().unwrap(),
        kind: EventKind::Scaled,
        text: text.to_owned(),
        build: None,
    });
}

#[tokio::test]
async fn the_events_of_an_app_are_told_oldest_first_and_followed_by_their_cursor() {
    let world = World::new();
    world.live_app(PROJECT, "demo", vec![function("predict", &[])]);
    let router = world.router();
    for number in 1..=3 {
        note(&world, &format!("event {number}"));
    }
    let path = format!("/v2/projects/{PROJECT}/apps/demo/events");
    let key = private_key(PROJECT);
    let page = send(&router, "GET", &format!("{path}?limit=2"), Some(&key), "").await.good();
    let texts: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["text"].clone()).collect();
    assert_eq!(texts, ["event 2", "event 3"], "the newest");
    assert_eq!((&page["items"][0]["kind"], &page["items"][0]["buildId"]), (&json!("scaled"), &json!(null)));
    note(&world, "event 4");
    let next = page["nextToken"].as_str().unwrap();
    let page = send(&router, "GET", &format!("{path}?after={next}"), Some(&key), "").await.good();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["items"][0]["text"]), (1, &json!("event 4")));
    assert_eq!(page["nextToken"], "4");

    send(&router, "GET", &path, Some(&public_key(PROJECT)), "").await.problem(403, "forbidden");
    let stranger = format!("/v2/projects/{OTHER_PROJECT}/apps/demo/events");
    send(&router, "GET", &stranger, Some(&private_key(OTHER_PROJECT)), "").await.problem(404, "unknown_app");
}
