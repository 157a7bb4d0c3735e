//! Apps: registered, listed, shown, scaled, deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use queue::app::{AppConfig, Contract, Function, Parameter};
use queue::event::{AppEvent, EventKind};
use queue::registry::{App, BuildStatus, NewBuild};
use queue::unstoppable::Unstoppable;
use queue::web::CustomRuntime;
use queue::{AppId, BuildId, ProjectId, Timestamp};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::request::{Fields, refused};
use super::scope::OwnApp;
use super::{builds, config};
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, Problem, clip};

/// Bytes of chance in an upload token.
const UPLOAD_TOKEN_BYTES: usize = 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Registered {
    build_id: BuildId,
    app_id: AppId,
    status: BuildStatus,
    upload_url: String,
    key_name: String,
    internal_endpoint: String,
    dashboard_url: String,
    warnings: Vec<String>,
}

/// Registers a build, and its app with it when that is new.
pub(super) async fn create(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<Registered>> {
    let app = AppId::new(&project, &config::name(&fields)?);
    let hardware = gateway.replicas.hardware();
    let mut config = config::read(&fields, &hardware)?;
    let warnings = config::warnings(&fields, &config, &hardware);
    check_endpoints(&gateway, &mut config).await?;
    let token = gateway.entropy.hex(UPLOAD_TOKEN_BYTES);
    let new = NewBuild {
        id: BuildId::generate(gateway.entropy.as_ref()),
        app: app.clone(),
        config,
        upload_token_hash: Sha256::digest(token.as_bytes()).into(),
        created_at: gateway.clock.now(),
    };
    // The store would only mark it; this also stops the work on it.
    if let Some(known) = gateway.registry.app(&app).await?
        && !known.latest_status.is_final()
    {
        gateway.builds.cancel(&known.latest_build).await?;
    }
    let build = gateway.registry.register_build(new).await?;
    metrics::counter!("postback_builds_registered_total").increment(1);
    tracing::info!(app.id = %app, build.id = %build.id, "a build was registered");
    Ok(Json(Registered {
        upload_url: builds::upload_url(&gateway, &build.id, &token),
        key_name: format!("{app}/{}.zip", build.id),
        internal_endpoint: endpoint(&gateway, &app),
        dashboard_url: page(&gateway, &app),
        build_id: build.id,
        app_id: app,
        status: build.status,
        warnings,
    }))
}

/// The endpoints that runs of the app tell must be such as a run may name, and are kept in the form in which
/// it would name them.
async fn check_endpoints(gateway: &Gateway, config: &mut AppConfig) -> Answer<()> {
    for url in &mut config.webhook_endpoints {
        let admitted = gateway.guard.check(url).await.map_err(|why| {
            Problem::unprocessable(
                why.rule,
                format!("`webhook_endpoints` names `{}`: {}", clip(url), why.message),
            )
        })?;
        *url = admitted.url.to_string();
    }
    Ok(())
}

/// Where an app's functions are called: `/{function}` follows.
fn endpoint(gateway: &Gateway, app: &AppId) -> String {
    format!("{}/v4/{}/{}", gateway.options.public_url, app.project(), app.name())
}

/// Where an app is shown.
fn page(gateway: &Gateway, app: &AppId) -> String {
    format!("{}/v2/projects/{}/apps/{app}", gateway.options.public_url, app.project())
}

/// An app in lists.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppRow {
    id: AppId,
    name: String,
    project_id: ProjectId,
    status: &'static str,
    latest_build_id: BuildId,
    last_build_status: BuildStatus,
    live_build_id: Option<BuildId>,
    replicas: usize,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl AppRow {
    fn of(gateway: &Gateway, app: &App) -> Self {
        let replicas = gateway.replicas.count(&app.id);
        Self {
            id: app.id.clone(),
            name: app.id.name().to_string(),
            project_id: app.id.project(),
            status: app.standing(replicas),
            latest_build_id: app.latest_build.clone(),
            last_build_status: app.latest_status,
            live_build_id: app.live.as_ref().map(|build| build.id.clone()),
            replicas,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// An app in full. Numbers of the configuration are texts, since Cerebrium's Go client reads no others.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AppView {
    #[serde(flatten)]
    row: AppRow,
    hardware: String,
    compute: String,
    cpu: String,
    memory: String,
    gpu_count: String,
    /// What its replicas wait for before they start: a free GPU.
    waits_for: Option<String>,
    cooldown_period_seconds: String,
    min_replica_count: String,
    max_replica_count: String,
    response_grace_period_seconds: String,
    replica_concurrency: String,
    python_version: Option<String>,
    disable_auth: bool,
    pods: [(); 0],
    endpoint: String,
    functions: Vec<FunctionView>,
    /// `cortex` for functions, in the word of Cerebrium's clients, or `custom` for a web server.
    runtime: &'static str,
    #[serde(flatten)]
    web_server: Option<CustomRuntime>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionView {
    name: String,
    url: String,
    contract: Contract,
    parameters: Vec<Parameter>,
    takes_any: bool,
    streams: bool,
}

impl AppView {
    /// Shows the live configuration; before there is one, that of the newest build.
    async fn of(gateway: &Gateway, app: &App) -> Answer<Self> {
        let build = match &app.live {
            Some(build) => Some(build.clone()),
            None => gateway.registry.build(&app.latest_build).await?,
        };
        let (config, functions) =
            build.map_or_else(Default::default, |build| (build.config, build.functions));
        let hardware = config.compute.first().cloned().unwrap_or_else(|| "CPU".to_owned());
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let endpoint = endpoint(gateway, &app.id);
        Ok(Self {
            row: AppRow::of(gateway, app),
            compute: hardware.clone(),
            hardware,
            cpu: number(config.cpu),
            memory: number(config.memory),
            gpu_count: config.gpu_count.to_string(),
            waits_for: gateway.replicas.waits_for(&app.id),
            cooldown_period_seconds: config.cooldown().as_secs().to_string(),
            min_replica_count: config.min_replicas.to_string(),
            max_replica_count: config.replicas_max().to_string(),
            response_grace_period_seconds: config.response_grace_period().as_secs().to_string(),
            replica_concurrency: config.concurrency(&functions).to_string(),
            python_version: config.python_version,
            disable_auth: config.disable_auth,
            pods: [],
            runtime: if config.runtime.is_some() { "custom" } else { "cortex" },
            web_server: config.runtime,
            functions: functions.iter().map(|function| FunctionView::of(function, &endpoint)).collect(),
            endpoint,
        })
    }
}

impl FunctionView {
    fn of(function: &Function, endpoint: &str) -> Self {
        Self {
            url: format!("{endpoint}/{}", function.name),
            name: function.name.clone(),
            contract: function.contract,
            parameters: function.parameters.clone(),
            takes_any: function.takes_any,
            streams: function.streams,
        }
    }
}

/// The project's apps, by name.
pub(super) async fn list(
    Control(project): Control,
    State(gateway): State<Gateway>,
) -> Answer<Json<Vec<AppRow>>> {
    let apps = gateway.registry.apps(Some(&project)).await?;
    Ok(Json(apps.iter().map(|app| AppRow::of(&gateway, app)).collect()))
}

/// One app.
pub(super) async fn show(OwnApp(app): OwnApp, State(gateway): State<Gateway>) -> Answer<Json<AppView>> {
    AppView::of(&gateway, &app).await.map(Json)
}

/// Changes the scaling of the live build.
pub(super) async fn scale(
    OwnApp(app): OwnApp,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<AppView>> {
    let app = rescale(&gateway, &app, &fields).await?;
    AppView::of(&gateway, &app).await.map(Json)
}

/// The same for whoever asks.
pub(super) async fn rescale(gateway: &Gateway, app: &App, fields: &Fields) -> Answer<Arc<App>> {
    let no_live_build = || {
        Problem::conflict(
            "no_live_build",
            "this app has no live build whose scaling could change; deploy it first, the config file says the rest",
        )
    };
    let mut config = app.live.as_ref().ok_or_else(no_live_build)?.config.clone();
    if !config::scale(fields, &mut config)? {
        return Err(refused(format!("the body names nothing that can change: {}", config::SCALING_KEYS)));
    }
    let scaled = {
        let (gateway, id) = (gateway.clone(), app.id.clone());
        async move {
            let app = gateway.registry.reconfigure(&id, config).await?;
            if let Some(app) = &app {
                gateway.replicas.switch(app);
            }
            Ok::<_, Problem>(app)
        }
    };
    let app: Arc<App> = Unstoppable::new(scaled).await?.ok_or_else(no_live_build)?;
    tracing::info!(app.id = %app.id, "an app's scaling was changed");
    note_scaling(gateway, &app);
    Ok(app)
}

/// For the list of the app's events: what its scaling is now.
fn note_scaling(gateway: &Gateway, app: &App) {
    let Some(live) = &app.live else { return };
    let config = &live.config;
    let buffer = config.scaling_buffer.filter(|buffer| *buffer > 0);
    let text = format!(
        "the scaling was changed: {} to {} replicas{}, {} calls at once each, {} at {}, {} s of cooldown",
        config.min_replicas,
        config.replicas_max(),
        buffer.map_or_else(String::new, |buffer| format!(" with {buffer} to spare")),
        live.concurrency(),
        config.metric().as_str(),
        config.target(),
        config.cooldown().as_secs()
    );
    let (at, kind) = (gateway.clock.now(), EventKind::Reconfigured);
    gateway.events.note(AppEvent { at, app: app.id.clone(), kind, text, build: Some(live.id.clone()) });
}

/// What is said when there is nothing else to say.
#[derive(Serialize)]
pub(super) struct Said {
    message: String,
}

/// Replaces its replicas by fresh ones.
pub(super) async fn restart(OwnApp(app): OwnApp, State(gateway): State<Gateway>) -> Json<Said> {
    gateway.replicas.restart(&app.id);
    tracing::info!(app.id = %app.id, "the replicas of an app are replaced");
    Json(Said { message: format!("the replicas of `{}` are being replaced", app.id.name()) })
}

/// Deletes an app with its builds.
pub(super) async fn delete(OwnApp(app): OwnApp, State(gateway): State<Gateway>) -> Answer<Json<Said>> {
    let message = format!("`{}` is deleted", app.id.name());
    gateway.actions.delete_app(app).await?;
    Ok(Json(Said { message }))
}
