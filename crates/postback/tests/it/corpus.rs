//! Every form of app: each folder below `apps/forms` is deployed by the command line and called through the
//! public API, waiting and with a webhook.
//!
//! A new form is a new folder with a `main.py` and a `calls.json`, a list of
//!
//! | key | meaning |
//! |---|---|
//! | `path` | `v4/run`, `v3/predict`, `legacy/predict` |
//! | `body`, `accept` | what is sent |
//! | `at_once` | so many of these calls at the same time |
//! | `status` | of the answer, 200 without it |
//! | `result`, `bare`, `events`, `text` | the result; the whole body; a stream's text; a part of the body |
//! | `code`, `message` | of an error; the message contains this |
//! | `log` | lines that the run's log contains |
//! | `webhook_result`, `webhook_error` | what the webhook says, where it differs |
//!
//! `$run_id` and `$webhook` in what is expected stand for the call's own.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use reqwest::Method;
use serde_json::{Map, Value, json};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, app_folder};

/// Apps that are deployed and called at the same time.
const AT_ONCE: usize = 3;
/// What is refused before there is a run, so that no webhook tells of it.
const REFUSED: [&str; 4] = ["missing_parameters", "unknown_parameters", "unknown_function", "unknown_path"];

fn forms() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(app_folder("forms")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

struct Form<'a> {
    stage: &'a Stage,
    recorder: &'a Recorder,
    name: String,
    faults: Vec<String>,
}

/// What is expected of one call, with its own run id and address in it.
fn filled(expected: &Value, run: &str, hook: &str) -> Value {
    match expected {
        Value::String(text) => Value::String(text.replace("$run_id", run).replace("$webhook", hook)),
        Value::Array(items) => items.iter().map(|item| filled(item, run, hook)).collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), filled(value, run, hook)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

impl Form<'_> {
    async fn deploy(&self, folder: &Path) -> Result<(), String> {
        let mut command = self.stage.home.command();
        command.current_dir(folder).args(["deploy", &self.name]);
        let output = tokio::process::Command::from(command).output().await.unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(format!("deploy failed:\n{}", String::from_utf8_lossy(&output.stderr)))
    }

    fn path(&self, call: &Value) -> String {
        let (generation, rest) = call["path"].as_str().unwrap().split_once('/').unwrap();
        match generation {
            "v4" => self.stage.v4(&format!("{}/{rest}", self.name)),
            "v3" => self.stage.v3(&format!("{}/{rest}", self.name)),
            "legacy" => format!("/{}/{rest}", self.name),
            other => panic!("{}: there is no generation `{other}`", self.name),
        }
    }

    async fn post(&self, path: &str, call: &Value, body: &Value) -> (u16, String, String) {
        let mut request = self
            .stage
            .bare(Method::POST, path)
            .header("authorization", &self.stage.keys.public_key)
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some(accept) = call["accept"].as_str() {
            request = request.header("accept", accept);
        }
        let response = request.send().await.unwrap();
        let run = response.headers().get("x-request-id").map_or("", |run| run.to_str().unwrap()).to_owned();
        (response.status().as_u16(), run, response.text().await.unwrap())
    }

    /// A call that waits for its answer; what is wrong with it.
    async fn waits(&self, call: &Value) -> Option<String> {
        let (status, run, text) = self.post(&self.path(call), call, &call["body"]).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let expected = |key: &str| call.get(key).map(|value| filled(value, &run, ""));
        let text_of = |key: &str| expected(key).map(|value| value.as_str().unwrap_or_default().to_owned());
        let as_expected = u64::from(status) == call["status"].as_u64().unwrap_or(200)
            && expected("result").is_none_or(|result| answer["result"] == result)
            && expected("bare").is_none_or(|bare| answer == bare)
            && text_of("events").is_none_or(|events| text == events)
            && text_of("text").is_none_or(|part| text.contains(&part))
            && expected("code").is_none_or(|code| answer["code"] == code)
            && text_of("message")
                .is_none_or(|part| answer["message"].as_str().unwrap_or_default().contains(&part));
        if !as_expected {
            return Some(format!("was answered {status} {text:?}"));
        }
        self.logs(&run, call).await
    }

    async fn logs(&self, run: &str, call: &Value) -> Option<String> {
        let lines: Vec<_> = call["log"].as_array()?.iter().filter_map(Value::as_str).collect();
        let began = std::time::Instant::now();
        loop {
            let path = self.stage.control(&format!("runs/{run}/logs"));
            let said = self.stage.request(Method::GET, &path).send().await.unwrap().text().await.unwrap();
            if lines.iter().all(|line| said.contains(line)) {
                return None;
            }
            if began.elapsed() > PATIENCE {
                return Some(format!("has the log {said}"));
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// The same call with a webhook; what is wrong with it.
    async fn is_told(&self, call: &Value, hook: &str) -> Option<String> {
        let (mut path, mut body) = (self.path(call), call["body"].clone());
        let url = self.recorder.url(hook);
        if path.starts_with("/v4/") {
            let query: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
            path = format!("{path}?async=true&webhookEndpoint={query}");
        } else {
            body["webhook_endpoint"] = json!(url);
        }
        let (status, run, text) = self.post(&path, call, &body).await;
        if !matches!(status, 200 | 202) {
            return Some(format!("with a webhook was answered {status} {text:?}"));
        }
        let wanted = format!("/{hook}");
        let arrived = self
            .recorder
            .wait_until(PATIENCE, |arrivals| arrivals.iter().any(|one| one.path == wanted))
            .await;
        if !arrived {
            return Some("was acknowledged, and its webhook never came".to_owned());
        }
        let told = self.recorder.arrivals().into_iter().find(|one| one.path == wanted).unwrap().json();
        if told["run_id"] != json!(run) {
            return Some(format!("is run {run}, and its webhook tells of {told}"));
        }
        let code = call.get("webhook_error").or(call.get("code")).unwrap_or(&Value::Null);
        let result = call.get("webhook_result").or(call.get("result")).or(call.get("bare"));
        let as_expected = match (code, result) {
            (Value::Null, Some(result)) => {
                told["result"] == filled(result, &run, &url) && told.get("error").is_none()
            }
            (Value::Null, None) => told.get("error").is_none(),
            (code, _) => told["error"]["code"] == *code && told["result"].is_null(),
        };
        (!as_expected).then(|| format!("told its webhook {told}"))
    }

    async fn calls(&mut self, calls: &[Value]) {
        for (index, call) in calls.iter().enumerate() {
            let times = call["at_once"].as_u64().unwrap_or(1);
            let mut found = join_all((0..times).map(|_| self.waits(call))).await;
            let refused = call["code"].as_str().is_some_and(|code| REFUSED.contains(&code));
            if !refused {
                let hooks =
                    (0..times).map(|time| format!("{}/{index}/{time}", self.name)).collect::<Vec<_>>();
                found.extend(join_all(hooks.iter().map(|hook| self.is_told(call, hook))).await);
            }
            self.faults.extend(
                found.into_iter().flatten().map(|fault| format!("{}: {call}\n    {fault}", self.name)),
            );
        }
    }
}

async fn check(stage: &Stage, recorder: &Recorder, folder: PathBuf) -> Vec<String> {
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let mut form = Form { stage, recorder, name, faults: Vec::new() };
    let calls =
        std::fs::read(folder.join("calls.json")).unwrap_or_else(|error| panic!("{}: {error}", form.name));
    let calls: Vec<Value> =
        serde_json::from_slice(&calls).unwrap_or_else(|error| panic!("{}: {error}", form.name));
    assert!(!calls.is_empty(), "{} calls nothing", form.name);
    match form.deploy(&folder).await {
        Ok(()) => form.calls(&calls).await,
        Err(why) => form.faults.push(format!("{}: {why}", form.name)),
    }
    // Its replicas have nothing more to do.
    let path = stage.control(&format!("apps/{}", form.name));
    stage.request(Method::DELETE, &path).send().await.unwrap();
    form.faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_app_is_deployed_and_called() {
    let stage = Stage::empty();
    let recorder = Recorder::start().await.unwrap();
    let forms = forms();
    assert!(forms.len() >= 25, "{} forms", forms.len());
    let faults: Vec<_> = stream::iter(forms)
        .map(|folder| check(&stage, &recorder, folder))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let faults: Vec<_> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} calls went wrong:\n{}", faults.len(), faults.join("\n"));
}
