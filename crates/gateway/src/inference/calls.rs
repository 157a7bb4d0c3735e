//! Calls by other rooms, whose callers are known there: the same way as every request, but for the key.

use async_trait::async_trait;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::Request;
use queue::RunId;
use queue::port::Calls;
use queue::request::{FunctionAnswer, FunctionRequest};
use tokio::time::Instant;

use super::{Form, Names, infer};
use crate::Gateway;
use crate::auth::Credential;
use crate::inside::beginning;
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
