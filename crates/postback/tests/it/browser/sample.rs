//! A server with something of everything on it, and what the paths of its pages need.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, app_folder, example, json as body};

/// Somebody who is signed in, without a browser.
pub(super) struct Visitor {
    client: Client,
    origin: String,
    cookie: String,
}

impl Visitor {
    pub(super) async fn sign_in(stage: &Stage) -> Self {
        let client = Client::builder().redirect(Policy::none()).timeout(PATIENCE).build().unwrap();
        let origin = stage.home.url();
        let request =
            client.post(format!("{origin}/dashboard/sign-in")).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(format!("key={}", stage.keys.private_key)).send().await.unwrap();
        let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        Self { client, origin, cookie }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.origin)).header(COOKIE, &self.cookie)
    }

    /// Presses a button of a page: what the page that follows says.
    pub(super) async fn press(&self, path: &str, form: &'static str) -> String {
        let request = self.request(Method::POST, path).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(form).send().await.unwrap().text().await.unwrap()
    }

    pub(super) fn cookie(&self) -> &str {
        &self.cookie
    }

    pub(super) async fn is_signed_in(&self) -> bool {
        self.request(Method::GET, "/dashboard").send().await.unwrap().status() == 200
    }

    /// Whether there is a page at this path: nothing that flows or is downloaded.
    pub(super) async fn is_page(&self, path: &str) -> bool {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        answer.status() == 200 && kind.is_some_and(|kind| kind.starts_with("text/html"))
    }
}

/// The address of an inbox that was just made: where senders send to, and its page.
pub(super) async fn inbox(stage: &Stage) -> (String, String) {
    let made = stage.request(Method::POST, &stage.control("inboxes")).json(&json!({})).send().await.unwrap();
    let made = body(made).await;
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("url"), text("pageUrl"))
}

/// A receiver that fails for as long as it is told to.
pub(super) struct Moody {
    pub(super) evil: Evil,
    fails: Arc<AtomicBool>,
}

impl Moody {
    pub(super) async fn start() -> Self {
        let fails = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&fails);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let evil = Evil::start_at(address, move |_| {
            let word = if asked.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
            Fault::status(word, &[])
        });
        Self { evil: evil.await.unwrap(), fails }
    }

    pub(super) fn recover(&self) {
        self.fails.store(false, Ordering::SeqCst);
    }
}

/// A server on which there is something to see on every page.
pub(super) struct Scene {
    pub(super) stage: Stage,
    /// What stands for each name in a path.
    values: HashMap<&'static str, String>,
    /// What opens the pages of its inbox.
    token: String,
    _receivers: (Recorder, Moody, Evil),
}

impl Scene {
    /// Deploys, calls, fails, delivers.
    pub(super) async fn set() -> Self {
        let stage = Stage::empty();
        stage.deploy(&example("delay"), &["webhook-delay-example", "--config-file", "config.yaml"]);
        stage.deploy(&app_folder("basic"), &["captions"]);
        let (well, moody) = (Recorder::start().await.unwrap(), Moody::start().await);
        let gone = Evil::start(Fault::status("410 Gone", &[])).await.unwrap();
        let (send_to, page) = inbox(&stage).await;

        let mut runs = Vec::new();
        let mut call = async |path: String, request: Value| {
            let answer = body(stage.call(&path, request.to_string()).await).await;
            runs.push(answer["run_id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
        };
        let delay = stage.v3("webhook-delay-example/predict");
        call(delay.clone(), json!({"delayMins": 0, "webhook_endpoint": send_to})).await;
        for number in 0..6 {
            let request = json!({"value": {"image": format!("https://pictures.example/{number}.jpg")},
                "webhook_endpoint": well.url("captions"), "webhook_metadata": {"order": number}});
            call(stage.v4("captions/echo"), request).await;
        }
        call(stage.v4("captions/speak"), json!({"line": "3 objects found"})).await;
        call(stage.v4("captions/fail"), json!({"message": "no image at that address"})).await;
        call(stage.v4("captions/echo"), json!({"value": 1, "webhook_endpoint": gone.url("left")})).await;
        let told =
            json!({"value": {"caption": "a cat on a chair"}, "webhook_endpoint": moody.evil.url("hook")});
        call(stage.v4("captions/echo"), told).await;
        let run = runs.last().unwrap().clone();
        for run in &runs {
            stage.ended_run(run).await;
        }
        let set = ["secrets", "set", "HF_TOKEN=hush", "--app", "captions"];
        assert!(stage.home.command().args(set).output().unwrap().status.success());

        let endpoints = until(&stage, "endpoints", |view| view["items"][0]["id"].is_string()).await;
        until(&stage, &format!("runs/{run}"), |view| {
            view["deliveries"][0]["attempts"][0]["reason"].is_string()
        })
        .await;
        let view =
            body(stage.request(Method::GET, &stage.control(&format!("runs/{run}"))).send().await.unwrap())
                .await;
        let (page, token) = page.split_once('?').unwrap();
        let id = page.rsplit('/').next().unwrap().to_owned();
        let builds = stage
            .request(Method::GET, &stage.control(&format!("apps/{}-captions/builds", stage.keys.project_id)));
        let builds = body(builds.send().await.unwrap()).await;
        let share =
            Visitor::sign_in(&stage).await.press(&format!("/dashboard/runs/{run}/share"), "hours=1").await;
        let link = share
            .split("/dashboard/shared/")
            .nth(1)
            .and_then(|rest| rest.split('<').next())
            .unwrap()
            .to_owned();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let values = HashMap::from([
            ("app", "captions".to_owned()),
            ("function", "echo".to_owned()),
            ("run", run),
            ("delivery", text(&view["deliveries"][0]["id"])),
            ("endpoint", text(&endpoints["items"][0]["id"])),
            ("build", text(&builds["items"][0]["id"])),
            ("inbox", id.clone()),
            ("id", id),
            ("link", link),
            ("sequence", "1".to_owned()),
            ("number", "1".to_owned()),
            ("operation", "get-v2-projects-project-runs".to_owned()),
        ]);
        Self { token: token.to_owned(), stage, values, _receivers: (well, moody, gone) }
    }

    /// The path with what opens it.
    pub(super) fn opened(&self, path: String) -> String {
        if path.starts_with("/inboxes/") { format!("{path}?{}", self.token) } else { path }
    }

    /// What stands in a path for this name.
    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }
}

/// A view of the control plane, once it is as wanted.
async fn until(stage: &Stage, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let view = body(stage.request(Method::GET, &stage.control(path)).send().await.unwrap()).await;
        if wanted(&view) {
            return view;
        }
        assert!(began.elapsed() < PATIENCE, "{path}: {view}");
    }
}
