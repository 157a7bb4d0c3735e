//! The dashboard from outside: who gets in, what is shown, and that only its own pages change anything.

mod api;
mod logs;
mod replay;
mod scaling;
mod sharing;
mod try_it;

use reqwest::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::json as object;
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json};

/// Somebody with a browser.
pub(crate) struct Visitor {
    client: Client,
    origin: String,
    pub(crate) cookie: Option<String>,
}

impl Visitor {
    pub(crate) fn of(stage: &Stage) -> Self {
        let client = Client::builder().redirect(Policy::none()).timeout(PATIENCE).build().unwrap();
        Self { client, origin: stage.home.url(), cookie: None }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.origin));
        match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        }
    }

    pub(crate) async fn open(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn page(&self, path: &str) -> String {
        let response = self.open(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.unwrap()
    }

    /// Opens a page until it says all of this.
    pub(crate) async fn until(&self, path: &str, said: &[&str]) -> String {
        let began = std::time::Instant::now();
        loop {
            let page = self.page(path).await;
            let Some(missing) = said.iter().find(|said| !page.contains(**said)) else { return page };
            assert!(began.elapsed() < PATIENCE, "`{missing}` is missing: {page}");
        }
    }

    /// Presses a button.
    pub(crate) async fn press(&self, path: &str, form: &[(&str, &str)]) -> Response {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.request(Method::POST, path).header("origin", &self.origin);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn sign_in(&mut self, key: &str) -> Response {
        let response =
            self.press("/dashboard/sign-in", &[("key", key), ("next", "/dashboard/runs?state=failed")]).await;
        let cookie = response.headers().get(SET_COOKIE).map(|cookie| cookie.to_str().unwrap().to_owned());
        self.cookie = cookie.and_then(|cookie| Some(cookie.split_once(';')?.0.to_owned()));
        response
    }
}

fn location(response: &Response) -> &str {
    response.headers()[LOCATION].to_str().unwrap()
}

#[tokio::test]
async fn the_private_key_opens_the_dashboard_and_nothing_else_does() {
    let stage = Stage::empty();
    let mut visitor = Visitor::of(&stage);
    let turned_away = visitor.open("/dashboard/runs?state=failed").await;
    assert_eq!(turned_away.status(), 303);
    assert_eq!(location(&turned_away), "/dashboard/sign-in?next=%2Fdashboard%2Fruns%3Fstate%3Dfailed");
    for wrong in [stage.keys.public_key.as_str(), "private-0000", ""] {
        let refused = visitor.sign_in(wrong).await;
        assert_eq!((refused.status().as_u16(), visitor.cookie.is_none()), (401, true), "{wrong}");
        assert!(refused.text().await.unwrap().contains("postback keys show"));
    }
    let key = stage.keys.private_key.clone();
    let welcomed = visitor.sign_in(&key).await;
    assert_eq!((welcomed.status().as_u16(), location(&welcomed)), (303, "/dashboard/runs?state=failed"));
    let policy = visitor.open("/dashboard/runs").await.headers()["content-security-policy"].clone();
    assert!(policy.to_str().unwrap().starts_with("default-src 'none'"));
    assert!(visitor.page("/dashboard/runs").await.contains("No runs here"));

    // A forged cookie, another site's button, another name for this address.
    let good = visitor.cookie.clone().unwrap();
    let forged = if good.ends_with('A') { "B" } else { "A" };
    visitor.cookie = Some(format!("{}{forged}", &good[..good.len() - 1]));
    assert_eq!(visitor.open("/dashboard/runs").await.status(), 303);
    visitor.cookie = Some(good);
    for foreign in
        [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("x-nothing", "at all")]
    {
        let request = visitor.request(Method::POST, "/dashboard/sign-out").header(foreign.0, foreign.1);
        assert_eq!(request.send().await.unwrap().status(), 403, "{foreign:?}");
    }
    let rebound = visitor.request(Method::GET, "/dashboard/runs").header(HOST, "evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), 403);

    // A key that is replaced takes its sessions along.
    let rotated = stage.home.command().args(["keys", "rotate", "--only", "private-key"]).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    assert_eq!(visitor.open("/dashboard/runs").await.status(), 303);
}

#[tokio::test]
async fn a_run_is_followed_from_its_acceptance_to_its_receiver_and_told_once_more() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let hostile = "</pre><script>alert(1)</script>\u{202e}";
    let request = object!({"value": hostile, "webhook_endpoint": recorder.url("hook")}).to_string();
    let answer = json(stage.call(&stage.v4("basic/echo"), request).await).await;
    let run = answer["run_id"].as_str().unwrap();
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 1).await);
    stage.ended_run(run).await;

    assert!(visitor.page("/dashboard/runs?app=basic&state=succeeded").await.contains(run));
    let path = format!("/dashboard/runs/{run}");
    let began = std::time::Instant::now();
    let mut page = visitor.page(&path).await;
    while !page.contains("webhook delivered with 200") {
        assert!(began.elapsed() < PATIENCE, "{page}");
        page = visitor.page(&path).await;
    }
    for said in ["accepted", "started", "succeeded", "Result", "first byte"] {
        assert!(page.contains(said), "`{said}` is missing: {page}");
    }
    assert!(!page.contains("<script>alert") && !page.contains('\u{202e}'), "what the caller sent is obeyed");

    let button = page.split("action=\"").find(|part| part.contains("/redeliver\"")).unwrap();
    let pressed = visitor.press(button.split('"').next().unwrap(), &[]).await;
    assert_eq!((pressed.status().as_u16(), location(&pressed)), (303, path.as_str()));
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 2).await);
    let arrivals = recorder.arrivals();
    assert_eq!(
        (arrivals[0].header("webhook-id"), &arrivals[0].body),
        (arrivals[1].header("webhook-id"), &arrivals[1].body)
    );
    assert_eq!(visitor.open("/dashboard/runs/00000000-0000-7000-8000-000000000000").await.status(), 404);
}

#[tokio::test]
async fn a_run_is_cancelled_by_its_button() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let recorder = Recorder::start().await.unwrap();
    let request = object!({"seconds": 600, "webhook_endpoint": recorder.url("hook")}).to_string();
    let answer = json(stage.call(&stage.v4("basic/nap"), request).await).await;
    let run = answer["run_id"].as_str().unwrap();
    // The replica that works on it says so.
    let page = visitor
        .until(
            "/dashboard/apps/basic",
            &[">serving</span>", &format!("<td><a href=\"/dashboard/runs/{run}\"><code>{run}</code></a> ")],
        )
        .await;
    let replicas = page.split("id=\"replicas-title\"").nth(1).unwrap().split("</table>").next().unwrap();
    assert!(replicas.contains("MiB</td>"), "{replicas}");
    let pressed = visitor.press(&format!("/dashboard/runs/{run}/cancel"), &[]).await;
    assert_eq!(pressed.status(), 303);
    assert_eq!(stage.ended_run(run).await["state"], "cancelled");
    let again = visitor.press(&format!("/dashboard/runs/{run}/cancel"), &[]).await;
    assert_eq!(again.status(), 409);
    assert!(again.text().await.unwrap().contains("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_tells_what_happened_and_what_failed_last_also_after_a_restart() {
    let mut stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    assert!(visitor.page("/dashboard").await.contains("Nothing has happened yet"));
    for value in 0..3 {
        json(stage.call(&stage.v4("basic/echo"), object!({"value": value}).to_string()).await).await;
    }
    let failed = stage.call(&stage.v4("basic/fail"), object!({"message": "<b>no</b>"}).to_string()).await;
    assert_eq!(failed.status(), 500);
    let recorder = Recorder::start().await.unwrap();
    let request = object!({"value": 1, "webhook_endpoint": recorder.url("hook")}).to_string();
    json(stage.call(&stage.v4("basic/echo"), request).await).await;
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 1).await);

    let told = ["4 succeeded", "1 failed, cancelled or expired", "1 delivered", "own code raised an error"];
    visitor.until("/dashboard", &told).await;
    assert!(!visitor.page("/dashboard?span=7d").await.contains("<b>no"));
    let server = stage.server.take().unwrap();
    assert!(tokio::task::block_in_place(|| server.terminate()).success());
    stage.restart().await;
    visitor.until("/dashboard?span=24h", &told).await;
}

#[tokio::test]
async fn an_app_is_shown_restarted_and_deleted_only_by_who_types_its_name() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    assert!(visitor.page("/dashboard/apps").await.contains("/dashboard/apps/basic"));
    let hostile = "<script>alert(1)</script>";
    json(stage.call(&stage.v4("basic/speak"), object!({"line": hostile}).to_string()).await).await;
    let set =
        stage.home.command().args(["secrets", "set", "TOKEN=hush-hush", "--app", "basic"]).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));

    let began = std::time::Instant::now();
    let mut page = visitor.page("/dashboard/apps/basic").await;
    while !page.contains("alert(1)") {
        assert!(began.elapsed() < PATIENCE, "what it printed is not shown: {page}");
        page = visitor.page("/dashboard/apps/basic").await;
    }
    for said in ["active", "echo", "curl ", "TOKEN", "speak", "/dashboard/runs/"] {
        assert!(page.contains(said), "`{said}` is missing: {page}");
    }
    assert!(!page.contains("<script>alert") && !page.contains("hush-hush"), "{page}");

    visitor.until("/dashboard/apps/basic", &["deployed", "Runs over 24h", "live</span>"]).await;
    let live = page.split("data-state=\"active\">live").next().unwrap().rsplit("<code>").next().unwrap();
    let live = live.split('<').next().unwrap();
    let again = visitor.press("/dashboard/apps/basic/rollback", &[("build", live)]).await;
    assert_eq!(again.status(), 409);
    assert!(again.text().await.unwrap().contains("is live already"));

    let pressed = visitor.press("/dashboard/apps/basic/restart", &[]).await;
    assert_eq!((pressed.status().as_u16(), location(&pressed)), (303, "/dashboard/apps/basic"));
    let unsure = visitor.press("/dashboard/apps/basic/delete", &[("name", "basics")]).await;
    assert_eq!(unsure.status(), 409);
    assert!(visitor.page("/dashboard/apps").await.contains("/dashboard/apps/basic"));
    let sure = visitor.press("/dashboard/apps/basic/delete", &[("name", "basic")]).await;
    assert_eq!((sure.status().as_u16(), location(&sure)), (303, "/dashboard/apps"));
    assert_eq!(visitor.open("/dashboard/apps/basic").await.status(), 404);
}

#[tokio::test]
async fn what_a_receiver_refused_is_listed_and_delivered_once_it_is_enabled() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let gone = Evil::start(Fault::status("410 Gone", &[])).await.unwrap();
    let (address, receiver) = (gone.address(), gone.url(""));
    let request = object!({"value": 1, "webhook_endpoint": gone.url("hook")}).to_string();
    let answer = json(stage.call(&stage.v4("basic/echo"), request).await).await;
    let run = answer["run_id"].as_str().unwrap();

    let began = std::time::Instant::now();
    let mut page = visitor.page("/dashboard/endpoints").await;
    while !page.contains("/enable\"") {
        assert!(began.elapsed() < PATIENCE, "{page}");
        page = visitor.page("/dashboard/endpoints").await;
    }
    let receiver: String = url::form_urlencoded::byte_serialize(receiver.as_bytes()).collect();
    let listed = visitor.page(&format!("/dashboard/deliveries?state=disabled&receiver={receiver}")).await;
    assert!(listed.contains(run) && listed.contains("410"), "{listed}");
    assert!(!visitor.page("/dashboard/deliveries?state=delivered").await.contains(run));
    assert_eq!(visitor.open("/dashboard/deliveries?receiver=nonsense").await.status(), 422);

    drop(gone);
    let began = std::time::Instant::now();
    let recorder = loop {
        match Recorder::start_at(address).await {
            Ok(recorder) => break recorder,
            // The one before is on its way out.
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let button = page.split("action=\"").find(|part| part.contains("/enable\"")).unwrap();
    let pressed = visitor.press(button.split('"').next().unwrap(), &[]).await;
    assert_eq!(pressed.status(), 303);
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 1).await);
    assert_eq!(recorder.arrivals()[0].json()["run_id"], run);
}

async fn an_inbox_is_set_by_forms(stage: &Stage, visitor: &mut Visitor, page: &str) {
    let id = page.split(['/', '?']).nth(2).unwrap().to_owned();
    let settings = format!("/dashboard/inboxes/{id}");
    let form = [("script", "418"), ("headers", "X-Mine: 1\r\n"), ("body", "<b>no</b>")];
    assert_eq!(visitor.press(&format!("{settings}/reply"), &form).await.status(), 303);
    let answer = stage.bare(Method::POST, &format!("/inbox/{id}")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-mine"].to_str().unwrap()), (418, "1"));
    assert_eq!(answer.text().await.unwrap(), "<b>no</b>");
    let wrong = [("script", "200,<i>"), ("headers", ""), ("body", "")];
    let refused = visitor.press(&format!("{settings}/reply"), &wrong).await;
    assert_eq!(refused.status(), 422);
    let refused = refused.text().await.unwrap();
    assert!(refused.contains("step 2 of the script") && !refused.contains("<i>"), "{refused}");

    let named = visitor.press(&settings, &[("name", "<i>mine</i>"), ("ends", "24")]).await;
    assert_eq!(named.status(), 303);
    let shown = visitor.page(&settings).await;
    assert!(shown.contains("&#60;i&#62;mine") && !shown.contains("<i>mine") && shown.contains("ends in "));
    assert!(shown.contains("418") && shown.contains("x-mine: 1") && !shown.contains("<b>no"), "{shown}");

    assert_eq!(visitor.press(&format!("{settings}/share"), &[]).await.status(), 303);
    assert_eq!(stage.bare(Method::GET, page).send().await.unwrap().status(), 404);
    assert_eq!(visitor.press(&format!("{settings}/delete"), &[]).await.status(), 303);
    assert_eq!(visitor.press(&format!("{settings}/delete"), &[]).await.status(), 404);
    assert!(!visitor.page("/dashboard/inboxes").await.contains(&id));
}

#[tokio::test]
async fn an_inbox_is_made_with_a_click_and_a_replaced_key_is_told_once() {
    let stage = Stage::empty();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let made = visitor.press("/dashboard/inboxes", &[]).await;
    assert_eq!(made.status(), 303);
    let inbox = location(&made).to_owned();
    assert!(visitor.page(&inbox).await.contains("/inbox/"));
    assert!(visitor.page("/dashboard/inboxes").await.contains(inbox.split('?').next().unwrap()));
    an_inbox_is_set_by_forms(&stage, &mut visitor, &inbox).await;

    let replaced = visitor.press("/dashboard/keys", &[("kind", "publicKey")]).await;
    assert_eq!(replaced.status(), 200);
    assert_eq!(replaced.headers()["cache-control"], "no-store");
    let page = replaced.text().await.unwrap();
    let fresh = page.split("id=\"fresh\"").nth(1).and_then(|rest| rest.split(['>', '<']).nth(1)).unwrap();
    assert!(fresh.starts_with("public-") && fresh != stage.keys.public_key, "{fresh}");
    assert!(!visitor.page("/dashboard/keys").await.contains(fresh), "it is told once");
    let unknown = visitor.press("/dashboard/keys", &[("kind", "masterKey")]).await;
    assert_eq!(unknown.status(), 404);
}
