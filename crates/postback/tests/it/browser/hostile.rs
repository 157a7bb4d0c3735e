//! What strangers write is shown and never obeyed: a hundred texts that want to be scripts, markup, styles, addresses or
//! invisible go in wherever somebody else's text can, and every page that shows them is opened in a browser.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use testkit::receiver::{Evil, Fault};

use super::driver::Browser;
use super::routes;
use super::sample::{Visitor, inbox};
use crate::support::{PATIENCE, Stage, app_folder, json as body};

const PAYLOADS: &str = include_str!("payloads.json");
/// Requests that an inbox page is sent while it is open: no more than it shows.
const AT_ONCE: usize = 40;

/// What makes a page more than text, as a list. Everything of ours has another form.
const INERT: &str = r#"
const wrong = [];
const foreign = "script:not([src]), iframe, frame, object, embed, base, applet, marquee, math, style, audio, video, source, "
  + "animate, set, use, image, foreignObject, noscript, plaintext, x-pwn, meta[http-equiv], [id*=pwn], [class*=pwn], [name=attributes]";
for (const node of document.querySelectorAll(foreign)) wrong.push(`an element: ${node.outerHTML.slice(0, 120)}`);
for (const node of document.querySelectorAll("*")) {
  for (const { name, value } of node.attributes) {
    if (name.startsWith("on") || name === "style" || name === "srcdoc" || name === "is") wrong.push(`an attribute: ${name}=${value}`);
    if (["href", "src", "action", "formaction", "data", "xlink:href"].includes(name)
      && new URL(value, location).origin !== location.origin) wrong.push(`an address: ${name}=${value}`);
  }
}
// What is edited stays as it is, inside of its own field.
const page = document.documentElement.cloneNode(true);
for (const field of page.querySelectorAll("textarea")) field.remove();
const text = page.textContent;
const acting = text.match(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]|\udb40[\udc00-\udc7f]/g);
if (acting) wrong.push(`characters that act: ${acting.map((one) => one.codePointAt(0).toString(16))}`);
if (window.pwned || document.cookie) wrong.push("something was left behind");
return wrong;
"#;

/// The texts, each with a mark behind it that only shows when nothing before it was obeyed.
pub(super) fn payloads() -> Vec<(String, String)> {
    let texts: Vec<String> = serde_json::from_str(PAYLOADS).unwrap();
    assert!(texts.len() >= 100, "{} payloads", texts.len());
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "a payload stands there twice");
    let marked = |(number, text): (usize, &String)| {
        let mark = format!("mark-{number}-end");
        (format!("{text} {mark}"), mark)
    };
    texts.iter().enumerate().map(marked).collect()
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A browser that is signed in, and looks at pages with suspicion.
pub(super) struct Suspicious {
    pub(super) browser: Browser,
    pub(super) pages: usize,
}

impl Suspicious {
    pub(super) async fn sign_in(stage: &Stage) -> Option<Self> {
        let browser = Browser::open(&stage.home.url()).await?;
        browser.sign_in(&stage.keys.private_key).await;
        browser.until_at("/dashboard").await;
        Some(Self { browser, pages: 0 })
    }

    pub(super) async fn open(&mut self, path: &str) {
        self.browser.goto(path).await;
        self.check(path).await;
    }

    /// The open page is text.
    pub(super) async fn check(&mut self, path: &str) {
        self.pages += 1;
        let asked =
            format!("const wrong = (() => {{\n{INERT}\n}})();\nreturn {{ wrong, title: document.title }};");
        let (complaints, page) = self.browser.complaints_and(&asked).await;
        assert_eq!(page["wrong"], json!([]), "{path}");
        assert_eq!(complaints, Vec::<String>::new(), "{path}");
        assert_ne!(page["title"].as_str().unwrap(), "", "{path} has no title");
    }

    /// How often the page says it, folded parts included.
    pub(super) async fn says(&self, mark: &str) -> usize {
        let script = format!("return document.body.textContent.split({}).length - 1", Value::from(mark));
        usize::try_from(self.browser.run(&script).await.as_u64().unwrap()).unwrap()
    }
}

/// A receiver whose answer to number n is the n-th text.
async fn receiver(payloads: &[(String, String)]) -> Evil {
    let answers: Vec<Vec<u8>> = payloads.iter().map(|(text, _)| text.clone().into_bytes()).collect();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let answer = move |path: &str| {
        let number =
            path.trim_start_matches('/').split('?').next().and_then(|number| number.parse::<usize>().ok());
        let body = number.and_then(|number| answers.get(number)).cloned().unwrap_or_default();
        let head = format!(
            "HTTP/1.1 500 No\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        Fault::Say([head.into_bytes(), body].concat())
    };
    Evil::start_at(address, answer).await.unwrap()
}

/// Has every text said by the app, by its receiver, and by its error; the runs of both.
async fn call(stage: &Stage, evil: &Evil, payloads: &[(String, String)]) -> Vec<(String, String)> {
    let mut runs = Vec::new();
    for (number, (text, _)) in payloads.iter().enumerate() {
        let plain: String = text.chars().filter(|char| !char.is_control()).take(300).collect();
        let key: String = text.chars().take(200).collect();
        let hook = evil.url(&format!("{number}?{plain}"));
        let said = json!({"text": text, "webhook_endpoint": hook, "webhook_metadata": {key: text}});
        let request =
            stage.request(Method::POST, &stage.v4("hostile/say")).header("x-webhook-schedule", "1h");
        let said = body(request.body(said.to_string()).send().await.unwrap()).await;
        let failed =
            stage.call(&stage.v4("hostile/fail?async=true"), json!({"text": text}).to_string()).await;
        let failed = body(failed).await;
        let run = |answer: &Value| {
            answer["run_id"].as_str().unwrap_or_else(|| panic!("{text:?}: {answer}")).to_owned()
        };
        runs.push((run(&said), run(&failed)));
    }
    for (said, failed) in &runs {
        assert_eq!(stage.ended_run(failed).await["state"], "failed");
        let began = Instant::now();
        while stage.ended_run(said).await["deliveries"][0]["attempts"][0]["statusCode"] != 500 {
            assert!(began.elapsed() < PATIENCE, "no answer of the receiver was recorded");
        }
    }
    runs
}

#[tokio::test]
async fn what_callers_models_and_receivers_say_is_text_on_every_page() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let payloads = payloads();
    stage.deploy(&app_folder("hostile"), &["hostile"]);
    let broken = stage.home.scratch().join("broken");
    std::fs::create_dir(&broken).unwrap();
    for file in ["main.py", "cerebrium.toml"] {
        std::fs::copy(app_folder("hostile-build").join(file), broken.join(file)).unwrap();
    }
    let texts: Vec<_> = payloads.iter().map(|(text, _)| text).collect();
    std::fs::write(broken.join("payloads.json"), json!(texts).to_string()).unwrap();
    let refused =
        stage.home.command().current_dir(&broken).args(["deploy", "hostile-build"]).output().unwrap();
    assert!(!refused.status.success());
    let evil = receiver(&payloads).await;
    let runs = call(&stage, &evil, &payloads).await;

    for ((said, failed), (text, mark)) in runs.iter().zip(&payloads) {
        suspicious.open(&format!("/dashboard/runs/{said}")).await;
        // The result four times, two lines of the log, the metadata, the receiver's answer.
        let times = suspicious.says(mark).await;
        assert!(times >= 8, "{text:?} is on the page of its run {times} times only");
        suspicious.open(&format!("/dashboard/runs/{failed}")).await;
        // Its kind, its message, its traceback.
        let times = suspicious.says(mark).await;
        assert!(times >= 3, "{text:?} is on the page of its failure {times} times only");
    }
    for path in
        ["/dashboard", "/dashboard?span=24h", "/dashboard/runs?state=failed", "/dashboard/runs?app=hostile"]
    {
        suspicious.open(path).await;
    }
    for path in
        ["/dashboard/apps", "/dashboard/apps/hostile", "/dashboard/deliveries", "/dashboard/endpoints"]
    {
        suspicious.open(path).await;
    }
    suspicious.open("/dashboard/apps/hostile-build").await;
    assert!(suspicious.says("build-mark").await > 0, "the build's words are not on the page of its app");
    println!("{} payloads on {} pages", payloads.len(), suspicious.pages);
}

#[tokio::test]
async fn what_senders_send_to_an_inbox_is_text_whether_it_was_there_or_arrives() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let payloads = payloads();
    for (number, some) in payloads.chunks(AT_ONCE).enumerate() {
        let (send_to, page) = inbox(&stage).await;
        suspicious.open(&page).await;
        for (text, _) in some {
            send(&send_to, text, number).await;
        }
        let marks: Vec<_> = some.iter().map(|(_, mark)| mark).collect();
        let all = format!("{}.every((mark) => document.body.textContent.includes(mark))", json!(marks));
        suspicious.browser.until(&all).await;
        suspicious.check("an inbox that fills").await;
        suspicious.open(&page).await;
        suspicious.browser.until(&all).await;
        every_view(&stage, &mut suspicious, &page, &some[0]).await;
    }
    suspicious.open("/dashboard/inboxes").await;
    println!("{} payloads on {} pages", payloads.len(), suspicious.pages);
}

/// The pages of the two newest requests, the lines that differ, what a search finds, and the inbox by a hostile name.
async fn every_view(stage: &Stage, suspicious: &mut Suspicious, page: &str, (text, mark): &(String, String)) {
    let (place, token) = page.split_once('?').unwrap();
    let id = place.rsplit('/').next().unwrap();
    let list = stage.control(&format!("inboxes/{id}/requests"));
    let recorded = body(stage.request(Method::GET, &list).send().await.unwrap()).await;
    let numbers: Vec<_> =
        recorded["items"].as_array().unwrap().iter().rev().map(|item| item["sequence"].clone()).collect();
    for view in ["pretty", "raw", "headers", "hex"] {
        suspicious.open(&format!("{place}/requests/{}?{token}&view={view}", numbers[0])).await;
    }
    suspicious.open(&format!("{place}/compare?{token}&old={}&new={}", numbers[0], numbers[1])).await;
    suspicious.open(&format!("{page}&q={mark}")).await;
    assert!(suspicious.says(mark).await > 0, "the search does not find {text:?}");
    suspicious.open(&format!("{page}&q={}", encoded(&text.chars().take(200).collect::<String>()))).await;

    let name: String = text.chars().filter(|char| !char.is_control()).take(100).collect();
    let named =
        stage.request(Method::PATCH, &stage.control(&format!("inboxes/{id}"))).json(&json!({"name": name}));
    assert_eq!(named.send().await.unwrap().status(), 200, "{name:?}");
    suspicious.open(page).await;
    suspicious.open(&format!("/dashboard/inboxes/{id}")).await;
}

/// Sends a text as path, query, method, header and body of a request.
async fn send(address: &str, text: &str, number: usize) {
    let address = format!("{address}/{}?{}", encoded(text), encoded(text));
    let kinds = ["text/html", "application/json", "image/svg+xml", "application/xhtml+xml"];
    let method = Method::from_bytes([&b"POST"[..], b"PUT", b"PWN-'!#$%&*+^`|~"][number % 3]).unwrap();
    let mut request =
        reqwest::Client::new().request(method, address).header("content-type", kinds[number % 4]);
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        request = request.header("x-pwn'!#$%&*+^`|~", value);
    }
    let answer = request.body(text.to_owned()).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{text:?}");
}

#[tokio::test]
async fn what_an_address_says_is_text_on_the_page_that_repeats_it() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let visitor = Visitor::sign_in(&stage).await;
    let queries = [
        "app", "state", "before", "after", "receiver", "next", "span", "token", "q", "search", "metadata",
        "text",
    ];
    let (mut asked, mut repeated) = (0, 0);
    for (text, mark) in payloads() {
        let word = encoded(&text.chars().take(600).collect::<String>());
        let query: Vec<_> = queries.iter().map(|name| format!("{name}={word}")).collect();
        for route in routes::of_pages().iter().filter(|route| route.takes("GET")) {
            let path = format!("{}?{}", route.at(|_| Some(word.clone())).unwrap(), query.join("&"));
            let answer = visitor.request(Method::GET, &path).send().await.unwrap();
            asked += 1;
            let kind =
                answer.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
            if !kind.starts_with("text/html") {
                // A browser takes it for nothing else.
                assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{path}");
                assert!(["", "text/plain; charset=utf-8"].contains(&&*kind), "{path}: {kind}");
                continue;
            }
            // What does not repeat it cannot obey it.
            if answer.text().await.unwrap().contains(&mark) {
                repeated += 1;
                suspicious.open(&path).await;
            }
        }
    }
    println!("{asked} addresses asked for, {repeated} repeated and looked at");
}
