//! The words of the command line, as people and scripts meet them: helps, tables, JSON, mistakes. What
//! differs from one time to the next is blotted out.
//!
//! When words change on purpose: `cargo insta review`, or the same tests with `INSTA_UPDATE=always`.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::support::{PATIENCE, Stage, binary};

/// The binary, with nothing of this machine's environment that a help or an answer would show.
fn postback(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().args(arguments);
    command
}

fn stdout(mut command: Command) -> String {
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// What `--help` says of the command; flags that every command has are shown once.
fn help(path: &[&str]) -> String {
    let said = stdout(postback(&[path, &["--help"]].concat()));
    match said.split_once("\nGlobal options:\n") {
        Some((own, global)) if !path.is_empty() => {
            let after = global.split_once("\n\n").map_or("", |(_, after)| after);
            format!("{own}\n{after}")
        }
        _ => said,
    }
}

/// The commands that a help lists, `help` itself aside.
fn below(help: &str) -> Vec<String> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    let list = list.split("\n\n").next().unwrap_or_default();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(Into::into)
        .collect()
}

#[test]
fn every_help() {
    let all = help(&[]);
    let commands = below(&all);
    assert!(commands.len() > 10, "{commands:?}");
    insta::assert_snapshot!("help", all);
    for command in &commands {
        let mut said = help(&[command]);
        for action in below(&said) {
            write!(said, "\n──── {command} {action}\n{}", help(&[command, &action])).unwrap();
        }
        insta::assert_snapshot!(format!("help_{command}"), said);
    }
}

/// Commands against one server, and what came of them.
struct Talk<'a> {
    stage: &'a Stage,
    said: String,
}

impl Talk<'_> {
    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = self.stage.home.command();
        // The key comes from the data directory; a profile of this machine's user must not be found.
        command.env("HOME", self.stage.home.data_dir()).env_remove("XDG_CONFIG_HOME");
        command.args(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.run(&[arguments, &["--json"]].concat()).stdout).unwrap()
    }

    /// The command and what it printed, one after the other.
    fn say(&mut self, arguments: &[&str]) {
        let output = self.run(arguments);
        let [data, words] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        let data = match serde_json::from_str::<Value>(&data) {
            Ok(value) => format!("{value:#}\n"),
            Err(_) => data,
        };
        let code = output.status.code().unwrap();
        writeln!(self.said, "$ postback {}\n{data}{words}exit status {code}\n", arguments.join(" ")).unwrap();
    }
}

/// Ids, times, measurements, addresses and folders.
fn blotted(stage: &Stage, said: &str) -> String {
    said.replace(&stage.home.data_dir().display().to_string(), "DATA_DIR")
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    for (pattern, blot) in [
        (r"msg_[0-9a-f]{32}", "msg_ID"),
        (r"ep_[0-9a-f]{16}", "ep_ID"),
        (r"p-[0-9a-f]{8}", "p-ID"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
        (r"\b[0-9a-f]{32}\b", "HEX"),
        (r"\bb-[0-9a-f]{16}\b", "b-ID"),
        (r#""replicas": \d+"#, "\"replicas\": COUNT"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
        (r#"("\w+Ms": )[0-9.e-]+"#, "${1}MS"),
        (r"127\.0\.0\.1:\d{4,5}", "127.0.0.1:PORT"),
        (r"(succeeded  TIME) +[0-9.]+", "${1}  MS"),
        (r"CONNECT +TLS", "CONNECT  TLS"),
        (r"(?:reused|-|[0-9.]+ ms)  +", "TOOK  "),
        (r"[0-9.]+ ms\n", "TOOK\n"),
    ] {
        settings.add_filter(pattern, blot);
    }
    settings
}

#[test]
fn tables_and_json() {
    let stage = Stage::basic();
    let mut talk = Talk { stage: &stage, said: String::new() };
    let inbox = talk.json(&["inbox", "create"]);
    let hook = inbox["url"].as_str().unwrap().to_owned();
    let called =
        talk.json(&["call", "basic", "echo", "--data", r#"{"value":5}"#, "--webhook", &hook, "--wait"]);
    let run = called["id"].as_str().unwrap_or_else(|| panic!("{called}")).to_owned();
    let began = Instant::now();
    let delivery = loop {
        let list = talk.json(&["deliveries", "list"]);
        if list["items"][0]["state"] == "delivered" {
            break list["items"][0]["id"].as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "{list}");
        std::thread::yield_now();
    };
    talk.run(&["endpoints", "set", "https://93.184.216.34/hook", "--body-bytes-max", "100000"]);
    let endpoint = talk.json(&["endpoints", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    for json in [&[][..], &["--json"]] {
        for command in [
            &["apps"][..],
            &["runs"],
            &["runs", "show", &run],
            &["deliveries"],
            &["deliveries", "get", &delivery],
            &["endpoints"],
            &["endpoints", "show", &endpoint],
            &["inbox", "create"],
        ] {
            talk.say(&[command, json].concat());
        }
        let name = if json.is_empty() { "tables" } else { "json" };
        let said = blotted(&stage, &std::mem::take(&mut talk.said))
            .replace(&hook[hook.rfind('/').unwrap() + 1..], "HEX");
        settings().bind(|| insta::assert_snapshot!(name, said));
    }
}

#[test]
fn mistakes() {
    let stage = Stage::basic();
    let mut talk = Talk { stage: &stage, said: String::new() };
    let public = ["apps", "--api-key", &stage.keys.public_key];
    for command in [
        &["app"][..],
        &["apps", "get", "nope"],
        &["call", "nope", "echo"],
        &["call", "basic", "nope"],
        &["call", "basic", "echo"],
        &["call", "basic", "echo", "--data", "x"],
        &["runs", "get", "nope"],
        &["runs", "list", "--state", "done"],
        &["runs", "list", "--limit", "0"],
        &["runs", "list", "--app", "nope"],
        &["deliveries", "show", "nope"],
        &["deliveries", "redeliver"],
        &["deliveries", "redeliver", "--endpoint", "https://example.com/", "--since", "yesterday"],
        &["endpoints", "get", "nope"],
        &["endpoints", "enable", "nope"],
        &["endpoints", "set", "https://example.com/"],
        &["endpoints", "set", "example", "--any-body"],
        &["logs"],
        &["logs", "nope"],
        &["inbox", "show", "nope"],
        &["keys", "show", "--data-dir", "/nowhere"],
        &["keys", "rotate", "--only", "secret"],
        &["keys", "v1a", "maybe"],
        &["apps", "--api-key", "wrong"],
        &public,
        &["apps", "--project", "p-none"],
        &["apps", "--url", "http://127.0.0.1:1"],
        &["apps", "--url", "localhost:4100"],
        &["serve", "--listen", "localhost:4100"],
        &["deploy", "--folder", "/nowhere"],
        &["login", "--api-key", "wrong"],
    ] {
        talk.say(command);
    }
    let said = blotted(&stage, &talk.said).replace(&stage.keys.public_key, "PUBLIC_KEY");
    settings().bind(|| insta::assert_snapshot!("mistakes", said));
}
