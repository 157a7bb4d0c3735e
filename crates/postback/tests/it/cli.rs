//! The command line: what people see, and what scripts read.

use std::process::Command;

use crate::support::{Stage, app_folder, binary};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_quickstart_shows_the_whole_thing_twice_in_any_folder() {
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(binary())
            .args(["quickstart", "--once"])
            .current_dir(folder.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{said}");
        for line in ["run_id", "Delayed for 0 mins", "verified", "curl", "/inboxes/"] {
            assert!(said.contains(line), "no `{line}` in: {said}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it leaves nothing behind");
    }
}

#[test]
fn commands_find_the_server_and_speak_json() {
    let stage = Stage::basic();
    let run = |arguments: &[&str]| {
        let output = stage.home.command().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let called = run(&["call", "basic", "echo", "--data", r#"{"value":5}"#, "--json"]);
    let called: serde_json::Value = serde_json::from_str(&called).unwrap();
    assert_eq!(called["result"]["value"], 5);
    assert!(run(&["apps", "list"]).contains("basic"));
    assert!(run(&["runs", "list"]).contains("succeeded"));
    let inbox: serde_json::Value = serde_json::from_str(&run(&["inbox", "create", "--json"])).unwrap();
    assert!(inbox["url"].as_str().unwrap().contains("/inbox/"));
    assert!(run(&["keys", "show"]).contains(&stage.keys.public_key));
    assert!(run(&["completions", "bash"]).contains("postback"));
}

#[test]
fn errors_say_what_to_do_next() {
    let home = testkit::server::Home::new(binary());
    let output = home
        .command()
        .args(["apps", "list", "--api-key", "private-0", "--project", "p-12345678"])
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("error:") && said.contains("hint:") && said.contains("postback serve"), "{said}");

    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    let config = "[cerebrium.deployment]\nname = \"x\"\n[cerebrium.scaling]\nmax_replicas = \"many\"\n";
    std::fs::write(folder.path().join("cerebrium.toml"), config).unwrap();
    std::fs::write(folder.path().join("main.py"), "def f():\n    return 1\n").unwrap();
    let output = stage.home.command().current_dir(folder.path()).arg("deploy").output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cerebrium.toml") && said.contains("max_replicas") && said.contains('4'), "{said}");
}

#[test]
fn deploy_ends_with_the_curl_line() {
    let stage = Stage::empty();
    let output = stage.deploy(&app_folder("basic"), &["basic"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("curl") && said.contains(&stage.v4("basic/")), "{said}");
    // What the function cannot do without stands in the body.
    let folder = stage.home.scratch().join("asks");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("main.py"), "def draw(prompt, size, steps=20):\n    return prompt\n").unwrap();
    let said = text(&stage.deploy(&folder, &["asks"]).stdout);
    assert!(said.contains("/draw ") && said.contains(r#"--data '{"prompt":"…","size":"…"}'"#), "{said}");
    // Nothing changed, so nothing is installed: the second deploy takes a moment.
    stage.deploy(&app_folder("basic"), &["basic"]);
}
