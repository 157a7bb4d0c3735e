//! What callers read, byte for byte.

use bytes::Bytes;
use http::Request;
use queue::app::AppConfig;
use queue::outcome::{Code, Outcome, RunError};
use queue::port::Refused;
use queue::run::{EndpointUrl, Generation, Mode};
use queue::{Clock as _, Timestamp};
use tower::ServiceExt as _;

use super::{HOOK, Rig, call, deploy, predict, run_id, v3, v4};
use crate::fakes::{PROJECT, function, options};

const ACKNOWLEDGED: &str = "Your request is being processed. We will return the result to your webhook.";

#[tokio::test]
async fn a_waiting_caller_reads_five_keys_on_older_paths_and_three_on_v4() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let body = r#"{ "n" : 123456789012345678901234567890 }"#;
    for path in [
        v3("old/predict"),
        "/old/predict".into(),
        format!("/{PROJECT}/old/predict"),
        format!("/v1/{PROJECT}/old/predict"),
        format!("/v2/{PROJECT}/old/predict"),
    ] {
        let reply = call(&router, &path, body).await;
        let id = run_id(&reply);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["content-type"], "application/json");
        assert_eq!(
            reply.text(),
            format!(
                "{{\"run_id\":\"{id}\",\"message\":\"Finished inference request with run_id: `{id}`\",\
                 \"result\":{body},\"status_code\":200,\"run_time_ms\":1.5}}"
            ),
            "{path}"
        );
    }
    let reply = call(&router, &v4("old/predict"), body).await;
    let id = run_id(&reply);
    assert_eq!(reply.text(), format!("{{\"run_id\":\"{id}\",\"result\":{body},\"run_time_ms\":1.5}}"));
    assert!(rig.world.hold().accepted.is_empty(), "a synchronous call is not a durable run");
}

#[tokio::test]
async fn a_call_may_take_180_seconds_on_older_paths_and_the_grace_period_on_v4() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    for path in [v3("old/predict"), "/old/predict".into(), v4("old/predict")] {
        call(&router, &path, "").await;
    }
    let seen: Vec<_> = rig
        .world
        .hold()
        .calls
        .iter()
        .map(|call| (call.generation, call.limit.as_secs(), call.input.clone()))
        .collect();
    let empty = Bytes::from_static(b"{}");
    assert_eq!(
        seen,
        [
            (Generation::V3, 180, empty.clone()),
            (Generation::Legacy, 180, empty.clone()),
            (Generation::V4, 900, empty)
        ]
    );
}

#[tokio::test]
async fn the_results_own_status_code_is_the_answers() {
    let rig = Rig::new();
    deploy(&rig.world);
    let outcome = Outcome::succeeded(Bytes::from_static(b"{\"status_code\":422}"), 422, 1.0, rig.world.now());
    rig.world.hold().call_answer = Some(Ok(outcome));
    let router = rig.router();
    for path in [v3("old/predict"), v4("old/predict")] {
        let reply = call(&router, &path, "{}").await;
        assert_eq!(reply.status, 422);
        assert_eq!(reply.json()["result"]["status_code"], 422);
    }
}

#[tokio::test]
async fn a_failed_call_names_its_run_and_the_reason() {
    let rig = Rig::new();
    deploy(&rig.world);
    let error =
        RunError { code: Code::UserError, kind: "ValueError".into(), message: "no".into(), traceback: None };
    rig.world.hold().call_answer = Some(Ok(Outcome::failed(error, 1.0, Timestamp::from_millis(0))));
    let router = rig.router();
    for path in [v3("old/predict"), v4("old/predict"), "/old/predict".into()] {
        let reply = call(&router, &path, "{}").await;
        let id = run_id(&reply);
        assert_eq!(reply.status, 500);
        assert_eq!(
            reply.text(),
            format!("{{\"run_id\":\"{id}\",\"message\":\"no\",\"code\":\"user_error\"}}")
        );
    }
}

#[tokio::test]
async fn a_timeout_names_the_run_and_the_way_out() {
    let rig = Rig::new();
    deploy(&rig.world);
    let error = RunError::new(Code::Timeout, "timed out");
    rig.world.hold().call_answer = Some(Ok(Outcome::failed(error, 1.0, Timestamp::from_millis(0))));
    let router = rig.router();
    for (path, limit) in [(v3("old/predict"), "180 s"), (v4("old/predict"), "900 s")] {
        let reply = call(&router, &path, "{}").await;
        run_id(&reply);
        let message = reply.problem(504, "timeout");
        assert!(message.contains("`webhook_endpoint`") && message.contains(limit), "{message}");
    }
}

#[tokio::test]
async fn a_busy_app_and_a_stopping_server_say_so() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    for (refused, status, code) in
        [(Refused::Busy, 429, "too_many_waiting"), (Refused::Stopping, 503, "stopping")]
    {
        rig.world.hold().call_answer = Some(Err(refused));
        let reply = call(&router, &v4("old/predict"), "{}").await;
        reply.problem(status, code);
        assert_eq!(reply.headers["retry-after"], "1");
    }
}

#[tokio::test]
async fn a_webhook_in_the_body_gets_an_acknowledgement_at_once() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let body = format!(r#"{{"delayMins": 0, "webhook_endpoint": "{HOOK}"}}"#);
    for path in [v3("old/predict"), "/old/predict".into()] {
        let reply = call(&router, &path, &body).await;
        let id = run_id(&reply);
        assert_eq!(reply.status, 200);
        let expected =
            format!("{{\"run_id\":\"{id}\",\"webhook_endpoint\":\"{HOOK}\",\"message\":\"{ACKNOWLEDGED}\"}}");
        assert_eq!(reply.text(), expected);
    }
    let reply = call(&router, &v4("old/predict"), &body).await;
    let id = run_id(&reply);
    assert_eq!(reply.status, 202);
    assert_eq!(reply.text(), format!("{{\"run_id\":\"{id}\",\"message\":\"{ACKNOWLEDGED}\"}}"));

    let held = rig.world.hold();
    assert!(held.calls.is_empty());
    for run in &held.accepted {
        assert_eq!(run.input, body, "the body is kept as it came");
        assert_eq!((run.mode, run.limit.as_secs()), (Mode::Async, 900));
        assert_eq!(run.webhooks.iter().map(EndpointUrl::as_str).collect::<Vec<_>>(), [HOOK]);
        assert_eq!(run.id.accepted_at(), run.accepted_at);
    }
    assert_eq!(held.accepted.len(), 3);
    assert_eq!(held.told, vec![format!("wake {PROJECT}-old"); 3]);
}

#[tokio::test]
async fn v4_asks_by_query_too() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let hook = "https%3A%2F%2Fhooks.example%2Fa";
    for (query, message, webhooks) in [
        ("async=true", "Your request is being processed.", 0),
        (&format!("async=true&webhookEndpoint={hook}"), ACKNOWLEDGED, 1),
    ] {
        let reply = call(&router, &v4(&format!("old/predict?{query}")), "{}").await;
        let id = run_id(&reply);
        assert_eq!(reply.status, 202);
        assert_eq!(reply.text(), format!("{{\"run_id\":\"{id}\",\"message\":\"{message}\"}}"));
        assert_eq!(rig.world.hold().accepted.pop().unwrap().webhooks.len(), webhooks);
    }
    // Body and query together: both are told, once each.
    let body = r#"{"webhook_endpoint": "https://hooks.example/b"}"#;
    call(&router, &v4(&format!("old/predict?webhookEndpoint={hook}")), body).await;
    assert_eq!(rig.world.hold().accepted.pop().unwrap().webhooks.len(), 2);
    let same = format!(r#"{{"webhook_endpoint": "{HOOK}"}}"#);
    call(&router, &v4(&format!("old/predict?webhookEndpoint={hook}")), &same).await;
    assert_eq!(rig.world.hold().accepted.pop().unwrap().webhooks.len(), 1);
    // The older paths know no query.
    assert_eq!(
        call(&router, &v3(&format!("old/predict?async=true&webhookEndpoint={hook}")), "{}").await.status,
        200
    );
    assert_eq!(rig.world.hold().calls.len(), 1);
}

#[tokio::test]
async fn on_v4_a_function_that_declares_webhook_endpoint_gets_it_for_itself() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let body = format!(r#"{{"webhook_endpoint":"{HOOK}"}}"#);
    assert_eq!(call(&router, &v4("new/hooked"), &body).await.status, 200);
    assert_eq!(rig.world.hold().calls[0].input, body);
    // On v3 the key is the platform's.
    assert!(call(&router, &v3("new/hooked"), &body).await.json()["webhook_endpoint"].is_string());
    // Everybody else may send it, and the function is called without it.
    let body = format!(r#"{{"prompt":"x","webhook_endpoint":"{HOOK}"}}"#);
    assert_eq!(call(&router, &v4("new/run"), &body).await.status, 202);
}

#[tokio::test]
async fn null_is_no_webhook() {
    let rig = Rig::new();
    deploy(&rig.world);
    let reply = call(&rig.router(), &v3("old/predict"), r#"{"webhook_endpoint":null}"#).await;
    assert_eq!(reply.status, 200);
    assert!(rig.world.hold().accepted.is_empty());
}

#[tokio::test]
async fn a_webhook_in_the_query_alone_answers_normally_and_tells_as_well() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let path = v4(&format!("new/run?webhookEndpoint={HOOK}"));
    let waiting = tokio::spawn(async move { call(&router, &path, r#"{"prompt":"x"}"#).await });
    rig.at_gate.acquire().await.unwrap().forget();
    let accepted = loop {
        if let Some(run) = rig.world.hold().accepted.first().cloned() {
            break run;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((accepted.mode, accepted.webhooks.len()), (Mode::Sync, 1));
    assert!(!waiting.is_finished(), "the answer waits for the end of the run");
    while !rig.world.hold().runs.contains_key(&accepted.id) {
        tokio::task::yield_now().await;
    }
    let outcome = Outcome::succeeded(Bytes::from_static(b"[1, 2]"), 201, 2.5, rig.world.now());
    rig.end(accepted.id, &outcome);
    let reply = waiting.await.unwrap();
    assert_eq!(reply.status, 201);
    let id = run_id(&reply);
    assert_eq!(reply.text(), format!("{{\"run_id\":\"{id}\",\"result\":[1, 2],\"run_time_ms\":2.5}}"));
    assert_eq!(id, accepted.id.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_outlasts_its_caller_goes_on_and_says_so() {
    let rig = Rig::new();
    deploy(&rig.world);
    let path = v4(&format!("new/run?webhookEndpoint={HOOK}"));
    let reply = call(&rig.router(), &path, r#"{"prompt":"x"}"#).await;
    run_id(&reply);
    assert!(reply.problem(504, "timeout").contains("its result will be sent to its webhook"));
}

#[tokio::test]
async fn prebuilt_models_have_their_own_sentence() {
    let rig = Rig::new();
    rig.world.live_app(PROJECT, "whisper", vec![predict()]);
    rig.world.live_app(PROJECT, "mine-webhook", vec![predict()]);
    let config = AppConfig { returns: Some("text".into()), ..AppConfig::default() };
    rig.world.live_app_with(PROJECT, "ears", vec![predict()], config);
    let router = rig.router();
    let body = format!(r#"{{"webhook_endpoint":"{HOOK}"}}"#);
    let message = async |path: &str| call(&router, path, &body).await.good()["message"].clone();
    assert_eq!(
        message("/whisper-webhook/predict").await,
        "We will return the images to the endpoint provided when the task is complete."
    );
    assert_eq!(rig.world.hold().accepted[0].app.name().as_str(), "whisper");
    assert_eq!(
        message("/ears-webhook/predict").await,
        "We will return the text to the endpoint provided when the task is complete."
    );
    // An app that really has the name comes first, and is no pre-built model.
    assert_eq!(message("/mine-webhook/predict").await, ACKNOWLEDGED);
    assert_eq!(message("/whisper/predict").await, ACKNOWLEDGED);
    call(&router, &v4("whisper-webhook/predict"), &body).await.problem(404, "unknown_app");
}

#[tokio::test]
async fn an_address_that_does_not_resolve_now_is_kept_with_a_warning() {
    let rig = Rig::new();
    rig.world.live_app(PROJECT, "old", vec![predict()]);
    let body = r#"{"webhook_endpoint":"https://unresolved.example/"}"#;
    assert_eq!(call(&rig.router(), &v3("old/predict"), body).await.status, 200);
    assert!(rig.world.hold().accepted[0].warning.as_ref().unwrap().contains("does not resolve"));
}

#[tokio::test]
async fn what_models_return_is_inert_in_a_browser() {
    let rig = Rig::new();
    rig.world.live_app(PROJECT, "old", vec![predict(), function("run", &[])]);
    let router = rig.router();
    for path in [v4("old/predict"), v4("old/missing"), v4("missing/run")] {
        let reply = call(&router, &path, "{}").await;
        assert_eq!(reply.headers["content-security-policy"], "sandbox; default-src 'none'");
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
        assert!(reply.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn browsers_may_call_from_the_origins_that_were_chosen() {
    let rig = Rig::new();
    deploy(&rig.world);
    let preflight = |origin: &str| {
        Request::options(v4("new/run"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
            .body(axum::body::Body::empty())
            .unwrap()
    };
    let answer = rig.router().oneshot(preflight("https://any.example")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["access-control-allow-headers"], "authorization,content-type");

    let mut options = options();
    options.cors_origins = gateway::CorsOrigins::These(vec!["https://app.example/".into()]);
    let router = rig.gateway(options).surface();
    let answer = router.clone().oneshot(preflight("https://app.example")).await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example");
    let answer = router.clone().oneshot(preflight("https://evil.example")).await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    // Errors can be read by the page as well.
    let request = Request::post(v4("new/run")).header("origin", "https://app.example");
    let answer = router.oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example");
    assert_eq!(
        answer.headers()["access-control-expose-headers"],
        "x-request-id,retry-after,idempotency-replayed"
    );
}
