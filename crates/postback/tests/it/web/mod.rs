//! Apps that are web servers of their own, driven through the public API: one of Python's standard library, in
//! `apps/web`, and the example with FastAPI.

mod fastapi;
mod replicas;
mod runs;
mod visits;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::support::{PATIENCE, Stage, app_folder};

/// A server with the app `web`.
pub(crate) fn stage() -> Stage {
    let stage = Stage::empty();
    stage.deploy(&app_folder("web"), &[]);
    stage
}

/// A copy of the app's folder with another config file.
pub(crate) fn changed(stage: &Stage, name: &str, config: &str, server: impl FnOnce(String) -> String) {
    let folder = stage.home.scratch().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let source = std::fs::read_to_string(app_folder("web").join("server.py")).unwrap();
    std::fs::write(folder.join("server.py"), server(source)).unwrap();
    std::fs::write(folder.join("cerebrium.toml"), config).unwrap();
}

/// A request to the app with the public key.
pub(crate) fn ask(stage: &Stage, method: Method, path: &str) -> RequestBuilder {
    stage.bare(method, &stage.v4(path)).header("authorization", format!("Bearer {}", stage.keys.public_key))
}

pub(crate) async fn get(stage: &Stage, path: &str) -> Response {
    ask(stage, Method::GET, path).send().await.unwrap()
}

/// Asks until the answer is as wanted.
pub(crate) async fn until(stage: &Stage, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let text = get(stage, path).await.text().await.unwrap();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if wanted(&value) {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "{path} is {value}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The app's log, once it holds what is wanted.
pub(crate) async fn log_with(stage: &Stage, app: &str, wanted: &str) -> String {
    let began = std::time::Instant::now();
    loop {
        let path = stage.control(&format!("apps/{app}/logs"));
        let log = stage.request(Method::GET, &path).send().await.unwrap().text().await.unwrap();
        if log.contains(wanted) {
            return log;
        }
        assert!(began.elapsed() < PATIENCE, "the log lacks {wanted:?}: {log}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
