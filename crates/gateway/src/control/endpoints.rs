//! Endpoints that were disabled once: listed, shown, enabled.

use axum::Json;
use axum::extract::State;
use queue::delivery::EndpointView;
use serde::Serialize;

use super::scope::OwnEndpoint;
use crate::Gateway;
use crate::auth::Control;
use crate::problem::Answer;

#[derive(Serialize)]
pub(super) struct EndpointList {
    items: Vec<EndpointView>,
}

/// The project's endpoints that were disabled once.
pub(super) async fn list(
    Control(project): Control,
    State(gateway): State<Gateway>,
) -> Answer<Json<EndpointList>> {
    Ok(Json(EndpointList { items: gateway.deliveries.endpoints(&project).await? }))
}

/// One of them.
pub(super) async fn show(OwnEndpoint { endpoint, .. }: OwnEndpoint) -> Json<EndpointView> {
    Json(endpoint)
}

#[derive(Serialize)]
pub(super) struct Enabled {
    replayed: u64,
}

/// Enables an endpoint and delivers what waits for it.
pub(super) async fn enable(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
) -> Answer<Json<Enabled>> {
    let replayed = gateway.deliveries.enable(&project, &endpoint.id).await?.unwrap_or(0);
    gateway.outbox.wake();
    Ok(Json(Enabled { replayed }))
}
