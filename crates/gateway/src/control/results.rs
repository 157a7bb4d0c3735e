//! A run's result for whoever holds its link: what receivers follow that got a thin webhook body.

use axum::body::Body;
use axum::extract::{RawPathParams, State};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use queue::link::{EXPIRES, SIGNATURE};
use queue::{ProjectId, RunId};

use super::request::Params;
use crate::Gateway;
use crate::problem::{Answer, JSON, Problem};

/// The result, as the model made it. The link is its own proof: no key is asked for, and who has no proof
/// cannot learn whether there is such a run.
pub(super) async fn show(
    State(gateway): State<Gateway>,
    path: RawPathParams,
    params: Params,
) -> Answer<Response> {
    let part = |wanted: &str| path.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let read = || {
        let project: ProjectId = part("project")?.parse().ok()?;
        let run: RunId = part("run")?.parse().ok()?;
        let expires: i64 = params.text(EXPIRES)?.parse().ok()?;
        let ours = gateway.options.result_links.is_ours(&project, run, expires, params.text(SIGNATURE)?);
        ours.then_some((project, run, expires))
    };
    let Some((project, run, expires)) = read() else {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "bad_link",
            "this is no link that the server made; follow `result_url` of the webhook to the last character",
        ));
    };
    if gateway.clock.now().as_secs() > expires {
        let message =
            "this link is too old; ask for the delivery to be made once more, it brings a fresh one";
        return Err(gone("link_expired", message).about(run));
    }
    let result = gateway.runs.run(&project, run).await?.and_then(|run| run.result);
    let result = result.ok_or_else(|| {
        gone("result_gone", "the result was removed: results are kept for 7 days after the delivery")
            .about(run)
    })?;
    let mut response = Response::new(Body::from(result));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    for (name, value) in [
        (header::CACHE_CONTROL, "private, no-store"),
        // What a model made is no page of this origin.
        (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn gone(code: &'static str, message: &'static str) -> Problem {
    Problem::new(StatusCode::GONE, code, message)
}
