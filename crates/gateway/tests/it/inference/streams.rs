//! Values told as they come, and the paths of OpenAI's clients.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use queue::Timestamp;
use queue::app::Function;
use queue::outcome::{Code, Outcome, RunError};
use tower::ServiceExt as _;

use super::{Rig, call, run_id, v3, v4};
use crate::fakes::{PROJECT, Reply, function, public_key, send_request};

/// An app with a generator, a plain function, and a `predict` of each kind of path.
fn deploy(rig: &Rig) {
    let generator = |name| Function { streams: true, takes_any: true, ..function(name, &[]) };
    let plain = Function { takes_any: true, ..function("plain", &[]) };
    rig.world.live_app(PROJECT, "app", vec![generator("words"), plain, generator("predict")]);
}

fn accepting(path: &str, accept: &str, body: &'static str) -> Request<Body> {
    Request::post(path)
        .header(header::AUTHORIZATION, public_key(PROJECT))
        .header(header::ACCEPT, accept)
        .body(Body::from(body))
        .unwrap()
}

fn is_stream(reply: &Reply) -> bool {
    reply.headers["content-type"] == "text/event-stream; charset=utf-8"
}

#[tokio::test]
async fn a_generator_of_v4_is_answered_with_an_event_for_each_value() {
    let rig = Rig::new();
    deploy(&rig);
    *rig.yields.lock().unwrap() = vec!["", "one ", "two\nlines", "data: [DONE]\n\n"];
    let reply = call(&rig.router(), &v4("app/words"), "{}").await;
    assert_eq!(reply.status, 200);
    assert!(is_stream(&reply), "{reply:?}");
    assert_eq!(reply.headers["cache-control"], "no-cache");
    assert_eq!(reply.headers["x-request-id"].len(), 36);
    assert_eq!(reply.text(), "data: one \n\ndata: two\ndata: lines\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn whoever_wants_a_list_or_calls_by_an_older_path_gets_one() {
    let rig = Rig::new();
    deploy(&rig);
    let router = rig.router();
    let listened = || rig.listened.load(Ordering::SeqCst);
    for (path, accept, body, streams) in [
        ("app/words", "*/*", "{}", true),
        ("app/words", "text/event-stream", "{}", true),
        ("app/words", "application/json", "{}", false),
        ("app/words", "application/json", r#"{"stream":true}"#, true),
        ("app/words", "*/*", r#"{"stream":false}"#, false),
        ("app/plain", "*/*", "{}", false),
        ("app/plain", "text/event-stream", "{}", true),
        ("app/plain", "application/json", r#"{"stream":true}"#, true),
        ("app/plain", "application/json", r#"{"stream":"true"}"#, false),
    ] {
        send_request(&router, accepting(&v4(path), accept, body)).await;
        assert_eq!(listened(), streams, "{path} {accept} {body}");
    }
    call(&router, &v3("app/predict"), "{}").await;
    assert!(!listened());
    call(&router, &v3("app/stream"), "{}").await;
    assert!(listened());
    assert_eq!(rig.world.hold().calls.last().unwrap().function.as_ref(), "predict");
}

#[tokio::test]
async fn a_function_that_yields_nothing_is_answered_as_ever() {
    let rig = Rig::new();
    deploy(&rig);
    let router = rig.router();
    let reply = send_request(&router, accepting(&v4("app/plain"), "text/event-stream", r#"{"a":1}"#)).await;
    run_id(&reply);
    assert_eq!(reply.json()["result"]["a"], 1);

    let error = RunError::new(Code::UserError, "no such voice");
    rig.world.hold().call_answer = Some(Ok(Outcome::failed(error, 1.0, Timestamp::from_millis(0))));
    let reply = call(&router, &v4("app/words"), "{}").await;
    assert_eq!(reply.problem(500, "user_error"), "no such voice");
}

#[tokio::test]
async fn an_error_after_the_first_value_is_the_last_event() {
    let rig = Rig::new();
    deploy(&rig);
    *rig.yields.lock().unwrap() = vec!["", "one"];
    let error = RunError::new(Code::Timeout, "late");
    rig.world.hold().call_answer = Some(Ok(Outcome::failed(error, 1.0, Timestamp::from_millis(0))));
    let reply = call(&rig.router(), &v4("app/words"), "{}").await;
    assert_eq!(reply.status, 200);
    let id = reply.headers["x-request-id"].to_str().unwrap();
    let start =
        format!("data: one\n\nevent: error\ndata: {{\"run_id\":\"{id}\",\"message\":\"the call did not end");
    assert!(reply.text().starts_with(&start), "{}", reply.text());
    assert!(reply.text().ends_with("\"code\":\"timeout\"}\n\n"), "{}", reply.text());
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_the_call() {
    let rig = Rig::new();
    deploy(&rig);
    rig.hangs.store(true, Ordering::SeqCst);
    *rig.yields.lock().unwrap() = vec!["", "one"];
    let request = accepting(&v4("app/words"), "*/*", "{}");
    let response = rig.router().oneshot(request).await.unwrap();
    let run = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: one\n\n");
    drop(body);
    assert_eq!(rig.world.hold().told.last(), Some(&format!("cancel {PROJECT}-app {run}")));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_shows_that_it_lives() {
    let rig = Rig::new();
    deploy(&rig);
    rig.hangs.store(true, Ordering::SeqCst);
    *rig.yields.lock().unwrap() = vec![""];
    let mut body = rig.router().oneshot(accepting(&v4("app/words"), "*/*", "{}")).await.unwrap().into_body();
    let began = tokio::time::Instant::now();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), ":\n\n");
    assert!(began.elapsed() < Duration::from_secs(30), "well within what idle connections are given");
}

#[tokio::test]
async fn the_paths_of_openai_call_the_function_and_answer_with_its_result_alone() {
    let rig = Rig::new();
    deploy(&rig);
    let router = rig.router();
    let body = r#"{"model":"m","messages":[]}"#;
    for suffix in ["chat/completions", "completions", "embeddings", "embedding"] {
        let reply = call(&router, &v4(&format!("app/plain/{suffix}")), body).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, body), "{suffix}");
        assert_eq!(reply.headers["x-request-id"].len(), 36);
    }
    assert_eq!(rig.world.hold().calls[0].function.as_ref(), "plain");
    call(&router, &v4("app/plain/chat/other"), body).await.problem(404, "unknown_path");
    let queued = call(&router, &v4("app/plain/chat/completions?async=true"), body).await;
    assert_eq!(queued.status, 202);
}
