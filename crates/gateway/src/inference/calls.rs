//! Calls by other rooms, whose callers are known there: the same way as every request, but for the key.

use async_trait::async_trait;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use queue::RunId;
use queue::port::Calls;
use queue::request::{FunctionAnswer, FunctionRequest};
use tokio::time::Instant;

use super::{Form, Names, infer};
use crate::Gateway;
use crate::auth::Credential;
use crate::problem::{Answer, Problem, REQUEST_ID};

#[async_trait]
impl Calls for Gateway {
    async fn call(&self, request: FunctionRequest) -> FunctionAnswer {
        let wanted = request.answer_bytes_max;
        let (run, response) = match ask(self, request).await {
            Ok(response) => (run_of(&response), response),
            Err(problem) => (problem.run_id, problem.into_response()),
        };
        let status = response.status().as_u16();
        let (body, bytes) = beginning(response.into_body(), wanted).await;
        FunctionAnswer { status, run, body, bytes }
    }
}

async fn ask(gateway: &Gateway, request: FunctionRequest) -> Answer<Response> {
    let project = request.app.project();
    let name = request.app.name();
    let function: String = url::form_urlencoded::byte_serialize(request.function.as_bytes()).collect();
    let path = format!("/v4/{project}/{name}/{function}?{}", request.query);
    let (parts, ()) = Request::post(path)
        .body(())
        .map_err(|_| Problem::bad_request("bad_path", "the query is no part of an address"))?
        .into_parts();
    let names = Names { project: Some(project.as_str()), app: name.as_str(), function: &request.function };
    let (credential, body) = (Credential::Known(&project), Body::from(request.body));
    infer(gateway, Form::V4, names, credential, &parts, body, Instant::now()).await
}

fn run_of(response: &Response) -> Option<RunId> {
    response.headers().get(REQUEST_ID)?.to_str().ok()?.parse().ok()
}

/// The beginning of a body, and the length of all of it.
async fn beginning(mut body: Body, wanted: usize) -> (Bytes, u64) {
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
