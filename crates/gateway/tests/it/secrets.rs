//! Secrets over HTTP, and the replicas that are restarted for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use queue::app::Function;
use queue::port::{Replicas, Secrets, StartFailure, Stored};
use queue::registry::{App, Build, SecretChange};
use queue::{AppId, BuildId, ProjectId};
use serde_json::json;

use crate::fakes::{OTHER_PROJECT, PROJECT, World, function, private_key, public_key, send};

#[async_trait]
impl Replicas for World {
    async fn start_first(&self, build: &Build) -> Result<Vec<Function>, StartFailure> {
        Ok(build.functions.clone())
    }

    fn switch(&self, app: &Arc<App>) {
        self.hold().told.push(format!("switch {}", app.id));
    }

    fn discard(&self, _: &BuildId) {}

    fn restart(&self, app: &AppId) {
        self.hold().told.push(format!("restart {app}"));
    }

    fn retire(&self, app: &AppId) {
        self.hold().told.push(format!("retire {app}"));
    }

    fn count(&self, _: &AppId) -> usize {
        self.hold().replicas
    }

    fn builds_in_use(&self, _: &AppId) -> Vec<BuildId> {
        Vec::new()
    }
}

/// One project with the secret `OLD`; what is set is told by name.
#[async_trait]
impl Secrets for World {
    async fn secret_names(&self, _: &ProjectId, _: Option<&AppId>) -> Stored<Vec<String>> {
        Ok(vec!["OLD".to_owned()])
    }

    async fn change_secrets(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        change: SecretChange,
    ) -> Stored<bool> {
        let owner = app.map_or(project.as_str(), AppId::as_str);
        let names: Vec<_> = change.set.keys().map(String::as_str).collect();
        self.hold().told.push(format!("{owner}: set {} remove {}", names.join(","), change.remove.join(",")));
        Ok(!change.set.contains_key("ONE_TOO_MANY"))
    }

    async fn secrets_of(&self, _: &AppId) -> Stored<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }
}

#[tokio::test]
async fn secrets_are_set_and_never_shown() {
    let world = World::new();
    let app = world.live_app(PROJECT, "app", vec![function("run", &[])]);
    let router = world.router();
    let key = private_key(PROJECT);
    for path in
        [format!("/v2/projects/{PROJECT}/secrets"), format!("/v2/projects/{PROJECT}/apps/{app}/secrets")]
    {
        let shown = send(&router, "GET", &path, Some(&key), "").await;
        assert_eq!(shown.good(), json!({"OLD": "********"}));
        assert_eq!(shown.headers["cache-control"], "no-store");

        let body = r#"{"NEW":"s3cret","OLD":"********"}"#;
        let changed = send(&router, "PATCH", &path, Some(&key), body).await;
        assert!(!changed.text().contains("s3cret"));
        changed.good();
        send(&router, "PATCH", &format!("{path}?merge=true"), Some(&key), r#"{"NEW":"s3cret"}"#).await.good();
        send(&router, "PATCH", &path, Some(&key), r#"{"NEW":"s3cret"}"#).await.good();
        let told: Vec<_> = world.hold().told.drain(..).collect();
        let owner = if path.contains("/apps/") { app.as_str() } else { PROJECT };
        let expected = ["set NEW remove ", "set NEW remove ", "set NEW remove OLD"];
        assert_eq!(told, expected.map(|change| format!("{owner}: {change}")));

        let many = send(&router, "PATCH", &path, Some(&key), r#"{"ONE_TOO_MANY":"x"}"#).await;
        assert!(many.problem(422, "invalid_value").contains("more than 100"));
        send(&router, "GET", &path, Some(&public_key(PROJECT)), "").await.problem(403, "forbidden");
        let theirs = send(&router, "GET", &path, Some(&private_key(OTHER_PROJECT)), "").await;
        assert_eq!(theirs.status, 404);
        world.hold().told.clear();
    }
}

#[tokio::test]
async fn an_app_is_restarted_when_it_is_there() {
    let world = World::new();
    let app = world.live_app(PROJECT, "app", vec![function("run", &[])]);
    let router = world.router();
    let path = |name: &str| format!("/v2/projects/{PROJECT}/apps/{name}/restart");
    send(&router, "POST", &path("app"), Some(&private_key(PROJECT)), "").await.good();
    assert_eq!(world.hold().told, [format!("restart {app}")]);
    send(&router, "POST", &path("absent"), Some(&private_key(PROJECT)), "").await.problem(404, "unknown_app");
}
