//! Whose a thing is. A handler that takes [`OwnApp`], [`OwnBuild`], [`OwnRun`], [`OwnDelivery`] or
//! [`OwnInbox`] gets it only if it belongs to the caller's project; all others read the same bytes as for an unknown one.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use queue::delivery::{DeliveryView, EndpointView};
use queue::inbox::Inbox;
use queue::registry::{App, Build};
use queue::run::RunView;
use queue::{AppId, AppName, DeliveryId, ProjectId};

use crate::Gateway;
use crate::auth::{Caller, Control};
use crate::problem::{Answer, Problem, clip};

/// An app of the project.
pub(super) struct OwnApp(pub(super) Arc<App>);

/// A build of an app of the project.
pub(super) struct OwnBuild(pub(super) Build);

/// A run of the project; on a route with `{app}`, of that app. Control routes only.
pub(super) struct OwnRun(pub(super) RunView);

/// A run of the project, for any key.
pub(super) struct AnyKeysRun {
    pub(super) project: ProjectId,
    pub(super) run: RunView,
}

/// A delivery of the project.
pub(super) struct OwnDelivery {
    pub(super) project: ProjectId,
    pub(super) id: DeliveryId,
    pub(super) delivery: DeliveryView,
}

/// An endpoint of the project: disabled or set once, or one that its newest deliveries went to.
pub(super) struct OwnEndpoint {
    pub(super) project: ProjectId,
    pub(super) endpoint: EndpointView,
}

/// An inbox of the project.
pub(super) struct OwnInbox(pub(super) Inbox);

/// The app that a text names: by its id, or by its name within the project.
pub(super) async fn find_app(gateway: &Gateway, project: &ProjectId, text: &str) -> Answer<Arc<App>> {
    let by_id = text.parse::<AppId>().ok().filter(|id| id.project() == *project);
    let id = by_id.or_else(|| Some(AppId::new(project, &text.parse::<AppName>().ok()?)));
    let app = match id {
        Some(id) => gateway.registry.app(&id).await?,
        None => None,
    };
    app.ok_or_else(|| {
        let message = format!("this project has no app `{}`; `postback apps` lists those it has", clip(text));
        Problem::not_found("unknown_app", message)
    })
}

async fn find_run(gateway: &Gateway, project: &ProjectId, text: &str) -> Answer<RunView> {
    let Ok(id) = text.parse() else { return Err(unknown_run(text)) };
    if let Some(run) = gateway.runs.run(project, id).await? {
        return Ok(run);
    }
    match gateway.runs.removed(project, id).await? {
        Some(at) => Err(Problem::removed(id, at)),
        None => Err(unknown_run(text)),
    }
}

/// 404 for a run.
pub(super) fn unknown_run(text: &str) -> Problem {
    let message = format!(
        "this project has no run `{}`; finished runs are kept for 7 days, synchronous ones appear once they ended",
        clip(text)
    );
    Problem::not_found("unknown_run", message)
}

/// 404 for a delivery.
pub(super) fn unknown_delivery(text: &str) -> Problem {
    let message = format!(
        "this project has no delivery `{}`; `postback deliveries` lists those it has, which are kept with their runs",
        clip(text)
    );
    Problem::not_found("unknown_delivery", message)
}

/// 404 for an endpoint.
pub(super) fn unknown_endpoint(text: &str) -> Problem {
    let message = format!(
        "this project has no endpoint `{}` that was ever disabled or set; `postback endpoints` lists those",
        clip(text)
    );
    Problem::not_found("unknown_endpoint", message)
}

/// 404 for an inbox.
pub(super) fn unknown_inbox(text: &str) -> Problem {
    let message = format!("this project has no inbox `{}`; `postback inbox create` makes one", clip(text));
    Problem::not_found("unknown_inbox", message)
}

/// The value of a path parameter.
async fn param(parts: &mut Parts, gateway: &Gateway, name: &str) -> Answer<Option<String>> {
    let params = RawPathParams::from_request_parts(parts, gateway)
        .await
        .map_err(|_| Problem::bad_request("bad_path", "the path is not UTF-8"))?;
    Ok(params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
}

async fn required(parts: &mut Parts, gateway: &Gateway, name: &str) -> Answer<String> {
    Ok(param(parts, gateway, name).await?.unwrap_or_default())
}

impl FromRequestParts<Gateway> for OwnApp {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Control(project) = Control::from_request_parts(parts, gateway).await?;
        let text = required(parts, gateway, "app").await?;
        find_app(gateway, &project, &text).await.map(Self)
    }
}

impl FromRequestParts<Gateway> for OwnBuild {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let OwnApp(app) = OwnApp::from_request_parts(parts, gateway).await?;
        let text = required(parts, gateway, "build").await?;
        let build = match text.parse() {
            Ok(id) => gateway.registry.build(&id).await?,
            Err(_) => None,
        };
        build.filter(|build| build.app == app.id).map(Self).ok_or_else(|| unknown_build(&text))
    }
}

/// A build that is nobody's, or another app's.
pub(super) fn unknown_build(text: &str) -> Problem {
    let text = clip(text);
    let message = format!("this app has no build `{text}`; `postback apps builds` shows which there are");
    Problem::not_found("unknown_build", message)
}

impl FromRequestParts<Gateway> for OwnRun {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Control(project) = Control::from_request_parts(parts, gateway).await?;
        let app = match param(parts, gateway, "app").await? {
            Some(text) => Some(find_app(gateway, &project, &text).await?),
            None => None,
        };
        let text = required(parts, gateway, "run").await?;
        let run = find_run(gateway, &project, &text).await?;
        if app.is_some_and(|app| app.id != run.app) {
            return Err(unknown_run(&text));
        }
        Ok(Self(run))
    }
}

impl FromRequestParts<Gateway> for AnyKeysRun {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Caller(identity) = Caller::from_request_parts(parts, gateway).await?;
        let text = required(parts, gateway, "run").await?;
        let run = find_run(gateway, &identity.project, &text).await?;
        Ok(Self { project: identity.project, run })
    }
}

impl FromRequestParts<Gateway> for OwnDelivery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Control(project) = Control::from_request_parts(parts, gateway).await?;
        let text = required(parts, gateway, "delivery").await?;
        let Ok(id) = text.parse() else { return Err(unknown_delivery(&text)) };
        let delivery = gateway.deliveries.delivery(&project, id).await?;
        let delivery = delivery.ok_or_else(|| unknown_delivery(&text))?;
        Ok(Self { project, id, delivery })
    }
}

impl FromRequestParts<Gateway> for OwnEndpoint {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Control(project) = Control::from_request_parts(parts, gateway).await?;
        let text = required(parts, gateway, "endpoint").await?;
        let known = gateway.deliveries.endpoints(&project).await?;
        if let Some(endpoint) = known.into_iter().find(|known| known.id.as_str() == text) {
            return Ok(Self { project, endpoint });
        }
        let seen = gateway.deliveries.endpoint_figures(&project).await?;
        let mut seen = seen.into_iter().map(|seen| EndpointView::seen(&project, seen.url, seen.since));
        let endpoint = seen.find(|seen| seen.id.as_str() == text).ok_or_else(|| unknown_endpoint(&text))?;
        Ok(Self { project, endpoint })
    }
}

impl FromRequestParts<Gateway> for OwnInbox {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Control(project) = Control::from_request_parts(parts, gateway).await?;
        let text = required(parts, gateway, "inbox").await?;
        let inbox = match text.parse() {
            Ok(id) => gateway.inboxes.inbox(&id).await?,
            Err(_) => None,
        };
        inbox.filter(|inbox| inbox.project == project).map(Self).ok_or_else(|| unknown_inbox(&text))
    }
}
