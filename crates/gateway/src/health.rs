//! `/healthz`, `/readyz`, `/metrics`: for whoever watches the server.

use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header;
use queue::registry::Scope;
use serde::Serialize;

use crate::problem::{Answer, Problem};
use crate::{Gateway, auth, peer};

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    version: &'a str,
}

/// The process lives.
async fn healthz(State(gateway): State<Gateway>) -> Response {
    Json(Health { status: "ok", version: &gateway.options.version }).into_response()
}

/// New work is welcome.
async fn readyz(State(gateway): State<Gateway>) -> Answer<Response> {
    if gateway.ready.load(Ordering::Relaxed) {
        Ok(Json(Health { status: "ready", version: &gateway.options.version }).into_response())
    } else {
        Err(Problem::unavailable("draining", "the server is stopping and takes no new work").retry_after(1))
    }
}

/// Prometheus text, for holders of a private key, and for callers on this machine while the server is for this
/// machine alone.
async fn metrics(State(gateway): State<Gateway>, request: Request) -> Answer<Response> {
    // Behind a public address every request may come from a proxy on this machine that says nothing of it.
    let public_url = &gateway.options.public_url;
    if !(peer::is_loopback_url(public_url) && peer::is_local(&request)) {
        let identity = auth::identify(&gateway, request.headers()).await?;
        if identity.scope != Scope::Everything {
            return Err(Problem::forbidden("the public key opens inference only; use the private key"));
        }
    }
    let text = (gateway.metrics)();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
