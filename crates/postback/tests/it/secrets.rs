//! Secrets, from the command line to the model's environment, and nowhere else.

use std::io::Write as _;
use std::process::Stdio;

use reqwest::Method;
use serde_json::json;

use crate::support::{PATIENCE, Stage, json as body};

const MAIN: &str = r#"
import os
from cerebrium import get_secret

def seen():
    return [get_secret("TOKEN"), os.environ.get("KEY")]

def command_lines():
    """What everybody on the machine may read of this process and of its parents."""
    pid, found = os.getpid(), []
    while pid > 1:
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    found.append(file.read().decode("utf-8", "replace"))
            except PermissionError:
                pass
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
    return any("s3cret" in text for text in found)
"#;

fn postback(stage: &Stage, arguments: &[&str], input: &str) -> String {
    let mut command = stage.home.command();
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Whether any file of the data directory, but for environments, holds the text.
fn lies_in_clear(folder: &std::path::Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("environments") => false,
            _ if path.is_dir() => lies_in_clear(&path, text),
            _ => std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text)),
        }
    })
}

#[tokio::test]
async fn secrets_reach_the_model_and_nobody_else() {
    let stage = Stage::empty();
    let app = tempfile::tempdir().unwrap();
    std::fs::write(app.path().join("main.py"), MAIN).unwrap();
    std::fs::write(app.path().join("cerebrium.toml"), "[cerebrium.scaling]\nmin_replicas = 1\n").unwrap();
    postback(&stage, &["secrets", "set", "TOKEN=s3cret-of-all", "KEY=s3cret-key"], "");
    stage.deploy(app.path(), &["keeper"]);
    let seen = async || body(stage.call(&stage.v4("keeper/seen"), "{}").await).await["result"].clone();
    assert_eq!(seen().await, json!(["s3cret-of-all", "s3cret-key"]));
    let lines = body(stage.call(&stage.v4("keeper/command_lines"), "{}").await).await;
    assert_eq!(lines["result"], false, "process lists show nothing");

    let said = postback(&stage, &["secrets", "set", "TOKEN", "--app", "keeper"], "s3cret-its-own\n");
    assert!(said.contains("--restart") && !said.contains("s3cret"), "{said}");
    assert_eq!(seen().await, json!(["s3cret-of-all", "s3cret-key"]), "a running replica keeps what it has");
    postback(&stage, &["apps", "restart", "keeper"], "");
    let began = std::time::Instant::now();
    while seen().await != json!(["s3cret-its-own", "s3cret-key"]) {
        assert!(began.elapsed() < PATIENCE, "no fresh replica serves");
    }
    postback(&stage, &["secrets", "delete", "TOKEN", "--app", "keeper", "--restart"], "");
    while seen().await != json!(["s3cret-of-all", "s3cret-key"]) {
        assert!(began.elapsed() < PATIENCE, "the app's own secret is not gone");
    }

    assert_eq!(
        postback(&stage, &["secrets", "list", "--json", "--quiet"], "").trim(),
        r#"["KEY","TOKEN"]"#.trim()
    );
    for path in ["secrets", "apps/keeper/secrets", "apps/keeper", "apps", "apps/keeper/logs"] {
        let answer =
            stage.request(Method::GET, &stage.control(path)).send().await.unwrap().text().await.unwrap();
        assert!(!answer.contains("s3cret"), "{path}: {answer}");
    }
    assert!(
        !lies_in_clear(&stage.home.data_dir(), b"s3cret-"),
        "a secret lies in clear in the data directory"
    );
}
