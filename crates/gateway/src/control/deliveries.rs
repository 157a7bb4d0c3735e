//! Deliveries: listed, shown, and made once more.

use axum::Json;
use axum::extract::State;
use queue::delivery::{DeliveryFilter, DeliveryState, DeliveryView, Endpoints, Redelivered};
use queue::run::{EndpointUrl, Receiver};
use queue::{DeliveryId, Timestamp};
use serde::Serialize;
use url::Url;

use super::request::{Fields, Params, unread};
use super::scope::{OwnDelivery, unknown_delivery};
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, Problem};

/// Deliveries of a page, when the caller says nothing.
const PAGE_DELIVERIES: usize = 100;

/// A page of deliveries, each with its last attempt.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeliveryPage {
    items: Vec<DeliveryView>,
    next_token: Option<String>,
}

/// The project's deliveries.
pub(super) async fn list(
    Control(project): Control,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<DeliveryPage>> {
    let limit = params.limit("limit", PAGE_DELIVERIES)?;
    let endpoint = params.text("endpoint").map(|text| endpoint("?endpoint=", text)).transpose()?;
    let receiver = params.text("receiver").map(|text| receiver("?receiver=", text)).transpose()?;
    let filter = DeliveryFilter {
        project,
        endpoints: endpoint.or(receiver),
        state: params.text("state").map(state).transpose()?,
        after: params.cursor::<DeliveryId>("nextToken")?,
        limit,
    };
    let items = gateway.deliveries.deliveries(filter).await?;
    let next_token = if items.len() == limit { items.last().map(|last| last.id.clone()) } else { None };
    Ok(Json(DeliveryPage { items, next_token }))
}

fn state(text: &str) -> Answer<DeliveryState> {
    DeliveryState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
        let words = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
        unread("state", &format!("one of {words}"), text)
    })
}

/// An endpoint in the form in which it is kept.
fn endpoint(field: &str, text: &str) -> Answer<Endpoints> {
    Ok(Endpoints::One(EndpointUrl::checked(address(field, text)?.as_str())))
}

/// A receiver, by its origin or by any of its endpoints.
fn receiver(field: &str, text: &str) -> Answer<Endpoints> {
    let origin = address(field, text)?.origin().ascii_serialization();
    Ok(Endpoints::Of(Receiver::stored(&origin)))
}

fn address(field: &str, text: &str) -> Answer<Url> {
    let mut url = Url::parse(text).map_err(|error| {
        let message = format!("`{field}` must be an address such as https://example.com/hook: {error}");
        Problem::unprocessable("invalid_value", message)
    })?;
    url.set_fragment(None);
    Ok(url)
}

/// One delivery.
pub(super) async fn show(OwnDelivery { delivery, .. }: OwnDelivery) -> Json<DeliveryView> {
    Json(delivery)
}

/// Makes one delivery once more.
pub(super) async fn redeliver(
    OwnDelivery { project, id, .. }: OwnDelivery,
    State(gateway): State<Gateway>,
) -> Answer<Json<DeliveryView>> {
    match gateway.actions.redeliver(project.clone(), id).await? {
        Redelivered::Due => {}
        Redelivered::UnderWay => {
            let message = "an attempt of this delivery is under way; look at how it ends first";
            return Err(Problem::conflict("under_way", message));
        }
        Redelivered::EndpointDisabled => {
            let message = "the endpoint of this delivery is disabled; enabling it delivers what waits for it";
            return Err(Problem::conflict("endpoint_disabled", message));
        }
        Redelivered::Unknown => return Err(unknown_delivery(&id.webhook_id())),
    }
    let view = gateway.deliveries.delivery(&project, id).await?;
    view.map(Json).ok_or_else(|| unknown_delivery(&id.webhook_id()))
}

#[derive(Serialize)]
pub(super) struct Count {
    redelivered: u64,
}

/// Makes all failed deliveries of some endpoints once more.
pub(super) async fn redeliver_failed(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<Count>> {
    fields.only(&["endpoint", "receiver", "since"])?;
    let endpoints = match (fields.text(&["endpoint"])?, fields.text(&["receiver"])?) {
        (Some(text), None) => endpoint("endpoint", text)?,
        (None, Some(text)) => receiver("receiver", text)?,
        _ => {
            let message =
                "say whose deliveries: `endpoint`, one address, or `receiver`, all addresses of an origin";
            return Err(Problem::unprocessable("invalid_value", message));
        }
    };
    let since = fields.text(&["since"])?.and_then(Timestamp::parse_rfc3339).ok_or_else(|| {
        let message =
            "`since` must be a time such as 2026-01-31T12:00:00Z: what failed earlier is left alone";
        Problem::unprocessable("invalid_value", message)
    })?;
    let redelivered = gateway.actions.redeliver_failed(project, endpoints, since).await?;
    Ok(Json(Count { redelivered }))
}
