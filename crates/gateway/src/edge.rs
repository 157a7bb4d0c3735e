//! Around every route: what is not there, what is not allowed, what panics, what is counted.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use crate::listener::one_customer;
use crate::meter::RouteClass;
use crate::problem::{Problem, clip};
use crate::{Gateway, peer};

/// Counts the answer; a panic becomes one.
pub(crate) async fn surround<F>(
    gateway: &Gateway,
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let class = RouteClass::of(request.uri().path());
    let is_counted = gateway.rate_of_address.is_some() && class != RouteClass::Health;
    let client = (is_counted || tracing::enabled!(tracing::Level::DEBUG))
        .then(|| peer::client(&request, &gateway.options.trusted_proxies))
        .flatten();
    if let (true, Some(rate), Some(client)) = (is_counted, &gateway.rate_of_address, client)
        && let Err(problem) = rate.count(one_customer(client), Instant::now())
    {
        gateway.meter.responded(class, problem.status);
        return problem.into_response();
    }
    let answered = AssertUnwindSafe(answer(request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("nothing that can be shown");
        tracing::error!(panic.message = said, "a handler panicked");
        Problem::internal().into_response()
    });
    gateway.meter.responded(class, response.status());
    tracing::debug!(
        http.route = class.as_str(),
        http.status = response.status().as_u16(),
        client.address = client.map(tracing::field::display),
        "a request was answered"
    );
    response
}

/// 404 for a path that no route has.
pub(crate) async fn nothing_here(uri: Uri) -> Problem {
    Problem::not_found(
        "unknown_path",
        format!(
            "nothing is served at `{}`; functions are called with `POST /v4/{{project}}/{{app}}/{{function}}`",
            clip(uri.path())
        ),
    )
}

/// 405 for a path that has routes, but none of this method.
pub(crate) async fn not_this_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!(
            "`{}` does not take {}; the `Allow` header names what it takes",
            clip(uri.path()),
            clip(method.as_str())
        ),
    )
}
