//! Deploys and rollbacks, one after another, under load: nobody feels them, and they leave nothing behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::footprint::Footprint;
use testkit::processes::mentioning;
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

const CONFIG: &str = "[cerebrium.deployment]\nname = 'model'\n\n[cerebrium.scaling]\nmin_replicas = 1\n\
    max_replicas = 2\nreplica_concurrency = 8\n";

/// Writes version `number` of an app, whose functions differ from one version to the next.
fn write_version(folder: &Path, number: u32) {
    let code = format!(
        "import time\n\nNUMBER = {number}\n\ndef version(pause=0.01):\n    time.sleep(pause)\n    return NUMBER\n\n\
         def only_{number}():\n    return NUMBER\n"
    );
    std::fs::write(folder.join("main.py"), code).unwrap();
    std::fs::write(folder.join("cerebrium.toml"), CONFIG).unwrap();
}

/// Runs a command of the program in `folder`, and returns what it printed.
fn run(stage: &Stage, folder: &Path, arguments: &[&str]) -> String {
    let output = stage.home.command().current_dir(folder).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Calls that are made one after another until they are to stop.
struct Caller {
    http: reqwest::Client,
    url: String,
    key: String,
    stop: Arc<AtomicBool>,
}

impl Caller {
    fn of(stage: &Stage, path: &str, stop: &Arc<AtomicBool>) -> Self {
        Self {
            http: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            url: format!("{}{path}", stage.home.url()),
            key: stage.keys.public_key.clone(),
            stop: Arc::clone(stop),
        }
    }

    /// What was answered, and how often.
    async fn call(self, request: Value) -> Vec<Value> {
        let mut answers = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let asked =
                self.http.post(&self.url).header("authorization", &self.key).body(request.to_string());
            let answer = asked.send().await.expect("the server answers");
            let status = answer.status();
            let text = answer.text().await.unwrap();
            assert!(status.is_success(), "{status}: {text}");
            answers.push(serde_json::from_str(&text).unwrap());
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_a_deploy_or_in_a_rollback() {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    let deploy = |number| {
        write_version(folder.path(), number);
        tokio::task::block_in_place(|| stage.deploy(folder.path(), &[]));
    };
    deploy(1);
    let (recorder, stop) = (Recorder::start().await.unwrap(), Arc::new(AtomicBool::new(false)));
    let path = stage.v4("model/version");
    let sync =
        (0..3).map(|_| tokio::spawn(Caller::of(&stage, &path, &stop).call(json!({})))).collect::<Vec<_>>();
    let slow = tokio::spawn(Caller::of(&stage, &path, &stop).call(json!({"pause": 0.7})));
    let hooked = json!({"webhook_endpoint": recorder.url(""), "pause": 0.05});
    let hooked = tokio::spawn(Caller::of(&stage, &path, &stop).call(hooked));

    let live = |expected: u32| {
        let stage = &stage;
        async move {
            // A function that this version alone has, asked for the moment its deploy is over.
            let path = stage.v4(&format!("model/only_{expected}"));
            let answer = stage.call(&path, "{}").await;
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
            assert_eq!(body(stage.call(&stage.v4("model/version"), "{}").await).await["result"], expected);
        }
    };
    deploy(2);
    live(2).await;
    deploy(3);
    live(3).await;
    let back = |arguments: &[&str]| {
        let arguments = [&["apps", "rollback", "model"], arguments].concat();
        tokio::task::block_in_place(|| run(&stage, folder.path(), &arguments))
    };
    back(&[]);
    live(2).await;
    back(&[]);
    live(1).await;
    let builds = run(&stage, folder.path(), &["--json", "apps", "builds", "model"]);
    let builds: Value = serde_json::from_str(&builds).unwrap();
    let shown: Vec<_> =
        builds.as_array().unwrap().iter().map(|b| (b["live"].clone(), b["kept"].clone())).collect();
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(shown, [(no.clone(), yes.clone()), (no, yes.clone()), (yes.clone(), yes)]);
    back(&[builds[0]["id"].as_str().unwrap()]);
    live(3).await;
    deploy(4);
    live(4).await;

    stop.store(true, Ordering::Relaxed);
    let mut versions = BTreeSet::new();
    for caller in sync.into_iter().chain([slow]) {
        let answers = caller.await.expect("no call failed");
        assert!(answers.iter().all(|answer| answer["result"].is_u64()), "{answers:?}");
        versions.extend(answers.iter().filter_map(|answer| answer["result"].as_u64()));
    }
    assert_eq!(versions, BTreeSet::from([1, 2, 3, 4]));
    let accepted = hooked.await.expect("each was accepted");
    let told = recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= accepted.len()).await;
    assert!(told, "{} of {} webhooks arrived", recorder.count(), accepted.len());
    let told: BTreeSet<_> =
        recorder.arrivals().iter().map(|arrival| arrival.json()["run_id"].to_string()).collect();
    for answer in &accepted {
        assert!(told.contains(&answer["run_id"].to_string()), "{answer}");
    }
    assert!(recorder.arrivals().iter().all(|arrival| arrival.json()["result"].is_u64()));
    assert!(accepted.len() > 10, "{} webhooks are no load", accepted.len());

    let events = run(&stage, folder.path(), &["--json", "apps", "events", "model"]);
    let kinds: Vec<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .filter(|kind| kind != "scaled")
        .collect();
    let (deployed, back) = ("deployed", "rolled_back");
    assert_eq!(kinds, [deployed, deployed, deployed, back, back, back, deployed]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_to_a_build_that_does_not_start_changes_nothing_and_says_why() {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    let marker = stage.home.scratch().join("broken");
    let code = format!(
        "import os\nif os.path.exists({:?}):\n    raise RuntimeError('the weights are gone')\n\ndef version():\n    return 1\n",
        marker.to_str().unwrap()
    );
    let deploy = |code: &str| {
        let app = tempfile::tempdir().unwrap();
        std::fs::write(app.path().join("main.py"), code).unwrap();
        tokio::task::block_in_place(|| stage.deploy(app.path(), &["model"]));
    };
    deploy(&code);
    let first = stage.home.command().args(["apps", "rollback", "model"]).output().unwrap();
    let said = String::from_utf8_lossy(&first.stderr).into_owned();
    assert!(!first.status.success() && said.contains("no former build"), "{said}");
    deploy("def version():\n    return 2\n");
    std::fs::write(&marker, "").unwrap();

    let failed = tokio::task::block_in_place(|| {
        stage.home.command().args(["apps", "rollback", "model"]).output().unwrap()
    });
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success() && said.contains("the weights are gone"), "{said}");
    assert_eq!(body(stage.call(&stage.v4("model/version"), "{}").await).await["result"], 2);
    let events = run(&stage, folder.path(), &["apps", "events", "model"]);
    let last = events.lines().last().unwrap();
    assert!(last.contains("rollback_failed") && last.contains("the weights are gone"), "{events}");
}

/// What a server and its folders hold when nothing is under way.
#[derive(Debug)]
struct Held {
    server: Footprint,
    processes: usize,
    builds: usize,
    environments: usize,
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn held(stage: &Stage) -> Held {
    let data = stage.home.data_dir();
    let pid = stage.server.as_ref().unwrap().pid();
    Held {
        server: Footprint::of(pid, &data).unwrap(),
        processes: mentioning(data.to_str().unwrap())
            .iter()
            .filter(|process| !process.is_supervisor())
            .count(),
        builds: entries(&data.join("builds")),
        environments: entries(&data.join("environments")),
    }
}

/// Deploys so often, and looks at what is left of it.
async fn deploys_leave_nothing(deploys: u32) {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    let deploy = |number| {
        write_version(folder.path(), number);
        tokio::task::block_in_place(|| stage.deploy(folder.path(), &[]));
    };
    // The live build, and the two before it that are kept.
    (1..=5).for_each(deploy);
    let settled = || async {
        let began = Instant::now();
        loop {
            let now = held(&stage);
            // The server and one replica; how many watch over that depends on the machine.
            if now.processes == 2 && now.builds <= 4 {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "it does not settle: {now:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let before = settled().await;
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for number in 6..6 + deploys {
        let one = Instant::now();
        deploy(number);
        longest = longest.max(one.elapsed());
    }
    let took = began.elapsed();
    let after = settled().await;
    println!(
        "{deploys} deploys in {took:.1?}, the longest in {longest:.2?}\nbefore: {before:?}\nafter:  {after:?}"
    );
    assert_eq!(before.environments, after.environments);
    assert!(after.server.descriptors <= before.server.descriptors + 8, "{before:?} {after:?}");
    assert!(after.server.resident <= before.server.resident + (48 << 20), "{before:?} {after:?}");
    let last = body(stage.call(&stage.v4("model/version"), "{}").await).await;
    assert_eq!(last["result"], 5 + deploys);
    let builds = stage.control("apps/model/builds");
    let builds = body(stage.request(Method::GET, &builds).send().await.unwrap()).await;
    assert_eq!(builds["items"].as_array().unwrap().len(), 100.min(usize::try_from(deploys).unwrap() + 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploys_in_a_row_leave_nothing_behind() {
    deploys_leave_nothing(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute or two; the same with ten deploys is always run"]
async fn a_hundred_deploys_in_a_row_leave_nothing_behind() {
    deploys_leave_nothing(100).await;
}
