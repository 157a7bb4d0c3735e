//! The supervisor: what dies, when, and what its parent sees.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use worker::Lifeline;

use crate::house::{is_alive, python, supervisor};

/// Prints the pids of itself, of a child, and of a daemon that forked twice and left the session.
const FAMILY: &str = r#"
import os, sys, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        time.sleep(600)
    os._exit(0)
child = os.fork()
if child == 0:
    time.sleep(600)
daemon = os.read(read, 20).decode()
print(os.getpid(), child, daemon, flush=True)
"#;

struct Family {
    supervisor: Child,
    pids: Vec<i32>,
}

fn family(lifeline: &Lifeline, then: &str) -> Family {
    let prefix = supervisor(lifeline);
    let mut supervisor = Command::new(&prefix[0])
        .args(&prefix[1..])
        .args([&python(), "-c", &format!("{FAMILY}{then}")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    Family { supervisor, pids }
}

impl Family {
    /// Waits for the supervisor's end; by then nobody may be left.
    fn ends(mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.supervisor.try_wait().unwrap() {
                break status;
            }
            if begin.elapsed() > Duration::from_secs(10) {
                self.kill();
                panic!("the supervisor did not end");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = begin.elapsed();
        let left = self.pids.iter().filter(|pid| is_alive(**pid)).count();
        self.kill();
        assert_eq!(left, 0, "processes outlived their supervisor");
        (status, took)
    }

    /// Leaves nobody behind, whatever became of the test.
    fn kill(&mut self) {
        let _ = self.supervisor.kill();
        for pid in self.pids.iter().filter(|pid| is_alive(**pid)) {
            let _ = rustix::process::kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
        }
    }
}

#[test]
fn nobody_is_left_when_the_server_dies() {
    let lifeline = Lifeline::open().unwrap();
    let family = family(&lifeline, "time.sleep(600)");
    assert!(family.pids.iter().all(|pid| is_alive(*pid)));
    drop(lifeline);
    let (_, took) = family.ends();
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

#[test]
fn nobody_is_left_after_sigterm() {
    let lifeline = Lifeline::open().unwrap();
    let family = family(&lifeline, "time.sleep(600)");
    let pid = Pid::from_child(&family.supervisor);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let (status, took) = family.ends();
    assert!(took < Duration::from_secs(1), "took {took:?}");
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn daemons_do_not_outlive_the_command() {
    let lifeline = Lifeline::open().unwrap();
    let (status, _) = family(&lifeline, "os._exit(7)").ends();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn a_family_whose_parent_was_killed_by_surprise_loses_its_command_too() {
    let lifeline = Lifeline::open().unwrap();
    let mut family = family(&lifeline, "time.sleep(600)");
    let main = family.pids[0];
    family.supervisor.kill().unwrap();
    family.supervisor.wait().unwrap();
    let begin = Instant::now();
    while is_alive(main) && begin.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    let survived = is_alive(main);
    family.kill();
    assert!(!survived);
}

#[test]
fn the_parent_sees_the_end_that_the_command_had() {
    let lifeline = Lifeline::open().unwrap();
    let ended = |code: &str| {
        let prefix = supervisor(&lifeline);
        Command::new(&prefix[0]).args(&prefix[1..]).args([&python(), "-c", code]).status().unwrap()
    };
    assert_eq!(ended("pass").code(), Some(0));
    assert_eq!(ended("raise SystemExit(139)").code(), Some(139));
    assert_eq!(ended("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").signal(), Some(11));
    assert_eq!(ended("import os, signal; os.kill(os.getpid(), signal.SIGTERM)").signal(), Some(15));
    assert_eq!(ended("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").signal(), Some(9));
}

#[test]
fn a_command_that_cannot_be_started_is_named() {
    let lifeline = Lifeline::open().unwrap();
    let prefix = supervisor(&lifeline);
    let output = Command::new(&prefix[0]).args(&prefix[1..]).arg("/no/such/python").output().unwrap();
    assert_eq!(output.status.code(), Some(126));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot start /no/such/python"), "{said}");
}

#[test]
fn the_command_inherits_neither_the_lifeline_nor_a_terminal() {
    let lifeline = Lifeline::open().unwrap();
    let prefix = supervisor(&lifeline);
    let descriptor = prefix[3].to_str().unwrap();
    let code = format!(
        "import os, sys\ntry: os.fstat({descriptor}); sys.exit(1)\nexcept OSError: pass\nsys.exit(0 if os.read(0, 1) == b'' else 2)"
    );
    let status = Command::new(&prefix[0]).args(&prefix[1..]).args([&python(), "-c", &code]).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_is_started_may_open_as_many_files_as_the_server_could_at_first() {
    let lifeline = Lifeline::open().unwrap().with_open_files(Some(77));
    let prefix = supervisor(&lifeline);
    let shell = Command::new(&prefix[0]).args(&prefix[1..]).args(["/bin/sh", "-c", "ulimit -n"]).output();
    assert_eq!(String::from_utf8(shell.unwrap().stdout).unwrap().trim(), "77");
}
