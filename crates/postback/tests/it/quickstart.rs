//! The quickstart, ended early in each of its phases: nothing of it stays.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::{PATIENCE, binary};

fn start(temporary: &Path, arguments: &[&str]) -> Child {
    Command::new(binary())
        .arg("quickstart")
        .args(arguments)
        .env("TMPDIR", temporary)
        .env("NO_COLOR", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn whenever_it_is_ended_it_takes_its_folder_along() {
    // `None`: as soon as there is a folder.
    for (phase, name, code) in [
        (None, "-INT", 130),
        (Some("a server is up"), "-TERM", 143),
        (Some("deploying"), "-INT", 130),
        (Some("making the environment"), "-TERM", 143),
        (Some("is live after"), "-INT", 130),
    ] {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = start(temporary.path(), &[]);
        let began = Instant::now();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        match phase {
            None => {
                while names(temporary.path()).is_empty() {
                    assert!(began.elapsed() < PATIENCE, "it makes no folder");
                    std::thread::yield_now();
                }
            }
            Some(phase) => {
                let mut lines = lines.by_ref().map_while(Result::ok);
                assert!(lines.any(|line| line.contains(phase)), "it does not say `{phase}`");
                assert_eq!(names(temporary.path()).len(), 1, "{phase}");
            }
        }
        signal(&child, name);
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let ended = child.wait().unwrap();
        assert_eq!(names(temporary.path()), [""; 0], "{phase:?} {name}: {rest:?}");
        // Between the last of what it says and the webhook there is little time.
        let whole = phase == Some("is live after") && ended.code() == Some(0);
        assert!(ended.code() == Some(code) || whole, "{phase:?}: {ended} {rest:?}");
    }
}

#[test]
fn a_quickstart_that_fails_takes_its_folder_along() {
    let temporary = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    let data_dir = elsewhere.path().join("below-a-file");
    let mut child = start(temporary.path(), &["--data-dir", data_dir.to_str().unwrap()]);
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(!child.wait().unwrap().success());
    assert!(said.iter().any(|line| line.contains("below-a-file")), "{said:?}");
    assert_eq!(names(temporary.path()), [""; 0]);
}
