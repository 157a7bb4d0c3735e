//! Deliveries: made once more when somebody asks.

use queue::signature::{CallerSecret, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::receiver::{Evil, Fault};
use testkit::recorder::{Arrival, Recorder};

use crate::support::{PATIENCE, Stage, json as body};

/// Calls `echo` with a webhook, and returns the run's id.
async fn call(stage: &Stage, hook: &str) -> String {
    let request = json!({"value": 1, "webhook_endpoint": hook}).to_string();
    let accepted = body(stage.call(&stage.v3("basic/echo"), request).await).await;
    accepted["run_id"].as_str().unwrap().to_owned()
}

async fn arrivals(recorder: &Recorder, count: usize) -> Vec<Arrival> {
    assert!(
        recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= count).await,
        "no {count} webhooks came"
    );
    recorder.arrivals()
}

async fn get(stage: &Stage, path: &str) -> Value {
    body(stage.request(Method::GET, &stage.control(path)).send().await.unwrap()).await
}

/// The only delivery of a run, once `enough` says so of it.
async fn delivery(stage: &Stage, run: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let view = stage.ended_run(run).await["deliveries"][0].clone();
        if enough(&view) {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "the delivery does not get there: {view}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Signatures carry whole seconds: waits until the clock shows a later one.
#[expect(clippy::disallowed_methods, reason = "the server under test reads the same clock")]
async fn second_after(second: u64) {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    while now() <= second {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// What a command of the program prints.
fn say(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.home.command().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn verify(stage: &Stage, arrival: &Arrival) {
    let webhook = standardwebhooks::Webhook::new(&stage.keys.webhook_secret).unwrap();
    webhook.verify(&arrival.body, &arrival.headers).expect("the public library accepts the delivery");
}

#[tokio::test]
async fn a_received_delivery_is_made_once_more_with_the_same_id_and_bytes() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let run = call(&stage, &recorder.url("hook")).await;
    let first = arrivals(&recorder, 1).await.remove(0);
    let id = first.header(ID_HEADER).to_owned();
    delivery(&stage, &run, |delivery| delivery["state"] == "delivered").await;
    second_after(first.header(TIMESTAMP_HEADER).parse().unwrap()).await;

    say(&stage, &["deliveries", "redeliver", &id]);
    let second = arrivals(&recorder, 2).await.remove(1);
    assert_eq!(second.header(ID_HEADER), id);
    assert_eq!(second.body, first.body);
    for fresh in [TIMESTAMP_HEADER, SIGNATURE_HEADER] {
        assert_ne!(second.header(fresh), first.header(fresh), "{fresh}");
    }
    verify(&stage, &second);

    let ended =
        |delivery: &Value| delivery["state"] == "delivered" && delivery["attempts"][1]["statusCode"] == 200;
    delivery(&stage, &run, ended).await;
    let shown: Value = serde_json::from_str(&say(&stage, &["deliveries", "show", &id, "--json"])).unwrap();
    assert_eq!((&shown["runId"], &shown["attempts"][1]["number"]), (&json!(run), &json!(2)));
    let timings = &shown["attempts"][0]["timings"];
    assert!(timings["connectMs"].as_f64().unwrap() < shown["attempts"][0]["durationMs"].as_f64().unwrap());
    assert!(timings["firstByteMs"].is_number() && timings["tlsMs"].is_null(), "{timings}");
    let table = say(&stage, &["deliveries", "show", &id]);
    assert!(table.contains("FIRST BYTE") && table.contains(&recorder.url("hook")), "{table}");
    let listed = say(&stage, &["deliveries", "list", "--state", "delivered"]);
    assert!(listed.contains(&id) && listed.contains(&recorder.url("hook")), "{listed}");
    assert_eq!(get(&stage, "deliveries?state=pending").await["items"], json!([]));
}

#[tokio::test]
async fn what_failed_since_a_time_is_delivered_when_its_receiver_is_back() {
    let stage = Stage::basic();
    // Nobody listens there yet; afterwards somebody does.
    let away = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = away.local_addr().unwrap();
    drop(away);
    let hook = format!("http://{address}/hook");
    let run = call(&stage, &hook).await;
    let failed = |delivery: &Value| {
        delivery["attempts"]
            .as_array()
            .is_some_and(|attempts| attempts.iter().any(|attempt| attempt["reason"] == "refused"))
    };
    // The second attempt follows after five seconds; only the third, five minutes away, is out of reach.
    delivery(&stage, &run, |delivery| {
        failed(delivery)
            && delivery["attempts"].as_array().unwrap().len() == 2
            && delivery["state"] == "pending"
    })
    .await;
    let recorder = Recorder::start_at(address).await.unwrap();
    let said: Value = serde_json::from_str(&say(
        &stage,
        &["deliveries", "redeliver", "--receiver", &hook, "--since", "1h", "--json"],
    ))
    .unwrap();
    assert_eq!(said, json!({"redelivered": 1}));
    let arrival = arrivals(&recorder, 1).await.remove(0);
    assert_eq!(arrival.json()["run_id"], run);
    verify(&stage, &arrival);
}

#[tokio::test]
async fn a_callers_own_secret_signs_as_cerebrium_does_and_is_shown_nowhere() {
    const SECRET: &str = "the caller's own secret, 0123456789";
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let hook = recorder.url("hook");
    let hook: String = url::form_urlencoded::byte_serialize(hook.as_bytes()).collect();
    let answer = stage
        .request(Method::POST, &stage.v4(&format!("basic/echo?async=true&webhookEndpoint={hook}")))
        .header("x-webhook-secret", SECRET)
        .body(r#"{"value":1}"#)
        .send()
        .await
        .unwrap();
    let run = body(answer).await["run_id"].as_str().unwrap().to_owned();
    let arrival = arrivals(&recorder, 1).await.remove(0);
    verify(&stage, &arrival);
    assert_eq!(arrival.header("x-request-id"), run);
    let at: i64 = arrival.header("x-cerebrium-webhook-timestamp").parse().unwrap();
    let expected = CallerSecret::new(SECRET.as_bytes()).sign(
        run.parse().unwrap(),
        queue::Timestamp::from_millis(at * 1_000),
        &arrival.body,
    );
    assert_eq!(arrival.header("x-cerebrium-webhook-signature"), expected);

    let delivered = delivery(&stage, &run, |delivery| delivery["state"] == "delivered").await;
    let id = delivered["id"].as_str().unwrap();
    for path in [format!("runs/{run}"), format!("deliveries/{id}"), format!("runs/{run}/logs")] {
        let shown =
            stage.request(Method::GET, &stage.control(&path)).send().await.unwrap().text().await.unwrap();
        assert!(!shown.contains(SECRET), "{path}: {shown}");
    }
}

#[tokio::test]
async fn a_gone_endpoint_gets_what_waited_once_it_is_enabled() {
    let stage = Stage::basic();
    let gone = Evil::start(Fault::status("410 Gone", &[])).await.unwrap();
    let (address, hook) = (gone.address(), gone.url("hook"));
    let first = call(&stage, &hook).await;
    delivery(&stage, &first, |delivery| delivery["state"] == "disabled").await;
    drop(gone);
    let second = call(&stage, &hook).await;
    delivery(&stage, &second, |delivery| delivery["state"] == "disabled").await;

    let listed: Value = serde_json::from_str(&say(&stage, &["endpoints", "list", "--json"])).unwrap();
    let endpoint = &listed["items"][0];
    assert_eq!((&endpoint["url"], &endpoint["reason"]), (&json!(hook), &json!("http_status 410")));
    let recorder = Recorder::start_at(address).await.unwrap();
    let enabled = say(&stage, &["endpoints", "enable", endpoint["id"].as_str().unwrap(), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&enabled).unwrap(), json!({"replayed": 2, "wasDisabled": true}));
    let mut runs: Vec<_> =
        arrivals(&recorder, 2).await.iter().map(|arrival| arrival.json()["run_id"].clone()).collect();
    runs.sort_by_key(ToString::to_string);
    assert_eq!(runs, [json!(first), json!(second)]);
    let events = get(&stage, "endpoints").await["items"][0]["events"].clone();
    assert_eq!((&events[0]["state"], &events[1]["state"]), (&json!("disabled"), &json!("enabled")));
}

#[tokio::test]
async fn a_receiver_that_does_not_take_the_result_gets_a_link_to_it() {
    let stage = Stage::basic();
    let recorder = Recorder::start_limited(1_000).await.unwrap();
    let ballast = "x".repeat(300_000);
    let request = json!({"value": ballast, "webhook_endpoint": recorder.url("hook")}).to_string();
    let accepted = body(stage.call(&stage.v3("basic/echo"), request).await).await;
    let run = accepted["run_id"].as_str().unwrap();
    let arrivals = arrivals(&recorder, 2).await;
    let (full, thin) = (&arrivals[0], &arrivals[1]);
    assert_eq!(full.header(ID_HEADER), thin.header(ID_HEADER));
    assert_eq!(full.json()["result"]["value"], ballast);
    assert_eq!((&thin.json()["run_id"], &thin.json()["result"]), (&json!(run), &Value::Null));
    verify(&stage, thin);
    // Whoever has the link needs no key.
    let link = thin.json()["result_url"].as_str().unwrap().to_owned();
    let fetched = reqwest::get(&link).await.unwrap();
    assert_eq!(fetched.status(), 200);
    assert_eq!(fetched.headers()["content-type"], "application/json");
    let fetched = fetched.bytes().await.unwrap();
    assert_eq!(thin.json()["result_bytes"], fetched.len());
    assert_eq!(serde_json::from_slice::<Value>(&fetched).unwrap(), full.json()["result"]);
    assert_eq!(reqwest::get(link.replace("signature=", "signature=A")).await.unwrap().status(), 403);
    let delivered = delivery(&stage, run, |delivery| delivery["state"] == "delivered").await;
    assert_eq!(
        (&delivered["attempts"][0]["thin"], &delivered["attempts"][1]["thin"]),
        (&json!(false), &json!(true))
    );
}

#[tokio::test]
async fn an_endpoint_with_a_limit_gets_what_is_above_it_by_link_at_once() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    say(&stage, &["endpoints", "set", &recorder.url("hook"), "--body-bytes-max", "2000"]);
    for (value, thin) in [("small".to_owned(), false), ("x".repeat(3_000), true)] {
        let request = json!({"value": value, "webhook_endpoint": recorder.url("hook")}).to_string();
        stage.call(&stage.v3("basic/echo"), request).await;
        let arrival = arrivals(&recorder, if thin { 2 } else { 1 }).await.pop().unwrap();
        assert_eq!(arrival.json()["result_url"].is_string(), thin, "{}", arrival.json());
        verify(&stage, &arrival);
    }
}
