//! Waiting for the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use queue::limits::{CANCEL_GRACE, LEGACY_CALL_LIMIT};
use queue::outcome::{Code, Ending, Outcome, RunError};
use queue::port::{Call, Listener, Refused};
use queue::run::{Generation, Mode, RunState, RunView};
use queue::webhook::Metadata;
use queue::{ProjectId, RunId, answer};

use super::promise::{self, Order};
use super::respond;
use super::webhook::Told;
use crate::Gateway;
use crate::problem::{Answer, Problem};

/// How the answer to a call is written.
pub(super) struct Reply {
    pub(super) generation: Generation,
    pub(super) message: Message,
    metadata: Option<Metadata>,
    bare: bool,
}

impl Reply {
    /// To a caller of an app's own web server, which had something to say beside its answer.
    pub(super) fn to_visitor(limit: Duration) -> Self {
        let generation = Generation::V4;
        Self { generation, message: Message { generation, limit }, metadata: None, bare: true }
    }
}

/// Calls the function and answers with what it returned.
pub(crate) async fn wait(
    gateway: &Gateway,
    order: Order<'_>,
    metadata: Option<Metadata>,
) -> Answer<Response> {
    let (call, reply) = prepare(gateway, order, metadata, None);
    let run = call.id;
    let outcome = gateway.dispatch.call(call).await;
    answered(gateway, run, outcome, &reply)
}

/// The call that is to be made, and how it is answered.
pub(super) fn prepare(
    gateway: &Gateway,
    order: Order<'_>,
    metadata: Option<Metadata>,
    listener: Option<Arc<dyn Listener>>,
) -> (Call, Reply) {
    let generation = order.target.generation;
    let limit = limit_of(&order);
    let accepted_at = gateway.clock.now();
    let message = Message { generation, limit };
    let reply = Reply { generation, message, metadata: metadata.clone(), bare: order.target.bare };
    let call = Call {
        id: RunId::generate(accepted_at, &*gateway.entropy),
        app: Arc::clone(&order.target.app),
        function: order.function.name.as_str().into(),
        generation,
        // The share goes with the bytes, once a replica has them.
        input: order.input.into_bytes(),
        limit,
        accepted_at,
        metadata,
        listener,
        visitor: None,
    };
    (call, reply)
}

/// The answer to a call that was made.
pub(super) fn answered(
    gateway: &Gateway,
    run: RunId,
    outcome: Result<Outcome, Refused>,
    reply: &Reply,
) -> Answer<Response> {
    let outcome = outcome.map_err(|refused| Problem::from(refused).about(run))?;
    gateway.meter.accepted(reply.generation, Mode::Sync);
    respond_with(run, &outcome, reply)
}

fn limit_of(order: &Order<'_>) -> Duration {
    match order.target.generation {
        Generation::V4 => order.build.config.response_grace_period(),
        Generation::V3 | Generation::Legacy => LEGACY_CALL_LIMIT,
    }
}

/// Keeps the run as a promise to its webhook, or to whoever asks again under its key, and answers with
/// its outcome once that is recorded.
pub(crate) async fn wait_durably(gateway: &Gateway, order: Order<'_>, told: Told) -> Answer<Response> {
    let generation = order.target.generation;
    let message = Message { generation, limit: limit_of(&order) };
    let reply = Reply { generation, message, metadata: None, bare: order.target.bare };
    let project = order.target.app.id.project();
    let kept = promise::keep(gateway, order, Mode::Sync, told).await?;
    let mut response =
        ended(gateway, &project, kept.run, reply).await.unwrap_or_else(IntoResponse::into_response);
    kept.mark(&mut response);
    Ok(response)
}

/// The answer about a run that is kept, once it has ended.
async fn ended(gateway: &Gateway, project: &ProjectId, run: RunId, mut reply: Reply) -> Answer<Response> {
    let limit = reply.message.limit;
    gateway.runs.wait_for_end(run, limit + CANCEL_GRACE).await;
    let view = gateway.runs.run(project, run).await.map_err(|error| Problem::from(error).about(run))?;
    reply.metadata = view.as_ref().and_then(|view| view.metadata.clone());
    match view.and_then(|view| outcome(view, gateway)) {
        Some(outcome) => respond_with(run, &outcome, &reply),
        None => Err(Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            Code::Timeout.as_str(),
            format!(
                "the run did not end within {} s; it goes on, its result will be sent to its webhook if it has one, \
                 and can be asked for by its id, or by sending this request again if it had an `Idempotency-Key`",
                limit.as_secs()
            ),
        )
        .about(run)),
    }
}

/// The outcome that a view shows, once there is one.
fn outcome(view: RunView, gateway: &Gateway) -> Option<Outcome> {
    let ending = match view.state {
        RunState::Queued | RunState::Running => return None,
        RunState::Succeeded => Ending::Succeeded,
        RunState::Failed => Ending::Failed,
        RunState::Cancelled => Ending::Cancelled,
        RunState::Expired => Ending::Expired,
    };
    let fallback = view.error.as_ref().map_or(200, |error| error.code.http_status());
    Some(Outcome {
        ending,
        result: view.result,
        error: view.error,
        status_code: view.status_code.unwrap_or(fallback),
        run_time_ms: view.run_time_ms.unwrap_or(0.0),
        ended_at: view.ended_at.unwrap_or_else(|| gateway.clock.now()),
        build: view.build,
    })
}

fn respond_with(run: RunId, outcome: &Outcome, reply: &Reply) -> Answer<Response> {
    let status = StatusCode::from_u16(outcome.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match &outcome.error {
        None if reply.bare => Ok(respond(status, run, outcome.result.clone().unwrap_or_default())),
        None => {
            Ok(respond(status, run, answer::body(run, reply.generation, outcome, reply.metadata.as_ref())))
        }
        Some(error) => {
            let mut problem = Problem::new(status, error.code.as_str(), reply.message.of(error));
            if status == StatusCode::SERVICE_UNAVAILABLE {
                problem = problem.retry_after(5);
            }
            Err(problem.about(run))
        }
    }
}

/// What callers are told about errors: the same, but for limits, to which there is a way out.
#[derive(Clone, Copy)]
pub(super) struct Message {
    generation: Generation,
    limit: Duration,
}

impl Message {
    pub(super) fn of(self, error: &RunError) -> String {
        let secs = self.limit.as_secs();
        match (error.code, self.generation) {
            (Code::Timeout, Generation::V4) => format!(
                "the call did not end within {secs} s (`response_grace_period`) and was cancelled; raise that, and \
                 send a `webhook_endpoint` (or `?async=true&webhookEndpoint=…`) to be called back instead of waiting"
            ),
            (Code::Timeout, Generation::V3 | Generation::Legacy) => format!(
                "the call did not end within {secs} s and was cancelled; send a `webhook_endpoint` in the body to get \
                 a `run_id` at once and the result at that address, within the app's `response_grace_period`"
            ),
            _ => error.message.clone(),
        }
    }
}
