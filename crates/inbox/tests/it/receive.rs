//! What senders meet.

use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::{Request, StatusCode};
use queue::inbox::SignatureState;
use queue::limits::INBOX_BODY_BYTES_MAX;
use queue::signature::SigningKey;
use tower::ServiceExt as _;

use crate::fake::{self, FORMER_SECRET, ID, Memory, NOON, SECRET};
use crate::{post, record, send, text};

#[tokio::test]
async fn any_method_at_any_path_is_recorded_as_it_came() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    for (method, path) in [
        ("GET", ""),
        ("POST", "/"),
        ("PUT", "/a/b?c=%20d"),
        ("DELETE", "/%ff"),
        ("PROPFIND", "//x"),
        ("OPTIONS", ""),
    ] {
        let request = Request::builder()
            .method(method)
            .uri(format!("/inbox/{ID}{path}"))
            .header("x-one", "1")
            .body(Body::from("body"))
            .unwrap();
        let response = send(&router, request).await;
        assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
        let last = memory.requests.lock().unwrap().last().cloned().unwrap();
        assert_eq!((last.method.as_str(), last.path), (method, format!("/inbox/{ID}{path}")));
        assert_eq!(last.headers, [("x-one".to_owned(), "1".to_owned())]);
        assert_eq!((&last.body[..], last.received_at), (&b"body"[..], NOON));
        assert_eq!(text(response).await, format!("{{\"id\":\"{}\"}}", last.id));
    }
}

#[tokio::test]
async fn a_request_is_answered_only_after_the_store_has_it() {
    let memory = Memory::new();
    memory.commits.forget_permits(usize::MAX);
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let mut answer = Box::pin(router.oneshot(post("{}")));
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut answer).is_pending(), "answered before it was durable");
        tokio::task::yield_now().await;
    }
    memory.commits.add_permits(1);
    assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
    assert_eq!(memory.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_in_trouble_asks_the_sender_to_come_again() {
    let memory = Memory::new();
    memory.broken.store(true, Ordering::Relaxed);
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let response = send(&router, post("{}")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let said = text(response).await;
    assert!(said.contains("\"code\":\"store_unavailable\"") && said.contains("send it again"), "{said}");
    // What the store says of itself is no business of whoever knows the address.
    assert!(!said.contains("the disk is full"), "{said}");
}

#[tokio::test]
async fn an_unknown_inbox_is_404() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    for id in ["ffffffffffffffffffffffffffffffff", "short", "%2e%2e"] {
        let response =
            send(&router, Request::post(format!("/inbox/{id}")).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let said = text(response).await;
        assert!(said.contains("`postback inbox create`") && said.contains("\"unknown_inbox\""), "{said}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_whether_announced_or_not() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let mut announced = post(Body::empty());
    let length = (INBOX_BODY_BYTES_MAX + 1).to_string();
    announced.headers_mut().insert("content-length", length.parse().unwrap());
    assert_eq!(send(&router, announced).await.status(), StatusCode::PAYLOAD_TOO_LARGE);

    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let chunks = std::iter::repeat_n(chunk, (INBOX_BODY_BYTES_MAX >> 20) + 1).map(Ok::<_, std::io::Error>);
    let streamed = post(Body::from_stream(stream::iter(chunks)));
    assert_eq!(send(&router, streamed).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(memory.requests.lock().unwrap().is_empty());
    // What was held for the refused body is free again.
    record(&router, "{}").await;
}

#[tokio::test]
async fn headers_are_bounded() {
    let router = fake::room(&Memory::new(), "http://127.0.0.1:4100").router();
    let mut many = post("{}");
    for index in 0..101 {
        many.headers_mut().append("x-many", index.into());
    }
    let mut long = post("{}");
    long.headers_mut().insert("x-long", "x".repeat(70 << 10).parse().unwrap());
    for request in [many, long] {
        assert_eq!(send(&router, request).await.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
}

#[tokio::test]
async fn a_broken_body_is_not_recorded() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let chunks = [Ok(Bytes::from_static(b"{\"a\":")), Err(std::io::Error::other("reset"))];
    let response = send(&router, post(Body::from_stream(stream::iter(chunks)))).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(memory.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_signature_is_judged_by_the_secret_of_the_inboxs_project() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let signature = SigningKey::parse(SECRET).unwrap().sign("msg_1", NOON, b"{}");
    let former = SigningKey::parse(FORMER_SECRET).unwrap().sign("msg_1", NOON, b"{}");
    let signed = |signature: &str, body: &'static str| {
        let mut request = post(body);
        let headers = request.headers_mut();
        headers.insert("webhook-id", "msg_1".parse().unwrap());
        headers.insert("webhook-timestamp", NOON.as_secs().into());
        headers.insert("webhook-signature", signature.parse().unwrap());
        request
    };
    for (request, expected) in [
        (signed(&signature, "{}"), SignatureState::Verified),
        (signed(&former, "{}"), SignatureState::Verified),
        (signed(&signature, "{ }"), SignatureState::Invalid),
        (signed("v1,nonsense", "{}"), SignatureState::Invalid),
        (post("{}"), SignatureState::Missing),
    ] {
        send(&router, request).await;
        let last = memory.requests.lock().unwrap().last().cloned().unwrap();
        assert_eq!(last.signature.verdict, expected, "{}", last.signature.detail);
    }
}

#[tokio::test]
async fn a_signature_over_a_large_body_keeps_nobody_waiting() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let body = vec![b'x'; 1 << 20];
    let signature = SigningKey::parse(SECRET).unwrap().sign("msg_1", NOON, &body);
    let mut request = post(body);
    for (name, value) in [("webhook-id", "msg_1".to_owned()), ("webhook-signature", signature)] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request.headers_mut().insert("webhook-timestamp", NOON.as_secs().into());
    let mut answered = Box::pin(send(&router, request));
    // The body is there and the store has room: all that is waited for is the judging, elsewhere.
    assert!(futures_util::poll!(&mut answered).is_pending());
    assert_eq!(answered.await.status(), StatusCode::OK);
    let last = memory.requests.lock().unwrap().last().cloned().unwrap();
    assert_eq!(last.signature.verdict, SignatureState::Verified, "{}", last.signature.detail);
}

#[tokio::test]
async fn answers_are_inert_and_carry_no_cookie() {
    let memory = Memory::new();
    let router = fake::room(&memory, "http://127.0.0.1:4100").router();
    let mut request = post("<script>alert(1)</script>");
    request.headers_mut().insert("cookie", "__Host-postback=secret; theirs=1".parse().unwrap());
    request.headers_mut().insert("set-cookie", "a=b".parse().unwrap());
    let unknown = Request::post("/inbox/nowhere").body(Body::empty()).unwrap();
    for response in [send(&router, request).await, send(&router, unknown).await] {
        let headers = response.headers();
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("sandbox;"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!headers.contains_key("set-cookie"));
    }
    let recorded = format!("{:?}", memory.requests.lock().unwrap());
    assert!(!recorded.contains("secret") && recorded.contains("theirs=1"));
}
