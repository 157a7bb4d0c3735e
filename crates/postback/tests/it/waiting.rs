//! `--wait`: what was acknowledged is waited for, whatever happens to the connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use reqwest::Method;
use serde_json::{Value, json as object};

use crate::support::{PATIENCE, Stage, binary, json};

/// A command that is under way.
struct UnderWay {
    child: Child,
    said: Receiver<String>,
    heard: Vec<String>,
}

impl UnderWay {
    fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, said) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, said, heard: Vec::new() }
    }

    fn hear(&mut self, words: &str) {
        while !self.heard.last().is_some_and(|line| line.contains(words)) {
            let line = self.said.recv_timeout(PATIENCE);
            self.heard.push(line.unwrap_or_else(|_| panic!("no `{words}` in {:?}", self.heard)));
        }
    }

    /// What it says to its end, on its standard output and beside it.
    fn end(mut self) -> (String, Vec<String>, bool) {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.heard.extend(self.said.iter());
        (out, self.heard, self.child.wait().unwrap().success())
    }
}

/// A way to the server that breaks the first connection when its request has gone on, or not before it is `answered`.
fn broken_way(to: u16, answered: bool) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut breaks = true;
        for here in listener.incoming().map_while(Result::ok) {
            let there = TcpStream::connect(("127.0.0.1", to)).unwrap();
            if std::mem::take(&mut breaks) {
                pass_one(&here, &there, answered);
                let _ = here.shutdown(Shutdown::Both);
                continue;
            }
            for (mut from, mut to) in [(here.try_clone().unwrap(), there.try_clone().unwrap()), (there, here)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    format!("http://{address}")
}

/// Hands on a small request, and waits for an answer if it is to be `answered`.
fn pass_one(mut here: &TcpStream, mut there: &TcpStream, answered: bool) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") && !request.ends_with(b"\r\n\r\n") {
        let mut some = [0; 4096];
        let read = here.read(&mut some).unwrap();
        request.extend(&some[..read]);
    }
    there.write_all(&request).unwrap();
    if answered {
        there.read_exact(&mut [0]).unwrap();
    }
}

fn times(heard: &[String], words: &str) -> usize {
    heard.iter().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn a_command_that_waits_goes_on_when_its_server_is_there_again() {
    let mut stage = Stage::basic();
    let gate = stage.home.scratch().join("gate");
    let data = object!({"path": gate}).to_string();
    let call = ["call", "basic", "hold", "--data", &data, "--wait", "--json"];
    let mut call = UnderWay::start(stage.home.command(), &call);
    call.hear("accepted as run ");
    let run = call.heard.last().unwrap().rsplit(' ').next().unwrap().to_owned();
    stage.server.take().unwrap().kill();
    call.hear("asking again until it answers");
    stage.server = Some(stage.home.start());
    std::fs::write(&gate, "").unwrap();
    let (out, heard, succeeded) = call.end();
    assert!(succeeded, "{heard:?}");
    let view: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((view["id"].as_str(), &view["result"]), (Some(&*run), &object!("held")));
    assert_eq!(times(&heard, "asking again"), 1, "{heard:?}");
}

#[tokio::test]
async fn a_lost_acknowledgement_makes_no_second_run_and_a_lost_look_is_made_again() {
    let stage = Stage::basic();
    let way = broken_way(stage.home.port(), true);
    let call = ["call", "basic", "echo", "--data", r#"{"value":5}"#, "--wait", "--json", "--url", &way];
    let (out, heard, succeeded) = UnderWay::start(stage.home.command(), &call).end();
    assert!(succeeded && times(&heard, "asking again") == 1, "{heard:?}");
    let view: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(view["result"]["value"], 5, "{view}");
    let listed = json(stage.request(Method::GET, &stage.control("runs")).send().await.unwrap()).await;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");

    let gate = stage.home.scratch().join("gate");
    let held = object!({"path": gate}).to_string();
    let held = stage.call(&format!("{}?async=true", stage.v4("basic/hold")), held).await;
    let run = json(held).await["run_id"].as_str().unwrap().to_owned();
    let way = broken_way(stage.home.port(), false);
    let get = ["runs", "get", &run, "--wait", "--json", "--url", &way];
    let mut get = UnderWay::start(stage.home.command(), &get);
    get.hear("asking again until it answers");
    std::fs::write(&gate, "").unwrap();
    let (out, heard, succeeded) = get.end();
    assert!(succeeded && out.contains("\"held\""), "{out} {heard:?}");
}

#[test]
fn a_server_that_was_never_there_is_not_waited_for() {
    let home = testkit::server::Home::new(binary());
    let run = "0190c4e0-0000-7000-8000-00000000abcd";
    for command in [&["runs", "get", run, "--wait"][..], &["call", "basic", "echo", "--wait"]] {
        let began = std::time::Instant::now();
        let key = ["--api-key", "private-0", "--project", "p-12345678"];
        let (_, heard, succeeded) = UnderWay::start(home.command(), &[command, &key].concat()).end();
        assert!(!succeeded && times(&heard, "no server answers at") == 1, "{heard:?}");
        assert!(times(&heard, "asking again") == 0 && began.elapsed() < PATIENCE, "{heard:?}");
    }
}
