//! Inboxes over HTTP: made, read, and what they recorded sent once more.

use std::time::Duration;

use bytes::Bytes;
use queue::inbox::{CapturedRequest, SignatureState, SignatureVerdict};
use queue::port::Inboxes as _;
use queue::{Clock as _, InboxId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::control::{ask, at, get};
use crate::fakes::{PUBLIC_URL, World};

fn captured(body: &'static [u8]) -> CapturedRequest {
    CapturedRequest {
        id: Uuid::nil(),
        sequence: 0,
        method: "POST".into(),
        path: "/inbox/x?y=1".into(),
        headers: vec![("webhook-id".into(), "msg_1".into())],
        body: Bytes::from_static(body),
        received_at: queue::Timestamp::from_millis(0),
        signature: SignatureVerdict {
            verdict: SignatureState::Verified,
            detail: "good".into(),
            mistake: None,
        },
    }
}

#[tokio::test]
async fn an_inbox_is_made_and_what_it_recorded_is_read() {
    let world = World::new();
    let router = world.router();
    let made = ask(&router, "POST", &at("inboxes"), Value::Null).await.good();
    let id: InboxId = made["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(made["url"], format!("{PUBLIC_URL}/inbox/{id}"));
    assert!(made["pageUrl"].as_str().unwrap().starts_with(&format!("{PUBLIC_URL}/inboxes/{id}?token=")));
    assert_eq!(get(&router, &at("inboxes")).await.good()["items"], json!([made]));
    assert_eq!(get(&router, &at(&format!("inboxes/{id}"))).await.good(), made);

    let path = at(&format!("inboxes/{id}/requests"));
    assert_eq!(get(&router, &path).await.good(), json!({"items": [], "nextToken": "0"}));
    for body in [&b"{\"a\":1}"[..], &[0xff, 0x00]] {
        world.record(&id, captured(body)).await.unwrap();
    }
    let page = get(&router, &format!("{path}?limit=1")).await.good();
    let first = &page["items"][0];
    assert_eq!((&first["method"], &first["body"]), (&json!("POST"), &json!("{\"a\":1}")));
    assert_eq!(first["headers"]["webhook-id"], "msg_1");
    assert_eq!(first["signature"]["verdict"], "verified");
    assert_eq!(first.get("bodyEncoding"), None);
    let next = page["nextToken"].as_str().unwrap();
    let page = get(&router, &format!("{path}?after={next}")).await.good();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&page["items"][0]["body"], &page["items"][0]["bodyEncoding"]),
        (&json!("/wA="), &json!("base64"))
    );
}

#[tokio::test]
async fn a_recorded_request_is_sent_once_more_and_the_answer_is_told() {
    let world = World::new();
    let router = world.router();
    let made = ask(&router, "POST", &at("inboxes"), Value::Null).await.good();
    let id: InboxId = made["id"].as_str().unwrap().parse().unwrap();
    world.record(&id, captured(b"{}")).await.unwrap();
    let path = |number: &str| at(&format!("inboxes/{id}/requests/{number}/replay"));
    let to = |url: &str| json!({"url": url});
    let told = ask(&router, "POST", &path("1"), to("https://receiver.example/hook")).await.good();
    assert_eq!((&told["url"], &told["statusCode"]), (&json!("https://receiver.example/hook"), &json!(201)));
    assert_eq!((&told["response"], &told["headers"]["webhook-id"]), (&json!("{}"), &json!("msg_1")));
    assert_eq!((&told["durationMs"], &told["timings"]["connectMs"]), (&json!(1_234.567), &json!(2.0)));
    assert_eq!(told["reason"], Value::Null);

    let refused = ask(&router, "POST", &path("1"), to("http://receiver.example/hook")).await;
    assert!(refused.problem(422, "scheme").contains("`url` is refused"));
    let missing = ask(&router, "POST", &path("1"), json!({})).await;
    assert!(missing.problem(422, "invalid_value").contains("`url` is missing"));
    for unknown in ["2", "0", "-1", "01", "x", "9223372036854775807"] {
        let unknown = ask(&router, "POST", &path(unknown), to("https://receiver.example")).await;
        unknown.problem(404, "unknown_request");
    }
    world.hold().told.push("busy".into());
    let busy = ask(&router, "POST", &path("1"), to("https://receiver.example")).await;
    busy.problem(429, "too_many_replays");
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_an_inbox_may_wait() {
    let world = World::new();
    let router = world.router();
    let made = ask(&router, "POST", &at("inboxes"), Value::Null).await.good();
    let id: InboxId = made["id"].as_str().unwrap().parse().unwrap();
    let path = at(&format!("inboxes/{id}/requests?wait=20"));
    assert!(get(&router, &path).await.good()["items"].as_array().unwrap().is_empty());
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { get(&router, &path).await }
    });
    tokio::time::advance(Duration::from_secs(5)).await;
    world.record(&id, captured(b"late")).await.unwrap();
    assert_eq!(waiting.await.unwrap().good()["items"][0]["body"], "late");
}

#[tokio::test]
async fn a_link_to_an_inbox_ends_by_itself_and_with_the_address_it_was_made_from() {
    let world = World::new();
    let router = world.router();
    let made = ask(&router, "POST", &at("inboxes"), json!({"expiresInSeconds": 100_000})).await.good();
    let id: InboxId = made["id"].as_str().unwrap().parse().unwrap();
    let path = at(&format!("inboxes/{id}/links"));
    let now = world.now();
    for (asked, seconds) in [
        (Value::Null, 86_400),
        (json!({"expiresInSeconds": 60}), 60),
        // No later than the inbox itself.
        (json!({"expiresInSeconds": 604_800}), 100_000),
    ] {
        let link = ask(&router, "POST", &path, asked).await.good();
        let until = now.plus(Duration::from_secs(seconds));
        assert_eq!(link["expiresAt"], json!(until));
        let url = link["pageUrl"].as_str().unwrap();
        let token = url.strip_prefix(&format!("{PUBLIC_URL}/inboxes/{id}?token=")).unwrap();
        let inbox = world.inbox(&id).await.unwrap().unwrap();
        assert_eq!(inbox.link_end(token), Some(until));
        assert!(!url.contains(&inbox.view_token), "{url}");
    }
    for wrong in [json!(0), json!(604_801), json!("soon")] {
        let refused = ask(&router, "POST", &path, json!({"expiresInSeconds": wrong})).await;
        assert!(refused.problem(422, "invalid_value").contains("`expiresInSeconds`"), "{wrong}");
    }
    let link = ask(&router, "POST", &path, Value::Null).await.good();
    let token = link["pageUrl"].as_str().unwrap().rsplit('=').next().unwrap();
    ask(&router, "POST", &at(&format!("inboxes/{id}/share")), Value::Null).await.good();
    assert_eq!(world.inbox(&id).await.unwrap().unwrap().link_end(token), None);
}

#[tokio::test]
async fn so_many_read_what_an_inbox_recorded_at_once_and_others_wait_for_their_turn() {
    let world = World::new();
    let router = world.router();
    let made = ask(&router, "POST", &at("inboxes"), Value::Null).await.good();
    let id: InboxId = made["id"].as_str().unwrap().parse().unwrap();
    world.record(&id, captured(b"{}")).await.unwrap();
    let list = at(&format!("inboxes/{id}/requests?limit=1"));
    let replay = at(&format!("inboxes/{id}/requests/1/replay"));
    let reading: Vec<_> = (0..24)
        .map(|number| {
            let (router, list, replay) = (router.clone(), list.clone(), replay.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    get(&router, &list).await.good()
                } else {
                    ask(&router, "POST", &replay, json!({"url": "https://receiver.example"})).await.good()
                }
            })
        })
        .collect();
    for one in reading {
        one.await.unwrap();
    }
    assert_eq!(world.hold().reads, (0, 4));
}
