//! The API's page in a browser: operations are filled in, sent and answered where they stand, and what cannot be taken
//! back is asked for twice.

use reqwest::Method;
use serde_json::{Value, json};

use super::driver::Browser;
use super::hostile::{Suspicious, payloads};
use crate::support::{Stage, app_folder, json as body};

async fn open(browser: &Browser, id: &str) {
    browser.goto("/dashboard/settings").await;
    browser.goto(&format!("/dashboard/api#{id}")).await;
    browser.until(&format!("document.getElementById('{id}')?.open")).await;
}

#[tokio::test]
async fn an_operation_is_filled_in_sent_and_answered_where_it_stands() {
    let stage = Stage::empty();
    let Some(browser) = Browser::open(&stage.home.url()).await else { return };
    browser.sign_in(&stage.keys.private_key).await;
    browser.until_at("/dashboard").await;

    let create = "post-v2-projects-project-inboxes";
    open(&browser, create).await;
    browser.run("window.opened = 'once'").await;
    browser.fill(&format!("#{create} textarea[name=body]"), "{\"name\": \"from the page\"}").await;
    browser.click(&format!("#{create} button.primary")).await;
    browser.until_said("200 OK").await;
    browser.until_said("\"name\": \"from the page\"").await;
    let path = stage.control("inboxes");
    let inboxes = async || body(stage.request(Method::GET, &path).send().await.unwrap()).await;
    let id = inboxes().await["items"][0]["id"].as_str().unwrap().to_owned();

    let delete = "delete-v2-projects-project-inboxes-inbox";
    browser.run(&format!("document.getElementById('{delete}').open = true")).await;
    browser.fill(&format!("#{delete} input[name='path.inbox']"), &id).await;
    browser.click(&format!("#{delete} button.danger")).await;
    browser.until_said("cannot be taken back").await;
    assert_eq!(inboxes().await["items"].as_array().map(Vec::len), Some(1), "it was not agreed to");
    browser.press("Send it all the same").await;
    browser
        .until(&format!("document.querySelector('#{delete} .answer')?.innerText.includes('200 OK')"))
        .await;
    assert_eq!(inboxes().await["items"], json!([]));
    assert_eq!(browser.run("return window.opened").await, "once", "the page was loaded again");
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // A session that ended meanwhile is no broken server.
    let out = "fetch('/dashboard/sign-out', { method: 'POST' }).then(() => { window.out = true; })";
    browser.run(out).await;
    browser.until("window.out").await;
    browser.click(&format!("#{create} button.primary")).await;
    browser.until_said("Your session has ended").await;
    assert_eq!(inboxes().await["items"], json!([]), "nothing was sent");
}

#[tokio::test]
async fn what_an_operation_is_answered_is_text() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    stage.deploy(&app_folder("basic"), &["basic"]);
    suspicious.open("/dashboard/api/post-v4-project-app-function").await;
    let payloads = payloads();
    for (text, mark) in &payloads {
        let script = format!(
            "const form = document.querySelector('form.ask'); const say = (name, text) => {{ form.elements[name].value = text; }}; \
             say('path.app', 'basic'); say('path.function', 'echo'); say('body', JSON.stringify({{ value: {} }})); \
             form.requestSubmit(form.querySelector('button.primary'));",
            Value::from(text.as_str())
        );
        suspicious.browser.run(&script).await;
        let answered = format!(
            "document.querySelector('pre[aria-label=Answer]')?.textContent.includes({})",
            Value::from(mark.as_str())
        );
        suspicious.browser.until(&answered).await;
        suspicious.check("an answer of the API").await;
    }
    println!("{} payloads came back", payloads.len());
}
