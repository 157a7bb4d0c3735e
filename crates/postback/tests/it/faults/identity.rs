//! The very first start, and the change of the keys, killed at their syscalls, one after the other: there is
//! one identity, its keys are those of the file, and whatever is encrypted can be read.

use std::net::TcpStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use testkit::recorder::Recorder;
use testkit::server::{Home, Keys};

use super::skip;
use super::strace::{Strace, killing};
use crate::support::{PATIENCE, Stage, app_folder, binary, json as body};
use reqwest::Method;
use serde_json::json;

const SIGKILL: i32 = 9;
/// Of each kind, the distance between two calls at which the first start dies.
const FIRST_START: [(&str, usize); 5] =
    [("fsync", 1), ("fdatasync", 2), ("rename", 1), ("mkdir", 1), ("pwrite64", 23)];
/// Likewise for a rotation.
const ROTATION: [(&str, usize); 4] = [("fsync", 1), ("fdatasync", 1), ("rename", 1), ("pwrite64", 2)];
/// Likewise for a change of the key that encrypts.
const ENCRYPTION: [(&str, usize); 5] =
    [("fsync", 1), ("fdatasync", 1), ("rename", 1), ("unlink", 1), ("pwrite64", 3)];
/// No piece of work makes so many calls of a kind.
const CALLS_MAX: usize = 400;

/// A command under strace, which kills it at its `number`th `call`, in a process group of its own.
fn dying(command: &[&str], home: &Home, call: &str, number: usize) -> std::io::Result<Child> {
    Command::new("strace")
        .args(["-f", "-o", "/dev/null"])
        .args(killing(call, number))
        .arg(binary())
        .args(command)
        .env("POSTBACK_DATA_DIR", home.data_dir())
        .env("TOKIO_WORKER_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
    let _ = child.wait();
}

/// How it ended; `None` when it has come to serve instead.
fn ended_or_serves(child: &mut Child, address: &str) -> Option<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if TcpStream::connect(address).is_ok() {
            return None;
        }
        assert!(began.elapsed() < PATIENCE, "it neither serves nor ends");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn credentials(home: &Home) -> Option<Vec<u8>> {
    std::fs::read(home.data_dir().join("credentials.json")).ok()
}

/// What a crash may leave beside the files that count.
fn left_over(data_dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains(".new") || name.contains(".next") || name.contains(".tmp")).collect()
}

/// The keys of the file are those of the one project.
async fn assert_one_identity(stage: &Stage, keys: &Keys, at: &str) {
    for key in [&keys.private_key, &keys.service_account_token] {
        let request = stage.bare(Method::GET, "/v2/projects").bearer_auth(key);
        let projects = body(request.send().await.unwrap()).await;
        let ids: Vec<_> = projects.as_array().into_iter().flatten().map(|project| &project["id"]).collect();
        assert_eq!(ids, [&json!(keys.project_id)], "{at}: {projects}");
    }
    assert_eq!(left_over(&stage.home.data_dir()), [""; 0], "{at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_dies_at_any_syscall_leaves_one_identity() {
    let mut points = 0;
    for (call, step) in FIRST_START {
        for number in (1..CALLS_MAX).step_by(step) {
            let home = Home::new(binary());
            let address = home.url().trim_start_matches("http://").to_owned();
            let mut child = match dying(&["serve", "--listen", &address], &home, call, number) {
                Ok(child) => child,
                Err(error) => return skip(&format!("strace cannot be started: {error}")),
            };
            let Some(status) = ended_or_serves(&mut child, &address) else {
                kill_group(&mut child);
                break;
            };
            let at = format!("{call} {number}");
            assert_eq!(status.signal(), Some(SIGKILL), "{at}: it ended in another way: {status}");
            points += 1;
            let told = credentials(&home);
            let mut stage = Stage::on(home);
            assert!(told.is_none() || told == credentials(&stage.home), "{at}: keys were told and changed");
            assert_one_identity(&stage, &stage.keys, &at).await;
            let first = credentials(&stage.home);
            tokio::task::block_in_place(|| stage.crash_and_restart());
            assert_eq!(credentials(&stage.home), first, "{at}: another identity after another start");
            assert_one_identity(&stage, &stage.keys, &at).await;
        }
    }
    println!("{points} crash points");
    assert!(points >= 15, "the first start has fewer calls than were ever counted");
}

/// A webhook arrives that is signed with the secret of the file.
async fn assert_signs(stage: &Stage, recorder: &Recorder, at: &str) {
    let before = recorder.count();
    let request = json!({"value": 1, "webhook_endpoint": recorder.url("hook")}).to_string();
    let accepted =
        stage.bare(Method::POST, &stage.v3("basic/echo")).header("authorization", &stage.keys.public_key);
    assert_eq!(accepted.body(request).send().await.unwrap().status(), 200, "{at}");
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() > before).await, "{at}");
    let arrival = recorder.arrivals().remove(before);
    let webhook = standardwebhooks::Webhook::new(&stage.keys.webhook_secret).unwrap();
    webhook.verify(&arrival.body, &arrival.headers).unwrap_or_else(|error| panic!("{at}: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_dies_at_any_syscall_leaves_keys_that_open_and_a_secret_that_signs() {
    let mut stage = Stage::on(Home::new(binary()).with_env("TOKIO_WORKER_THREADS", "1"));
    stage.deploy(&app_folder("basic"), &["basic"]);
    let recorder = Recorder::start().await.unwrap();
    let mut points = 0;
    for (call, step) in ROTATION {
        for number in (1..CALLS_MAX).step_by(step) {
            let at = format!("{call} {number}");
            let strace = match Strace::kill_at(&stage, call, number) {
                Ok(strace) => strace,
                Err(reason) if points == 0 => return skip(&reason),
                Err(reason) => panic!("{at}: {reason}"),
            };
            let rotated = tokio::task::block_in_place(|| {
                stage.home.command().args(["keys", "rotate", "--overlap", "0"]).output().unwrap()
            });
            drop(strace);
            // It may have died after its answer.
            if rotated.status.success() && stage.server.as_mut().unwrap().ended().is_none() {
                stage.keys = stage.home.keys();
                break;
            }
            points += 1;
            tokio::task::block_in_place(|| stage.crash_and_restart());
            stage.keys = stage.home.keys();
            assert_one_identity(&stage, &stage.keys, &at).await;
            assert_signs(&stage, &recorder, &at).await;
        }
    }
    println!("{points} crash points");
    assert!(points >= 5, "a rotation has fewer calls than were ever counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_key_that_encrypts_leaves_everything_readable_wherever_it_dies() {
    let mut stage = Stage::empty();
    let mut points = 0;
    for (call, step) in ENCRYPTION {
        for number in (1..CALLS_MAX).step_by(step) {
            let at = format!("{call} {number}");
            tokio::task::block_in_place(|| stage.server.take().unwrap().terminate());
            let mut child = match dying(&["keys", "rotate", "--encryption"], &stage.home, call, number) {
                Ok(child) => child,
                Err(error) => return skip(&format!("strace cannot be started: {error}")),
            };
            let status = tokio::task::block_in_place(|| child.wait().unwrap());
            // The start opens every secret of the project, or fails.
            stage.server = Some(tokio::task::block_in_place(|| stage.home.start()));
            assert_eq!(stage.home.keys().webhook_secret, stage.keys.webhook_secret, "{at}");
            assert_one_identity(&stage, &stage.keys, &at).await;
            if status.success() {
                break;
            }
            assert_eq!(status.signal(), Some(SIGKILL), "{at}: it ended in another way: {status}");
            points += 1;
        }
    }
    println!("{points} crash points");
    assert!(points >= 10, "a change of the key has fewer calls than were ever counted");
}
