//! A key that nobody reads is refused where leaving it out would do something else than was asked for: a link that
//! ends later, a key that never does, another build that becomes live.

use queue::app::Function;
use serde_json::{Value, json};

use crate::control::{ask, at};
use crate::fakes::{PROJECT, World};

#[tokio::test]
async fn a_misspelt_key_is_refused_and_nothing_is_done() {
    let world = World::new();
    let router = world.router();
    world.live_app(PROJECT, "demo", Vec::<Function>::new());
    let made = ask(&router, "POST", &at("inboxes"), Value::Null).await.good();
    let inbox = made["id"].as_str().unwrap();
    let endpoints = ask(&router, "GET", &at("endpoints"), Value::Null).await.good();
    let endpoint = endpoints["items"][0]["id"].as_str().unwrap();
    let (url, since) = ("https://a.example/hook", "2026-01-31T12:00:00Z");
    for (method, path, body, wrong) in [
        ("POST", format!("inboxes/{inbox}/links"), json!({"expiresIn": 60}), "expiresIn"),
        ("POST", format!("inboxes/{inbox}/requests/1/replay"), json!({"url": url, "to": url}), "to"),
        ("POST", "keys".into(), json!({"name": "ci", "expires_at": "2099-01-01T00:00:00Z"}), "expires_at"),
        ("POST", "keys/rotate".into(), json!({"keys": ["webhookSecret"], "overlap": 0}), "overlap"),
        ("PUT", "keys/signing".into(), json!({"v1a": true, "v1": false}), "v1"),
        ("POST", "apps/demo/rollback".into(), json!({"build": "b-0123456789abcdef"}), "build"),
        ("POST", "endpoints".into(), json!({"url": url, "bodyBytes": 65_536}), "bodyBytes"),
        ("PATCH", format!("endpoints/{endpoint}"), json!({"bodyBytes": 65_536}), "bodyBytes"),
        ("POST", "endpoints/test".into(), json!({"url": url, "event": "x"}), "event"),
        (
            "POST",
            "deliveries/redeliver".into(),
            json!({"receiver": url, "since": since, "until": since}),
            "until",
        ),
    ] {
        let refused = ask(&router, method, &at(&path), body).await;
        let said = refused.problem(422, "invalid_value");
        assert!(said.contains(&format!("`{wrong}` is nothing")), "{method} {path}: {said}");
    }
    assert!(world.hold().told.is_empty(), "{:?}", world.hold().told);
}
