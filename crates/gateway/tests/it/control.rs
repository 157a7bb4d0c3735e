//! The control plane: what Cerebrium's clients and our own do, and what others may not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::Surface;
use http::StatusCode;
use queue::delivery::{AttemptReport, DeliveryAttemptView, DeliveryState, DeliveryView};
use queue::lease::AttemptView;
use queue::log::{LogLine, Stream};
use queue::outcome::{Code, RunError};
use queue::port::{Logs as _, StoreError};
use queue::registry::BuildStatus;
use queue::run::{EndpointUrl, Generation, Mode, RunState, RunView};
use queue::{AppId, BuildId, Clock as _, RunId};
use serde_json::{Value, json};

use crate::fakes::{
    OTHER_PROJECT, PROJECT, PUBLIC_URL, Reply, World, function, private_key, public_key, send,
};

/// Calls with the private key of [`PROJECT`].
pub(crate) async fn ask(router: &Surface, method: &str, path: &str, body: Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let key = format!("Bearer {}", private_key(PROJECT));
    send(router, method, path, Some(&key), body).await
}

pub(crate) async fn get(router: &Surface, path: &str) -> Reply {
    ask(router, "GET", path, Value::Null).await
}

pub(crate) fn at(rest: &str) -> String {
    format!("/v2/projects/{PROJECT}/{rest}")
}

pub(crate) fn a_run(world: &World, app: &AppId, state: RunState) -> RunView {
    let accepted_at = world.now();
    let ended = state.is_terminal();
    RunView {
        id: RunId::generate(accepted_at, world),
        app: app.clone(),
        function: "predict".into(),
        generation: Generation::V4,
        mode: Mode::Async,
        state,
        error: None,
        status_code: ended.then_some(200),
        run_time_ms: ended.then_some(1.25),
        accepted_at,
        priority: 0,
        not_before: None,
        retry: None,
        max_attempts: None,
        started_at: ended.then(|| accepted_at.plus(Duration::from_millis(40))),
        ended_at: ended.then(|| accepted_at.plus(Duration::from_millis(90))),
        build: None,
        webhooks: vec![EndpointUrl::checked("https://example.com/hook")],
        events: queue::webhook::EventFilter::default(),
        schedule: None,
        webhook_headers: Vec::new(),
        metadata: None,
        warning: None,
        attempts: Vec::new(),
        deliveries: Vec::new(),
        result: None,
    }
}

fn a_line(world: &World, app: &AppId, text: &str) -> LogLine {
    world.advance(Duration::from_millis(1));
    LogLine {
        at: world.now(),
        app: app.clone(),
        build: None,
        run: None,
        replica: None,
        stream: Stream::Stdout,
        text: text.into(),
    }
}

fn upload_path(registered: &Value) -> String {
    registered["uploadUrl"].as_str().unwrap().strip_prefix(PUBLIC_URL).unwrap().to_owned()
}

#[tokio::test]
async fn deploying_registers_a_build_and_takes_its_archive_once() {
    let world = World::new();
    let router = world.router();
    // The Python client sends no Content-Type, and more keys than anybody reads.
    let request = json!({
        "name": "demo", "compute": "CPU", "cpu": 2.0, "memory": 8.0, "maxReplicaCount": 2,
        "scalingMetric": "concurrency_utilization", "dockerAuth": "{}", "runtime": "cortex", "projectId": PROJECT,
    });
    let registered = ask(&router, "POST", &at("apps"), request).await.good();
    assert_eq!(registered["status"], "pending");
    assert_eq!(registered["appId"], format!("{PROJECT}-demo"));
    assert_eq!(registered["internalEndpoint"], format!("{PUBLIC_URL}/v4/{PROJECT}/demo"));
    assert!(registered["keyName"].as_str().unwrap().ends_with(".zip"));
    assert!(registered["dashboardUrl"].is_string());
    assert_eq!(registered["warnings"].as_array().unwrap().len(), 1);

    let path = upload_path(&registered);
    assert_eq!(send(&router, "PUT", &path, None, "zip bytes").await.good(), json!({}));
    let build: BuildId = registered["buildId"].as_str().unwrap().parse().unwrap();
    assert_eq!(world.hold().uploads[&build], b"zip bytes");
    send(&router, "PUT", &path, None, "again").await.problem(409, "already_uploaded");

    let shown = get(&router, &at(&format!("apps/{PROJECT}-demo/builds/{build}"))).await.good();
    assert_eq!((&shown["id"], &shown["status"]), (&json!(build.as_str()), &json!("building")));
    assert!(shown["createdAt"].is_string() && shown["updatedAt"].is_string());
}

#[tokio::test]
async fn an_upload_needs_its_token_and_tells_strangers_nothing() {
    let world = World::new();
    let router = world.router();
    let registered = ask(&router, "POST", &at("apps"), json!({"name": "demo"})).await.good();
    let path = upload_path(&registered);
    let (bare, token) = path.split_once('?').unwrap();
    assert!(token.len() >= "token=".len() + 32, "{token}");
    let wrong = send(&router, "PUT", &format!("{bare}?token=0000"), None, "x").await;
    let none = send(&router, "PUT", bare, None, "x").await;
    let unknown = send(&router, "PUT", "/uploads/b-0123456789abcdef?token=0000", None, "x").await;
    let nonsense = send(&router, "PUT", "/uploads/nothing?token=0000", None, "x").await;
    assert_eq!(wrong.status, 404);
    assert!([&none, &unknown, &nonsense].iter().all(|reply| **reply == wrong));
    assert!(world.hold().uploads.is_empty());
    // The store keeps no token that would open the door.
    let held = world.hold();
    let stored = &held.builds.values().next().unwrap().upload_token_hash;
    assert!(!token.contains(&hex::encode(stored)));
}

#[tokio::test]
async fn an_archive_that_announces_too_much_is_refused_unread() {
    let world = World::new();
    let router = world.router();
    let registered = ask(&router, "POST", &at("apps"), json!({"name": "demo"})).await.good();
    let request = http::Request::put(upload_path(&registered))
        .header("content-length", queue::limits::UPLOAD_BYTES_MAX + 1)
        .body(axum::body::Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>()))
        .unwrap();
    let answer = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(answer.status(), 413);
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_before_anything_is_registered() {
    let world = World::new();
    let router = world.router();
    for (request, code) in [
        (json!({}), "invalid_value"),
        (json!({"name": "Not A Name"}), "invalid_value"),
        (json!({"name": "inboxes"}), "reserved_name"),
        (json!({"name": "a", "compute": "AMPERE_A10"}), "hardware_unavailable"),
        (json!({"name": "a", "runtime": "deepgram"}), "unsupported_runtime"),
        (json!({"name": "a", "minReplicaCount": "two"}), "invalid_value"),
    ] {
        ask(&router, "POST", &at("apps"), request).await.problem(422, code);
    }
    let key = private_key(PROJECT);
    let broken = send(&router, "POST", &at("apps"), Some(&key), r#"{"name": }"#).await;
    assert!(broken.problem(400, "invalid_json").contains("line 1 column 10"));
    send(&router, "POST", &at("apps"), Some(&key), "[]").await.problem(400, "invalid_json");
    let large = "x".repeat(queue::limits::CONTROL_BODY_BYTES_MAX + 1);
    send(&router, "POST", &at("apps"), Some(&key), large).await.problem(413, "body_too_large");
    assert!(world.hold().builds.is_empty());
}

#[tokio::test]
async fn a_newer_deploy_stops_the_older_build() {
    let world = World::new();
    let router = world.router();
    let first = ask(&router, "POST", &at("apps"), json!({"name": "demo"})).await.good();
    let second = ask(&router, "POST", &at("apps"), json!({"name": "demo"})).await.good();
    let first = first["buildId"].as_str().unwrap();
    assert_ne!(first, second["buildId"]);
    assert_eq!(world.hold().builds[first].status, BuildStatus::Cancelled);
}

#[tokio::test]
async fn a_build_log_is_given_whole_or_from_a_cursor() {
    let world = World::new();
    let router = world.router();
    let registered = ask(&router, "POST", &at("apps"), json!({"name": "demo"})).await.good();
    let build: BuildId = registered["buildId"].as_str().unwrap().parse().unwrap();
    let app: AppId = format!("{PROJECT}-demo").parse().unwrap();
    for text in ["one", "two", "three"] {
        let line = a_line(&world, &app, text);
        world.append(vec![LogLine { build: Some(build.clone()), stream: Stream::System, ..line }]);
    }
    let path = at(&format!("apps/demo/builds/{build}/logs"));
    let whole = get(&router, &path).await.good();
    assert_eq!(whole["status"], "pending");
    assert_eq!(whole["logs"].as_array().unwrap().len(), 3);
    assert_eq!(whole["logs"][0]["log"], "one");
    assert!(whole["logs"][0]["createdAt"].as_str().unwrap().ends_with('Z'));

    let second = whole["logs"][1]["id"].as_str().unwrap();
    let rest = get(&router, &format!("{path}?after={second}")).await.good();
    assert_eq!(rest["logs"].as_array().unwrap().len(), 1);
    let end = rest["nextToken"].as_str().unwrap();
    let nothing = get(&router, &format!("{path}?after={end}")).await.good();
    assert_eq!((nothing["logs"].as_array().unwrap().len(), &nothing["nextToken"]), (0, &rest["nextToken"]));

    let path = at(&format!("apps/demo/builds/{build}"));
    assert_eq!(ask(&router, "DELETE", &path, Value::Null).await.good()["status"], "cancelled");
    assert_eq!(ask(&router, "DELETE", &path, Value::Null).await.good()["status"], "cancelled");
}

#[tokio::test]
async fn an_app_is_shown_scaled_and_deleted() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![function("predict", &["item"])]);
    let list = get(&router, &at("apps")).await.good();
    assert_eq!(
        (&list[0]["id"], &list[0]["name"], &list[0]["status"]),
        (&json!(app.as_str()), &json!("demo"), &json!("cold"))
    );
    world.hold().replicas = 2;
    let shown = get(&router, &at("apps/demo")).await.good();
    assert_eq!(shown, get(&router, &at(&format!("apps/{app}/"))).await.good());
    assert_eq!((&shown["status"], &shown["replicas"]), (&json!("active"), &json!(2)));
    // Cerebrium's Go client reads texts only.
    for key in [
        "hardware",
        "compute",
        "cpu",
        "memory",
        "gpuCount",
        "cooldownPeriodSeconds",
        "minReplicaCount",
        "maxReplicaCount",
        "responseGracePeriodSeconds",
    ] {
        assert!(shown[key].is_string(), "{key}: {}", shown[key]);
    }
    assert_eq!(shown["functions"][0]["url"], format!("{PUBLIC_URL}/v4/{PROJECT}/demo/predict"));

    let change = json!({"minReplicaCount": 1.0, "maxReplicaCount": 4, "cooldownPeriodSeconds": null});
    let scaled = ask(&router, "PATCH", &at("apps/demo"), change).await.good();
    assert_eq!((&scaled["minReplicaCount"], &scaled["maxReplicaCount"]), (&json!("1"), &json!("4")));
    assert_eq!(world.hold().told, [format!("switch {app}")]);
    ask(&router, "PATCH", &at("apps/demo"), json!({})).await.problem(422, "invalid_value");
    ask(&router, "PATCH", &at("apps/demo"), json!({"minReplicaCount": 5}))
        .await
        .problem(422, "invalid_value");

    assert!(ask(&router, "DELETE", &at("apps/demo"), Value::Null).await.good()["message"].is_string());
    assert_eq!(world.hold().told[1..], [format!("retire {app}"), "wake".to_owned()]);
    get(&router, &at("apps/demo")).await.problem(404, "unknown_app");
}

#[tokio::test]
async fn an_app_without_a_live_build_says_where_it_stands() {
    let world = World::new();
    let router = world.router();
    ask(&router, "POST", &at("apps"), json!({"name": "demo", "memory": 4.0})).await.good();
    let shown = get(&router, &at("apps/demo")).await.good();
    assert_eq!((&shown["status"], &shown["memory"]), (&json!("pending"), &json!("4")));
    assert_eq!(shown["liveBuildId"], Value::Null);
    ask(&router, "PATCH", &at("apps/demo"), json!({"minReplicaCount": 1}))
        .await
        .problem(409, "no_live_build");
    let app: AppId = format!("{PROJECT}-demo").parse().unwrap();
    for (status, word) in [
        (BuildStatus::Building, "deploying"),
        (BuildStatus::BuildFailure, "build_error"),
        (BuildStatus::InitTimeout, "init_error"),
    ] {
        world.hold().apps.get_mut(&app).unwrap().latest_status = status;
        assert_eq!(get(&router, &at("apps/demo")).await.good()["status"], word);
    }
}

#[tokio::test]
async fn a_log_is_followed_without_a_line_lost_or_repeated() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![]);
    for n in 0..25 {
        let line = a_line(&world, &app, &format!("line {n}"));
        world.append(vec![line]);
    }
    let mut seen: Vec<String> = Vec::new();
    let mut path = at("apps/demo/logs?direction=forward&pageSize=10");
    loop {
        let page = get(&router, &path).await.good();
        let lines = page["logs"].as_array().unwrap();
        seen.extend(lines.iter().map(|line| line["logLine"].as_str().unwrap().to_owned()));
        if page["hasMore"] == false {
            break;
        }
        let token = page["nextPageToken"].as_str().unwrap();
        path = at(&format!("apps/demo/logs?direction=forward&pageSize=10&nextToken={token}"));
    }
    assert_eq!(seen, (0..25).map(|n| format!("line {n}")).collect::<Vec<_>>());

    // The Python client goes on after the time of the last line it saw.
    let newest = get(&router, &at("apps/demo/logs?pageSize=5")).await.good();
    let lines = newest["logs"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[4]["logLine"]), (5, &json!("line 24")));
    for key in ["appId", "projectId", "runId", "containerId", "containerName", "logId", "stream", "timestamp"]
    {
        assert!(lines[0][key].is_string(), "{key}");
    }
    let last = lines[4]["timestamp"].as_str().unwrap();
    let path = at(&format!("apps/demo/logs?afterDate={last}"));
    assert!(get(&router, &path).await.good()["logs"].as_array().unwrap().is_empty());

    let backward = get(&router, &at("apps/demo/logs?pageSize=2&direction=backward")).await.good();
    assert_eq!(backward["logs"][0]["logLine"], "line 24");
    let found = get(&router, &at("apps/demo/logs?search=LINE%2017&stream=stdout")).await.good();
    assert_eq!(found["logs"].as_array().unwrap().len(), 1);
    get(&router, &at("apps/demo/logs?stream=tape")).await.problem(400, "invalid_query");
}

#[tokio::test]
async fn a_runs_log_is_that_runs() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![]);
    let other = world.live_app(OTHER_PROJECT, "demo", vec![]);
    let run = a_run(&world, &app, RunState::Running);
    let foreign = a_run(&world, &other, RunState::Running);
    for (app, run, text) in [(&app, run.id, "mine"), (&other, foreign.id, "theirs")] {
        let line = a_line(&world, app, text);
        world.append(vec![LogLine { run: Some(run), ..line }]);
    }
    world.put_run(run.clone());
    world.put_run(foreign.clone());
    let page = get(&router, &at(&format!("runs/{}/logs", run.id))).await.good();
    assert_eq!(page["logs"][0]["logLine"], "mine");
    assert_eq!(page["logs"][0]["runId"], run.id.to_string());
    get(&router, &at(&format!("runs/{}/logs", foreign.id))).await.problem(404, "unknown_run");
    let peeked = get(&router, &at(&format!("apps/demo/logs?runId={}", foreign.id))).await.good();
    assert!(peeked["logs"].as_array().unwrap().is_empty(), "{peeked}");
}

#[tokio::test]
async fn a_run_is_shown_whole_and_its_result_byte_for_byte() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![]);
    let result = r#"{"big": 123456789012345678901234567890,  "e":1.0E+2}"#;
    let started_at = world.now().plus(Duration::from_millis(40));
    let mut run = a_run(&world, &app, RunState::Succeeded);
    run.result = Some(result.into());
    run.warning = Some("does not resolve".into());
    run.attempts = vec![AttemptView { number: 1, started_at, ended_at: None, end: None, error: None }];
    run.deliveries = vec![DeliveryView {
        event: queue::webhook::Event::Completed,
        id: "msg_1_0".into(),
        run_id: run.id,
        url: EndpointUrl::checked("https://example.com/hook"),
        state: DeliveryState::Delivered,
        next_attempt_at: None,
        attempts: vec![DeliveryAttemptView {
            number: 1,
            started_at,
            ended_at: Some(started_at),
            report: Some(AttemptReport { status_code: Some(204), ..AttemptReport::default() }),
        }],
    }];
    world.put_run(run.clone());
    let path = at(&format!("runs/{}?wait=30", run.id));
    let reply = get(&router, &path).await;
    let shown = reply.good();
    assert!(reply.text().contains(result), "{}", reply.text());
    assert_eq!(shown["state"], "succeeded");
    assert_eq!((&shown["queueTimeMs"], &shown["runTimeMs"]), (&json!(40), &json!(1.25)));
    assert_eq!(shown["attempts"][0]["number"], 1);
    assert_eq!(shown["deliveries"][0]["attempts"][0]["statusCode"], 204);
    assert_eq!(shown["warning"], "does not resolve");
    assert_eq!(shown["error"], Value::Null);
    // The caller who has only the public key can ask for the result of the run it started.
    assert_eq!(send(&router, "GET", &path, Some(&public_key(PROJECT)), "").await.body, reply.body);
}

#[tokio::test]
async fn a_caller_who_waits_is_answered_when_the_run_ends() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![]);
    let run = a_run(&world, &app, RunState::Running);
    world.put_run(run.clone());
    let path = at(&format!("runs/{}", run.id));
    assert_eq!(get(&router, &path).await.good()["state"], "running");
    let waiting = tokio::spawn({
        let (router, path) = (router.clone(), format!("{path}?wait=60"));
        async move { get(&router, &path).await }
    });
    let waited = || world.waits.load(std::sync::atomic::Ordering::SeqCst) > 0;
    tokio::time::timeout(Duration::from_secs(10), async {
        while !waited() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the query waits");
    let error = RunError::new(Code::Timeout, "too slow");
    world.put_run(RunView { state: RunState::Failed, error: Some(error), ..run });
    let ended = waiting.await.unwrap().good();
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("failed"), &json!("timeout")));
}

#[tokio::test]
async fn nobody_waits_for_a_run_of_another_project() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(OTHER_PROJECT, "demo", vec![]);
    let foreign = a_run(&world, &app, RunState::Running);
    world.put_run(foreign.clone());
    get(&router, &at(&format!("runs/{}?wait=60", foreign.id))).await.problem(404, "unknown_run");
    assert_eq!(world.waits.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn runs_are_listed_in_pages_and_in_both_dialects() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![]);
    world.live_app(PROJECT, "empty", vec![]);
    let mut ids = Vec::new();
    for n in 0..5 {
        world.advance(Duration::from_millis(5));
        let state = if n == 4 { RunState::Failed } else { RunState::Succeeded };
        let run = a_run(&world, &app, state);
        ids.insert(0, run.id.to_string());
        world.put_run(RunView { mode: if n == 0 { Mode::Sync } else { Mode::Async }, ..run });
    }
    let mut seen = Vec::new();
    let mut path = at("runs?limit=2");
    loop {
        let page = get(&router, &path).await.good();
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()),
        );
        let Some(token) = page["nextToken"].as_str() else { break };
        path = at(&format!("runs?limit=2&nextToken={token}"));
    }
    assert_eq!(seen, ids);
    let count = async |query: &str| get(&router, &at(query)).await.good()["items"].as_array().unwrap().len();
    assert_eq!(count("runs?state=failed").await, 1);
    assert_eq!(count("runs?asyncOnly=true").await, 4);
    assert_eq!(count("runs?app=empty").await, 0);
    get(&router, &at("runs?app=nothing")).await.problem(404, "unknown_app");
    assert!(get(&router, &at("runs?state=done")).await.problem(400, "invalid_query").contains("succeeded"));

    let theirs = get(&router, &at("apps/demo/runs?asyncOnly=true")).await.good();
    let first = &theirs["items"][0];
    assert_eq!(
        (&first["async"], &first["isAsync"], &first["status"]),
        (&json!(true), &json!(true), &json!("failed"))
    );
    assert_eq!(first["functionName"], "predict");
    assert_eq!((&first["totalQueueTimeMs"], &first["totalResponseTimeMs"]), (&json!(40), &json!(90)));
    assert_eq!(first["webhookEndpoint"], "https://example.com/hook");
    let one = get(&router, &at(&format!("apps/demo/runs/{}", ids[1]))).await.good();
    assert_eq!(one["item"]["status"], "success");
    get(&router, &at(&format!("apps/empty/runs/{}", ids[1]))).await.problem(404, "unknown_run");
}

#[tokio::test]
async fn a_base_address_may_end_in_a_slash() {
    let router = World::new().router();
    let plain = get(&router, "/v2/projects").await;
    assert_eq!(plain.good(), json!([{"id": PROJECT, "name": PROJECT}]));
    for path in ["/v2/projects/", "//v2/projects", "//v2/projects/"] {
        assert_eq!(get(&router, path).await.body, plain.body, "{path}");
    }
    assert_eq!(get(&router, "/v2/notifications").await.good(), json!([]));
}

#[tokio::test]
async fn what_the_store_cannot_say_is_said() {
    let world = World::new();
    let router = world.router();
    world.hold().store_error = Some(StoreError::Unavailable("disk full".into()));
    let reply = get(&router, &at("apps")).await;
    assert!(!reply.problem(503, "store_unavailable").contains("disk full"));
}

/// Everything that the placeholders of paths stand for, once for each project.
fn furnish(world: &Arc<World>, project: &str) -> Vec<(&'static str, String)> {
    let app = world.live_app(project, "demo", vec![]);
    let run = a_run(world, &app, RunState::Succeeded);
    world.put_run(run.clone());
    let inbox = queue::inbox::Inbox::new(project.parse().unwrap(), world.as_ref(), world.now());
    world.hold().inboxes.push(inbox.clone());
    let build = world.hold().apps[&app].latest_build.to_string();
    vec![
        ("{project}", project.to_owned()),
        ("{app}", app.to_string()),
        ("{build}", build),
        ("{run}", run.id.to_string()),
        ("{inbox}", inbox.id.to_string()),
    ]
}

fn filled(path: &str, values: &[(&'static str, String)]) -> String {
    values.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn every_route_asks_for_the_key_that_its_document_says() {
    let world = World::new();
    let router = world.router();
    let mine = furnish(&world, PROJECT);
    let theirs = furnish(&world, OTHER_PROJECT);
    let unknown: Vec<_> = [
        ("{project}", PROJECT.to_owned()),
        ("{app}", format!("{PROJECT}-nothing")),
        ("{build}", "b-ffffffffffffffff".to_owned()),
        ("{run}", RunId::from_bytes([9; 16]).to_string()),
        ("{inbox}", "f".repeat(32)),
    ]
    .into();
    let document = send(&router, "GET", "/openapi.json", None, "").await.good();
    let (private, public) = (private_key(PROJECT), public_key(PROJECT));
    let mut walked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let who = operation["x-who"].as_str().unwrap();
            let method = method.to_uppercase();
            let case = format!("{method} {path}");
            let status = async |path: &str, key: Option<&str>| -> StatusCode {
                send(&router, &method, path, key, "{}").await.status
            };
            let own = filled(path, &mine);
            walked += 1;
            if !matches!(who, "private key" | "any key") {
                continue;
            }
            assert_eq!(status(&own, None).await, 401, "{case}");
            assert_eq!(status(&own, Some("Bearer nonsense")).await, 401, "{case}");
            assert_eq!(status(&own, Some("Bearer a.b.c")).await, 401, "{case}");
            let with_public = status(&own, Some(&public)).await;
            assert_eq!(with_public == 403, who == "private key", "{case}: {with_public}");
            if path.contains("{project}") {
                let foreign = filled(path, &theirs);
                assert_eq!(status(&foreign, Some(&private)).await, 404, "{case}");
                assert_eq!(status(&foreign, Some(&public)).await, 404, "{case}");
            }
            // The other project's things under the own project's path: the bytes of what does not exist.
            if path.matches('{').count() > 1 {
                for (name, of_theirs) in &theirs[1..] {
                    if !path.contains(name) {
                        continue;
                    }
                    let (_, of_nobody) = unknown.iter().find(|(unknown, _)| unknown == name).unwrap();
                    let mut values = mine.clone();
                    values.retain(|(kept, _)| kept != name);
                    let ask = async |value: &str| {
                        let mut values = values.clone();
                        values.push((name, value.to_owned()));
                        let reply =
                            send(&router, &method, &filled(path, &values), Some(&private), "{}").await;
                        assert_eq!(reply.status, 404, "{case}: {name}");
                        reply.text().replace(value, "…")
                    };
                    assert_eq!(ask(of_theirs).await, ask(of_nobody).await, "{case}: {name}");
                }
            }
        }
    }
    assert!(walked > 20, "only {walked} routes");
    // The walk has left the other project alone.
    assert!(world.hold().told.iter().all(|told| !told.contains(OTHER_PROJECT)));
}

#[tokio::test]
async fn a_run_that_was_removed_answers_with_the_time_of_its_removal() {
    let world = World::new();
    let router = world.router();
    let app = world.live_app(PROJECT, "demo", vec![]);
    let (run, removed_at) = (a_run(&world, &app, RunState::Succeeded).id, world.now());
    world.hold().removed.insert((PROJECT.parse().unwrap(), run), removed_at);
    let foreign = a_run(&world, &app, RunState::Succeeded).id;
    world.hold().removed.insert((OTHER_PROJECT.parse().unwrap(), foreign), removed_at);
    for path in [format!("runs/{run}"), format!("runs/{run}?wait=60"), format!("runs/{run}/logs")] {
        let reply = get(&router, &at(&path)).await;
        reply.problem(410, "run_removed");
        let body = reply.json();
        assert_eq!((&body["removed_at"], &body["run_id"]), (&json!(removed_at), &json!(run)));
    }
    get(&router, &at(&format!("runs/{foreign}"))).await.problem(404, "unknown_run");
}
