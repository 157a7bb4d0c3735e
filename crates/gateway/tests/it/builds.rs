//! Builds: what the gateway asks of their maker, and the way back to a former one, over HTTP.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use queue::outcome::{Code, RunError};
use queue::port::{Builds, Registry as _, RollbackError, StartFailure, Stored, UploadError};
use queue::registry::{Build, BuildStatus};
use queue::{AppId, BuildId};
use serde_json::json;

use crate::fakes::{PROJECT, World, function, private_key, send};

#[async_trait]
impl Builds for World {
    async fn upload(
        &self,
        build: &BuildId,
        mut archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), UploadError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = archive.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        if !self.set_build_status(build, BuildStatus::Building, None).await?
            || self.hold().uploads.contains_key(build)
        {
            return Err(UploadError::AlreadyUploaded);
        }
        self.hold().uploads.insert(build.clone(), bytes);
        Ok(())
    }

    async fn cancel(&self, build: &BuildId) -> Stored<bool> {
        self.hold().told.push(format!("cancel {build}"));
        self.set_build_status(build, BuildStatus::Cancelled, None).await
    }

    async fn roll_back(&self, app: &AppId, build: Option<&BuildId>) -> Result<BuildId, RollbackError> {
        roll_back(self, app, build)
    }

    fn is_kept(&self, build: &Build) -> bool {
        build.status == BuildStatus::Success
    }
}

/// What the builder would say of the builds of a test: the oldest of three does not start any more.
fn roll_back(world: &World, app: &AppId, wanted: Option<&BuildId>) -> Result<BuildId, RollbackError> {
    let mut held = world.hold();
    held.told.push(format!("roll back {app}"));
    let live = held.apps[app].live.clone().ok_or(RollbackError::NoFormerBuild)?;
    let of_app = held.builds.values().filter(|build| build.app == *app);
    let former = match wanted {
        Some(id) => {
            of_app.clone().find(|build| build.id == *id).ok_or_else(|| RollbackError::Unknown(id.clone()))?
        }
        None => of_app.clone().rfind(|build| build.id < live.id).ok_or(RollbackError::NoFormerBuild)?,
    };
    if former.id == live.id {
        return Err(RollbackError::AlreadyLive(live.id));
    }
    if former.functions.is_empty() {
        let error = RunError::new(Code::FailedToStart, "no such module");
        return Err(RollbackError::Start(StartFailure { status: BuildStatus::InitFailure, error }));
    }
    let former = former.clone();
    let id = former.id.clone();
    if let Some(app) = held.apps.get_mut(app) {
        app.live = Some(former);
    }
    Ok(id)
}

#[tokio::test]
async fn an_app_goes_back_and_says_why_it_does_not() {
    let world = World::new();
    let app: AppId = world.live_app(PROJECT, "demo", vec![function("predict", &[])]);
    let live = world.hold().apps[&app].live.clone().unwrap();
    let id = |number: u8| format!("b-{number:016x}").parse::<BuildId>().unwrap();
    for number in 1..=2 {
        let mut build = Build { id: id(number), ..live.clone() };
        if number == 1 {
            build.functions.clear();
        }
        world.hold().builds.insert(build.id.clone(), build);
    }
    let newest = Build { id: id(3), ..live };
    world.hold().builds.retain(|_, build| [id(1), id(2)].contains(&build.id));
    world.hold().builds.insert(id(3), newest.clone());
    world.hold().apps.get_mut(&app).unwrap().live = Some(newest);
    let (router, key) = (world.router(), private_key(PROJECT));
    let at = |rest: &str| format!("/v2/projects/{PROJECT}/apps/demo/{rest}");

    let listed = send(&router, "GET", &at("builds"), Some(&key), "").await.good();
    let shown: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|build| (build["id"].clone(), build["live"].clone(), build["kept"].clone()))
        .collect();
    let row = |number, live| (json!(id(number)), json!(live), json!(true));
    assert_eq!(shown, [row(3, true), row(2, false), row(1, false)]);

    let back = send(&router, "POST", &at("rollback"), Some(&key), "").await.good();
    assert_eq!((&back["liveBuildId"], &back["formerBuildId"]), (&json!(id(2)), &json!(id(3))));
    let named = json!({"buildId": id(1)}).to_string();
    let failed = send(&router, "POST", &at("rollback"), Some(&key), named).await;
    assert!(failed.problem(409, "rollback_failed").contains("no such module"));
    let live = json!({"buildId": id(2)}).to_string();
    send(&router, "POST", &at("rollback"), Some(&key), live).await.problem(409, "already_live");
    for unknown in ["b-00000000000000ff", "no id"] {
        let named = json!({"buildId": unknown}).to_string();
        let answer = send(&router, "POST", &at("rollback"), Some(&key), named).await;
        assert!(answer.problem(404, "unknown_build").contains("postback apps builds"));
    }
    assert_eq!(world.hold().apps[&app].live.as_ref().unwrap().id, id(2));
}
