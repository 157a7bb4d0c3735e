//! What a call says about its webhooks: where they go, what they are told, and with what.

use axum::body::Body;
use gateway::Surface;
use http::Request;
use queue::app::AppConfig;
use queue::run::NewRun;
use queue::webhook::{EventFilter, Metadata, WebhookHeaders};
use serde_json::json;

use super::{HOOK, Rig, call, deploy, v3, v4};
use crate::fakes::{PROJECT, Reply, function, public_key, send_request};

const OTHER: &str = "https://hooks.example/b";

async fn with(router: &Surface, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::post(path).header("authorization", public_key(PROJECT));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send_request(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

fn accepted(rig: &Rig) -> NewRun {
    rig.world.hold().accepted.last().unwrap().clone()
}

fn urls(run: &NewRun) -> Vec<&str> {
    run.webhooks.iter().map(queue::run::EndpointUrl::as_str).collect()
}

#[tokio::test]
async fn a_run_may_tell_several_endpoints_and_the_acknowledgement_names_them_as_they_came() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let reply =
        call(&router, &v3("old/predict"), &json!({"webhook_endpoint": [HOOK, OTHER, HOOK]}).to_string())
            .await;
    assert_eq!(reply.json()["webhook_endpoint"], json!([HOOK, OTHER]));
    assert_eq!(urls(&accepted(&rig)), [HOOK, OTHER]);
    let reply = call(&router, &v3("old/predict"), &json!({"webhook_endpoint": [HOOK]}).to_string()).await;
    assert_eq!(reply.json()["webhook_endpoint"], json!([HOOK]));
    let reply = call(&router, &v3("old/predict"), &json!({"webhook_endpoint": HOOK}).to_string()).await;
    assert_eq!(reply.json()["webhook_endpoint"], HOOK);

    let path = format!("new/run?async=true&webhookEndpoint={HOOK}&webhookEndpoint={OTHER}");
    let reply = call(&router, &v4(&path), r#"{"prompt":1}"#).await;
    assert_eq!(reply.status, 202);
    assert_eq!(urls(&accepted(&rig)), [HOOK, OTHER]);
    let body = json!({"prompt": 1, "webhook_endpoint": [OTHER]}).to_string();
    call(&router, &v4(&format!("new/run?webhookEndpoint={HOOK}")), &body).await;
    assert_eq!(urls(&accepted(&rig)), [OTHER, HOOK]);
}

#[tokio::test]
async fn lists_that_cannot_be_meant_are_refused() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    for wrong in [json!([]), json!([1]), json!([HOOK, null]), json!([[HOOK]])] {
        let reply = call(&router, &v3("old/predict"), &json!({"webhook_endpoint": wrong}).to_string()).await;
        reply.problem(422, "webhook_endpoint");
    }
    let many: Vec<_> = (0..9).map(|number| format!("https://hooks.example/{number}")).collect();
    let reply = call(&router, &v3("old/predict"), &json!({"webhook_endpoint": many}).to_string()).await;
    assert!(reply.problem(422, "too_many_webhooks").contains("9 webhook endpoints"));
    let most = json!({"webhook_endpoint": many[..8]}).to_string();
    assert_eq!(call(&router, &v3("old/predict"), &most).await.status, 200);
}

#[tokio::test]
async fn what_goes_with_a_webhook_comes_by_header_query_or_body_and_the_header_wins() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let body = json!({
        "webhook_endpoint": HOOK, "webhook_events_filter": ["logs", "completed"], "webhook_metadata": {"n": 1},
    })
    .to_string();
    call(&router, &v3("old/predict"), &body).await;
    let options = accepted(&rig).options;
    assert_eq!(options.events, EventFilter::parse(["completed", "logs"]).unwrap());
    assert_eq!(options.metadata, Some(Metadata::parse(r#"{"n":1}"#).unwrap()));
    assert_eq!(options.webhook_headers, None);
    assert_eq!(options.schedule, None);

    let headers = [
        ("x-webhook-headers", r#"{"X-Api-Key": "s3cret"}"#),
        ("x-webhook-events-filter", "start, output"),
        ("x-metadata", r#"{"n":2}"#),
        ("x-webhook-schedule", "5s, 2h"),
    ];
    with(&router, &v3("old/predict"), &headers, &body).await;
    let options = accepted(&rig).options;
    assert_eq!(options.events, EventFilter::parse(["start", "output"]).unwrap());
    assert_eq!(options.metadata.unwrap().as_str(), r#"{"n":2}"#);
    assert_eq!(options.schedule, "5s,2h".parse().ok());
    assert_eq!(options.webhook_headers, Some(WebhookHeaders::parse(r#"{"x-api-key":"s3cret"}"#).unwrap()));

    let path = format!("new/run?async=1&webhookEndpoint={HOOK}&webhookEventsFilter=start,completed");
    call(&router, &v4(&path), r#"{"prompt":1,"webhook_events_filter":["logs"]}"#).await;
    assert_eq!(accepted(&rig).options.events, EventFilter::parse(["start", "completed"]).unwrap());
}

#[tokio::test]
async fn what_cannot_go_with_a_webhook_is_refused_by_name() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let body = json!({"webhook_endpoint": HOOK}).to_string();
    for (header, value, code, said) in [
        ("x-webhook-headers", r#"{"webhook-id":"a"}"#, "webhook_headers", "`webhook-id`"),
        ("x-webhook-headers", r#"{"X-Key":7}"#, "webhook_headers", "object of texts"),
        ("x-webhook-headers", "X-Key: 7", "webhook_headers", "`X-Webhook-Headers`"),
        ("x-webhook-events-filter", "done", "webhook_events_filter", "`done`"),
        ("x-webhook-events-filter", "", "webhook_events_filter", "start, output, logs, completed"),
        ("x-webhook-schedule", "5s, soon", "webhook_schedule", "`X-Webhook-Schedule` has the step `soon`"),
        ("x-webhook-schedule", "", "webhook_schedule", "`5s, 1m, 2h, 1d`"),
        ("x-metadata", "[1]", "metadata", "`X-Metadata`"),
        ("x-metadata", "7", "metadata", "JSON object"),
    ] {
        let message = with(&router, &v3("old/predict"), &[(header, value)], &body).await.problem(422, code);
        assert!(message.contains(said), "{header}: {message}");
    }
    let twice = [("x-metadata", "{}"), ("x-metadata", "{}")];
    with(&router, &v3("old/predict"), &twice, &body).await.problem(400, "duplicate_header");
    for (key, wrong) in [("webhook_events_filter", json!("start")), ("webhook_metadata", json!([1]))] {
        let body = json!({"webhook_endpoint": HOOK, key: wrong}).to_string();
        call(&router, &v3("old/predict"), &body).await.problem(422, key);
    }
    assert!(rig.world.hold().accepted.is_empty());
}

#[tokio::test]
async fn on_v4_a_key_that_the_function_declares_is_the_functions() {
    let rig = Rig::new();
    rig.world.live_app(PROJECT, "own", vec![function("run", &["webhook_metadata"])]);
    let router = rig.router();
    call(&router, &v4("own/run?async=true"), r#"{"webhook_metadata":[1]}"#).await;
    assert_eq!(accepted(&rig).options.metadata, None);
}

#[tokio::test]
async fn asynchronous_runs_that_name_no_endpoint_tell_those_of_their_app() {
    let rig = Rig::new();
    let config = AppConfig {
        webhook_endpoints: vec![HOOK.into(), OTHER.into()],
        webhook_headers: Some(WebhookHeaders::parse(r#"{"x-a":"app","x-b":"app"}"#).unwrap()),
        webhook_events_filter: Some(EventFilter::parse(["start", "completed"]).unwrap()),
        webhook_schedule: "1m".parse().ok(),
        ..AppConfig::default()
    };
    rig.world.live_app_with(PROJECT, "new", vec![function("run", &[])], config.clone());
    let router = rig.router();
    let reply = call(&router, &v4("new/run?async=true"), "{}").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["webhook_endpoint"]), (202, &json!(null)));
    let run = accepted(&rig);
    assert_eq!(urls(&run), [HOOK, OTHER]);
    assert_eq!(run.options.webhook_headers, config.webhook_headers);
    assert_eq!(Some(run.options.events), config.webhook_events_filter);
    assert_eq!(run.options.schedule, config.webhook_schedule);

    // A call's own endpoint replaces them, its headers go over theirs.
    let own = [
        ("x-webhook-headers", r#"{"X-A":"call"}"#),
        ("x-webhook-events-filter", "completed"),
        ("x-webhook-schedule", "none"),
    ];
    let path = v4("new/run?async=true&webhookEndpoint=https://own.example/");
    with(&router, &path, &own, "{}").await;
    let run = accepted(&rig);
    assert_eq!(urls(&run), ["https://own.example/"]);
    let headers = run.options.webhook_headers.unwrap();
    assert_eq!(headers.iter().collect::<Vec<_>>(), [("x-a", "call"), ("x-b", "app")]);
    assert_eq!(run.options.events, EventFilter::default());
    assert_eq!(run.options.schedule, "none".parse().ok());

    // Whoever waits has the answer.
    let before = rig.world.hold().accepted.len();
    call(&router, &v4("new/run"), "{}").await;
    assert_eq!(rig.world.hold().accepted.len(), before);
}
