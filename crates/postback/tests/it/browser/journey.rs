//! One person's way through the product, from the key to the receiver that fails.

use reqwest::Method;
use serde_json::json;

use super::driver::Browser;
use super::sample::Moody;
use crate::support::{Stage, app_folder, json as body};

#[tokio::test]
async fn a_webhook_is_watched_from_the_call_to_a_receiver_that_comes_back() {
    let stage = Stage::empty();
    let Some(browser) = Browser::open(&stage.home.url()).await else { return };

    // Nobody gets in without the key; then the page that was asked for is opened.
    browser.goto("/dashboard/apps").await;
    browser.until_at("/dashboard/sign-in").await;
    browser.fill("#key", "private-0000").await;
    browser.click("button[type=submit]").await;
    browser.until_said("This is no private key").await;
    browser.fill("#key", &stage.keys.private_key).await;
    browser.click("form[action='/dashboard/sign-in'] button[type=submit]").await;
    browser.until_said("No apps yet").await;

    stage.deploy(&app_folder("basic"), &["basic"]);
    browser.goto("/dashboard/apps").await;
    browser.press("basic").await;
    browser.until_at("/dashboard/apps/basic").await;
    browser.until_said("echo").await;

    // A fresh inbox, open while the call is made.
    browser.goto("/dashboard/inboxes").await;
    browser.press("New inbox").await;
    browser.until("document.getElementById('live')?.dataset.state === 'on'").await;
    browser.run("window.opened = 'once'").await;
    let inboxes = body(stage.request(Method::GET, &stage.control("inboxes")).send().await.unwrap()).await;
    let inbox = inboxes["items"][0]["url"].as_str().unwrap();
    let request = json!({"value": "good morning", "webhook_endpoint": inbox}).to_string();
    let answer = body(stage.call(&stage.v4("basic/echo"), request).await).await;
    let run = answer["run_id"].as_str().unwrap();
    for said in [run, "good morning", "verified"] {
        browser.until_said(said).await;
    }
    assert_eq!(browser.run("return window.opened").await, "once", "the page was loaded again");

    // The same run from its own side.
    browser.goto("/dashboard/runs").await;
    browser.click(&format!("a[href='/dashboard/runs/{run}']")).await;
    for said in ["accepted", "started", "succeeded", "delivered with 200"] {
        browser.until_said(said).await;
    }

    tried(&browser).await;
    retried_and_redelivered(&stage, &browser).await;
    failing_on_purpose(&stage, &browser).await;
    rotated_secret(&stage, &browser).await;
    revoked_key(&stage, &browser).await;
    replaced_key(&stage, &browser).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

/// A function is called from its form, and its result comes to an inbox made on the spot.
async fn tried(browser: &Browser) {
    browser.goto("/dashboard/apps/basic/try/echo").await;
    browser.fill("textarea[name='p.value']", "good evening").await;
    browser.click("input[name=to][value=inbox]").await;
    browser.click("button[name=do][value=send]").await;
    browser.until_said("202").await;
    browser.click(".answer a[href*='/inboxes/']").await;
    for said in ["good evening", "verified"] {
        browser.until_said(said).await;
    }
}

/// An inbox is told to fail twice, and the page of the run shows it.
async fn failing_on_purpose(stage: &Stage, browser: &Browser) {
    let made = stage.request(Method::POST, &stage.control("inboxes")).send().await.unwrap();
    let inbox = body(made).await["url"].as_str().unwrap().to_owned();
    let id = inbox.rsplit('/').next().unwrap();
    browser.goto(&format!("/dashboard/inboxes/{id}")).await;
    browser.run("document.querySelector('input[name=script]').value = ''").await;
    browser.fill("input[name=script]", "503;times=2,200").await;
    // The field says so before it is sent, too: what counts is the page that follows.
    browser.run("window.before = true").await;
    browser.click("form[action$='/reply'] button[type=submit]").await;
    browser
        .until("!window.before && document.querySelector('input[name=script]')?.value.startsWith('503')")
        .await;
    let request = json!({"value": 2, "webhook_endpoint": inbox}).to_string();
    let call =
        stage.request(Method::POST, &stage.v4("basic/echo")).header("x-webhook-schedule", "1s, 1s, 1s, 1h");
    let answer = body(call.body(request).send().await.unwrap()).await;
    browser.goto(&format!("/dashboard/runs/{}", answer["run_id"].as_str().unwrap())).await;
    for said in ["attempt 1 failed with 503", "attempt 2 failed with 503", "delivered with 200"] {
        browser.until_said(said).await;
    }
}

/// The secret that signs is replaced, and what is signed by the new one is verified.
async fn rotated_secret(stage: &Stage, browser: &Browser) {
    let fresh = replace(browser, "webhookSecret", "whsec_").await;
    assert!(fresh.len() > 30, "{fresh}");
    let made = stage.request(Method::POST, &stage.control("inboxes")).send().await.unwrap();
    let made = body(made).await;
    let request = json!({"value": "signed anew", "webhook_endpoint": made["url"]}).to_string();
    assert_eq!(stage.call(&stage.v4("basic/echo"), request).await.status(), 202);
    browser.goto(made["pageUrl"].as_str().unwrap()).await;
    for said in ["signed anew", "verified"] {
        browser.until_said(said).await;
    }
}

/// A named key signs in, and whoever holds it is signed out once it is revoked.
async fn revoked_key(stage: &Stage, browser: &Browser) {
    let form = "form[action='/dashboard/keys/named']";
    browser.goto("/dashboard/keys").await;
    browser.fill(&format!("{form} input[name=name]"), "a visitor").await;
    browser.run(&format!("document.querySelector(\"{form} select[name=scope]\").value = 'everything'")).await;
    browser.click(&format!("{form} button[type=submit]")).await;
    browser.until("document.getElementById('fresh')?.textContent.length > 20").await;
    let key = browser.run("return document.getElementById('fresh').textContent").await;
    browser.press("Sign out").await;
    browser.until_at("/dashboard/sign-in").await;
    browser.sign_in(key.as_str().unwrap()).await;
    browser.until_at("/dashboard").await;
    browser.goto("/dashboard/keys").await;
    browser.press("Revoke").await;
    browser.until_at("/dashboard/sign-in").await;
    browser.sign_in(key.as_str().unwrap()).await;
    browser.until_said("This is no private key").await;
    browser.sign_in(&stage.keys.private_key).await;
    browser.until_at("/dashboard").await;
}

/// Replaces a key on its page; the new one, once it is shown.
async fn replace(browser: &Browser, kind: &str, begins: &str) -> String {
    browser.goto("/dashboard/keys").await;
    let form = format!("form:has(input[value={kind}])");
    browser.run(&format!("document.querySelector('{form}').closest('details').open = true")).await;
    browser.click(&format!("{form} button[type=submit]")).await;
    browser.until(&format!("document.getElementById('fresh')?.textContent.startsWith('{begins}')")).await;
    browser.run("return document.getElementById('fresh').textContent").await.as_str().unwrap().to_owned()
}

/// A receiver fails, is tried again, comes back, and is told once more.
async fn retried_and_redelivered(stage: &Stage, browser: &Browser) {
    let moody = Moody::start().await;
    let request = json!({"value": 1, "webhook_endpoint": moody.evil.url("hook")}).to_string();
    let call =
        stage.request(Method::POST, &stage.v4("basic/echo")).header("x-webhook-schedule", "1s, 1s, 1s, 1h");
    let answer = body(call.body(request).send().await.unwrap()).await;
    let run = answer["run_id"].as_str().unwrap();
    browser.goto(&format!("/dashboard/runs/{run}")).await;
    // The page keeps itself up to date.
    browser.until_said("attempt 1 failed with 503").await;
    browser.until_said("attempt 2 failed with 503").await;
    browser.until_said("tried again").await;
    moody.recover();
    let before = moody.evil.accepted();
    browser.press("Deliver once more").await;
    browser.until_said("delivered with 200").await;
    assert!(moody.evil.accepted() > before);
}

/// A key that is replaced ends the session that it opened.
async fn replaced_key(stage: &Stage, browser: &Browser) {
    let fresh = replace(browser, "privateKey", "private-").await;
    browser.goto("/dashboard/runs").await;
    browser.until_at("/dashboard/sign-in").await;
    browser.sign_in(&stage.keys.private_key).await;
    browser.until_said("This is no private key").await;
    browser.sign_in(&fresh).await;
    browser.until_at("/dashboard").await;
}
