//! What apps print, as people read it: by app, by run, by output, by text, live.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Stage, json as body};

const CODE: &str = r#"
import logging, sys

def speak(name):
    print("hello", name)
    print("careful", name, file=sys.stderr)
    logging.warning("logged %s", name)
    return name

def flood():
    for n in range(30000):
        print("%0100d" % n)
"#;

fn stage() -> Stage {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.py"), CODE).unwrap();
    tokio::task::block_in_place(|| stage.deploy(folder.path(), &["talker"]));
    stage
}

async fn speak(stage: &Stage, name: &str) -> String {
    let answer = stage.call(&stage.v4("talker/speak"), json!({"name": name}).to_string()).await;
    body(answer).await["run_id"].as_str().unwrap().to_owned()
}

/// The lines that `postback logs` prints, without their times, sorted: outputs have pipes of their own.
fn printed(stage: &Stage, arguments: &[&str]) -> Vec<String> {
    let output =
        tokio::task::block_in_place(|| stage.home.command().arg("logs").args(arguments).output().unwrap());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> = text.lines().map(words).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_found_by_run_output_text_and_time() {
    let stage = stage();
    let one = speak(&stage, "one").await;
    let two = speak(&stage, "two").await;
    let shown = printed(&stage, &["--run", &one]);
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown.iter().all(|line| line.contains("one")), "{shown:?}");
    assert_eq!(printed(&stage, &["--run", &two, "--stream", "stdout"]), ["stdout hello two"]);
    assert_eq!(printed(&stage, &["talker", "--stream", "stdout"]), ["stdout hello one", "stdout hello two"]);
    let careful = ["stderr careful one", "stderr careful two"];
    assert_eq!(printed(&stage, &["talker", "--search", "CAREFUL"]), careful);
    assert_eq!(printed(&stage, &["talker", "--search", "careful", "--stream", "stdout"]), [""; 0]);
    assert_eq!(printed(&stage, &["talker", "--since", "2030-01-31T12:00:00Z"]), [""; 0]);
    assert_eq!(printed(&stage, &["talker", "--since", "1h", "--search", "careful"]), careful);
    assert_eq!(printed(&stage, &["talker", "--tail", "1"]).len(), 1);
    let system = printed(&stage, &["talker", "--stream", "system"]);
    assert!(system.iter().all(|line| line.starts_with("system ")), "{system:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_lines_as_they_come_and_only_those_it_asked_for() {
    let stage = stage();
    speak(&stage, "before").await;
    let mut follower: Command = stage.home.command();
    follower.args(["--json", "logs", "talker", "--follow", "--stream", "stdout"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(follower.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let line: Value = serde_json::from_str(&line).unwrap();
            let _ = sender.send(line["logLine"].as_str().unwrap().to_owned());
        }
    });
    let next = || tokio::task::block_in_place(|| lines.recv_timeout(PATIENCE).unwrap());
    assert_eq!(next(), "hello before");
    for name in ["first", "second"] {
        speak(&stage, name).await;
        assert_eq!(next(), format!("hello {name}"));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_flood_head_and_tail_are_kept_with_the_count_of_what_is_missing() {
    let stage = stage();
    let run = body(stage.call(&stage.v4("talker/flood"), "{}").await).await;
    let run = run["run_id"].as_str().unwrap().to_owned();
    let shown = printed(&stage, &["--run", &run]);
    let (dropped, kept): (Vec<_>, Vec<_>) = shown.iter().partition(|line| line.starts_with("system"));
    assert!(kept[0].ends_with(&format!("{:0100}", 0)) && kept[kept.len() - 1].ends_with("29999"));
    assert_eq!(dropped, [&format!("system {} bytes dropped", (30_000 - kept.len()) * 101)]);
    assert!(kept.len() * 101 <= queue::limits::RUN_LOG_BYTES_MAX);
}
