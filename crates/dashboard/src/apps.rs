//! The list of apps, and the page of one.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::app::{AppConfig, Function};
use queue::event::StoredEvent;
use queue::hardware::Hardware;
use queue::log::{LogQuery, LogScope};
use queue::port::RollbackError;
use queue::registry::{App, Build, BuildStatus};
use queue::replica::ReplicaView;
use queue::run::RunFilter;
use queue::traffic::{Slice, Span};
use queue::{AppId, AppName, BuildId, ProjectId, Timestamp};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::log::Line;
use crate::run_list::Row;
use crate::session::SignedIn;
use crate::try_it::{self, TryForm};
use crate::{chart, overview, shape};

/// Apps in the list whose traffic is drawn.
const DRAWN_APPS_MAX: usize = 50;
/// Runs on an app's page.
const PAGE_RUNS: usize = 10;
/// Builds, and events: the newest.
const PAGE_BUILDS: usize = 10;
const PAGE_EVENTS: usize = 30;
/// Lines of its log there: the newest.
const PAGE_LINES: usize = 200;

/// An app in the list.
struct AppRow {
    name: String,
    standing: &'static str,
    replicas: usize,
    /// The newest build's status, when it is not the one that serves.
    newest: Option<&'static str>,
    functions: String,
    /// The last day, drawn.
    traffic: Option<String>,
    updated: String,
}

impl AppRow {
    fn of(app: &App, replicas: usize, day: Option<&[Slice]>, now: Timestamp) -> Self {
        let live = app.live.as_ref();
        let names = live.into_iter().flat_map(|build| &build.functions).map(|function| &*function.name);
        Self {
            name: app.id.name().to_string(),
            standing: app.standing(replicas),
            replicas,
            newest: live.filter(|live| live.id != app.latest_build).map(|_| app.latest_status.as_str()),
            functions: names.collect::<Vec<_>>().join(", "),
            traffic: day.map(|day| chart::spark(&overview::RUNS, day)),
            updated: shape::relative(app.updated_at, now),
        }
    }
}

#[derive(Template)]
#[template(path = "apps.html")]
struct AppsPage {
    frame: Frame,
    rows: Vec<AppRow>,
}

/// `/dashboard/apps`
pub(crate) async fn list(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let apps = room.ports.registry.apps(Some(&project)).await?;
    let now = room.ports.clock.now();
    let days = apps.iter().take(DRAWN_APPS_MAX);
    let days = days.map(|app| room.ports.traffic.traffic(&project, Some(&app.id), Span::Day, now));
    let days = futures_util::future::try_join_all(days).await?;
    let rows = apps.iter().enumerate().map(|(index, app)| {
        AppRow::of(app, room.ports.replicas.count(&app.id), days.get(index).map(Vec::as_slice), now)
    });
    let page = AppsPage { frame: Frame::new(Some(project.to_string())), rows: rows.collect() };
    Ok(pages::html(StatusCode::OK, &page))
}

/// A fact about an app: a word and what it is.
struct Fact {
    what: &'static str,
    is: String,
}

/// A function, and a form to call it with.
struct Callable {
    name: String,
    parameters: String,
    form: TryForm,
}

impl Callable {
    fn of(room: &Shared, app: &AppId, function: &Function) -> Self {
        let mut form = TryForm::of(app, function);
        form.code = room.code_of(app, function, &form);
        Self { name: visible(&function.name).into_owned(), parameters: try_it::signature(function), form }
    }
}

/// A build in the list of an app.
struct BuildRow {
    id: String,
    status: &'static str,
    live: bool,
    /// It can become live again.
    former: bool,
    made: String,
}

/// A replica.
struct ReplicaRow {
    id: String,
    build: String,
    state: &'static str,
    memory: String,
    gpus: String,
    calls: usize,
    runs: Vec<String>,
    age: String,
}

impl ReplicaRow {
    fn of(replica: &ReplicaView, hardware: &Hardware) -> Self {
        let name = |uuid: &String| {
            let known = hardware.gpus.iter().find(|placed| placed.gpu.uuid == *uuid);
            known.map_or_else(|| uuid.clone(), |placed| placed.gpu.name.clone())
        };
        Self {
            id: replica.id.to_string(),
            build: replica.build.to_string(),
            state: replica.state.as_str(),
            memory: replica.memory.map_or_else(String::new, pages::size),
            gpus: visible(&replica.gpus.iter().map(name).collect::<Vec<_>>().join(", ")).into_owned(),
            calls: replica.calls.max(replica.runs.len()),
            runs: replica.runs.iter().map(ToString::to_string).collect(),
            age: shape::duration(Duration::from_secs(replica.age.as_secs())),
        }
    }
}

/// Something that happened to the app.
struct EventRow {
    at: String,
    kind: &'static str,
    text: String,
}

impl EventRow {
    fn of(stored: &StoredEvent) -> Self {
        let event = &stored.event;
        Self {
            at: shape::moment(event.at),
            kind: event.kind.as_str(),
            text: visible(&event.text).into_owned(),
        }
    }
}

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage {
    frame: Frame,
    name: String,
    standing: &'static str,
    live: bool,
    id: String,
    facts: Vec<Fact>,
    functions: Vec<Callable>,
    project_secrets: Vec<String>,
    app_secrets: Vec<String>,
    /// The last day, drawn.
    chart: String,
    replicas: Vec<ReplicaRow>,
    has_gpus: bool,
    builds: Vec<BuildRow>,
    events: Vec<EventRow>,
    runs: Vec<Row>,
    lines: Vec<Line>,
    /// Seconds after which the page looks again by itself; none while nothing is to come.
    look_every: u8,
}

/// `/dashboard/apps/{app}`
pub(crate) async fn show(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let filter = RunFilter { app: Some(app.id.clone()), ..RunFilter::of(project.clone(), PAGE_RUNS) };
    let runs = room.ports.runs.runs(filter).await?.runs;
    let build = match &app.live {
        Some(live) => Some(live.clone()),
        None => room.ports.registry.build(&app.latest_build).await?,
    };
    // Before there is a replica, what the newest build says is what people come for.
    let scope = match &app.live {
        Some(_) => LogScope::App(app.id.clone()),
        None => LogScope::Build(app.latest_build.clone()),
    };
    let query = LogQuery { scope, after: None, since: None, limit: PAGE_LINES, newest: true };
    let lines = room.ports.logs.read(query).await?;
    let now = room.ports.clock.now();
    let day = room.ports.traffic.traffic(&project, Some(&app.id), Span::Day, now).await?;
    let builds = room.ports.registry.builds(&app.id, PAGE_BUILDS).await?;
    let mut events = room.ports.events.events(&app.id, None, PAGE_EVENTS).await?;
    events.reverse();
    let replicas = room.ports.replicas.count(&app.id);
    let hardware = room.ports.replicas.hardware();
    let listed = room.ports.replicas.list(&app.id).await;
    let replica_rows: Vec<_> = listed.iter().map(|replica| ReplicaRow::of(replica, &hardware)).collect();
    let page = AppPage {
        frame: Frame::new(Some(project.to_string())),
        name: app.id.name().to_string(),
        standing: app.standing(replicas),
        live: app.live.is_some(),
        id: app.id.to_string(),
        facts: facts(&app, build.as_ref(), replicas, now),
        functions: {
            let functions = app.live.iter().flat_map(|build| &build.functions);
            functions.map(|function| Callable::of(&room, &app.id, function)).collect()
        },
        project_secrets: room.ports.secrets.secret_names(&project, None).await?,
        app_secrets: room.ports.secrets.secret_names(&project, Some(&app.id)).await?,
        chart: chart::draw(&overview::RUNS, &day, Span::Day),
        has_gpus: replica_rows.iter().any(|row| !row.gpus.is_empty()),
        replicas: replica_rows,
        builds: builds.iter().map(|build| room.build_row(&app, build, now)).collect(),
        events: events.iter().map(EventRow::of).collect(),
        runs: runs.iter().map(|run| Row::of(run, now)).collect(),
        lines: lines.iter().map(Line::of).collect(),
        look_every: if app.latest_status.is_final() { 0 } else { 2 },
    };
    Ok(pages::html(StatusCode::OK, &page))
}

fn facts(app: &App, build: Option<&Build>, replicas: usize, now: Timestamp) -> Vec<Fact> {
    let fallback = AppConfig::default();
    let config = build.map_or(&fallback, |build| &build.config);
    let size = |value: Option<f64>, unit: &str| value.map(|value| format!("{value} {unit}"));
    let rows = [
        ("Replicas", Some(format!("{replicas} of {} to {}", config.min_replicas, config.replicas_max()))),
        ("Calls at once per replica", build.map(|build| build.concurrency().to_string())),
        ("Kept idle for", Some(shape::duration(config.cooldown()))),
        ("A call may take", Some(shape::duration(config.response_grace_period()))),
        ("Hardware", Some(if config.compute.is_empty() { "CPU".into() } else { config.compute.join(", ") })),
        ("Cores", size(config.cpu, "")),
        ("Memory", size(config.memory, "GB")),
        ("Python", Some(config.python_version.clone().unwrap_or_else(|| "the machine's own".into()))),
        ("Live build", app.live.as_ref().map(|live| live.id.to_string())),
        ("Newest build", Some(format!("{}, {}", app.latest_build, app.latest_status.as_str()))),
        ("First deployed", Some(shape::relative(app.created_at, now))),
        ("Last changed", Some(shape::relative(app.updated_at, now))),
    ];
    rows.into_iter()
        .filter_map(|(what, is)| Some(Fact { what, is: visible(is?.trim()).into_owned() }))
        .collect()
}

impl Shared {
    pub(crate) async fn app(&self, project: &ProjectId, name: &str) -> Shown<Arc<App>> {
        let Ok(name) = name.parse::<AppName>() else { return Err(Trouble::Unknown("app")) };
        let app = self.ports.registry.app(&AppId::new(project, &name)).await?;
        app.ok_or(Trouble::Unknown("app"))
    }

    fn build_row(&self, app: &App, build: &Build, now: Timestamp) -> BuildRow {
        let live = app.live.as_ref().is_some_and(|live| live.id == build.id);
        BuildRow {
            id: build.id.to_string(),
            status: build.status.as_str(),
            live,
            former: !live && build.status == BuildStatus::Success && self.ports.builds.is_kept(build),
            made: shape::relative(build.created_at, now),
        }
    }

    /// Where an app's functions are called: `/{function}` follows.
    pub(crate) fn endpoint(&self, app: &AppId) -> String {
        let base = self.options.public_url.as_str().trim_end_matches('/');
        format!("{base}/v4/{}/{}", app.project(), app.name())
    }
}

/// `POST /dashboard/apps/{app}/restart`
pub(crate) async fn restart(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    room.ports.replicas.restart(&app.id);
    tracing::info!(app.id = %app.id, "the replicas of an app are replaced");
    Ok(Redirect::to(&format!("/dashboard/apps/{}", app.id.name())).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Former {
    build: BuildId,
}

/// `POST /dashboard/apps/{app}/rollback`
pub(crate) async fn roll_back(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
    Form(former): Form<Former>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    let to = Redirect::to(&format!("/dashboard/apps/{}", app.id.name()));
    match room.ports.actions.roll_back(app.id.clone(), Some(former.build)).await {
        Ok(_) => Ok(to.into_response()),
        Err(RollbackError::Store(error)) => Err(error.into()),
        Err(error) => {
            Err(Trouble::Refused(format!("The app stays as it is: {}.", visible(&error.to_string()))))
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Sure {
    /// The app's name, typed again.
    name: String,
}

/// `POST /dashboard/apps/{app}/delete`
pub(crate) async fn delete(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(name): Path<String>,
    Form(sure): Form<Sure>,
) -> Shown<Response> {
    let app = room.app(&project, &name).await?;
    if sure.name.trim() != app.id.name().as_str() {
        return Err(Trouble::Refused(format!(
            "Nothing was deleted: type the app's name, `{}`, to say that you mean it.",
            app.id.name()
        )));
    }
    room.ports.actions.delete_app(app).await?;
    Ok(Redirect::to("/dashboard/apps").into_response())
}
