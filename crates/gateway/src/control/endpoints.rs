//! Endpoints that were disabled once: listed, shown, enabled.

use axum::Json;
use axum::extract::State;
use queue::delivery::EndpointView;
use serde::Serialize;

use super::scope::OwnEndpoint;
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, Problem};
use crate::unstoppable::Unstoppable;

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
    let enabled = async move {
        let replayed = gateway.deliveries.enable(&project, &endpoint.id).await?;
        gateway.outbox.wake();
        Ok::<_, Problem>(replayed.unwrap_or(0))
    };
    Ok(Json(Enabled { replayed: Unstoppable::new(enabled).await? }))
}
