//! Requests of other rooms for somebody whom they know: the same routes, checks, bounds and words as from outside, but
//! for the key.

use std::sync::OnceLock;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use queue::port::Api;
use queue::request::{ApiAnswer, ApiRequest};
use serde_json::Value;
use tower::Service as _;

use crate::auth::Known;
use crate::problem::{Answer, Problem};
use crate::{Gateway, control, edge, inference};

/// The API from inside: what stands in the OpenAPI document, and nothing of other rooms.
///
/// Few servers are ever asked this way, so its parts, most of a megabyte, are made when they are asked for.
pub struct Inside {
    gateway: Gateway,
    router: OnceLock<Router>,
    document: OnceLock<Value>,
}

impl Inside {
    pub(crate) const fn new(gateway: Gateway) -> Self {
        Self { gateway, router: OnceLock::new(), document: OnceLock::new() }
    }

    fn router(&self) -> Router {
        let make = || {
            Router::new()
                .merge(inference::plain_routes())
                .merge(control::routes())
                .with_state(self.gateway.clone())
                .fallback(edge::nothing_here)
                .method_not_allowed_fallback(edge::not_this_method)
        };
        self.router.get_or_init(make).clone()
    }
}

#[async_trait]
impl Api for Inside {
    fn document(&self) -> &Value {
        self.document.get_or_init(|| {
            let options = &self.gateway.options;
            control::openapi(&options.public_url, &options.version)
        })
    }

    async fn ask(&self, request: ApiRequest) -> ApiAnswer {
        let wanted = request.answer_bytes_max;
        let response = match read(request) {
            Ok(request) => self.router().call(request).await.unwrap_or_else(|never| match never {}),
            Err(problem) => problem.into_response(),
        };
        told(response, wanted).await
    }
}

fn read(asked: ApiRequest) -> Answer<Request<Body>> {
    let mut request = Request::builder().method(asked.method.as_str()).uri(asked.target);
    for (name, value) in asked.headers {
        request = request.header(name, value.as_bytes());
    }
    request
        .extension(Known(asked.caller))
        .body(Body::from(asked.body))
        .map_err(|error| Problem::bad_request("bad_path", format!("this is no request: {error}")))
}

async fn told(response: Response, wanted: usize) -> ApiAnswer {
    let (parts, body) = response.into_parts();
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let headers = headers.collect();
    let (body, bytes) = beginning(body, wanted).await;
    ApiAnswer { status: parts.status.as_u16(), headers, body, bytes }
}

/// The beginning of a body, and the length of all of it.
pub(crate) async fn beginning(mut body: Body, wanted: usize) -> (Bytes, u64) {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    // One that breaks off is as long as what came.
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        let room = wanted - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    (kept.freeze(), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_long_answer_the_beginning_is_kept_and_all_is_counted() {
        let (kept, length) = beginning(Body::from("0123456789"), 4).await;
        assert_eq!((&kept[..], length), (&b"0123"[..], 10));
        let frames = ["ab", "cd", "ef"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let (kept, length) = beginning(Body::from_stream(futures_util::stream::iter(frames)), 5).await;
        assert_eq!((&kept[..], length), (&b"abcde"[..], 6));
    }
}
