//! `Idempotency-Key`: asking again does not run again.

use axum::body::Body;
use gateway::Surface;
use http::Request;

use super::{HOOK, Rig, deploy, run_id, v3, v4};
use crate::fakes::{PROJECT, Reply, public_key, send_request};

async fn call(router: &Surface, path: &str, keys: &[&str], body: &str) -> Reply {
    let mut request = Request::post(path).header("authorization", public_key(PROJECT));
    for key in keys {
        request = request.header("idempotency-key", *key);
    }
    send_request(router, request.body(Body::from(body.to_owned())).unwrap()).await
}

fn is_replay(reply: &Reply) -> bool {
    reply.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn the_same_call_under_the_same_key_is_the_same_run() {
    let rig = Rig::new();
    deploy(&rig.world);
    let (router, path) = (rig.router(), v3("old/predict"));
    let body = format!(r#"{{"webhook_endpoint":"{HOOK}"}}"#);
    let first = call(&router, &path, &["k"], &body).await;
    let again = call(&router, &path, &["k"], &body).await;
    assert_eq!((first.status.as_u16(), is_replay(&first)), (200, false));
    assert_eq!((again.status.as_u16(), is_replay(&again)), (200, true));
    assert_eq!(run_id(&first), run_id(&again));
    assert_eq!(rig.world.hold().accepted.len(), 1);

    let fresh = call(&router, &path, &["other"], &body).await;
    assert_ne!(run_id(&first), run_id(&fresh));
}

#[tokio::test]
async fn options_in_headers_make_no_other_call_and_those_of_the_first_one_stand() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let asked = async |options: &[(&str, &str)]| {
        let mut request =
            Request::post(v4("new/run?async=true")).header("authorization", public_key(PROJECT));
        request = request.header("idempotency-key", "k");
        for (name, value) in options {
            request = request.header(*name, *value);
        }
        send_request(&router, request.body(Body::from(r#"{"prompt":"a"}"#)).unwrap()).await
    };
    let first = asked(&[("x-priority", "5"), ("x-metadata", r#"{"try":1}"#)]).await;
    let others: [&[(&str, &str)]; 4] = [
        &[],
        &[("x-priority", "-5"), ("x-delay", "60"), ("x-retries", "2")],
        &[("x-metadata", r#"{"try":2}"#)],
        &[("x-webhook-headers", r#"{"X-Api-Key":"other"}"#), ("x-webhook-secret", "other")],
    ];
    for options in others {
        let again = asked(options).await;
        assert_eq!((again.status.as_u16(), is_replay(&again)), (202, true), "{options:?}");
        assert_eq!(run_id(&again), run_id(&first));
    }
    let accepted = rig.world.hold().accepted.clone();
    assert_eq!(accepted.len(), 1);
    let options = &accepted[0].options;
    assert_eq!((options.priority, options.metadata.as_ref().unwrap().as_str()), (5, r#"{"try":1}"#));
    // What cannot be is refused all the same.
    asked(&[("x-priority", "high")]).await.problem(422, "invalid_parameter");
}

#[tokio::test]
async fn another_body_or_webhook_under_a_used_key_is_refused_by_name() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let first = call(&router, &v4("new/run?async=true"), &["k"], r#"{"prompt":"a"}"#).await;
    assert_eq!(first.status, 202);
    let hooked = format!("new/run?async=true&webhookEndpoint={HOOK}");
    for (path, body) in [("new/run?async=true", r#"{"prompt":"b"}"#), (&hooked, r#"{"prompt":"a"}"#)] {
        let other = call(&router, &v4(path), &["k"], body).await;
        assert_eq!(run_id(&other), run_id(&first));
        other.problem(422, "idempotency_mismatch");
    }
    assert_eq!(rig.world.hold().accepted.len(), 1);
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let path = v4("new/run?async=true");
    for key in ["", "é", &"k".repeat(256)] {
        call(&router, &path, &[key], r#"{"prompt":1}"#).await.problem(422, "idempotency_key");
    }
    call(&router, &path, &["a", "b"], r#"{"prompt":1}"#).await.problem(400, "duplicate_header");
    assert_eq!(call(&router, &path, &[&"k".repeat(255)], r#"{"prompt":1}"#).await.status, 202);
}
