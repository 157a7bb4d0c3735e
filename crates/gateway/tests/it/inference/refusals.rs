//! What bad input gets: a status, a code, and a message that says what to do. Nothing is kept of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use gateway::listener::Paced;
use http::{Request, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use queue::registry::BuildStatus;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{HOOK, Rig, call, deploy, open_app, predict, v3, v4};
use crate::fakes::{OTHER_PROJECT, PROJECT, TOKEN_SECRET, function, options, private_key, public_key, send};

/// Body → status, code, a part of the message; on every path.
#[tokio::test]
async fn unreadable_bodies_are_a_400_that_says_where() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(128), "]".repeat(128));
    let fits = format!("{{\"a\":{}{}}}", "[".repeat(127), "]".repeat(127));
    let table = [
        ("{\"a\": tru}", "invalid_json", "line 1, column 7"),
        ("{\"a\": 1", "invalid_json", "it ends inside an object"),
        ("{} {}", "invalid_json", "more text after the end"),
        ("[1, 2]", "not_an_object", "an array"),
        ("\"text\"", "not_an_object", "a string"),
        ("null", "not_an_object", "null"),
        (&deep, "json_too_deep", "128 levels"),
        ("{\"run_id\":1,\"run_id\":2}", "duplicate_key", "`run_id` twice"),
        (
            "{\"webhook_endpoint\":null,\"webhook_endpoint\":null}",
            "duplicate_key",
            "`webhook_endpoint` twice",
        ),
    ];
    for path in [v3("old/predict"), v4("old/predict"), "/old/predict".into()] {
        for (body, code, part) in table {
            let message = call(&router, &path, body).await.problem(400, code);
            assert!(message.contains(part), "{message}");
        }
        let reply = send(&router, "POST", &path, Some(&public_key(PROJECT)), &b"{\"a\":\"\xff\"}"[..]).await;
        assert!(reply.problem(400, "invalid_json").contains("UTF-8"));
        assert_eq!(call(&router, &path, &fits).await.status, 200);
        assert_eq!(call(&router, &path, " \n").await.status, 200);
    }
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_a_422_that_names_them() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    for path in [v3("new/run"), v4("new/run"), v4("new/run?async=true")] {
        assert!(call(&router, &path, "").await.problem(422, "missing_parameters").contains("`prompt`"));
        let body = r#"{"prompt":"x","promt":1}"#;
        assert!(call(&router, &path, body).await.problem(422, "unknown_parameters").contains("`promt`"));
        assert!(call(&router, &path, r#"{"prompt":"x","run_id":"mine"}"#).await.status.is_success());
    }
}

#[tokio::test]
async fn addresses_that_may_not_be_called_are_a_422_that_names_the_rule() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let long = format!("https://a.example/{}", "x".repeat(3_000));
    for (address, code) in [
        (json!("http://hooks.example/"), "scheme"),
        (json!("nonsense"), "syntax"),
        (json!(""), "syntax"),
        (json!(17), "webhook_endpoint"),
        (json!({"url": HOOK}), "webhook_endpoint"),
        (json!(true), "webhook_endpoint"),
        (json!(long), "too_long"),
    ] {
        let body = json!({"webhook_endpoint": address}).to_string();
        for path in [v3("old/predict"), v4("old/predict"), "/old/predict".into()] {
            call(&router, &path, &body).await.problem(422, code);
        }
        if let Value::String(address) = address {
            let path = v4(&format!("old/predict?webhookEndpoint={address}"));
            call(&router, &path, "{}").await.problem(422, code);
        }
    }
    call(&router, &v4("old/predict?async=perhaps"), "{}").await.problem(422, "invalid_parameter");
    assert!(rig.world.hold().accepted.is_empty() && rig.world.hold().calls.is_empty());
}

#[tokio::test]
async fn an_unknown_function_is_a_404_with_the_functions_there_are() {
    let rig = Rig::new();
    deploy(&rig.world);
    let message = call(&rig.router(), &v4("new/rum"), "{}").await.problem(404, "unknown_function");
    assert_eq!(message, "`new` has no function `rum`; it has `run`, `hooked`");
}

#[tokio::test]
async fn an_app_that_is_not_live_says_where_it_stands() {
    let rig = Rig::new();
    let app = rig.world.live_app(PROJECT, "early", vec![predict()]);
    let router = rig.router();
    let set = |status| {
        let mut held = rig.world.hold();
        let app = held.apps.get_mut(&app).unwrap();
        (app.live, app.latest_status) = (None, status);
    };
    set(BuildStatus::Building);
    let reply = call(&router, &v4("early/predict"), "{}").await;
    assert!(reply.problem(503, "not_deployed").contains("`building`"));
    assert!(reply.headers.contains_key("retry-after"));
    set(BuildStatus::InitFailure);
    let message = call(&router, &v4("early/predict"), "{}").await.problem(404, "not_deployed");
    assert!(message.contains("`init_failure`") && message.contains("build log"), "{message}");
}

/// Route × identity: who may call the apps of [`PROJECT`], and what the others read.
#[tokio::test]
async fn every_path_opens_to_the_projects_keys_and_to_nobody_else() {
    let rig = Rig::new();
    deploy(&rig.world);
    rig.world.live_app(PROJECT, "open", vec![predict()]);
    let router = rig.router();
    let token = token(&json!({"project_id": PROJECT, "sub": "ci", "iat": 1}), TOKEN_SECRET);
    let (public, private) = (public_key(PROJECT), private_key(PROJECT));
    let (foreign, foreign_private) = (public_key(OTHER_PROJECT), private_key(OTHER_PROJECT));
    let identities = [
        (Some(public.clone()), 200),
        (Some(format!("Bearer {public}")), 200),
        (Some(format!("bearer  {public} ")), 200),
        (Some(private.clone()), 200),
        (Some(format!("Bearer {private}")), 200),
        (Some(token.clone()), 200),
        (Some(format!("Bearer {token}")), 200),
        (Some(foreign), 404),
        (Some(foreign_private), 404),
        (Some("public-unknown".into()), 401),
        (Some("Bearer".into()), 401),
        (Some("Basic cHVibGljOng=".into()), 401),
        (None, 401),
    ];
    let routes = [
        v4("old/predict"),
        v3("old/predict"),
        format!("/v2/{PROJECT}/old/predict"),
        format!("/v1/{PROJECT}/old/predict"),
        format!("/{PROJECT}/old/predict"),
        "/old/predict".to_owned(),
    ];
    for route in &routes {
        for (key, status) in &identities {
            let reply = send(&router, "POST", route, key.as_deref(), "{}").await;
            assert_eq!(reply.status.as_u16(), *status, "{route} with {key:?}");
            if *status == 401 {
                assert_eq!(reply.headers["www-authenticate"], "Bearer");
                reply.problem(401, "unauthorized");
            }
        }
    }
}

#[tokio::test]
async fn another_projects_app_looks_like_none() {
    let rig = Rig::new();
    deploy(&rig.world);
    rig.world.live_app(OTHER_PROJECT, "theirs", vec![predict()]);
    let router = rig.router();
    let ask = async |path: &str| {
        let reply = call(&router, path, "{}").await;
        (reply.status, reply.body)
    };
    let theirs = ask(&format!("/v4/{OTHER_PROJECT}/theirs/predict")).await;
    assert_eq!(theirs.0, 404);
    assert_eq!(theirs, ask(&format!("/v4/{PROJECT}/theirs/predict")).await);
    assert_eq!(theirs, ask("/v4/p-99999999/theirs/predict").await);
    assert_eq!(theirs, ask("/v4/nonsense/theirs/predict").await);
    assert_eq!(theirs, ask("/theirs/predict").await);
    // Nor do their functions or their builds show.
    assert_eq!(theirs, ask(&format!("/v4/{OTHER_PROJECT}/theirs/missing")).await);
    call(&router, &v4("..%2Fx/predict"), "{}").await.problem(404, "unknown_app");
}

#[tokio::test]
async fn an_app_that_says_disable_auth_is_open_only_where_the_server_says_so_too() {
    let rig = Rig::new();
    rig.world.live_app_with(PROJECT, "open", vec![predict()], open_app());
    deploy(&rig.world);
    let closed = send(&rig.router(), "POST", &v4("open/predict"), None, "{}").await;
    assert!(closed.problem(401, "unauthorized").contains("--allow-open-apps"));

    let mut options = options();
    options.allow_open_apps = true;
    let router = rig.gateway(options).surface();
    assert_eq!(send(&router, "POST", &v4("open/predict"), None, "{}").await.status, 200);
    assert_eq!(send(&router, "POST", "/open/predict", Some("whatever"), "{}").await.status, 200);
    let message = send(&router, "POST", &v4("old/predict"), None, "{}").await.problem(401, "unauthorized");
    assert!(!message.contains("--allow-open-apps"));
}

fn token(claims: &Value, secret: &[u8]) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).unwrap()
}

#[tokio::test]
async fn tokens_that_prove_nothing_are_a_401() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    let now = 1_769_860_800;
    let good = |claims: Value| token(&claims, TOKEN_SECRET);
    let unsigned = format!(
        "{}.{}.",
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0",
        good(json!({"project_id": PROJECT})).split('.').nth(1).unwrap()
    );
    for accepted in [
        good(json!({"projectId": PROJECT, "iat": 1, "exp": now + 10})),
        good(json!({"project_id": PROJECT, "projectId": PROJECT, "sub": "a"})),
        good(json!({"project_id": PROJECT, "exp": now - 30})),
    ] {
        assert_eq!(send(&router, "POST", &v4("old/predict"), Some(&accepted), "{}").await.status, 200);
    }
    let expired = good(json!({"project_id": PROJECT, "exp": now - 61}));
    let reply = send(&router, "POST", &v4("old/predict"), Some(&expired), "{}").await;
    assert!(reply.problem(401, "unauthorized").contains("expired"));
    for refused in [
        token(&json!({"project_id": PROJECT}), b"another secret"),
        good(json!({"project_id": PROJECT, "nbf": now + 100})),
        good(json!({"project_id": "p-99999999"})),
        good(json!({"project_id": 7})),
        good(json!({"sub": "nobody"})),
        good(json!([PROJECT])),
        unsigned,
        "a.b.c".into(),
        "...".into(),
        "..".into(),
        "eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d".into(),
        format!("{}x", good(json!({"project_id": PROJECT}))),
        "x.".repeat(9_000),
        "é.ü.ß".into(),
    ] {
        let mut request = Request::post(v4("old/predict"));
        request = request.header("authorization", refused.as_bytes());
        let answer = router.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 401, "{refused}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_unread() {
    let rig = Rig::new();
    deploy(&rig.world);
    let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let request = Request::post(v4("old/predict"))
        .header("authorization", public_key(PROJECT))
        .header("content-length", (100 << 20) + 1)
        .body(never)
        .unwrap();
    assert_eq!(rig.router().oneshot(request).await.unwrap().status(), 413);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_up_to_the_limit() {
    let rig = Rig::new();
    deploy(&rig.world);
    let spaces = Bytes::from(vec![b' '; 1 << 20]);
    let chunks = move |count: usize| {
        let chunk = spaces.clone();
        Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, Infallible>(chunk.clone()))))
    };
    let key = public_key(PROJECT);
    let over = send(&rig.router(), "POST", &v4("old/predict"), Some(&key), chunks(101)).await;
    over.problem(413, "body_too_large");
    assert_eq!(send(&rig.router(), "POST", &v4("old/predict"), Some(&key), chunks(100)).await.status, 200);
}

#[tokio::test]
async fn compressed_bodies_are_a_415() {
    let rig = Rig::new();
    deploy(&rig.world);
    let request = |coding: &str| {
        Request::post(v4("old/predict"))
            .header("authorization", public_key(PROJECT))
            .header("content-encoding", coding)
            .body(Body::from("{}"))
            .unwrap()
    };
    assert_eq!(rig.router().oneshot(request("gzip")).await.unwrap().status(), 415);
    assert_eq!(rig.router().oneshot(request("Identity")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_400() {
    let rig = Rig::new();
    deploy(&rig.world);
    let broken = stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("reset"))]);
    let key = public_key(PROJECT);
    let reply = send(&rig.router(), "POST", &v4("old/predict"), Some(&key), Body::from_stream(broken)).await;
    reply.problem(400, "body_incomplete");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_a_408() {
    let rig = Rig::new();
    deploy(&rig.world);
    let stalled = stream::iter([Ok::<_, Infallible>(Bytes::from("{"))]).chain(stream::pending());
    let paced = Paced::new(Body::from_stream(stalled), Duration::from_secs(30), 1 << 10);
    let key = public_key(PROJECT);
    let reply = send(&rig.router(), "POST", &v4("old/predict"), Some(&key), Body::new(paced)).await;
    reply.problem(408, "body_too_slow");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_answer_in_json() {
    let rig = Rig::new();
    deploy(&rig.world);
    let router = rig.router();
    for path in ["/", "/nothing", "/v4/x", "/v5/p-1/a/b"] {
        send(&router, "GET", path, None, "").await.problem(404, "unknown_path");
    }
    // Below an app there may be a web server of its own: whether there is one is told to who has a key.
    let below = v4("old/predict/more");
    send(&router, "GET", &below, None, "").await.problem(401, "unauthorized");
    let key = public_key(PROJECT);
    send(&router, "GET", &below, Some(&key), "").await.problem(404, "unknown_path");
    let reply = send(&router, "GET", &v4("old/predict"), Some(&key), "").await;
    reply.problem(405, "method_not_allowed");
    assert_eq!(reply.headers["allow"], "POST");
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_server_goes_on() {
    let rig = Rig::new();
    async fn boom() -> StatusCode {
        panic!("boom")
    }
    let router = rig.gateway(options()).surface_with(axum::Router::new().route("/boom", get(boom)));
    let reply = send(&router, "GET", "/boom", None, "").await;
    assert!(!reply.problem(500, "internal").contains("boom"));
    assert_eq!(send(&router, "GET", "/healthz", None, "").await.status, 200);
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_a_503() {
    let rig = Rig::new();
    deploy(&rig.world);
    rig.world.hold().store_error = Some(queue::port::StoreError::Unavailable("gone".into()));
    call(&rig.router(), &v4("old/predict"), "{}").await.problem(503, "store_unavailable");
}

#[tokio::test]
async fn health_readiness_and_version_are_for_everybody() {
    let rig = Rig::new();
    let gateway = rig.gateway(options());
    let router = gateway.clone().surface();
    assert_eq!(
        send(&router, "GET", "/healthz", None, "").await.text(),
        r#"{"status":"ok","version":"0.0.0-test"}"#
    );
    assert_eq!(send(&router, "GET", "/readyz", None, "").await.status, 200);
    gateway.set_ready(false);
    send(&router, "GET", "/readyz", None, "").await.problem(503, "draining");
    assert_eq!(send(&router, "GET", "/healthz", None, "").await.status, 200);
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_for_the_private_key() {
    let rig = Rig::new();
    let router = rig.router();
    send(&router, "GET", "/metrics", None, "").await.problem(401, "unauthorized");
    send(&router, "GET", "/metrics", Some(&public_key(PROJECT)), "").await.problem(403, "forbidden");
    let reply = send(&router, "GET", "/metrics", Some(&private_key(PROJECT)), "").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "postback_up 1\n"));
    // The host that a plain proxy on this machine sends on.
    let from_loopback = || {
        let mut request =
            Request::get("/metrics").header("host", "127.0.0.1:4100").body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9))));
        request
    };
    assert_eq!(router.oneshot(from_loopback()).await.unwrap().status(), 200);
    let public = gateway::Options { public_url: "https://models.example.com".into(), ..options() };
    assert_eq!(rig.gateway(public).surface().oneshot(from_loopback()).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_function_named_like_anything_is_found_by_its_decoded_name() {
    let rig = Rig::new();
    rig.world.live_app(PROJECT, "uni", vec![function("größe", &[])]);
    assert_eq!(call(&rig.router(), &v4("uni/gr%C3%B6%C3%9Fe"), "{}").await.status, 200);
}
