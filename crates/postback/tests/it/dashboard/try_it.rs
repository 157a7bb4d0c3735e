//! Calling functions from the dashboard: by a form, like everybody else, with the code that does the same.

use std::process::Command;

use queue::limits::TRIED_INPUT_BYTES_MAX;
use serde_json::Value;
use testkit::recorder::Recorder;

use super::Visitor;
use crate::support::{PATIENCE, Stage, json};

/// What stands between two texts, as a browser would show it.
pub(super) fn between<'p>(page: &'p str, before: &str, after: &str) -> &'p str {
    let rest = page.split_once(before).unwrap_or_else(|| panic!("`{before}` is missing: {page}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("`{after}` is missing: {page}")).0
}

pub(super) fn unescaped(html: &str) -> String {
    let text = html.replace("&#60;", "<").replace("&#62;", ">").replace("&#34;", "\"").replace("&#39;", "'");
    text.replace("&#38;", "&")
}

pub(super) fn answer(page: &str) -> String {
    unescaped(between(page, "aria-label=\"Answer\">", "</pre>"))
}

#[tokio::test]
async fn a_function_is_called_from_its_form_and_answers_as_the_api_does() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let app = visitor.page("/dashboard/apps/basic").await;
    assert!(app.contains("/dashboard/apps/basic/try/echo\"") && app.contains("name=\"p.value\""), "{app}");

    let path = "/dashboard/apps/basic/try/echo";
    let written = "{\"n\": 12345678901234567890123, \"t\": \"</pre><script>alert(1)</script>\u{202e}\"}";
    let pressed = visitor.press(path, &[("as", "fields"), ("p.value", written), ("to", "page")]).await;
    assert_eq!(pressed.status(), 200);
    let page = pressed.text().await.unwrap();
    assert!(!page.contains("<script>alert") && !answer(&page).contains('\u{202e}'), "{page}");
    assert!(page.contains("200 OK") && answer(&page).contains("\"n\": 12345678901234567890123"), "{page}");
    // The very same words that a program gets.
    for (function, body) in [
        ("echo", "{}"),
        ("echo", "{\"valeu\": 1}"),
        ("echo", "{\"value\": "),
        ("fail", "{\"message\": \"no\"}"),
    ] {
        let told = stage.call(&stage.v4(&format!("basic/{function}")), body).await;
        let status = told.status().as_u16();
        let path = format!("/dashboard/apps/basic/try/{function}");
        let page = visitor.press(&path, &[("as", "json"), ("json", body)]).await.text().await.unwrap();
        let (mut told, mut shown) =
            (json(told).await, serde_json::from_str::<Value>(&answer(&page)).unwrap());
        for answer in [&mut told, &mut shown] {
            answer.as_object_mut().unwrap().remove("run_id");
        }
        assert_eq!(shown, told);
        assert!(page.contains(&format!("data-state=\"failed\">{status} ")), "{page}");
    }

    let broken = visitor.press(path, &[("as", "fields"), ("p.value", "{\"a\": ")]).await;
    assert_eq!(broken.status(), 422);
    assert!(broken.text().await.unwrap().contains("This begins like JSON and is none"));
    let large = "x".repeat(TRIED_INPUT_BYTES_MAX);
    assert_eq!(visitor.press(path, &[("p.value", &large)]).await.status(), 413);
    assert_eq!(visitor.press("/dashboard/apps/basic/try/nothing", &[]).await.status(), 404);
    assert_eq!(visitor.open("/dashboard/apps/basic/try/_hidden").await.status(), 404);
    let foreign = visitor.request(reqwest::Method::POST, path).header("origin", "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    visitor.cookie = None;
    assert_eq!(visitor.press(path, &[("p.value", "1")]).await.status(), 303);
}

#[tokio::test]
async fn a_result_goes_to_an_inbox_made_on_the_spot_and_to_the_same_one_again() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let path = "/dashboard/apps/basic/try/echo";
    let mut form = vec![("as", "fields"), ("p.value", "4"), ("to", "inbox")];
    let page = visitor.press(path, &form).await.text().await.unwrap();
    assert!(page.contains("202 Accepted"), "{page}");
    let run = between(&page, "<a href=\"/dashboard/runs/", "\"").to_owned();
    let inbox = unescaped(between(&page, "<a href=\"/inboxes/", "\""));
    assert_eq!(stage.ended_run(&run).await["state"], "succeeded");
    visitor.until(&format!("/inboxes/{inbox}"), &[&run]).await;

    let id = between(&page, "name=\"inbox\" value=\"", "\"").to_owned();
    form.push(("inbox", &id));
    let again = visitor.press(path, &form).await.text().await.unwrap();
    assert_eq!(unescaped(between(&again, "<a href=\"/inboxes/", "\"")), inbox);
    let kept = visitor.press(path, &[("p.value", "5"), ("to", "run")]).await.text().await.unwrap();
    let run = between(&kept, "<a href=\"/dashboard/runs/", "\"");
    let ended = stage.ended_run(run).await;
    assert_eq!((&ended["state"], ended["webhooks"].as_array().map(Vec::len)), (&"succeeded".into(), Some(0)));
}

#[tokio::test]
async fn the_code_that_is_shown_makes_the_call() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let hostile = "it's `date` $HOME \\ \"so\"\n\u{202e}</pre>";
    let body = serde_json::json!({ "value": hostile }).to_string();
    let form = [("as", "json"), ("json", body.as_str()), ("do", "show")];
    let page = visitor.press("/dashboard/apps/basic/try/echo", &form).await.text().await.unwrap();
    assert!(!page.contains("aria-label=\"Answer\""), "nothing was to be sent: {page}");
    let mut languages = vec![("curl", "sh", "-c"), ("python", "python3", "-c")];
    if Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        languages.push(("javascript", "node", "-e"));
    }
    for (language, program, flag) in languages {
        let code = unescaped(between(&page, &format!("id=\"echo-{language}\" tabindex=\"0\">"), "</pre>"));
        let mut command = tokio::process::Command::new(program);
        command.args([flag, &code]).env("POSTBACK_API_KEY", &stage.keys.public_key).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let json: Value =
            serde_json::from_str(&said[said.find('{').unwrap_or(0)..]).unwrap_or_else(|error| {
                panic!("{language}: {error}: {said}{}", String::from_utf8_lossy(&output.stderr))
            });
        assert_eq!(json["result"]["value"], hostile, "{language}");
    }
}

#[tokio::test]
async fn a_run_is_made_again_from_its_page_with_what_it_was_made_with() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let recorder = Recorder::start().await.unwrap();
    let hook = recorder.url("hook");
    let request = format!("{{\"value\": 12345678901234567890123, \"webhook_endpoint\": \"{hook}\"}}");
    let first = json(stage.call(&stage.v3("basic/echo"), request).await).await;
    let first = first["run_id"].as_str().unwrap();
    stage.ended_run(first).await;

    let page = visitor.page(&format!("/dashboard/runs/{first}")).await;
    let again = unescaped(between(&page, "<a class=\"button\" href=\"", "\">Run again"));
    let form = visitor.page(&again).await;
    assert_eq!(
        between(
            &form,
            "name=\"p.value\" rows=\"1\" spellcheck=\"false\" autocomplete=\"off\" aria-required=\"true\">\n",
            "</textarea>"
        ),
        "12345678901234567890123"
    );
    assert!(
        form.contains("value=\"webhook\" checked") && form.contains(&format!("value=\"{hook}\"")),
        "{form}"
    );
    let sent =
        [("as", "fields"), ("p.value", "12345678901234567890123"), ("to", "webhook"), ("webhook", &hook)];
    let path = again.split('?').next().unwrap();
    let answered = visitor.press(path, &sent).await.text().await.unwrap();
    let second = between(&answered, "<a href=\"/dashboard/runs/", "\"");
    assert_ne!(second, first);
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 2).await);
    for arrival in recorder.arrivals() {
        let body = String::from_utf8_lossy(&arrival.body);
        assert!(body.contains("\"value\":12345678901234567890123,"), "{body}");
    }

    // The curl line of the page does the same.
    let curl = unescaped(between(&page, "id=\"echo-curl\" tabindex=\"0\">", "</pre>"));
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", &curl]).env("POSTBACK_API_KEY", &stage.keys.public_key).kill_on_drop(true);
    assert!(tokio::time::timeout(PATIENCE, shell.output()).await.unwrap().unwrap().status.success());
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 3).await);

    // A call that waited kept no input.
    let waited = json(stage.call(&stage.v4("basic/echo"), "{\"value\": 1}").await).await;
    let waited = waited["run_id"].as_str().unwrap();
    assert!(!visitor.page(&format!("/dashboard/runs/{waited}")).await.contains("Run again"));
    assert_eq!(visitor.open(&format!("{path}?run={waited}")).await.status(), 409);
}
