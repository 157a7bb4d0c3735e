//! Endpoints: how they do, what became of them, and what people decide about them.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use queue::delivery::{Enabled, EndpointState, EndpointView};
use queue::figures::{EndpointFigures, ReceiverStanding};
use queue::limits::{BODY_LIMIT_BYTES_MIN, ENDPOINT_SETTINGS_MAX, REQUEST_BODY_BYTES_MAX};
use queue::run::EndpointUrl;
use queue::{DeliveryId, EndpointId, ProjectId, RunId};
use serde::Serialize;

use super::request::{Fields, refused};
use super::scope::{OwnEndpoint, unknown_endpoint};
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, Problem};

/// An endpoint with how it does.
#[derive(Serialize)]
pub(super) struct EndpointRow {
    #[serde(flatten)]
    view: EndpointView,
    /// By its newest attempts; null when none is among the newest of the project.
    figures: Option<EndpointFigures>,
}

/// An endpoint in full.
#[derive(Serialize)]
pub(super) struct EndpointDetail {
    #[serde(flatten)]
    row: EndpointRow,
    receiver: ReceiverStanding,
}

#[derive(Serialize)]
pub(super) struct EndpointList {
    items: Vec<EndpointRow>,
}

/// The project's endpoints: those that were disabled or set once, by address, then those that its newest deliveries
/// went to.
pub(super) async fn list(
    Control(project): Control,
    State(gateway): State<Gateway>,
) -> Answer<Json<EndpointList>> {
    let known = gateway.deliveries.endpoints(&project).await?;
    let mut seen = gateway.deliveries.endpoint_figures(&project).await?;
    for figures in &mut seen {
        // Those of one endpoint alone are shown with it.
        figures.last.clear();
        figures.next.clear();
    }
    let mut items: Vec<EndpointRow> = known
        .into_iter()
        .map(|view| {
            let figures = seen.iter().position(|seen| seen.url == view.url).map(|at| seen.remove(at));
            EndpointRow { view, figures }
        })
        .collect();
    items.extend(seen.into_iter().map(|figures| EndpointRow {
        view: EndpointView::seen(&project, figures.url.clone(), figures.since),
        figures: Some(figures),
    }));
    Ok(Json(EndpointList { items }))
}

/// One of them.
pub(super) async fn show(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
) -> Answer<Json<EndpointDetail>> {
    let seen = gateway.deliveries.endpoint_figures(&project).await?;
    let figures = seen.into_iter().find(|figures| figures.url == endpoint.url);
    let receiver = gateway.outbox.standing(&endpoint.url.receiver());
    Ok(Json(EndpointDetail { row: EndpointRow { view: endpoint, figures }, receiver }))
}

/// Sets what an endpoint takes, by its address: it need not be known yet.
pub(super) async fn set(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<EndpointView>> {
    fields.only(&["url", "bodyBytesMax"])?;
    let url = admitted(&gateway, &fields).await?;
    change(&gateway, &project, url, &fields).await
}

async fn admitted(gateway: &Gateway, fields: &Fields) -> Answer<EndpointUrl> {
    let Some(text) = fields.text(&["url"])? else {
        return Err(refused("`url` is missing: the address of the endpoint, as calls name it"));
    };
    let admitted = gateway.guard.check(text).await;
    let admitted = admitted
        .map_err(|refused| Problem::unprocessable(refused.rule, format!("`url` is refused: {refused}")))?;
    Ok(admitted.url)
}

/// The same for one that is known.
pub(super) async fn patch(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<EndpointView>> {
    fields.only(&["bodyBytesMax"])?;
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
    Ok(Json(match gateway.actions.enable_endpoint(project, endpoint.id).await? {
        Enabled::Replayed(replayed) => Replay { replayed, was_disabled: true },
        // Of one that never was disabled the store knows nothing.
        Enabled::Already | Enabled::Unknown => Replay { replayed: 0, was_disabled: false },
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Disabled {
    was_disabled: bool,
}

/// Disables an endpoint: what is due there waits for the enabling.
pub(super) async fn disable(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
) -> Answer<Json<Disabled>> {
    let changed = gateway.deliveries.disable(&project, endpoint.url).await?;
    Ok(Json(Disabled { was_disabled: !changed }))
}

/// A test event on its way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tested {
    run_id: RunId,
    delivery_id: String,
}

/// Has an endpoint told a test event.
pub(super) async fn test(
    OwnEndpoint { project, endpoint }: OwnEndpoint,
    State(gateway): State<Gateway>,
) -> Answer<(StatusCode, Json<Tested>)> {
    let fields = Fields::of([("url".to_owned(), endpoint.url.as_str().into())].into_iter().collect());
    // Rules may have changed since it was used.
    let url = admitted(&gateway, &fields).await?;
    tell(gateway, project, url).await
}

/// The same by the address of an endpoint, which need not be known yet.
pub(super) async fn test_address(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<(StatusCode, Json<Tested>)> {
    fields.only(&["url"])?;
    let url = admitted(&gateway, &fields).await?;
    tell(gateway, project, url).await
}

async fn tell(gateway: Gateway, project: ProjectId, url: EndpointUrl) -> Answer<(StatusCode, Json<Tested>)> {
    let known = gateway.deliveries.endpoints(&project).await?;
    if known.iter().any(|known| known.url == url && known.state == EndpointState::Disabled) {
        let message =
            "the endpoint is disabled, and a test event would wait with everything else; enable it first";
        return Err(Problem::conflict("endpoint_disabled", message));
    }
    let run_id = gateway.actions.test_endpoint(project, url).await?;
    let delivery_id = DeliveryId::outcome(run_id, 0).webhook_id();
    Ok((StatusCode::ACCEPTED, Json(Tested { run_id, delivery_id })))
}
