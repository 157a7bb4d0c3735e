//! Apps that are web servers of their own: whatever is asked below `/v4/{project}/{app}/` is for them, by any
//! method, on any path.
//!
//! A request passes through as it comes and so does its answer ([`visit`]); one that asks for `async=true` or a
//! webhook is kept as a run, whose input is the whole request, and its answer becomes the run's result. In the query
//! those two words are ours, with what goes with them; call options are headers, and count for runs alone: an app may
//! have words of its own for the rest.

mod forward;
mod switch;
mod visit;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};
use queue::app::{Contract, Function};
use queue::web::Head;
use tokio::time::Instant;
use tower::Service as _;

use super::promise::Order;
use super::queueing::Queueing;
use super::target::{self, Target};
use super::webhook::{self, Asked, Brought, InBody, Plan, Query};
use super::{Form, Names, body, call, idempotency, inert, promise};
use crate::auth::Credential;
use crate::problem::{Answer, Problem};
use crate::{CorsOrigins, Gateway};

/// What clients of OpenAI's API add to the address of a function.
const OPENAI: [&str; 4] = ["chat/completions", "completions", "embeddings", "embedding"];

/// A path below an app, as it stands in the request: project, app, and the rest without its first slash.
fn below_app(path: &str) -> Option<(&str, &str, &str)> {
    let (project, rest) = path.strip_prefix("/v4/")?.split_once('/')?;
    let (app, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let is_plain = |name: &str| !name.is_empty() && !name.contains('%');
    (is_plain(project) && is_plain(app)).then_some((project, app, rest))
}

/// Whether a request can only be meant for a web server: functions are called by POST, on paths of one name.
pub(crate) fn is_meant<B>(request: &http::Request<B>) -> bool {
    let Some((_, _, rest)) = below_app(request.uri().path()) else { return false };
    let is_function = !rest.is_empty() && !rest.contains('/')
        || rest.split_once('/').is_some_and(|(_, suffix)| OPENAI.contains(&suffix));
    let asks_for = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = asks_for.map_or(request.method().as_str().as_bytes(), HeaderValue::as_bytes);
    !(is_function && method == b"POST")
}

/// Answers such a request, or has `router` say that nothing of the kind is here.
pub(crate) async fn answer_or(gateway: &Gateway, mut router: Router, request: Request) -> Response {
    let origins = &gateway.options.cors_origins;
    if let Some(answer) = preflight(origins, &request) {
        return answer;
    }
    let uri = request.uri().clone();
    let Some((project, app, _)) = below_app(uri.path()) else {
        return router.call(request).await.unwrap_or_else(|never| match never {});
    };
    let names = Names { project: Some(project), app, function: "" };
    let target = target::find(gateway, Form::V4, names, Credential::InHeaders, request.headers()).await;
    let is_web = |target: &Target| target.app.live.as_ref().is_none_or(|live| live.config.runtime.is_some());
    let mut response = match target {
        Ok(target) if is_web(&target) => {
            let (parts, body) = request.into_parts();
            let answer = answer(gateway, target, &parts, body, Instant::now()).await;
            let mut response = inert(gateway, answer.unwrap_or_else(Problem::into_response));
            share(origins, &parts.headers, response.headers_mut());
            return response;
        }
        Err(problem) if problem.code != "unknown_app" => inert(gateway, problem.into_response()),
        // Whose app it is cannot be told from the answer.
        Ok(_) | Err(_) => return router.call(request).await.unwrap_or_else(|never| match never {}),
    };
    share(origins, &HeaderMap::new(), response.headers_mut());
    response
}

/// What a browser asks before a page of another origin may ask. It brings no key, so every app is answered for alike.
fn preflight(origins: &CorsOrigins, request: &Request) -> Option<Response> {
    let asked = request.headers();
    let method = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if request.method() != Method::OPTIONS || !asked.contains_key(header::ORIGIN) {
        return None;
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    share(origins, asked, headers);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    Some(response)
}

/// Says which pages may read an answer, whatever the app itself says.
fn share(origins: &CorsOrigins, asked: &HeaderMap, headers: &mut HeaderMap) {
    let allowed = match origins {
        CorsOrigins::Any => Some(HeaderValue::from_static("*")),
        CorsOrigins::These(origins) => asked.get(header::ORIGIN).cloned().filter(|origin| {
            origins.iter().any(|known| known.trim_end_matches('/').as_bytes() == origin.as_bytes())
        }),
    };
    match allowed {
        Some(allowed) => headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed),
        None => headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN),
    };
    headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
}

/// Answers a request to an app that has a web server, or none yet.
pub(super) async fn answer(
    gateway: &Gateway,
    mut target: Target,
    parts: &request::Parts,
    body: Body,
    began: Instant,
) -> Answer<Response> {
    let query = Query::read(Form::V4, parts.uri.query())?;
    let build = target.build()?.clone();
    if !query.is_asked() {
        return visit::answer(gateway, &target, &build, parts, body).await;
    }
    if forward::wants_switch(parts).is_some() {
        return Err(Problem::unprocessable(
            "invalid_parameter",
            "a WebSocket has no result to wait for or to send to a webhook; leave `async` and `webhookEndpoint` out",
        ));
    }
    let key = idempotency::key(&parts.headers)?;
    // On older paths options are headers alone; so they are here.
    let queueing = Queueing::read(Form::V3, parts)?;
    let brought = Brought::read(&parts.headers)?;
    let mut input = body::receive_encoded(&gateway.bodies, parts, body).await?;
    let head = forward::of_run(parts);
    let asked = Asked { query, body: InBody::default(), brought };
    let plan = webhook::plan(gateway, Form::V4, &build.config, asked).await?;
    queueing.check(Form::V4, !matches!(plan, Plan::Acknowledge(_)), &build.config)?;
    input.bytes = head.with_body(&input.bytes);
    let function = Function {
        name: Head::function(&head.target).to_owned(),
        contract: Contract::Keywords,
        parameters: Vec::new(),
        takes_any: true,
        streams: false,
    };
    target.bare = true;
    let order = Order { target: &target, build: &build, function: &function, input, key, queueing };
    match plan {
        Plan::Wait(told) | Plan::WaitAndTell(told) => call::wait_durably(gateway, order, told).await,
        Plan::Acknowledge(told) => promise::acknowledge(gateway, order, told, began).await,
    }
}

/// The refusal of a path that calls functions, which a web server has none of.
pub(super) fn no_functions(target: &Target) -> Problem {
    let app = &target.app.id;
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_function",
        format!(
            "`{}` is a web server of its own and has no functions; its paths are below `/v4/{}/{}/`",
            app.name(),
            app.project(),
            app.name()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_meant_for_a_server(method: &str, path: &str) -> bool {
        is_meant(&http::Request::builder().method(method).uri(path).body(()).unwrap())
    }

    #[test]
    fn what_functions_cannot_be_called_by_is_for_a_server() {
        for (method, path) in [
            ("GET", "/v4/p-1/a/run"),
            ("GET", "/v4/p-1/a"),
            ("POST", "/v4/p-1/a"),
            ("POST", "/v4/p-1/a/"),
            ("POST", "/v4/p-1/a/x/y"),
            ("POST", "/v4/p-1/a/run/"),
            ("DELETE", "/v4/p-1/a/run/completions"),
        ] {
            assert!(is_meant_for_a_server(method, path), "{method} {path}");
        }
        for (method, path) in [
            ("POST", "/v4/p-1/a/run"),
            ("POST", "/v4/p-1/a/run/chat/completions"),
            ("GET", "/v3/p-1/a/run"),
            ("GET", "/v4/p-1"),
            ("GET", "/v4/p-1/%61/run"),
            ("GET", "/v4//a/run"),
        ] {
            assert!(!is_meant_for_a_server(method, path), "{method} {path}");
        }
    }

    #[test]
    fn only_the_servers_own_word_on_origins_counts() {
        let mut asked = HeaderMap::new();
        asked.insert(header::ORIGIN, HeaderValue::from_static("https://a.example"));
        let shared = |origins: CorsOrigins| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://of.app"));
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            share(&origins, &asked, &mut headers);
            assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
            headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(shared(CorsOrigins::Any).as_deref(), Some("*"));
        let these = |origin: &str| CorsOrigins::These(vec![origin.to_owned()]);
        assert_eq!(shared(these("https://a.example/")).as_deref(), Some("https://a.example"));
        assert_eq!(shared(these("https://b.example")), None);
    }
}
