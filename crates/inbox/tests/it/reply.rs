//! What senders are answered, once their request is recorded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Response, StatusCode};
use queue::inbox::{Reply, ResetConnection};
use queue::limits::{INBOX_SILENCE, INBOX_WAITS_MAX};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::fake::{self, ID, Memory};
use crate::{post, send, text};

/// A room whose inbox answers like this, and its store.
fn answering(script: &str, headers: &[(&str, &str)], body: Option<&str>) -> (Arc<Memory>, Router) {
    let (memory, router, _) = stoppable(script, headers, body);
    (memory, router)
}

fn stoppable(
    script: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> (Arc<Memory>, Router, CancellationToken) {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let reply =
        Reply::new(script.parse().expect("a script"), headers, body.map(str::to_owned)).expect("a reply");
    let memory = Memory::new();
    memory.inboxes.lock().expect("lock").get_mut(ID).expect("the inbox").reply = Some(Arc::new(reply));
    let shutdown = CancellationToken::new();
    let router = fake::stoppable(&memory, "http://127.0.0.1:4100", shutdown.clone()).router();
    (memory, router, shutdown)
}

fn is_reset(response: &Response<Body>) -> bool {
    response.extensions().get::<ResetConnection>().is_some()
}

#[tokio::test]
async fn status_headers_and_body_are_those_that_were_chosen() {
    let headers = [("content-type", "text/html"), ("x-mine", "1"), ("x-mine", "2")];
    let (memory, router) = answering("418", &headers, Some("<h1>no</h1>"));
    let response = send(&router, post("{}")).await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let given = response.headers();
    assert_eq!(given["content-type"], "text/html");
    assert_eq!(given.get_all("x-mine").iter().collect::<Vec<_>>(), ["1", "2"]);
    // Whatever was chosen, it acts on nothing.
    assert!(given["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
    assert_eq!(given["x-content-type-options"], "nosniff");
    assert_eq!(text(response).await, "<h1>no</h1>");
    assert_eq!(memory.requests.lock().unwrap().len(), 1);

    let (memory, router) = answering("202", &[], None);
    let response = send(&router, post("{}")).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let id = memory.requests.lock().unwrap()[0].id;
    assert_eq!(text(response).await, format!("{{\"id\":\"{id}\"}}"));

    let (_, router) = answering("204", &[], Some("never sent"));
    let response = send(&router, post("{}")).await;
    assert_eq!((response.status(), text(response).await), (StatusCode::NO_CONTENT, String::new()));
}

#[tokio::test(start_paused = true)]
async fn a_script_takes_a_step_for_each_request_and_records_them_all() {
    let (memory, router) = answering("500,timeout,429;retry-after=3,reset,200", &[], None);
    assert_eq!(send(&router, post("1")).await.status(), StatusCode::INTERNAL_SERVER_ERROR);

    // Recorded at once, never answered, and at last let go.
    let began = Instant::now();
    let silent = tokio::spawn(router.clone().oneshot(post("2")));
    while memory.requests.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!silent.is_finished());
    assert!(is_reset(&silent.await.unwrap().unwrap()));
    assert_eq!(began.elapsed(), INBOX_SILENCE);

    let busy = send(&router, post("3")).await;
    assert_eq!(
        (busy.status(), busy.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "3")
    );
    assert!(is_reset(&send(&router, post("4")).await));
    for body in ["5", "6"] {
        let good = send(&router, post(body)).await;
        assert_eq!((good.status(), is_reset(&good)), (StatusCode::OK, false));
    }
    assert_eq!(memory.requests.lock().unwrap().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_kept_and_ends_with_the_server() {
    let (_, router, shutdown) = stoppable("201;delay=2500ms", &[], None);
    let began = Instant::now();
    assert_eq!(send(&router, post("{}")).await.status(), StatusCode::CREATED);
    assert_eq!(began.elapsed(), Duration::from_millis(2_500));
    shutdown.cancel();
    let began = Instant::now();
    assert_eq!(send(&router, post("{}")).await.status(), StatusCode::CREATED);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_are_let_wait() {
    let (memory, router) = answering("timeout", &[], None);
    let waiting: Vec<_> =
        (0..INBOX_WAITS_MAX).map(|_| tokio::spawn(router.clone().oneshot(post("{}")))).collect();
    while memory.requests.lock().unwrap().len() < INBOX_WAITS_MAX {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    // All of them have recorded; let each come to its wait.
    for _ in 0..INBOX_WAITS_MAX * 4 {
        tokio::task::yield_now().await;
    }
    assert!(is_reset(&send(&router, post("{}")).await));
    assert_eq!(began.elapsed(), Duration::ZERO);
    for held in waiting {
        assert!(is_reset(&held.await.unwrap().unwrap()));
    }
}
