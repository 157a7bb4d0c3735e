//! Containment, as code of apps meets it: what it can reach, and what becomes of it when it takes too much.
//!
//! What this machine cannot give is skipped, and said.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::server::Home;

use crate::support::{PATIENCE, Stage, app_folder, binary, json as body_of};

/// Tiers by the words that ask for them, the highest this machine has last.
const TIERS: [(&str, &str); 4] = [("off", "S0"), ("s1", "S1"), ("s2", "S2"), ("auto", "S3")];

/// A server of a tier, if the machine has it.
fn stage_of(asked: &str, tier: &str) -> Option<Stage> {
    let stage = Stage::on(Home::new(binary()).with_env("POSTBACK_SANDBOX", asked));
    let log = stage.home.log();
    if log.contains(&format!("tier {tier} ")) {
        return Some(stage);
    }
    let why = log.lines().find(|line| line.contains("contained by tier")).unwrap_or("no reason");
    println!("SKIP: this machine has no {tier}: {why}");
    None
}

async fn called(stage: &Stage, path: &str, input: &Value) -> Value {
    let answer = stage.call(&stage.v4(path), input.to_string()).await;
    let status = answer.status();
    let answer = body_of(answer).await;
    assert!(status.is_success(), "{status}: {answer}");
    answer["result"].clone()
}

/// What got out, by the names of the probes, in their order.
async fn probed(stage: &Stage) -> Vec<(String, Value)> {
    stage.deploy(&app_folder("probes"), &["probes"]);
    stage.deploy(&app_folder("basic"), &["basic"]);
    let data_dir = stage.home.data_dir();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "it").unwrap();
    let other_tmp = data_dir.join("tmp/other");
    std::fs::create_dir_all(&other_tmp).unwrap();
    std::fs::write(other_tmp.join("file"), "it").unwrap();
    let local = outside.path().join("socket");
    let _local = UnixListener::bind(&local).unwrap();
    let abstract_name = format!("postback-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
    let other_app = find(&data_dir.join("builds"), |folder| !is_probes(folder));
    let facts = json!({
        "data_dir": data_dir, "key_file": data_dir.join("secret.key"), "other_app": other_app.join("app/main.py"),
        "other_tmp": other_tmp.join("file"), "secret": secret, "host_tmp": secret,
        "server": stage.server.as_ref().unwrap().pid(), "port": stage.home.port(),
        "local": local, "abstract": abstract_name,
    });
    let results = called(stage, "probes/probe", &facts).await;
    let pair = |result: &Value| (result[0].as_str().unwrap().to_owned(), result[1].clone());
    results.as_array().unwrap().iter().map(pair).collect()
}

fn find(folder: &Path, is_it: impl Fn(&Path) -> bool) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| is_it(path)).expect("it was deployed")
}

fn is_probes(build: &Path) -> bool {
    std::fs::read_to_string(build.join("app/main.py")).is_ok_and(|code| code.contains("def probe("))
}

/// The page with what each tier stops is made by the test that finds it out: `UPDATE_DOCS=1`.
#[tokio::test]
async fn forty_ways_out_are_closed_where_there_are_namespaces_and_the_rest_is_listed() {
    let mut columns = Vec::new();
    for (asked, tier) in TIERS {
        if let Some(stage) = stage_of(asked, tier) {
            columns.push((tier, probed(&stage).await));
        }
    }
    let mut page = String::from("| an app tries to | S0 | S1 | S2 | S3 |\n|---|---|---|---|---|\n");
    let (_, first) = &columns[0];
    assert_eq!(first.len(), 40);
    for (row, (name, _)) in first.iter().enumerate() {
        let cell = |tier: &str| {
            let column = columns.iter().find(|(of, _)| *of == tier);
            column.map_or(
                "?",
                |(_, results)| if results[row].1 == Value::Bool(false) { "stopped" } else { "**works**" },
            )
        };
        page.push_str(&format!("| {name} | {} |\n", ["S0", "S1", "S2", "S3"].map(cell).join(" | ")));
    }
    println!("{page}");
    for (tier, results) in columns.iter().filter(|(tier, _)| *tier >= "S2") {
        let out: Vec<_> = results.iter().filter(|(_, out)| *out != Value::Bool(false)).collect();
        assert!(out.is_empty(), "{tier}: {out:?}");
    }
    // Probes that can get nowhere would prove nothing.
    let (_, uncontained) = &columns[0];
    let out = uncontained.iter().filter(|(_, out)| *out == Value::Bool(true)).count();
    assert!(out >= 20, "only {out} of 40 work without containment");
    if columns.len() == TIERS.len() {
        compare(&page);
    }
}

/// The table in the docs is that of a root server on a kernel with Landlock 6.
fn compare(table: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/containment.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let begin = page.find("| an app tries to |").expect("the page has the table");
    let end = page[begin..].find("\n\n").map_or(page.len(), |at| begin + at + 1);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, format!("{}{table}{}", &page[..begin], &page[end..])).unwrap();
        return;
    }
    assert_eq!(&page[begin..end], table, "UPDATE_DOCS=1 cargo test -p postback --test it containment");
}

/// The highest tier there is, or a lower one that was asked for.
fn with_bombs(asked: &str, tier: &str) -> Option<Stage> {
    let stage = stage_of(asked, tier)?;
    stage.deploy(&app_folder("bombs"), &["bombs"]);
    Some(stage)
}

/// Whether the server goes on answering while a bomb is under way; the slowest answer.
async fn answers_meanwhile<T>(stage: &Stage, bomb: impl Future<Output = T>) -> (T, Duration) {
    tokio::pin!(bomb);
    let mut slowest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let health = stage.bare(Method::GET, "/readyz").send();
        tokio::select! {
            done = &mut bomb => return (done, slowest),
            answer = health => assert_eq!(answer.unwrap().status(), 200),
        }
        slowest = slowest.max(began.elapsed());
    }
}

/// Sets off a bomb, and returns its error's code and message.
async fn set_off(stage: &Stage, bomb: &str) -> (String, String) {
    let call = async {
        let answer = stage.call(&stage.v4(&format!("bombs/{bomb}")), "{}").await;
        assert!(!answer.status().is_success(), "{bomb}: {}", answer.status());
        body_of(answer).await
    };
    let (error, slowest) = answers_meanwhile(stage, call).await;
    assert!(slowest < PATIENCE, "{bomb}: {slowest:?}");
    let text = |key: &str| error[key].as_str().unwrap_or_else(|| panic!("{error}")).to_owned();
    // The replica is replaced, and its successor works.
    assert_eq!(called(stage, "bombs/fine", &json!({})).await, "fine");
    (text("code"), text("message"))
}

/// Code that takes too much of something ends with the name of the limit, whatever the tier; the server answers
/// meanwhile.
async fn bombs_are_contained(asked: &str, tier: &str) {
    let Some(stage) = with_bombs(asked, tier) else { return };
    for (bomb, code, words) in [
        ("forks", "worker_crashed", "more than the 64 of `processes`"),
        ("threads", "worker_crashed", "more than the 64 of `processes`"),
        ("swells", "out_of_memory", "more than the 153 MiB of `memory`"),
        ("files", "user_error", "Too many open files"),
    ] {
        let (found, message) = set_off(&stage, bomb).await;
        // Where a bound of the user refuses, only the code hears of it.
        let heard = found == "user_error" && tier == "S2" && matches!(bomb, "forks" | "threads");
        // Without the kernel's help what forked processes share is counted for each.
        let held = bomb == "forks" && message.contains("more than the 153 MiB of `memory`");
        assert!(
            heard || held || (found == code && message.contains(words)),
            "{tier}: {bomb}: {found}: {message}"
        );
    }
    if tier > "S0" {
        let (code, message) = set_off(&stage, "fills").await;
        assert_eq!(code, "worker_crashed", "{message}");
        assert!(message.contains("more than the 102 MiB of `disk`"), "{message}");
        let (code, message) = set_off(&stage, "fills_one").await;
        assert_eq!(code, "user_error", "{message}");
        assert!(message.contains("File too large"), "{message}");
    }
}

#[tokio::test]
async fn bombs_are_contained_without_a_sandbox() {
    bombs_are_contained("off", "S0").await;
}

#[tokio::test]
async fn bombs_are_contained_by_landlock_and_seccomp() {
    bombs_are_contained("s1", "S1").await;
}

#[tokio::test]
async fn bombs_are_contained_by_namespaces() {
    bombs_are_contained("s2", "S2").await;
}

#[tokio::test]
async fn bombs_are_contained_by_control_groups() {
    bombs_are_contained("auto", "S3").await;
}

#[tokio::test]
async fn a_replica_that_spins_leaves_the_server_and_other_apps_alone() {
    let stage = Stage::on(Home::new(binary()));
    for app in ["bombs", "basic"] {
        stage.deploy(&app_folder(app), &[app]);
    }
    let nothing = json!({});
    let spinning = called(&stage, "bombs/spins", &nothing);
    let (spun, slowest) = answers_meanwhile(&stage, spinning).await;
    assert_eq!(spun, "spun");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert_eq!(called(&stage, "basic/identity", &json!({"a": 1})).await, json!({"a": 1}));
}

#[tokio::test]
async fn daemons_that_left_the_session_end_with_their_replica_in_every_tier() {
    for (asked, tier) in TIERS {
        let Some(stage) = with_bombs(asked, tier) else { continue };
        let file = stage.home.scratch().join("daemon");
        let answer = stage.call(&stage.v4("bombs/leaves"), json!({"path": file}).to_string()).await;
        assert_eq!(body_of(answer).await["code"], "worker_exited", "{tier}");
        // It holds the file open for as long as it lives.
        let (held, began) = (std::fs::File::open(&file).unwrap(), Instant::now());
        while held.try_lock().is_err() {
            assert!(began.elapsed() < PATIENCE, "{tier}: a daemon is left");
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_server_that_must_be_strict_does_not_start_where_it_cannot() {
    let home = Home::new(binary());
    let mut command = home.command();
    command.args(["serve", "--listen", "127.0.0.1:0", "--sandbox=strict"]).env("PATH", "/nowhere");
    let served = tokio::process::Command::from(command).kill_on_drop(true).output();
    let refused = tokio::time::timeout(PATIENCE, served).await.expect("it does not start").unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("`--sandbox=strict` needs S2, and this machine has S"), "{said}");
    assert!(said.contains("hint: "), "{said}");
}

#[tokio::test]
async fn an_app_without_a_network_has_none() {
    for (asked, tier) in &TIERS[1..] {
        let Some(stage) = stage_of(asked, tier) else { continue };
        let folder = stage.home.scratch().join("alone");
        std::fs::create_dir(&folder).unwrap();
        let config = "[cerebrium.deployment]\nname = 'alone'\n[cerebrium.postback]\nnetwork = false\n";
        std::fs::write(folder.join("cerebrium.toml"), config).unwrap();
        let code = "import socket\ndef go(port):\n    try:\n        socket.create_connection(('127.0.0.1', port), 5)\n    \
                    except OSError as error:\n        return type(error).__name__\n    return 'connected'\n";
        std::fs::write(folder.join("main.py"), code).unwrap();
        stage.deploy(&folder, &["alone"]);
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = json!({"port": listener.local_addr().unwrap().port()});
        let found = called(&stage, "alone/go", &port).await;
        assert_ne!(found, "connected", "{tier}");
        stage.deploy(&app_folder("probes"), &["probes"]);
        assert_eq!(called(&stage, "probes/reach", &port).await, "connected", "{tier}");
    }
}

#[tokio::test]
async fn the_doctor_says_what_the_machine_has_and_how_to_mend_the_rest() {
    let home = Home::new(binary());
    let mut doctor = home.command();
    let output = doctor.arg("doctor").env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "there is no Python on that PATH");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"/\S*/data has [0-9.]+ GiB free", "DATA_DIR has ROOM free");
    settings.add_filter(r"a sync takes [0-9.]+ ms", "a sync takes TIME");
    if said.contains("not S2: bubblewrap is not installed") {
        settings.bind(|| insta::assert_snapshot!("doctor", said));
    } else {
        println!("SKIP: this machine has no Landlock: {said}");
    }
    let limits = home.command().args(["doctor", "--limits"]).output().unwrap();
    let limits = String::from_utf8(limits.stdout).unwrap();
    assert!(queue::limits::TABLE.iter().all(|limit| limits.contains(limit.what)), "{limits}");
    let json = home.command().args(["doctor", "--json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&json.stdout).unwrap();
    let about: Vec<_> =
        found["findings"].as_array().unwrap().iter().map(|finding| &finding["about"]).collect();
    for wanted in ["containment", "python", "uv", "data", "disk", "store"] {
        assert!(about.contains(&&json!(wanted)), "{wanted} is not in {about:?}");
    }
}
