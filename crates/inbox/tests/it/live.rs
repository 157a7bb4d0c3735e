//! Live pages: nothing is missed, nothing comes twice, and the pages end.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::fake::{self, Memory};
use crate::{PATIENCE, get, page, record, send};

/// A live page, read event by event.
struct Events {
    body: Body,
    text: String,
}

impl Events {
    async fn open(router: &Router, request: Request<Body>) -> Self {
        let response = send(router, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// Id and data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                let (id, data) = (field("id:"), field("data:"));
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return Some((id, data));
                }
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            let data = frame.expect("a whole answer").into_data().expect("no trailers");
            self.text.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    async fn ids(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.next().await.expect("another event").0);
        }
        ids
    }
}

#[tokio::test]
async fn what_arrives_is_told_once_it_is_recorded() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    let mut events = Events::open(&router, get(&page("/events"))).await;
    record(&router, "{\"a\":123456789012345678901234567890}").await;
    let (id, data) = events.next().await.unwrap();
    assert_eq!(id, "1");
    insta::assert_json_snapshot!(serde_json::from_str::<serde_json::Value>(&data).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_page_is_told_at_once() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    let mut events = Events::open(&router, get(&page("/events"))).await;
    let mut next = Box::pin(events.next());
    assert!(futures_util::poll!(&mut next).is_pending());
    let began = Instant::now();
    record(&router, "{}").await;
    assert_eq!(next.await.unwrap().0, "1");
    // The clock moves only when everything waits for it: the page did not have to look again.
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_page_that_comes_back_gets_exactly_what_it_missed() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    let mut events = Events::open(&router, get(&page("/events"))).await;
    record(&router, "1").await;
    record(&router, "2").await;
    assert_eq!(events.ids(2).await, ["1", "2"]);
    drop(events);
    for body in ["3", "4", "5"] {
        record(&router, body).await;
    }
    // The browser's header is newer than the address, which names what the page began with.
    let mut again = get(&format!("{}&after=0", page("/events")));
    again.headers_mut().insert("last-event-id", "2".parse().unwrap());
    let mut events = Events::open(&router, again).await;
    assert_eq!(events.ids(3).await, ["3", "4", "5"]);
    record(&router, "6").await;
    assert_eq!(events.ids(1).await, ["6"]);
}

#[tokio::test]
async fn many_requests_at_once_make_no_gap() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    let mut events = Events::open(&router, get(&page("/events"))).await;
    let sending = tokio::spawn({
        let router = router.clone();
        async move {
            for number in 0..200 {
                record(&router, number.to_string()).await;
            }
        }
    });
    let expected: Vec<_> = (1..=200).map(|number| number.to_string()).collect();
    assert_eq!(events.ids(200).await, expected);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_another_node_recorded_is_found_without_being_announced() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let mut events = Events::open(&router, get(&page("/events"))).await;
    let other_node = fake::room(&memory, "http://127.0.0.1:4101").router();
    record(&other_node, "{}").await;
    assert_eq!(events.ids(1).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_page_is_kept_alive_and_hears_that_its_inbox_is_gone() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let mut response = send(&router, get(&page("/events"))).await.into_body();
    let mut heard = String::new();
    let mut deleted = false;
    while let Ok(Some(frame)) = timeout(Duration::from_secs(60), response.frame()).await {
        heard.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        if heard.ends_with(":\n\n") && !deleted {
            deleted = true;
            memory.inboxes.lock().unwrap().clear();
        }
    }
    assert!(deleted, "no comment came: {heard}");
    assert!(heard.ends_with("event: gone\ndata: deleted\n\n"), "{heard}");
}

#[tokio::test]
async fn too_many_pages_are_refused_and_a_closed_one_makes_room() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(Events::open(&router, get(&page("/events"))).await);
    }
    let refused = send(&router, get(&page("/events"))).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    open.pop();
    open.push(Events::open(&router, get(&page("/events"))).await);
}

#[tokio::test]
async fn live_pages_end_when_the_server_stops() {
    let shutdown = CancellationToken::new();
    let router = fake::stoppable(&Memory::new(), "http://127.0.0.1:4100", shutdown.clone()).router();
    let mut events = Events::open(&router, get(&page("/events"))).await;
    record(&router, "{}").await;
    assert_eq!(events.ids(1).await, ["1"]);
    shutdown.cancel();
    assert_eq!(events.next().await, None);
}
