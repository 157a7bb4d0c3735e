//! What strangers write reaches a terminal as text: the hundred texts of the browser's test go in wherever somebody
//! else's text can, and neither a command of ours nor the server's log says one that would act.

use std::path::Path;

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;
use testkit::receiver::{Evil, Fault};

use crate::support::{Stage, app_folder, json as body};

const PAYLOADS: &str = include_str!("browser/payloads.json");

/// What moves a cursor, sets a colour, turns the direction of writing, breaks a line or cannot be seen.
fn acts(char: char) -> bool {
    (char.is_control() && !matches!(char, '\n' | '\t'))
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}')
        || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(char, '\u{e0000}'..='\u{e007f}')
}

/// Runs a command and looks at what it prints; whether it printed the mark.
fn look(stage: &Stage, arguments: &[&str], mark: &str) -> bool {
    look_in(stage, stage.home.scratch(), arguments, mark)
}

fn look_in(stage: &Stage, folder: &Path, arguments: &[&str], mark: &str) -> bool {
    let output = stage.home.command().current_dir(folder).args(arguments).output().unwrap();
    let mut said = String::new();
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        let text = String::from_utf8(bytes).unwrap();
        let acting = text.lines().find(|line| line.chars().any(acts));
        assert_eq!(acting, None, "`postback {}` says on {name} what acts", arguments.join(" "));
        said.push_str(&text);
    }
    said.contains(mark)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_write_is_text_in_a_terminal_and_in_the_log() {
    let stage = Stage::empty();
    let texts: Vec<String> = serde_json::from_str(PAYLOADS).unwrap();
    tokio::task::block_in_place(|| stage.deploy(&app_folder("hostile"), &["hostile"]));
    let broken = stage.home.scratch().join("broken");
    std::fs::create_dir(&broken).unwrap();
    for file in ["main.py", "cerebrium.toml"] {
        std::fs::copy(app_folder("hostile-build").join(file), broken.join(file)).unwrap();
    }
    std::fs::write(broken.join("payloads.json"), json!(texts).to_string()).unwrap();

    let made = stage.request(Method::POST, &stage.control("inboxes")).json(&json!({})).send().await.unwrap();
    let id = body(made).await["id"].as_str().unwrap().to_owned();
    let refusal = |text: &str| {
        let head = format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
        Fault::Say([head.as_bytes(), text.as_bytes()].concat())
    };
    let all = texts.join("\n");
    let evil = Evil::start(refusal(&all)).await.unwrap();
    let (mut said, mut failed) = (Vec::new(), Vec::new());
    for (number, text) in texts.iter().enumerate() {
        let marked = format!("{text} mark-{number}-end");
        let name: String = marked.chars().filter(|char| !char.is_control()).collect();
        let short = &name[..(0..=90).rev().find(|end| name.is_char_boundary(*end)).unwrap()];
        let key =
            stage.request(Method::POST, &stage.control("keys")).json(&json!({"name": format!("{short}!")}));
        // A project has so many.
        assert_eq!(key.send().await.unwrap().status(), if number < 100 { 200 } else { 409 }, "{text:?}");
        let change = stage.request(Method::PATCH, &stage.control(&format!("inboxes/{id}")));
        let changed = change.json(&json!({"name": short.trim()})).send().await.unwrap();
        assert_eq!(changed.status(), 200, "{text:?}");
        let mut send = stage.bare(Method::POST, &format!("/inbox/{id}/{number}"));
        if let Ok(value) = HeaderValue::from_bytes(marked.as_bytes()) {
            send = send.header("content-type", value);
        }
        assert_eq!(send.body(marked.clone()).send().await.unwrap().status(), 200, "{text:?}");
        let metadata: String = marked.chars().take(200).collect();
        let request =
            json!({"text": marked, "webhook_endpoint": evil.url("x"), "webhook_metadata": {"a": metadata}});
        for (function, runs) in [("say", &mut said), ("fail", &mut failed)] {
            let path = stage.v4(&format!("hostile/{function}"));
            let call = stage.request(Method::POST, &path).header("x-webhook-schedule", "1h");
            let run = body(call.body(request.to_string()).send().await.unwrap()).await;
            runs.push(run["run_id"].as_str().unwrap_or_else(|| panic!("{text:?}: {run}")).to_owned());
        }
    }
    for run in said.iter().chain(&failed) {
        stage.ended_run(run).await;
    }
    tokio::task::block_in_place(|| {
        let told = look_in(&stage, &broken, &["deploy", "hostile-build"], "build-mark");
        assert!(told, "the failed deploy does not say why");
        // What could act, on its own; all of them are in the lists.
        let acting = (0..texts.len()).filter(|number| texts[*number].chars().any(acts));
        for (number, said, failed) in acting.map(|number| (number, &said[number], &failed[number])) {
            let mark = format!("mark-{number}-end");
            for arguments in [["logs", "--run", said], ["runs", "get", said], ["runs", "get", failed]] {
                assert!(look(&stage, &arguments, &mark), "{arguments:?} does not say {mark}");
            }
        }
        assert!(
            look(&stage, &["inbox", "show", &id], "mark-119-end"),
            "the inbox does not show what came last"
        );
        for arguments in [
            &["inbox", "list"][..],
            &["keys", "list"],
            &["runs", "list", "--limit", "1000"],
            &["deliveries", "list"],
            &["endpoints", "list"],
            &["logs", "hostile"],
            &["apps", "list"],
            &["apps", "events", "hostile"],
            &["apps", "events", "hostile-build"],
        ] {
            look(&stage, arguments, "");
        }
        let replay = ["inbox", "replay", &id, "1", "--to", &evil.url("x")];
        assert!(look(&stage, &replay, "500"), "the replay does not say what came back");
    });
    let log = stage.home.log();
    let acting = log.lines().find(|line| line.chars().any(acts));
    assert_eq!(acting, None, "the server's log says what acts");
    assert!(log.contains("webhook attempt failed"), "{log}");
}
