//! Inboxes as senders meet them: over real connections, by settings that people make.

use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

async fn inbox(stage: &Stage, settings: &Value) -> Value {
    let answer = stage.request(Method::POST, &stage.control("inboxes")).json(settings).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    body(answer).await
}

fn path(stage: &Stage, inbox: &Value) -> String {
    stage.control(&format!("inboxes/{}", inbox["id"].as_str().unwrap()))
}

#[tokio::test]
async fn a_delivery_goes_through_every_fault_of_a_script_and_arrives() {
    let stage = Stage::basic();
    let inbox = inbox(&stage, &json!({"reply": "500,reset,429;retry-after=1,200"})).await;
    let called = stage
        .request(Method::POST, &stage.v3("basic/echo"))
        .header("X-Webhook-Schedule", "1s,1s,1s")
        .json(&json!({"value": 1, "webhook_endpoint": inbox["url"]}))
        .send()
        .await
        .unwrap();
    let run = body(called).await["run_id"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let delivery = loop {
        let view =
            body(stage.request(Method::GET, &stage.control(&format!("runs/{run}"))).send().await.unwrap())
                .await;
        let delivery = view["deliveries"][0].clone();
        if delivery["state"] == "delivered" {
            break delivery;
        }
        assert!(began.elapsed() < PATIENCE, "{view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let statuses: Vec<_> = delivery["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["statusCode"].clone())
        .collect();
    assert_eq!(statuses, [json!(500), Value::Null, json!(429), json!(200)], "{delivery}");

    assert_eq!(delivery["attempts"][1]["reason"], "reset");

    // All four were recorded before they were answered, and each was signed as it should be.
    let requests = format!("{}/requests", path(&stage, &inbox));
    let recorded = body(stage.request(Method::GET, &requests).send().await.unwrap()).await;
    let verdicts: Vec<_> = recorded["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["signature"]["verdict"].clone())
        .collect();
    assert_eq!(verdicts, ["verified"; 4]);
}

#[tokio::test]
async fn what_is_set_of_an_inbox_is_said_and_bad_settings_are_refused_by_name() {
    let stage = Stage::empty();
    let made = inbox(
        &stage,
        &json!({"name": " stripe ", "expiresInSeconds": 3600, "reply": {"status": 201,
        "delaySeconds": 0.5, "headers": {"X-Mine": "1"}, "body": {"ok": true}}}),
    )
    .await;
    assert_eq!(made["name"], "stripe");
    assert_eq!(
        made["reply"],
        json!({"script": "201;delay=500ms", "headers": {"x-mine": "1"}, "body": "{\"ok\":true}"})
    );
    assert!(made["expiresAt"].is_string());

    let path = path(&stage, &made);
    let patch = async |settings: Value| {
        let answer = stage.request(Method::PATCH, &path).json(&settings).send().await.unwrap();
        (answer.status().as_u16(), body(answer).await)
    };
    let (status, changed) = patch(json!({"reply": null, "expiresAt": null})).await;
    assert_eq!((status, &changed["name"]), (200, &json!("stripe")));
    assert_eq!((&changed["reply"], &changed["expiresAt"]), (&Value::Null, &Value::Null));
    for (settings, said) in [
        (json!({"reply": "500,banana"}), "step 2 of the script, `banana`"),
        (json!({"reply": {"script": "200", "status": 500}}), "a script says both"),
        (json!({"reply": {"status": 99}}), "`status` must be a whole number from 200 to 599"),
        (
            json!({"reply": {"delaySeconds": 31}}),
            "`reply.delaySeconds` must be a number of seconds from 0 to 30",
        ),
        (json!({"reply": {"headers": {"set-cookie": "a=b"}}}), "header `set-cookie`"),
        (json!({"reply": {"scirpt": "200"}}), "`reply.scirpt` is nothing that a reply has"),
        (json!({"title": "x"}), "`title` is nothing that an inbox has"),
        (json!({"name": "x".repeat(101)}), "up to 100 characters"),
        (json!({"expiresAt": "2020-01-01T00:00:00Z"}), "`expiresAt` must be a time to come"),
        (json!({"expiresInSeconds": 0}), "`expiresInSeconds` must be a whole number"),
    ] {
        let (status, answer) = patch(settings.clone()).await;
        assert_eq!(status, 422, "{settings}");
        assert!(answer.to_string().contains(said), "{settings}: {answer}");
    }
}

#[tokio::test]
async fn a_shared_page_opens_by_its_newest_address_alone_until_the_inbox_is_deleted() {
    let stage = Stage::empty();
    let made = inbox(&stage, &json!({})).await;
    let page = |inbox: &Value| {
        inbox["pageUrl"].as_str().unwrap().strip_prefix(&stage.home.url()).unwrap().to_owned()
    };
    let status = async |path: &str| stage.bare(Method::GET, path).send().await.unwrap().status().as_u16();
    assert_eq!(status(&page(&made)).await, 200);
    let share = format!("{}/share", path(&stage, &made));
    let shared = body(stage.request(Method::POST, &share).send().await.unwrap()).await;
    assert_eq!((status(&page(&made)).await, status(&page(&shared)).await), (404, 200));

    let id = made["id"].as_str().unwrap();
    let output =
        stage.home.command().args(["inbox", "share", id, "--expires-in", "2h", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let link: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(link["expiresAt"].is_string() && link["pageUrl"] != shared["pageUrl"], "{link}");
    assert_eq!((status(&page(&link)).await, status(&page(&shared)).await), (200, 200));

    let gone = stage.request(Method::DELETE, &path(&stage, &made)).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    assert_eq!((status(&page(&shared)).await, status(&page(&link)).await), (404, 404));
    let address = made["url"].as_str().unwrap().strip_prefix(&stage.home.url()).unwrap();
    assert_eq!(stage.bare(Method::POST, address).send().await.unwrap().status(), 404);
    let again = stage.request(Method::DELETE, &path(&stage, &made)).send().await.unwrap();
    assert_eq!(again.status(), 404);
}

#[tokio::test]
async fn the_command_line_forwards_what_arrives_and_replays_what_was_recorded() {
    let stage = Stage::empty();
    let made = inbox(&stage, &json!({})).await;
    let id = made["id"].as_str().unwrap();
    let recorder = Recorder::start().await.unwrap();
    let mut listening = stage.home.command();
    listening.args(["inbox", "listen", id, "--forward", &recorder.url("hook")]);
    let mut listening = listening.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let address = made["url"].as_str().unwrap().strip_prefix(&stage.home.url()).unwrap();
    let sent = stage.bare(Method::PUT, &format!("{address}/a/b?c=1")).header("x-mine", "1").body("hello");
    assert_eq!(sent.send().await.unwrap().status(), 200);
    let arrived = recorder.wait_until(PATIENCE, |arrivals| !arrivals.is_empty()).await;
    listening.kill().unwrap();
    listening.wait().unwrap();
    assert!(arrived, "nothing was forwarded");

    let mut replay = stage.home.command();
    replay.args(["inbox", "replay", id, "1", "--to", &recorder.url("again"), "--json"]);
    let output = tokio::task::spawn_blocking(move || replay.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["status"], 200);
    let arrivals = recorder.arrivals();
    assert_eq!(arrivals.len(), 2);
    for arrival in &arrivals {
        assert_eq!((arrival.header("x-mine"), &arrival.body[..]), ("1", &b"hello"[..]));
    }
    let paths: Vec<_> = arrivals.iter().map(|arrival| arrival.path.as_str()).collect();
    assert_eq!(paths, ["/hook/a/b?c=1", "/again"]);

    let mut unknown = stage.home.command();
    unknown.args(["inbox", "replay", id, "7", "--to", &recorder.url("")]);
    let output = tokio::task::spawn_blocking(move || unknown.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("has no request 7"), "{said}");
}
