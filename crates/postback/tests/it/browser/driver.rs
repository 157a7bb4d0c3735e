//! A browser for tests: Debian's Chromium, headless, driven over WebDriver.
//!
//! WebDriver is JSON over HTTP, and a dozen of its commands are needed, so the HTTP client that the tests have anyway
//! sends them. What a page must not do is noted from its first moment on: violations of its policy, scripts of
//! strangers, dialogs, errors, requests to anywhere else.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::processes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::support::PATIENCE;

/// A browser takes a core and some hundred megabytes, so tests of one process take turns at two.
static TURN: Semaphore = Semaphore::const_new(2);

const DRIVER: &str = "chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";
/// How the driver says where it listens.
const LISTENING: &str = "started successfully on port ";
/// The key of an element in WebDriver's answers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Between two looks at a page that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(30);

/// Runs in every document before anything else in it.
const WATCH: &str = r#"
window.__noted = [];
window.pwn = () => { window.__noted.push("a script of a stranger ran"); };
addEventListener("securitypolicyviolation", (event) => {
  window.__noted.push(`policy: ${event.effectiveDirective} refused ${event.blockedURI} ${event.sample}`);
});
addEventListener("error", (event) => {
  if (event.message) window.__noted.push(`error: ${event.message}`);
});
"#;

/// An open browser with one window. Dropping it ends its processes.
pub(crate) struct Browser {
    driver: Child,
    profile: tempfile::TempDir,
    http: reqwest::Client,
    /// The address of its session.
    session: String,
    /// Where paths lead.
    origin: String,
    _turn: SemaphorePermit<'static>,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Light,
    Dark,
    Phone,
}

impl Look {
    pub(crate) const ALL: [Self; 3] = [Self::Light, Self::Dark, Self::Phone];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
            Self::Phone => "phone",
        }
    }

    /// Of the screen, in the pixels of style sheets.
    pub(crate) const fn width(self) -> u64 {
        match self {
            Self::Phone => 390,
            Self::Light | Self::Dark => 1_280,
        }
    }
}

impl Browser {
    /// Opens one for the server at `origin`; none, said aloud, on a machine without Chromium.
    ///
    /// # Panics
    /// When continuous integration has none.
    pub(crate) async fn open(origin: &str) -> Option<Self> {
        let lacks = |program: &str| Command::new(program).arg("--version").output().is_err();
        if lacks(CHROMIUM) || lacks(DRIVER) {
            assert!(
                std::env::var_os("CI").is_none(),
                "Chromium and its driver are missing; `script/test` installs them"
            );
            println!("SKIP: no Chromium here (Debian's packages chromium and chromium-driver)");
            return None;
        }
        let turn = TURN.acquire().await.unwrap();
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new(DRIVER)
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = port(&mut driver);
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let mut browser = Self {
            driver,
            profile,
            http,
            session: format!("http://127.0.0.1:{port}/session"),
            origin: origin.to_owned(),
            _turn: turn,
        };
        let wanted = capabilities(browser.profile.path());
        let made = browser.command(Method::POST, "", wanted).await;
        let id = made["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": WATCH})).await;
        Some(browser)
    }

    /// A command of WebDriver, or what it says against it.
    async fn attempt(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let request = self.http.request(method.clone(), format!("{}{path}", self.session));
        let request = if method == Method::GET { request } else { request.json(&body) };
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        let value = answer["value"].take();
        match value.get("error").and_then(Value::as_str) {
            // Nothing on a page may ask anything.
            Some("unexpected alert open") => panic!("a dialog: {value}"),
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
            None => Ok(value),
        }
    }

    async fn command(&self, method: Method, path: &str, body: Value) -> Value {
        self.attempt(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A command of Chromium's own protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command(Method::POST, "/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Opens a path of the server, or an address of it.
    pub(crate) async fn goto(&self, path: &str) {
        let path = path.strip_prefix(&self.origin).unwrap_or(path);
        self.command(Method::POST, "/url", json!({"url": format!("{}{path}", self.origin)})).await;
    }

    /// Path and query of the open page.
    pub(crate) async fn path(&self) -> String {
        let url = self.command(Method::GET, "/url", Value::Null).await;
        let url = url.as_str().unwrap();
        url.strip_prefix(&self.origin)
            .unwrap_or_else(|| panic!("the browser was led away to {url}"))
            .to_owned()
    }

    /// What the body of a function says in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.try_run(script).await.unwrap_or_else(|error| panic!("{error}\n{script}"))
    }

    async fn try_run(&self, script: &str) -> Result<Value, String> {
        self.attempt(Method::POST, "/execute/sync", json!({"script": script, "args": []})).await
    }

    /// The same for one that hands its answer to `done`.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.command(Method::POST, "/execute/async", json!({"script": script, "args": []})).await
    }

    /// What a reader sees.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap().to_owned()
    }

    /// Waits until an expression of the page is true; the page may change or reload meanwhile.
    pub(crate) async fn until(&self, expression: &str) {
        let began = Instant::now();
        let script = format!("return Boolean({expression})");
        while self.try_run(&script).await != Ok(Value::Bool(true)) {
            if began.elapsed() > PATIENCE {
                panic!(
                    "`{expression}` does not become true on {}:\n{}",
                    self.path().await,
                    self.text().await
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until the page says this, without opening it anew.
    pub(crate) async fn until_said(&self, said: &str) {
        self.until(&format!("document.body.innerText.includes({})", Value::from(said))).await;
    }

    /// Waits until the open page is the one at this path.
    pub(crate) async fn until_at(&self, path: &str) {
        self.until(&format!(
            "location.pathname === {} && document.readyState === 'complete'",
            Value::from(path)
        ))
        .await;
    }

    async fn find(&self, using: &str, value: &str) -> String {
        let began = Instant::now();
        loop {
            match self.attempt(Method::POST, "/element", json!({"using": using, "value": value})).await {
                Ok(element) => return element[ELEMENT].as_str().unwrap().to_owned(),
                Err(error) => assert!(began.elapsed() < PATIENCE, "`{value}` is not on the page: {error}"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn click_on(&self, using: &str, value: &str) {
        let began = Instant::now();
        loop {
            let element = self.find(using, value).await;
            let clicked = self.attempt(Method::POST, &format!("/element/{element}/click"), json!({})).await;
            let Err(error) = clicked else { return };
            // The page may have been replaced under the click.
            assert!(began.elapsed() < PATIENCE, "`{value}` cannot be clicked: {error}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Clicks on what the selector finds first.
    pub(crate) async fn click(&self, selector: &str) {
        self.click_on("css selector", selector).await;
    }

    /// Clicks on the button, link or summary that says this.
    pub(crate) async fn press(&self, words: &str) {
        let of = "self::button or self::a or self::summary";
        self.click_on("xpath", &format!("//*[{of}][normalize-space() = '{words}']")).await;
    }

    /// Types into a field.
    pub(crate) async fn fill(&self, selector: &str, text: &str) {
        let element = self.find("css selector", selector).await;
        self.command(Method::POST, &format!("/element/{element}/clear"), json!({})).await;
        self.command(Method::POST, &format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// Signs in with a key, as a person does.
    pub(crate) async fn sign_in(&self, key: &str) {
        self.goto("/dashboard/sign-in").await;
        self.fill("#key", key).await;
        self.click("form[action='/dashboard/sign-in'] button[type=submit]").await;
    }

    /// Everything that the open page, and those before it since the last time, should not have done.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        self.complaints_and("return null").await.0
    }

    /// The same, and what the body of a function says in the page: a question less on each of a thousand pages.
    pub(crate) async fn complaints_and(&self, script: &str) -> (Vec<String>, Value) {
        let script = format!(
            "const said = (() => {{\n{script}\n}})();\nreturn {{ said, noted: window.__noted.splice(0) }};"
        );
        let mut answer = self.run(&script).await;
        let noted = answer["noted"].as_array().unwrap();
        let noted: Vec<_> = noted.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect();
        let log = self.command(Method::POST, "/se/log", json!({"type": "browser"})).await;
        let said = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE");
        let said = said.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned());
        // A page may itself be an answer of 404 or 409.
        let said = said.filter(|line| !line.contains("the server responded with a status of"));
        (noted.into_iter().chain(said).collect(), answer["said"].take())
    }

    /// From now on pages are looked at this way.
    pub(crate) async fn look(&self, look: Look) {
        let scheme = if look == Look::Dark { "dark" } else { "light" };
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
        let phone = look == Look::Phone;
        let height = if phone { 844 } else { 860 };
        let metrics =
            json!({"width": look.width(), "height": height, "deviceScaleFactor": 2, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// A picture of the open page, as a PNG in base64.
    pub(crate) async fn picture(&self) -> String {
        let parameters = json!({"format": "png", "captureBeyondViewport": true});
        self.devtools("Page.captureScreenshot", parameters).await["data"].as_str().unwrap().to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        // The driver's children are Chromium's processes, which name the profile.
        for process in processes::mentioning(&self.profile.path().to_string_lossy()) {
            process.kill();
        }
    }
}

/// Where the driver says that it listens.
fn port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.find_map(|line| Some(line.split_once(LISTENING)?.1.to_owned()));
    let said = said.expect("the driver says where it listens");
    // Whoever closed the pipe would end the driver at its next word.
    std::thread::spawn(move || lines.for_each(drop));
    said.trim_end_matches('.').parse().unwrap()
}

fn capabilities(profile: &Path) -> Value {
    let profile = format!("--user-data-dir={}", profile.display());
    let mut arguments = vec![
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-extensions",
        "--disable-sync",
        "--no-first-run",
        "--password-store=basic",
        "--hide-scrollbars",
        "--lang=en",
        // A page takes the process and the frame of the one before: a fifth less work on each of a thousand pages.
        "--disable-features=BackForwardCache,ProactivelySwapBrowsingInstance,RenderDocument,SpareRendererForSitePerProcess",
        // Nothing outside this machine is reached, whatever a page asks for.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        &profile,
    ];
    // Chromium refuses its own sandbox to root.
    if rustix::process::geteuid().is_root() {
        arguments.push("--no-sandbox");
    }
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": 30_000, "pageLoad": 60_000},
    }}})
}
