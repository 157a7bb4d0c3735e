//! What a caller may do with a run beside waiting for it.

use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{Stage, json as body};

async fn call_with(stage: &Stage, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut request = stage.request(Method::POST, path).body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn lines(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_hundred_requests_with_one_key_are_one_run() {
    let mut stage = Stage::basic();
    let notes = stage.home.scratch().join("notes");
    let work = json!({"path": notes, "value": 1});
    let path = stage.v4("basic/note?async=true");
    let key = [("idempotency-key", "order-1")];
    let answers = join_all((0..100).map(|_| call_with(&stage, &path, &key, &work))).await;
    let mut runs = Vec::new();
    let mut replays = 0;
    for answer in answers {
        assert_eq!(answer.status(), 202);
        replays += usize::from(answer.headers().get("idempotency-replayed").is_some_and(|v| v == "true"));
        runs.push(body(answer).await["run_id"].as_str().unwrap().to_owned());
    }
    runs.dedup();
    assert_eq!((runs.len(), replays), (1, 99));
    let run = runs.remove(0);
    assert_eq!(stage.ended_run(&run).await["state"], "succeeded");

    // A caller that waits gets the same run's result, and so does one that asks after a crash.
    stage.crash_and_restart();
    let waited = call_with(&stage, &stage.v4("basic/note"), &key, &work).await;
    assert_eq!(
        (waited.status().as_u16(), &waited.headers()["idempotency-replayed"]),
        (200, &"true".parse().unwrap())
    );
    let waited = body(waited).await;
    assert_eq!((&waited["run_id"], &waited["result"]), (&json!(run), &json!(1)));
    assert_eq!(lines(&notes), 1, "it ran once");

    let other = call_with(&stage, &path, &key, &json!({"path": notes, "value": 2})).await;
    assert_eq!(other.status(), 422);
    let other = body(other).await;
    assert_eq!((&other["code"], &other["run_id"]), (&json!("idempotency_mismatch"), &json!(run)));
}
