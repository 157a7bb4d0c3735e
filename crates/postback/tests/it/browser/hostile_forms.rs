//! What people type, and what comes of it: names of keys and of inboxes, replies, settings, addresses, the answer to a
//! request that is sent once more, and the pages that links show. The same hundred texts, and nobody obeys them.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::receiver::{Evil, Fault};

use super::hostile::{Suspicious, payloads};
use super::sample::{Visitor, inbox};
use crate::support::{Stage, app_folder, json as body};

/// Names of keys have fewer bytes, and of inboxes fewer characters.
const NAME_MAX: usize = 100;

/// As much of a text as fits into a name, with its mark.
fn name(text: &str, mark: &str) -> String {
    let mut name = String::new();
    for char in text.chars().filter(|char| !char.is_control()) {
        if name.len() + char.len_utf8() + 1 + mark.len() > NAME_MAX {
            break;
        }
        name.push(char);
    }
    format!("{name} {mark}")
}

/// Fills a form of ours, sends it as a browser does, and looks at the page that follows.
async fn submit(suspicious: &mut Suspicious, path: &str, fields: &[(&str, &str)]) {
    let script = format!(
        r#"const form = document.createElement("form");
        form.method = "post";
        form.action = {};
        for (const [name, value] of {}) {{
          const field = document.createElement("textarea");
          field.name = name;
          field.value = value;
          form.append(field);
        }}
        document.body.append(form);
        window.before = true;
        form.submit();"#,
        Value::from(path),
        json!(fields),
    );
    suspicious.browser.run(&script).await;
    suspicious.browser.until("!window.before && document.readyState === 'complete'").await;
    suspicious.check(path).await;
}

/// A receiver that answers to number n with the n-th text, in its body and in a header.
async fn receiver(payloads: &[(String, String)]) -> Evil {
    let texts: Vec<String> = payloads.iter().map(|(text, _)| text.clone()).collect();
    let answer = move |path: &str| {
        let number = path.trim_start_matches('/').parse::<usize>().unwrap_or(usize::MAX);
        let text = texts.get(number).cloned().unwrap_or_default();
        let line: String = text.chars().filter(|char| !char.is_control()).collect();
        let head = format!(
            "HTTP/1.1 200 <b>OK</b>\r\nx-pwn'!#$%&*+^`|~: {line}\r\ncontent-type: text/html\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            text.len()
        );
        Fault::Say([head.into_bytes(), text.into_bytes()].concat())
    };
    Evil::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await.unwrap()
}

#[tokio::test]
async fn names_of_keys_and_settings_are_text_on_the_pages_that_follow() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let visitor = Visitor::sign_in(&stage).await;
    let payloads = payloads();
    stage.deploy(&app_folder("hostile"), &["hostile"]);
    let list = stage.control("keys");
    for (text, mark) in &payloads {
        let named = name(text, mark);
        submit(&mut suspicious, "/dashboard/keys/named", &[("name", &named), ("scope", "inference")]).await;
        // Where it is told this once, and in the list.
        let times = suspicious.says(mark).await;
        assert!(times >= 2, "{named:?} is on the page of keys {times} times only");
        let keys = body(stage.request(Method::GET, &list).send().await.unwrap()).await;
        let id = keys["keys"][0]["id"].as_str().unwrap();
        // A page that does not repeat it cannot obey it, so nobody looks at the one without it.
        visitor.press(&format!("/dashboard/keys/named/{id}/revoke"), "").await;
        let left =
            visitor.request(Method::GET, "/dashboard/keys").send().await.unwrap().text().await.unwrap();
        assert!(left.contains("/dashboard/keys/named"), "{left}");
        assert!(!left.contains(mark), "{named:?} is still there: {left}");

        let path = "/dashboard/apps/hostile/scaling";
        submit(&mut suspicious, path, &[("cooldownPeriodSeconds", text), ("scalingMetric", text)]).await;
        assert!(suspicious.browser.path().await.ends_with("/scaling"), "{text:?} was taken for a setting");
    }
    println!("{} payloads on {} pages", payloads.len(), suspicious.pages);
}

#[tokio::test]
async fn names_and_replies_of_inboxes_are_text_also_where_a_link_shows_them() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let payloads = payloads();
    for (text, mark) in &payloads {
        let named = name(text, mark);
        let header: String = text.chars().filter(char::is_ascii_graphic).take(1_000).collect();
        let reply = json!({"script": "200", "headers": {"x-pwn": header}, "body": text});
        let made = stage.request(Method::POST, &stage.control("inboxes"));
        let made = body(made.json(&json!({"name": named, "reply": reply})).send().await.unwrap()).await;
        let id = made["id"].as_str().unwrap_or_else(|| panic!("{text:?}: {made}"));
        let settings = format!("/dashboard/inboxes/{id}");
        suspicious.open(&settings).await;
        let times = suspicious.says(mark).await;
        assert!(times >= 2, "{named:?} is on the page of its settings {times} times only");
        submit(&mut suspicious, &settings, &[("name", text), ("ends", text)]).await;
        let script = format!("200,{text}");
        submit(
            &mut suspicious,
            &format!("{settings}/reply"),
            &[("script", &script), ("headers", text), ("body", "")],
        )
        .await;
        submit(&mut suspicious, &format!("{settings}/links"), &[("hours", "1")]).await;
        let link = suspicious.browser.run("return document.getElementById('link').textContent").await;
        suspicious.open(link.as_str().unwrap()).await;
    }
    suspicious.open("/dashboard/inboxes").await;
    println!("{} payloads on {} pages", payloads.len(), suspicious.pages);
}

#[tokio::test]
async fn what_an_address_answers_to_a_request_sent_once_more_is_text() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let payloads = payloads();
    let evil = receiver(&payloads).await;
    let (send_to, page) = inbox(&stage).await;
    let id = page.rsplit('/').next().and_then(|rest| rest.split('?').next()).unwrap().to_owned();
    for (number, (text, mark)) in payloads.iter().enumerate() {
        let header: String = text.chars().filter(|char| !char.is_control()).collect();
        let sent = reqwest::Client::new().put(format!("{send_to}/{number}")).header("x-mine", header);
        assert_eq!(sent.body(text.clone()).send().await.unwrap().status(), 200, "{text:?}");
        let form = format!("/dashboard/inboxes/{id}/requests/{}/replay", number + 1);
        suspicious.open(&form).await;
        assert!(suspicious.says(mark).await > 0, "{text:?} is not among the headers that go along");
        submit(&mut suspicious, &form, &[("url", &evil.url(&number.to_string()))]).await;
        // The header that went along, the one that came back, and the body.
        let times = suspicious.says(mark).await;
        assert!(times >= 3, "{text:?} is on the page of the answer {times} times only");
        submit(&mut suspicious, &form, &[("url", text)]).await;
        // Some of them are addresses, of a host that there is not.
        let refused = suspicious.says("Nothing was sent").await + suspicious.says("does not resolve").await;
        assert!(refused > 0, "{text:?} was sent somewhere");
    }
    assert_eq!(evil.accepted(), payloads.len());
    println!("{} payloads on {} pages", payloads.len(), suspicious.pages);
}

#[tokio::test]
async fn runs_that_a_link_shows_are_text_for_whoever_has_it() {
    let stage = Stage::empty();
    let Some(mut suspicious) = Suspicious::sign_in(&stage).await else { return };
    let visitor = Visitor::sign_in(&stage).await;
    let payloads = payloads();
    stage.deploy(&app_folder("hostile"), &["hostile"]);
    for (text, mark) in &payloads {
        let key: String = text.chars().take(200).collect();
        let request = json!({"text": text, "webhook_metadata": {key: text}}).to_string();
        for (function, wanted) in [("say", 7), ("fail", 3)] {
            let said =
                stage.call(&stage.v4(&format!("hostile/{function}?async=true")), request.clone()).await;
            let said = body(said).await;
            let run = said["run_id"].as_str().unwrap_or_else(|| panic!("{text:?}: {said}"));
            stage.ended_run(run).await;
            let page = visitor.press(&format!("/dashboard/runs/{run}/share"), "hours=1").await;
            let link =
                page.split("/dashboard/shared/").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
            suspicious.open(&format!("/dashboard/shared/{link}")).await;
            let times = suspicious.says(mark).await;
            assert!(times >= wanted, "{text:?} is on the shared page of {function} {times} times only");
        }
    }
    println!("{} payloads on {} pages", payloads.len(), suspicious.pages);
}
