//! The room driven through its router, over ports in memory.

mod fake;
mod large;
mod links;
mod live;
mod page;
mod receive;
mod reply;
mod views;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// More than any step needs; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request through the router.
async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    tokio::time::timeout(PATIENCE, router.clone().oneshot(request))
        .await
        .expect("an answer")
        .expect("infallible")
}

/// The whole body as text.
async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8(bytes.into()).expect("text")
}

/// A GET as a browser sends it.
fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "127.0.0.1:4100").body(Body::empty()).expect("a request")
}

/// A POST to the inbox.
fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post(format!("/inbox/{}", fake::ID))
        .header("host", "127.0.0.1:4100")
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request")
}

/// An address under the inbox's page, with its token.
fn page(rest: &str) -> String {
    format!("/inboxes/{}{rest}?token={}", fake::ID, fake::TOKEN)
}

/// Records one body.
async fn record(router: &Router, body: impl Into<Body>) {
    assert_eq!(send(router, post(body)).await.status(), StatusCode::OK);
}
