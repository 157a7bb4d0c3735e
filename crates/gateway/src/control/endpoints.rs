//! Endpoints of which there is something to say: listed, shown, enabled, and told what they take.

use axum::Json;
use axum::extract::State;
use queue::delivery::{Enabled, EndpointView};
use queue::limits::{BODY_LIMIT_BYTES_MIN, ENDPOINT_SETTINGS_MAX, REQUEST_BODY_BYTES_MAX};
use queue::run::EndpointUrl;
use queue::{EndpointId, ProjectId};
use serde::Serialize;

use super::request::{Fields, refused};
use super::scope::{OwnEndpoint, unknown_endpoint};
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

/// Sets what an endpoint takes, by its address: it need not be known yet.
pub(super) async fn set(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<EndpointView>> {
    let Some(text) = fields.text(&["url"])? else {
        return Err(refused("`url` is missing: the address of the endpoint, as calls name it"));
    };
    let admitted = gateway.guard.check(text).await;
    let admitted = admitted
        .map_err(|refused| Problem::unprocessable(refused.rule, format!("`url` is refused: {refused}")))?;
    change(&gateway, &project, admitted.url, &fields).await
}

/// The same for one that is known.
pub(super) async fn patch(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<EndpointView>> {
    change(&gateway, &project, endpoint.url, &fields).await
}

async fn change(
    gateway: &Gateway,
    project: &ProjectId,
    url: EndpointUrl,
    fields: &Fields,
) -> Answer<Json<EndpointView>> {
    let range = BODY_LIMIT_BYTES_MIN..=REQUEST_BODY_BYTES_MAX as u64;
    let bytes_max = fields.whole(&["bodyBytesMax"], range)?;
    let id = EndpointId::of(project, &url);
    if !gateway.deliveries.set_body_limit(project, url, bytes_max).await? {
        return Err(refused(format!(
            "{ENDPOINT_SETTINGS_MAX} endpoints of this project have a limit already; take one away first"
        )));
    }
    let known = gateway.deliveries.endpoints(project).await?;
    known.into_iter().find(|known| known.id == id).map(Json).ok_or_else(|| unknown_endpoint(id.as_str()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replay {
    replayed: u64,
    was_disabled: bool,
}

/// Enables an endpoint and delivers what waits for it. One that is enabled stays so.
pub(super) async fn enable(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
) -> Answer<Json<Replay>> {
    let enabled = async move {
        let enabled = gateway.deliveries.enable(&project, &endpoint.id).await?;
        gateway.outbox.wake();
        match enabled {
            Enabled::Replayed(replayed) => Ok(Replay { replayed, was_disabled: true }),
            Enabled::Already => Ok(Replay { replayed: 0, was_disabled: false }),
            Enabled::Unknown => Err(unknown_endpoint(endpoint.id.as_str())),
        }
    };
    Unstoppable::new(enabled).await.map(Json)
}
