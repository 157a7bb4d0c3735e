//! Inference: the three generations of paths that call a function of an app.
//!
//! | path | generation |
//! |---|---|
//! | `POST /v4/{project}/{app}/{function}` | v4 |
//! | `POST /v4/{project}/{app}/{function}/chat/completions` and the like | v4, as OpenAI's clients call it |
//! | `POST /v3/{project}/{app}/{function}` | v3; `stream` is `predict`, told as it comes |
//! | `POST /v1/…`, `/v2/{project}/{app}/predict`, `/{project}/{app}/predict` | legacy |
//! | `POST /{app}/predict`, `/{model}-webhook/predict` | legacy, on the default project |
//! | any method, `/v4/{project}/{app}/…` | v4, for an app that is a web server ([`web`]) |
//!
//! Each request goes one way: find the app ([`target`]), read the body ([`body`]), check it
//! ([`arguments`], [`webhook`], [`idempotency`]), then either keep the run ([`promise`]) or wait for it ([`call`]).

mod arguments;
mod body;
mod call;
mod calls;
mod idempotency;
mod promise;
mod queueing;
mod streaming;
mod target;
pub(crate) mod web;
mod webhook;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header, request};
use queue::RunId;
use queue::run::Generation;
use tokio::time::Instant;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::auth::{Credential, Known};
use crate::problem::{Answer, JSON, Problem, REQUEST_ID, run_header};
use crate::{CorsOrigins, Gateway, edge, scan};

pub(crate) use body::Budget;

/// How a path names its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    V4,
    /// v4, below a function: the paths that clients of OpenAI's API add to the address they are given.
    OpenAi,
    V3,
    /// Legacy, with the project in the path.
    Named,
    /// Legacy, on the default project.
    Bare,
}

impl Form {
    const fn generation(self) -> Generation {
        match self {
            Self::V4 | Self::OpenAi => Generation::V4,
            Self::V3 => Generation::V3,
            Self::Named | Self::Bare => Generation::Legacy,
        }
    }
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    /// `None` on a path that means the default project.
    project: Option<&'a str>,
    app: &'a str,
    function: &'a str,
}

impl<'a> Names<'a> {
    fn of(params: &'a RawPathParams) -> Self {
        let mut names = Self { project: None, app: "", function: PREDICT };
        for (param, value) in params {
            match param {
                "project" => names.project = Some(value),
                "app" => names.app = value,
                "function" => names.function = value,
                _ => {}
            }
        }
        names
    }
}

/// A request that calls a function, as can be seen without a router.
pub(crate) struct Direct {
    form: Form,
    uri: Uri,
}

impl Direct {
    /// `POST /v4/{project}/{app}/{function}` or its like of v3, spelled plainly and not from a web page.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Option<Self> {
        // A page's request is answered with the headers that its browser wants to see.
        if request.method() != Method::POST || request.headers().contains_key(header::ORIGIN) {
            return None;
        }
        let (form, _) = named_plainly(request.uri().path())?;
        Some(Self { form, uri: request.uri().clone() })
    }

    /// Answers the request.
    pub(crate) async fn answer(self, gateway: Gateway, request: Request) -> Response {
        let names = named_plainly(self.uri.path()).map(|(_, names)| names);
        let names = names.expect("the path is the one that was looked at");
        answer(gateway, self.form, names, Credential::InHeaders, request).await
    }
}

fn named_plainly(path: &str) -> Option<(Form, Names<'_>)> {
    let (form, rest) = match path.strip_prefix("/v4/") {
        Some(rest) => (Form::V4, rest),
        None => (Form::V3, path.strip_prefix("/v3/")?),
    };
    let (project, rest) = rest.split_once('/')?;
    let (app, function) = rest.split_once('/')?;
    let is_plain = |name: &str| !name.is_empty() && !name.contains(['/', '%']);
    // `/v3/projects/…` is the control plane's.
    let all_plain = is_plain(project) && project != "projects" && is_plain(app) && is_plain(function);
    all_plain.then_some((form, Names { project: Some(project), app, function }))
}

/// The function that the older paths call.
const PREDICT: &str = "predict";

const PATHS: [(&str, Form); 10] = [
    ("/v4/{project}/{app}/{function}", Form::V4),
    ("/v4/{project}/{app}/{function}/chat/completions", Form::OpenAi),
    ("/v4/{project}/{app}/{function}/completions", Form::OpenAi),
    ("/v4/{project}/{app}/{function}/embeddings", Form::OpenAi),
    ("/v4/{project}/{app}/{function}/embedding", Form::OpenAi),
    ("/v3/{project}/{app}/{function}", Form::V3),
    ("/v2/{project}/{app}/predict", Form::Named),
    ("/v1/{project}/{app}/predict", Form::Named),
    ("/{project}/{app}/predict", Form::Named),
    ("/{app}/predict", Form::Bare),
];

pub(crate) fn routes(origins: &CorsOrigins) -> Router<Gateway> {
    plain_routes().layer(cors(origins))
}

/// The same for whoever is no web page.
pub(crate) fn plain_routes() -> Router<Gateway> {
    PATHS.into_iter().fold(Router::new(), |router, (path, form)| {
        let handler = async move |State(gateway): State<Gateway>, params: RawPathParams, request: Request| {
            let known = request.extensions().get::<Known>().cloned();
            let credential = match &known {
                Some(Known(identity)) => Credential::Known(&identity.project),
                None => Credential::InHeaders,
            };
            answer(gateway, form, Names::of(&params), credential, request).await
        };
        // The fallback has to stand here to be inside CORS, which answers preflights.
        router.route(path, post(handler).fallback(edge::not_this_method))
    })
}

fn cors(origins: &CorsOrigins) -> CorsLayer {
    let origins = match origins {
        CorsOrigins::Any => AllowOrigin::any(),
        CorsOrigins::These(origins) => AllowOrigin::list(
            origins.iter().filter_map(|origin| HeaderValue::from_str(origin.trim_end_matches('/')).ok()),
        ),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, header::RETRY_AFTER, idempotency::REPLAYED])
        .max_age(Duration::from_secs(3600))
}

/// Answers one request, whatever becomes of it.
async fn answer(
    gateway: Gateway,
    form: Form,
    names: Names<'_>,
    credential: Credential<'_>,
    request: Request,
) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let response = match infer(&gateway, form, names, credential, &parts, body, began).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    inert(&gateway, response)
}

/// Models return what they like; in a browser it must not become a page of this origin.
fn inert(gateway: &Gateway, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, run_header(gateway.new_run_id()));
    }
    response
}

async fn infer(
    gateway: &Gateway,
    form: Form,
    names: Names<'_>,
    credential: Credential<'_>,
    parts: &request::Parts,
    body: Body,
    began: Instant,
) -> Answer<Response> {
    let key = idempotency::key(&parts.headers);
    let queueing = queueing::Queueing::read(form, parts);
    let brought = webhook::Brought::read(&parts.headers);
    let target = target::find(gateway, form, names, credential, &parts.headers).await?;
    let build = target.build()?;
    if build.config.runtime.is_some() {
        return match form {
            Form::V4 | Form::OpenAi => web::answer(gateway, target, parts, body, began).await,
            Form::V3 | Form::Named | Form::Bare => Err(web::no_functions(&target)),
        };
    }
    let (key, queueing, brought) = (key?, queueing?, brought?);
    let function = target.function(build)?;
    let mut input = body::receive(&gateway.bodies, parts, body).await?;
    if scan::is_blank(&input.bytes) {
        input.bytes = Bytes::from_static(b"{}");
    }
    let mut says_stream = false;
    let asked = {
        let mut arguments = arguments::Arguments::of(function);
        let note = |key: &str| {
            says_stream |= key == "stream";
            arguments.note(key);
        };
        let said = scan::scan(&input.bytes, note).map_err(|error| bad_body(&error))?;
        arguments.check()?;
        let query = webhook::Query::read(form, parts.uri.query())?;
        webhook::Asked { query, body: webhook::InBody::read(form, function, said)?, brought }
    };
    let plan = webhook::plan(gateway, form, &build.config, asked).await?;
    queueing.check(form, !matches!(plan, webhook::Plan::Acknowledge(_)), &build.config)?;
    let kept = key.is_some() || queueing.is_asked();
    let spoken = says_stream.then_some(&input.bytes);
    let streams = matches!(plan, webhook::Plan::Wait(_))
        && !kept
        && streaming::is_wanted(&target, function, &parts.headers, spoken);
    let order = promise::Order { target: &target, build, function, input, key, queueing };
    match plan {
        webhook::Plan::Wait(told) if streams => streaming::answer(gateway, order, told.metadata).await,
        webhook::Plan::Wait(told) if kept => call::wait_durably(gateway, order, told).await,
        webhook::Plan::Wait(told) => call::wait(gateway, order, told.metadata).await,
        webhook::Plan::WaitAndTell(told) => call::wait_durably(gateway, order, told).await,
        webhook::Plan::Acknowledge(told) => promise::acknowledge(gateway, order, told, began).await,
    }
}

fn bad_body(error: &scan::ScanError) -> Problem {
    Problem::bad_request(error.code(), error.to_string())
}

/// An answer about a run.
fn respond(status: StatusCode, run: RunId, body: Bytes) -> Response {
    const TYPE: HeaderName = header::CONTENT_TYPE;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(TYPE, JSON);
    response.headers_mut().insert(REQUEST_ID, run_header(run));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_that_says_plainly_what_it_calls_passes_the_router_by() {
        let names = |project, app, function| Names { project: Some(project), app, function };
        assert_eq!(named_plainly("/v4/p-1/a/run"), Some((Form::V4, names("p-1", "a", "run"))));
        assert_eq!(named_plainly("/v3/p-1/a/predict"), Some((Form::V3, names("p-1", "a", "predict"))));
        for other in [
            "/v4/p-1/a",
            "/v4/p-1/a/",
            "/v4/p-1//run",
            "/v4//a/run",
            "/v4/p-1/a/run/",
            "/v4/p-1/a/run/chat",
            "/v4/p-1/%61/run",
            "/v4/p-1/a/r%2Fn",
            "/v3/projects/p-1/run",
            "/v2/p-1/a/run",
            "/p-1/a/predict",
            "/v4",
            "",
        ] {
            assert_eq!(named_plainly(other), None, "{other}");
        }
    }
}
