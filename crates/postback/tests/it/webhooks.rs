//! Webhooks beyond the plain one: several endpoints, headers for the gateway before them, metadata, and the
//! endpoints of an app.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::recorder::{Arrival, Recorder};

use crate::support::{PATIENCE, Stage, json as body};

async fn arrivals(recorder: &Recorder, count: usize) -> Vec<Arrival> {
    assert!(
        recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= count).await,
        "no {count} webhooks came"
    );
    recorder.arrivals()
}

fn verify(stage: &Stage, arrival: &Arrival) {
    let webhook = standardwebhooks::Webhook::new(&stage.keys.webhook_secret).unwrap();
    webhook.verify(&arrival.body, &arrival.headers).expect("the public library accepts the delivery");
}

#[tokio::test]
async fn a_call_tells_every_endpoint_with_its_headers_and_metadata() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let output = stage
        .home
        .command()
        .args(["call", "basic", "echo", "--data", r#"{"value":1}"#])
        .args(["--webhook", &recorder.url("a"), "--webhook", &recorder.url("b")])
        .args([
            "--header",
            "X-Api-Key: s3cret",
            "--metadata",
            "{\n \"order\": 12345678901234567890}",
            "--wait",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8(output.stdout).unwrap();
    let run: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(run["webhookHeaders"], json!(["x-api-key"]));
    assert!(shown.contains("12345678901234567890") && !shown.contains("s3cret"), "{shown}");

    let mut told = arrivals(&recorder, 2).await;
    told.sort_by(|one, other| one.path.cmp(&other.path));
    assert_eq!((told.len(), told[0].path.as_str(), told[1].path.as_str()), (2, "/a", "/b"));
    assert_ne!(told[0].header("webhook-id"), told[1].header("webhook-id"));
    for arrival in &told {
        verify(&stage, arrival);
        assert_eq!(arrival.header("x-api-key"), "s3cret");
        let text = std::str::from_utf8(&arrival.body).unwrap();
        assert!(text.ends_with(r#""metadata":{  "order": 12345678901234567890}}"#), "{text}");
    }
}

#[tokio::test]
async fn a_run_tells_what_happens_on_its_way() {
    let stage = Stage::empty();
    let recorder = Recorder::start().await.unwrap();
    let folder = stage.home.scratch().join("talkative");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("main.py"),
        "import time\ndef words(n):\n    for i in range(n):\n        print('line', i)\n        yield i\n        time.sleep(0.3)\n",
    )
    .unwrap();
    std::fs::write(folder.join("cerebrium.toml"), "[cerebrium.deployment]\nname = \"talkative\"\n").unwrap();
    stage.deploy(&folder, &["talkative"]);
    let output = stage
        .home
        .command()
        .args(["call", "talkative", "words", "--data", r#"{"n":4}"#, "--webhook", &recorder.url("x")])
        .args(["--event", "start", "--event", "logs", "--event", "output", "--event", "completed", "--wait"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all = |arrivals: &[Arrival]| {
        let count = |key: &str| {
            arrivals.iter().filter_map(|told| Some(told.json()[key].as_array()?.len())).sum::<usize>()
        };
        count("output") == 4
            && count("logs") == 4
            && arrivals.iter().any(|told| told.json().get("event").is_none())
    };
    assert!(recorder.wait_until(PATIENCE, all).await, "{:?}", recorder.arrivals());
    let told = recorder.arrivals();
    let mut ids: Vec<_> = told.iter().map(|arrival| arrival.header("webhook-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), told.len(), "each event is a delivery of its own");
    told.iter().for_each(|arrival| verify(&stage, arrival));
    let of = |event: &str| {
        let mut found: Vec<_> =
            told.iter().map(Arrival::json).filter(|body| body["event"] == event).collect();
        found.sort_by_key(|body| body[event][0].to_string());
        found
    };
    assert_eq!((of("start").len(), &of("start")[0]["attempt"]), (1, &json!(1)));
    let values = |event: &str| {
        of(event).iter().flat_map(|body| body[event].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    assert_eq!(values("output"), [0, 1, 2, 3]);
    assert_eq!(values("logs"), ["line 0", "line 1", "line 2", "line 3"]);
    let outcome = told.iter().find(|arrival| arrival.json().get("event").is_none()).unwrap();
    assert_eq!(
        crate::support::keys(std::str::from_utf8(&outcome.body).unwrap()),
        ["run_id", "result", "run_time_ms"]
    );
}

#[tokio::test]
async fn asynchronous_runs_without_an_endpoint_tell_those_of_their_app() {
    let stage = Stage::empty();
    let recorder = Recorder::start().await.unwrap();
    let folder = stage.home.scratch().join("defaults");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("main.py"), "def echo(value):\n    return value\n").unwrap();
    let config = format!(
        "[cerebrium.deployment]\nname = \"defaults\"\n[cerebrium.postback]\n\
         webhook_endpoints = [\"{}\", \"{}\"]\nwebhook_headers = {{ X-Api-Key = \"key ${{HOOK_KEY}}\" }}\n",
        recorder.url("a"),
        recorder.url("b")
    );
    std::fs::write(folder.join("cerebrium.toml"), config).unwrap();
    let deploy = || {
        let mut command = stage.home.command();
        command.current_dir(&folder).arg("deploy");
        command
    };
    let refused = deploy().env_remove("HOOK_KEY").output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`HOOK_KEY`"));
    let deployed = deploy().env("HOOK_KEY", "s3cret").output().unwrap();
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));

    let accepted = body(stage.call(&stage.v4("defaults/echo?async=true"), r#"{"value":7}"#).await).await;
    assert_eq!(
        accepted["message"],
        "Your request is being processed. We will return the result to your webhook."
    );
    for arrival in arrivals(&recorder, 2).await {
        verify(&stage, &arrival);
        assert_eq!((arrival.json()["result"].clone(), arrival.header("x-api-key")), (json!(7), "key s3cret"));
    }
    // Whoever waits has the answer, and nobody else is told.
    let waited = body(stage.call(&stage.v4("defaults/echo"), r#"{"value":8}"#).await).await;
    assert_eq!(waited["result"], 8);
    let runs = body(stage.request(Method::GET, &stage.control("deliveries")).send().await.unwrap()).await;
    assert_eq!(runs["items"].as_array().unwrap().len(), 2);
}
