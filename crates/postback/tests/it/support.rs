//! What the tests of the built binary share: a server with an app, and a client that speaks to it.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use queue::signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use testkit::checker::Crash;
use testkit::recorder::Arrival;
use testkit::server::{Home, Keys, Server};

/// How long anything may take that should take a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_postback"))
}

/// The apps of the tests.
pub(crate) fn app_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/apps").join(name)
}

/// The examples that the repository ships.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// A server with the app `basic`, and a client with its keys.
pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) server: Option<Server>,
    pub(crate) keys: Keys,
    /// Every death that was caused so far.
    pub(crate) crashes: Vec<Crash>,
    /// Looks after each restart for what the server before it left.
    pub(crate) watches: Vec<JoinHandle<Vec<String>>>,
    http: reqwest::Client,
}

impl Stage {
    /// A fresh server without apps.
    pub(crate) fn empty() -> Self {
        Self::on(Home::new(binary()))
    }

    pub(crate) fn on(home: Home) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = home.start();
        let keys = home.keys();
        let http = reqwest::Client::builder().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
        Self { home, server: Some(server), keys, crashes: Vec::new(), watches: Vec::new(), http }
    }

    /// A fresh server with the app `basic`.
    pub(crate) fn basic() -> Self {
        let stage = Self::empty();
        stage.deploy(&app_folder("basic"), &["basic"]);
        stage
    }

    /// Deploys the app in `folder` by the command line.
    pub(crate) fn deploy(&self, folder: &Path, arguments: &[&str]) -> std::process::Output {
        let output = self.home.command().current_dir(folder).arg("deploy").args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "deploy failed: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        output
    }

    /// A request with the private key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.home.url()))
            .header("authorization", format!("Bearer {}", self.keys.private_key))
    }

    /// A request without a key.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.home.url()))
    }

    /// Calls a function the way the mission's curl line does: with the raw public key.
    pub(crate) async fn call(&self, path: &str, body: impl Into<String>) -> Response {
        self.bare(Method::POST, path)
            .header("authorization", &self.keys.public_key)
            .header("content-type", "application/json")
            .body(body.into())
            .send()
            .await
            .unwrap()
    }

    /// `/v3/{project}/{rest}`
    pub(crate) fn v3(&self, rest: &str) -> String {
        format!("/v3/{}/{rest}", self.keys.project_id)
    }

    /// `/v4/{project}/{rest}`
    pub(crate) fn v4(&self, rest: &str) -> String {
        format!("/v4/{}/{rest}", self.keys.project_id)
    }

    /// `/v2/projects/{project}/{rest}`
    pub(crate) fn control(&self, rest: &str) -> String {
        format!("/v2/projects/{}/{rest}", self.keys.project_id)
    }

    /// A run once it has ended.
    pub(crate) async fn ended_run(&self, run: &str) -> Value {
        let began = std::time::Instant::now();
        loop {
            let path = self.control(&format!("runs/{run}?wait=10"));
            let view = json(self.request(Method::GET, &path).send().await.unwrap()).await;
            if !matches!(view["state"].as_str(), Some("queued" | "running")) {
                return view;
            }
            assert!(began.elapsed() < PATIENCE, "run {run} does not end: {view}");
        }
    }

    /// Kills the server and starts it again on the same data.
    pub(crate) fn crash_and_restart(&mut self) {
        self.server.take().expect("it runs").kill();
        self.server = Some(self.home.start());
    }
}

/// The keys of a JSON object in the order in which they stand there.
///
/// # Panics
/// When the text is no JSON object.
pub(crate) fn keys(text: &str) -> Vec<String> {
    struct Keys;
    impl<'de> serde::de::Visitor<'de> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, serde::de::IgnoredAny)) = map.next_entry()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }
    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_str(text), Keys).unwrap()
}

/// The body as JSON, with the status it came with in the message when it is none.
pub(crate) async fn json(response: Response) -> Value {
    let status = response.status();
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}: {error}: {text}"))
}

/// Has the public library of Rust make the signature that a delivery must have, and judges its age by the
/// clock of its arrival: the library itself knows the present time only, and a test may take longer than
/// its five minutes.
///
/// # Panics
/// When the delivery has another one, or was sent long before or after it arrived.
pub(crate) fn verify_at_arrival(webhook: &standardwebhooks::Webhook, arrival: &Arrival) {
    let sent: i64 = arrival.header(TIMESTAMP_HEADER).parse().expect("seconds");
    let wanted = webhook.sign(arrival.header(ID_HEADER), sent, &arrival.body).unwrap();
    let signatures = arrival.header(SIGNATURE_HEADER);
    assert!(signatures.split(' ').any(|signature| signature == wanted), "{signatures}, wanted {wanted}");
    let age = arrival.received.as_secs() - sent;
    assert!((-300..=300).contains(&age), "it arrived {age} s after it was signed");
}

/// Has the public libraries of Python and Node verify deliveries.
///
/// # Panics
/// When it refuses one, or `script/test` has not installed it.
pub(crate) fn verify_with_public_libraries(stage: &Stage, arrivals: &[Arrival]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/test-python/bin/python");
    assert!(python.exists(), "the tests' Python packages are missing; `script/test` installs them");
    let lines: String = arrivals
        .iter()
        .map(|arrival| {
            let headers: serde_json::Map<_, _> = [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER]
                .map(|name| (name.to_owned(), Value::String(arrival.header(name).to_owned())))
                .into_iter()
                .collect();
            let body = std::str::from_utf8(&arrival.body).expect("webhooks are UTF-8");
            // The libraries refuse what is older than five minutes. A long test is no old delivery, so each
            // is judged by the clock of its arrival.
            let received = arrival.received.as_millis();
            let secret = &stage.keys.webhook_secret;
            serde_json::json!({"secret": secret, "headers": headers, "body": body, "received": received})
                .to_string()
                + "\n"
        })
        .collect();
    let file = stage.home.scratch().join("deliveries.jsonl");
    std::fs::write(&file, lines).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/verify_deliveries.py");
    let output = std::process::Command::new(python).arg(script).arg(&file).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), format!("{} verified", arrivals.len()));
    verify_with_node(&root, &file, arrivals.len());
}

fn verify_with_node(root: &Path, deliveries: &Path, count: usize) {
    let packages = root.join("target/test-node/package.json");
    if !packages.with_file_name("node_modules/standardwebhooks").exists() {
        println!("SKIP: the tests' npm packages are missing; `script/test` installs them where it can");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/npm/verify_deliveries.mjs");
    let packages = std::fs::canonicalize(packages).unwrap();
    let output =
        std::process::Command::new("node").arg(script).arg(packages).arg(deliveries).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), format!("{count} verified"));
}
