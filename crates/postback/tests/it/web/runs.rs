//! Runs of web servers: the request is kept, the answer is the result, and the rules are those of every run.

use std::time::Duration;

use base64::Engine as _;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::recorder::Recorder;

use super::{ask, get, stage};
use crate::support::{PATIENCE, Stage, json as body};

async fn accepted(stage: &Stage, method: Method, path: &str, sent: &str) -> String {
    let answer = ask(stage, method, path)
        .header("content-type", "text/x-own")
        .body(sent.to_owned())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    body(answer).await["run_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_becomes_the_result_of_a_run_and_goes_to_its_webhook() {
    let stage = stage();
    let recorder = Recorder::start().await.unwrap();
    let told = async |method: Method, path: &str, hook: &str| {
        let query: String = url::form_urlencoded::byte_serialize(recorder.url(hook).as_bytes()).collect();
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}async=true&webhookEndpoint={query}");
        let run = accepted(&stage, method, &path, "input").await;
        let wanted = format!("/{hook}");
        assert!(
            recorder.wait_until(PATIENCE, |all| all.iter().any(|one| one.path == wanted)).await,
            "the webhook never came"
        );
        let told = recorder.arrivals().into_iter().find(|one| one.path == wanted).unwrap().json();
        assert_eq!(told["run_id"], run.as_str());
        told
    };
    let echo = told(Method::PUT, "web/echo/deep%20path?x=1", "echo").await;
    let seen = &echo["result"];
    assert_eq!((&seen["method"], &seen["path"]), (&json!("PUT"), &json!("/echo/deep%20path?x=1")));
    assert_eq!(seen["body"], "input");
    let names: Vec<_> =
        seen["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert!(names.contains(&"content-type") && names.contains(&"x-request-id"), "{names:?}");
    assert!(!names.contains(&"authorization") && !names.contains(&"x-webhook-secret"), "{names:?}");

    assert_eq!(told(Method::GET, "web/text", "text").await["result"], "grüße");
    assert_eq!(told(Method::POST, "web/nothing", "nothing").await["result"], Value::Null);
    let image = told(Method::GET, "web/image", "image").await;
    assert_eq!(image["result"]["content_type"], "image/png");
    let bytes = base64::engine::general_purpose::STANDARD.decode(image["result"]["base64"].as_str().unwrap());
    assert_eq!(bytes.unwrap(), b"\x89PNG\xff");

    let failed = told(Method::POST, "web/status/503", "failed").await;
    assert_eq!(failed["error"]["code"], "user_error");
    assert_eq!(
        failed["error"]["message"],
        "the app's web server answered 503 Service Unavailable: as you say"
    );

    // Without `async` the caller gets the same.
    let query: String = url::form_urlencoded::byte_serialize(recorder.url("both").as_bytes()).collect();
    let both = get(&stage, &format!("web/text?webhookEndpoint={query}")).await;
    assert_eq!((both.status().as_u16(), both.text().await.unwrap().as_str()), (200, "\"grüße\""));
    assert!(recorder.wait_until(PATIENCE, |all| all.iter().any(|one| one.path == "/both")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_request_is_asked_once_under_its_key_and_can_be_cancelled() {
    let stage = stage();
    let note = stage.home.scratch().join("note");
    let path = format!("web/nap?async=true&seconds=300&note={}", note.display());
    let send = async |forwarded: &str| {
        let request = ask(&stage, Method::POST, &path)
            .header("idempotency-key", "k-1")
            .header("x-forwarded-for", forwarded);
        let answer = request.body("x").send().await.unwrap();
        (answer.headers().contains_key("idempotency-replayed"), body(answer).await["run_id"].clone())
    };
    let first = send("1.1.1.1").await;
    let again = send("2.2.2.2").await;
    assert_eq!((first.0, again.0, &first.1), (false, true, &again.1));
    let run = first.1.as_str().unwrap();
    let began = std::time::Instant::now();
    while std::fs::read_to_string(&note).unwrap_or_default().is_empty() {
        assert!(began.elapsed() < PATIENCE, "it does not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let path = stage.control(&format!("apps/web/runs/{run}"));
    assert!(stage.request(Method::DELETE, &path).send().await.unwrap().status().is_success());
    let view = stage.ended_run(run).await;
    assert_eq!(view["state"], "cancelled", "{view}");
    assert_eq!(get(&stage, "web/text").await.status(), 200, "the server goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_the_server_that_took_it() {
    let mut stage = stage();
    let recorder = Recorder::start().await.unwrap();
    let note = stage.home.scratch().join("note");
    let hook: String = url::form_urlencoded::byte_serialize(recorder.url("end").as_bytes()).collect();
    let path = format!("web/nap?async=true&webhookEndpoint={hook}&seconds=2&note={}", note.display());
    let run = accepted(&stage, Method::POST, &path, "x").await;
    let began = std::time::Instant::now();
    while std::fs::read_to_string(&note).unwrap_or_default().is_empty() {
        assert!(began.elapsed() < PATIENCE, "it does not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.crash_and_restart();
    let view = stage.ended_run(&run).await;
    assert_eq!(view["state"], "succeeded", "{view}");
    assert!(recorder.wait_until(PATIENCE, |all| !all.is_empty()).await);
    let told = recorder.arrivals()[0].json();
    assert_eq!((&told["run_id"], &told["result"]["slept"]), (&json!(run), &json!("2")));
    assert_eq!(std::fs::read_to_string(&note).unwrap(), "begun\nbegun\n");
}
