//! Links to an inbox's page: whoever has one looks, until it ends, and learns nothing that lasts longer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use http::StatusCode;
use http_body_util::BodyExt as _;
use queue::inbox::Inbox;
use tokio::time::timeout;

use crate::fake::{self, ID, Memory, NOON, TOKEN};
use crate::{PATIENCE, get, page, record, send, text};

/// The token of a link that ends so many seconds past noon.
fn token(memory: &Memory, seconds: u64) -> String {
    let inbox: Inbox = memory.inboxes.lock().expect("lock")[ID].clone();
    inbox.link_token(NOON.plus(Duration::from_secs(seconds))).0
}

fn at(rest: &str, token: &str) -> String {
    format!("/inboxes/{ID}{rest}?token={token}")
}

fn room() -> (Arc<Memory>, Router) {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    (memory, router)
}

const PAGES: [&str; 5] = ["", "/requests/1", "/requests/1/body", "/compare", "/events"];

#[tokio::test]
async fn a_link_opens_every_page_until_it_ends_and_tells_no_other_token() {
    let (memory, router) = room();
    record(&router, "{\"a\":1}").await;
    record(&router, "{\"a\":2}").await;
    let link = token(&memory, 60);
    let open = async |rest: &str, token: &str| {
        let more = if rest == "/compare" { "&old=1&new=2" } else { "" };
        send(&router, get(&format!("{}{more}", at(rest, token)))).await
    };
    for rest in PAGES {
        let shown = open(rest, &link).await;
        assert_eq!(shown.status(), StatusCode::OK, "{rest}");
        if rest == "/events" {
            continue;
        }
        let shown = text(shown).await;
        assert!(!shown.contains(TOKEN), "{rest} tells the token: {shown}");
        if rest.is_empty() || rest == "/requests/1" {
            assert!(shown.contains("until <time datetime=\"2026-01-31T12:01:00"), "{rest}: {shown}");
            assert!(shown.contains(&link) && !shown.contains("/dashboard/"), "{rest}: {shown}");
        }
    }
    // Whoever has the address that does not end is offered more.
    let own = text(send(&router, get(&page("/requests/1"))).await).await;
    assert!(own.contains("/dashboard/inboxes/") && !own.contains("Shown to you by a link"), "{own}");

    memory.past_noon.store(59, Ordering::Relaxed);
    assert_eq!(open("", &link).await.status(), StatusCode::OK);
    memory.past_noon.store(60, Ordering::Relaxed);
    for rest in PAGES {
        assert_eq!(open(rest, &link).await.status(), StatusCode::NOT_FOUND, "{rest}");
        assert_eq!(open(rest, TOKEN).await.status(), StatusCode::OK, "{rest}");
    }
}

#[tokio::test]
async fn a_link_ends_with_the_token_of_the_page_and_opens_no_other_inbox() {
    let (memory, router) = room();
    let link = token(&memory, 60);
    let other = "f".repeat(32);
    let id = other.parse().unwrap();
    let mut inboxes = memory.inboxes.lock().unwrap().clone();
    let mut second = inboxes[ID].clone();
    second.id = id;
    inboxes.insert(second.id.clone(), second);
    *memory.inboxes.lock().unwrap() = inboxes;
    let status = async |path: String| send(&router, get(&path)).await.status();
    assert_eq!(status(format!("/inboxes/{other}?token={TOKEN}")).await, StatusCode::OK);
    assert_eq!(status(format!("/inboxes/{other}?token={link}")).await, StatusCode::NOT_FOUND);
    assert_eq!(status(at("", &link)).await, StatusCode::OK);

    for replaced in ["another-token", ""] {
        memory.inboxes.lock().unwrap().get_mut(ID).unwrap().view_token = replaced.into();
        assert_eq!(status(at("", &link)).await, StatusCode::NOT_FOUND, "{replaced:?}");
    }
    // A page without a token opens for nobody, not even for what is signed with nothing.
    for nothing in [String::new(), token(&memory, 60)] {
        assert_eq!(status(at("", &nothing)).await, StatusCode::NOT_FOUND, "{nothing}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_page_ends_with_its_link_and_shows_nothing_that_comes_later() {
    let (memory, router) = room();
    let link = token(&memory, 60);
    let mut live = send(&router, get(&at("/events", &link))).await.into_body();
    let mut own = send(&router, get(&page("/events"))).await.into_body();
    record(&router, "before").await;
    let mut heard = String::new();
    while !heard.contains("before") {
        let frame = timeout(PATIENCE, live.frame()).await.unwrap().unwrap().unwrap();
        heard.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    memory.past_noon.store(60, Ordering::Relaxed);
    record(&router, "too late").await;
    while let Some(frame) = timeout(PATIENCE, live.frame()).await.unwrap() {
        heard.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    assert!(heard.ends_with("event: gone\ndata: ended\n\n") && !heard.contains("too late"), "{heard}");

    // Whoever came by the page's own token sees it; once that is replaced, nothing more.
    let mut heard = String::new();
    while !heard.contains("too late") {
        let frame = timeout(PATIENCE, own.frame()).await.unwrap().unwrap().unwrap();
        heard.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    memory.inboxes.lock().unwrap().get_mut(ID).unwrap().view_token = "replaced".into();
    while let Some(frame) = timeout(PATIENCE, own.frame()).await.unwrap() {
        heard.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
    }
    assert!(heard.ends_with("event: gone\ndata: ended\n\n"), "{heard}");
}
