//! The main job: deploy, call, get the result, by each generation of the API.

use queue::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::recorder::{Arrival, Recorder};

use crate::support::{PATIENCE, Stage, example, json as body, keys};

/// The public library's word on a delivery.
fn verify(secret: &str, arrival: &Arrival) {
    let webhook = standardwebhooks::Webhook::new(secret).unwrap();
    webhook.verify(&arrival.body, &arrival.headers).expect("the public library accepts the delivery");
}

async fn one(recorder: &Recorder) -> Arrival {
    assert!(recorder.wait_until(PATIENCE, |arrivals| !arrivals.is_empty()).await, "no webhook came");
    recorder.arrivals().remove(0)
}

#[tokio::test]
async fn the_delay_example_delivers_these_bytes() {
    let stage = Stage::empty();
    stage.deploy(&example("delay"), &["webhook-delay-example", "--config-file", "config.yaml"]);
    let recorder = Recorder::start().await.unwrap();
    let request = json!({"delayMins": 0, "webhook_endpoint": recorder.url("hook")}).to_string();

    let answer = stage.call(&stage.v3("webhook-delay-example/predict"), request).await;
    assert_eq!(answer.status(), 200);
    let answer = answer.text().await.unwrap();
    let run = serde_json::from_str::<Value>(&answer).unwrap()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(
        answer,
        format!(
            "{{\"run_id\":\"{run}\",\"webhook_endpoint\":\"{}\",\"message\":\"Your request is being processed. \
             We will return the result to your webhook.\"}}",
            recorder.url("hook")
        )
    );

    let arrival = one(&recorder).await;
    verify(&stage.keys.webhook_secret, &arrival);
    let text = std::str::from_utf8(&arrival.body).unwrap();
    let time = arrival.json()["run_time_ms"].to_string();
    assert!(time.parse::<f64>().unwrap() < 1_000.0, "{time}");
    assert_eq!(
        text,
        format!(
            "{{\"run_id\":\"{run}\",\"message\":\"Finished inference request with run_id: `{run}`\",\
             \"result\":{{\"result\":\"Delayed for 0 mins\"}},\"status_code\":200,\"run_time_ms\":{time}}}"
        )
    );
    assert_eq!(arrival.header("content-type"), "application/json");
    assert!(!arrival.header(ID_HEADER).is_empty() && !arrival.header(TIMESTAMP_HEADER).is_empty());
    assert_eq!(arrival.header(SIGNATURE_HEADER).split(' ').count(), 1);

    // The same app, asked to answer at once, and by the path of 2023.
    let sync = stage.call(&stage.v3("webhook-delay-example/predict"), r#"{"delayMins":0}"#).await;
    let sync = sync.text().await.unwrap();
    assert_eq!(keys(&sync), ["run_id", "message", "result", "status_code", "run_time_ms"]);
    let legacy = body(stage.call("/webhook-delay-example/predict", r#"{"delayMins":0}"#).await).await;
    assert_eq!(legacy["result"], json!({"result": "Delayed for 0 mins"}));
}

#[tokio::test]
async fn a_call_is_answered_by_each_generation() {
    let stage = Stage::basic();
    let v4 = stage.call(&stage.v4("basic/echo"), r#"{"value":7}"#).await;
    assert_eq!(v4.status(), 200);
    let request_id = v4.headers()["x-request-id"].to_str().unwrap().to_owned();
    let v4 = v4.text().await.unwrap();
    assert_eq!(keys(&v4), ["run_id", "result", "run_time_ms"]);
    let v4: Value = serde_json::from_str(&v4).unwrap();
    assert_eq!(v4["run_id"], Value::String(request_id.clone()));
    assert_eq!(v4["result"], json!({"value": 7, "run_id": request_id}));

    let v3 = body(stage.call(&stage.v3("basic/echo"), r#"{"value":"é"}"#).await).await;
    assert_eq!(v3["result"]["value"], "é");
    assert_eq!(v3["status_code"], 200);

    let later = body(stage.call(&stage.v4("basic/echo_later"), r#"{"value":[1]}"#).await).await;
    assert_eq!(later["result"], json!([1]));

    // The function's own status becomes the answer's.
    let refused = stage.call(&stage.v4("basic/refuse"), "").await;
    assert_eq!(refused.status(), 422);
    assert_eq!(body(refused).await["result"]["reason"], "not today");
}

#[tokio::test]
async fn bytes_pass_through_untouched() {
    let stage = Stage::basic();
    let sent = r#"{"big":123456789012345678901234567890,"text":"\u00e9 😀"}"#;
    let answer = stage.call(&stage.v4("basic/identity"), sent).await.text().await.unwrap();
    assert!(answer.contains("\"big\":123456789012345678901234567890"), "{answer}");
    assert!(answer.contains("é 😀"), "{answer}");
}

#[tokio::test]
async fn version_4_is_asked_for_a_webhook_in_three_ways() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let hook = recorder.url("v4");
    let query: String = url::form_urlencoded::byte_serialize(hook.as_bytes()).collect();

    let plain = stage.call(&stage.v4("basic/echo?async=true"), r#"{"value":1}"#).await;
    assert_eq!(plain.status(), 202);
    let plain = plain.text().await.unwrap();
    assert_eq!(keys(&plain), ["run_id", "message"]);
    let plain: Value = serde_json::from_str(&plain).unwrap();
    let run = stage.ended_run(plain["run_id"].as_str().unwrap()).await;
    assert_eq!((&run["state"], &run["result"]["value"]), (&json!("succeeded"), &json!(1)));

    let in_body = json!({"value": 2, "webhook_endpoint": hook}).to_string();
    assert_eq!(stage.call(&stage.v4("basic/echo"), in_body).await.status(), 202);

    let waiting =
        stage.call(&stage.v4(&format!("basic/echo?webhookEndpoint={query}")), r#"{"value":3}"#).await;
    assert_eq!(waiting.status(), 200);
    assert_eq!(body(waiting).await["result"]["value"], 3);

    let both = stage.v4(&format!("basic/echo?async=true&webhookEndpoint={query}"));
    assert_eq!(stage.call(&both, r#"{"value":4}"#).await.status(), 202);

    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 3).await);
    let mut values: Vec<_> =
        recorder.arrivals().iter().map(|a| a.json()["result"]["value"].clone()).collect();
    values.sort_by_key(Value::as_i64);
    assert_eq!(values, [2, 3, 4]);
    for arrival in recorder.arrivals() {
        verify(&stage.keys.webhook_secret, &arrival);
        assert_eq!(keys(std::str::from_utf8(&arrival.body).unwrap()), ["run_id", "result", "run_time_ms"]);
    }
}

#[tokio::test]
async fn a_failed_run_tells_its_webhook_why() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let request = json!({"message": "no such luck", "webhook_endpoint": recorder.url("")}).to_string();
    let accepted = body(stage.call(&stage.v3("basic/fail"), request).await).await;
    let told = one(&recorder).await.json();
    assert_eq!(told["run_id"], accepted["run_id"]);
    assert_eq!((&told["result"], &told["message"]), (&Value::Null, &json!("no such luck")));
    assert_eq!(
        (&told["error"]["code"], &told["error"]["type"]),
        (&json!("user_error"), &json!("ValueError"))
    );
    assert!(told["error"]["traceback"].as_str().unwrap().contains("raise ValueError(message)"));
}

#[tokio::test]
async fn prints_are_kept_by_run() {
    let stage = Stage::basic();
    let first = body(stage.call(&stage.v4("basic/speak"), r#"{"line":"first words"}"#).await).await;
    let second = body(stage.call(&stage.v4("basic/speak"), r#"{"line":"other words"}"#).await).await;
    for (run, words) in [(&first, "first words"), (&second, "other words")] {
        let path = stage.control(&format!("runs/{}/logs", run["run_id"].as_str().unwrap()));
        let text = stage.request(Method::GET, &path).send().await.unwrap().text().await.unwrap();
        assert!(text.contains(words), "{text}");
        assert_eq!(text.contains("first words"), words == "first words", "{text}");
    }
}

#[tokio::test]
async fn an_inbox_records_the_webhook_and_verifies_it() {
    let stage = Stage::basic();
    let inbox = body(stage.request(Method::POST, &stage.control("inboxes")).send().await.unwrap()).await;
    let request = json!({"value": 1, "webhook_endpoint": inbox["url"]}).to_string();
    assert_eq!(stage.call(&stage.v3("basic/echo"), request).await.status(), 200);
    let path = stage.control(&format!("inboxes/{}/requests", inbox["id"].as_str().unwrap()));
    let began = std::time::Instant::now();
    let recorded = loop {
        let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
        if let Some(first) = page["items"].as_array().unwrap().first() {
            break first.clone();
        }
        assert!(began.elapsed() < PATIENCE, "nothing arrived");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(recorded["method"], "POST");
    assert_eq!(recorded["signature"]["verdict"], "verified", "{recorded}");
    let page = inbox["pageUrl"].as_str().unwrap().to_owned();
    let page_path = page.strip_prefix(&stage.home.url()).unwrap();
    let html = stage.bare(Method::GET, page_path).send().await.unwrap();
    assert_eq!(html.status(), 200);
    assert!(html.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let without_token = page_path.split('?').next().unwrap();
    assert_eq!(stage.bare(Method::GET, without_token).send().await.unwrap().status(), 404);
}
