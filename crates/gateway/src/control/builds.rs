//! Builds: their archive received, their status and log shown, cancelled.

use axum::Json;
use axum::body::Body;
use axum::extract::{RawPathParams, State};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, StatusCode, header};
use queue::limits::{BUILDS_PER_APP_MAX, UPLOAD_BYTES_MAX};
use queue::log::{LogQuery, LogScope, StoredLine, Stream};
use queue::port::{RollbackError, UploadError};
use queue::registry::{Build, BuildStatus};
use queue::{AppId, BuildId, Timestamp};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::request::{Fields, Params};
use super::scope::{OwnApp, OwnBuild, unknown_build};
use crate::Gateway;
use crate::problem::{Answer, Problem};

/// Lines of a build's log given at once.
const LOG_LINES_MAX: usize = 5_000;

/// The address that a build's archive is put to. Its token is all the authority there is: Cerebrium's
/// clients send no key with the archive.
pub(super) fn upload_url(gateway: &Gateway, build: &BuildId, token: &str) -> String {
    format!("{}/uploads/{build}?token={token}", gateway.options.public_url)
}

#[derive(Serialize)]
pub(super) struct Received {}

/// Receives a build's archive. A wrong token reads the same as a build that does not exist.
pub(super) async fn upload(
    State(gateway): State<Gateway>,
    path: RawPathParams,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<Received>> {
    let build =
        path.iter().find(|(name, _)| *name == "build").and_then(|(_, text)| text.parse::<BuildId>().ok());
    let build = match build {
        Some(id) => gateway.registry.build(&id).await?,
        None => None,
    };
    let given: [u8; 32] = Sha256::digest(params.text("token").unwrap_or("").as_bytes()).into();
    let expected = build.as_ref().map_or([0; 32], |build| build.upload_token_hash);
    let opens = bool::from(given.ct_eq(&expected));
    let build = build.filter(|_| opens).ok_or_else(|| {
        Problem::not_found(
            "unknown_upload",
            "there is nothing to upload here; deploy again for a new address",
        )
    })?;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > UPLOAD_BYTES_MAX) {
        return Err(UploadError::TooLarge { limit: UPLOAD_BYTES_MAX }.into());
    }
    let archive = body.into_data_stream().map_err(std::io::Error::other).boxed();
    gateway.builds.upload(&build.id, archive).await?;
    tracing::info!(app.id = %build.app, build.id = %build.id, "a build's archive was received");
    Ok(Json(Received {}))
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { .. } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "archive_too_large",
                format!("{error}; exclude what the model does not need, or let it fetch its weights itself"),
            ),
            UploadError::AlreadyUploaded => Self::conflict("already_uploaded", error.to_string()),
            UploadError::Io(_) => Self::bad_request("upload_failed", format!("{error}; send it again")),
            UploadError::Store(error) => error.into(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildView {
    id: BuildId,
    app_id: AppId,
    status: BuildStatus,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Build> for BuildView {
    fn from(build: Build) -> Self {
        Self {
            id: build.id,
            app_id: build.app,
            status: build.status,
            created_at: build.created_at,
            updated_at: build.updated_at,
        }
    }
}

/// A build in lists.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildRow {
    #[serde(flatten)]
    build: BuildView,
    /// It serves the app.
    live: bool,
    /// Its files are there: the app can go back to it.
    kept: bool,
}

#[derive(Serialize)]
pub(super) struct BuildList {
    items: Vec<BuildRow>,
}

/// The builds of an app, newest first.
pub(super) async fn list(OwnApp(app): OwnApp, State(gateway): State<Gateway>) -> Answer<Json<BuildList>> {
    let builds = gateway.registry.builds(&app.id, BUILDS_PER_APP_MAX).await?;
    let row = |build: Build| BuildRow {
        live: app.live.as_ref().is_some_and(|live| live.id == build.id),
        kept: build.status == BuildStatus::Success && gateway.builds.is_kept(&build),
        build: build.into(),
    };
    Ok(Json(BuildList { items: builds.into_iter().map(row).collect() }))
}

/// What became of a rollback.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RolledBack {
    live_build_id: BuildId,
    former_build_id: Option<BuildId>,
    message: String,
}

/// Makes a former build live again, and answers once it is.
pub(super) async fn roll_back(
    OwnApp(app): OwnApp,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Json<RolledBack>> {
    fields.only(&["buildId"])?;
    let wanted = match fields.text(&["buildId"])? {
        None => None,
        Some(text) => Some(text.parse::<BuildId>().map_err(|_| unknown_build(text))?),
    };
    let former = app.live.as_ref().map(|live| live.id.clone());
    let live = gateway.actions.roll_back(app.id.clone(), wanted).await?;
    let message = format!("build {live} is live");
    Ok(Json(RolledBack { live_build_id: live, former_build_id: former, message }))
}

impl From<RollbackError> for Problem {
    fn from(error: RollbackError) -> Self {
        let message = format!("{error}; `postback apps builds` shows which there are");
        match error {
            RollbackError::Unknown(build) => unknown_build(build.as_str()),
            RollbackError::Store(error) => error.into(),
            RollbackError::NoFormerBuild => Self::conflict("no_former_build", message),
            RollbackError::AlreadyLive(_) => Self::conflict("already_live", message),
            RollbackError::NeverLive(..) => Self::conflict("never_live", message),
            RollbackError::Gone(_) => Self::conflict("build_gone", message),
            RollbackError::UnderWay(_) => Self::conflict("rollback_under_way", error.to_string()),
            RollbackError::Stopped => Self::conflict("rollback_stopped", error.to_string()),
            RollbackError::Start(_) => {
                let message = format!("the former build did not start, and the live one stays: {error}");
                Self::conflict("rollback_failed", message)
            }
        }
    }
}

/// Where a build stands.
pub(super) async fn show(OwnBuild(build): OwnBuild) -> Json<BuildView> {
    Json(build.into())
}

/// Stops a build. One that is final stays as it is.
pub(super) async fn cancel(
    OwnBuild(build): OwnBuild,
    State(gateway): State<Gateway>,
) -> Answer<Json<BuildView>> {
    let build = if gateway.builds.cancel(&build.id).await? {
        tracing::info!(app.id = %build.app, build.id = %build.id, "a build was cancelled");
        gateway.registry.build(&build.id).await?.unwrap_or(build)
    } else {
        build
    };
    Ok(Json(build.into()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildLog {
    status: BuildStatus,
    logs: Vec<BuildLine>,
    /// Where `?after=` goes on.
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildLine {
    id: String,
    created_at: Timestamp,
    log: String,
    stream: Stream,
}

/// A build's log. Cerebrium's Python client wants the whole of it each time; ours goes on with `?after=`.
pub(super) async fn logs(
    OwnBuild(build): OwnBuild,
    State(gateway): State<Gateway>,
    params: Params,
) -> Answer<Json<BuildLog>> {
    let after = params.cursor::<i64>("after")?;
    let query = LogQuery {
        scope: LogScope::Build(build.id.clone()),
        after,
        since: None,
        limit: LOG_LINES_MAX,
        newest: after.is_none(),
    };
    // `build` was read before the log: whoever reads a final status here also has the last line.
    let lines = gateway.logs.read(query).await?;
    let next_token = lines.last().map(|line| line.id).or(after).map(|id| id.to_string());
    let logs = lines
        .into_iter()
        .map(|StoredLine { id, line }| BuildLine {
            id: id.to_string(),
            created_at: line.at,
            log: line.text,
            stream: line.stream,
        })
        .collect();
    Ok(Json(BuildLog { status: build.status, logs, next_token }))
}
