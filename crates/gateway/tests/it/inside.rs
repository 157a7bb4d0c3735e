//! The API asked from inside: as from outside with a key of the same scope, and never for another project.

use bytes::Bytes;
use gateway::Inside;
use http::StatusCode;
use queue::app::Function;
use queue::port::Api as _;
use queue::registry::{Identity, Scope};
use queue::request::{ApiAnswer, ApiRequest};
use serde_json::{Value, json};

use crate::fakes::{OTHER_PROJECT, PROJECT, World, function, private_key, public_key, send};

async fn ask(inside: &Inside, scope: Scope, method: &str, target: &str, body: &'static str) -> ApiAnswer {
    let request = ApiRequest {
        caller: Identity { project: PROJECT.parse().unwrap(), scope },
        method: method.to_owned(),
        target: target.to_owned(),
        headers: vec![("X-Request-From".into(), "a page".into())],
        body: Bytes::from_static(body.as_bytes()),
        answer_bytes_max: 1 << 20,
    };
    inside.ask(request).await
}

fn json_of(answer: &ApiAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// What is unknown in both projects, and what belongs to the other one.
const FILLED: [(&str, &str); 10] = [
    ("{app}", "demo"),
    ("{function}", "no_function"),
    ("{build}", "b-ffffffffffffffff"),
    ("{run}", "0190c4e0-0000-7000-8000-00000000abcd"),
    ("{inbox}", "ffffffffffffffffffffffffffffffff"),
    ("{delivery}", "0190c4e0-0000-7000-8000-00000000abcd"),
    ("{endpoint}", "ep-1"),
    ("{key}", "k-1"),
    ("{request}", "1"),
    ("{project}", PROJECT),
];

fn filled(path: &str) -> String {
    FILLED.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[tokio::test]
async fn whoever_is_known_gets_what_a_key_of_the_same_scope_gets() {
    let world = World::new();
    let (router, inside) = (world.router(), world.gateway().inside());
    world.live_app(PROJECT, "demo", Vec::<Function>::new());
    let document = send(&router, "GET", "/openapi.json", None, "").await.good();
    let mut walked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let (method, target) = (method.to_uppercase(), filled(path));
            assert!(!target.contains('{'), "{target}");
            // What is done for good, or made, is not the same the second time.
            if operation["x-final"] == true || (method == "POST" && !target.starts_with("/v")) {
                continue;
            }
            for (scope, key) in
                [(Scope::Everything, private_key(PROJECT)), (Scope::Inference, public_key(PROJECT))]
            {
                let told = send(&router, &method, &target, Some(&key), "[]").await;
                let answer = ask(&inside, scope, &method, &target, "[]").await;
                assert_eq!(answer.status, told.status.as_u16(), "{method} {target} as {scope:?}: {answer:?}");
                walked += 1;
            }
        }
    }
    assert!(walked > 80, "{walked}");
}

#[tokio::test]
async fn whoever_is_known_sees_nothing_of_another_project() {
    let world = World::new();
    let inside = world.gateway().inside();
    world.live_app(OTHER_PROJECT, "theirs", vec![function("run", &["prompt"])]);
    for target in [
        format!("/v2/projects/{OTHER_PROJECT}/apps"),
        format!("/v2/projects/{OTHER_PROJECT}/keys"),
        format!("/v2/projects/{PROJECT}/apps/{OTHER_PROJECT}-theirs"),
        format!("/v2/projects/{PROJECT}/apps/theirs"),
    ] {
        let answer = ask(&inside, Scope::Everything, "GET", &target, "").await;
        assert_eq!(answer.status, 404, "{target}: {answer:?}");
    }
    for target in [
        format!("/v4/{OTHER_PROJECT}/theirs/run"),
        format!("/v3/{OTHER_PROJECT}/theirs/run"),
        format!("/{OTHER_PROJECT}/theirs/predict"),
    ] {
        let answer = ask(&inside, Scope::Everything, "POST", &target, "{\"prompt\":1}").await;
        assert_eq!((answer.status, &json_of(&answer)["code"]), (404, &json!("unknown_app")), "{target}");
    }
    assert!(world.hold().told.is_empty());
}

#[tokio::test]
async fn what_is_no_request_and_what_is_not_of_the_api_is_answered_in_words() {
    let world = World::new();
    let inside = world.gateway().inside();
    for (method, target, status, code) in [
        ("GET", "not a target", StatusCode::BAD_REQUEST, "bad_path"),
        ("G T", "/openapi.json", StatusCode::BAD_REQUEST, "bad_path"),
        ("GET", "/dashboard/keys", StatusCode::NOT_FOUND, "unknown_path"),
        ("GET", "/metrics", StatusCode::NOT_FOUND, "unknown_path"),
        ("DELETE", "/openapi.json", StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
    ] {
        let answer = ask(&inside, Scope::Everything, method, target, "").await;
        assert_eq!(
            (answer.status, &json_of(&answer)["code"]),
            (status.as_u16(), &json!(code)),
            "{method} {target}"
        );
        assert!(
            answer.headers.iter().any(|(name, value)| name == "content-type" && value == "application/json")
        );
    }
}
