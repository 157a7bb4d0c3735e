//! A load whose history is kept, and the verdict of the checker over it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use testkit::checker::{self, Crash, Evidence, Execution, Known, Output, Run, Victim};
use testkit::footprint::Footprint;
use testkit::recorder::Recorder;
use testkit::{processes, wall_clock};

use crate::support::{PATIENCE, Stage, json as body};

/// Planted with every request; nobody but the server may see it again …
const CALLERS_SECRET: &str = "planted-secret-of-the-caller";
/// … and this one nobody but it and the receiver, in this header.
const HEADERS_VALUE: &str = "planted-value-of-a-webhook-header";
const HEADER: &str = "x-planted";
/// Bytes of a result that becomes a file.
const LARGE: usize = 300_000;
/// How long a server may take to give back what it took for a load: threads linger for ten seconds.
const COMES_BACK: Duration = Duration::from_secs(25);
/// How long a dead server's processes may outlive the start of the next one.
const OUTLIVE: Duration = Duration::from_secs(1);

/// A client of `basic/witness` that remembers what became of each of its requests.
pub(crate) struct Load {
    http: reqwest::Client,
    path: String,
    key: String,
    effects: PathBuf,
    recorder: Recorder,
    /// Every so many requests the answer is a large one.
    large_every: Option<u64>,
    before: Footprint,
    history: Mutex<BTreeMap<u64, Known>>,
    ballast: Mutex<BTreeMap<u64, usize>>,
}

impl Load {
    pub(crate) async fn new(stage: &Stage) -> Self {
        Self {
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap(),
            path: format!("{}{}", stage.home.url(), stage.v3("basic/witness")),
            key: stage.keys.public_key.clone(),
            effects: stage.home.scratch().join("effects"),
            recorder: Recorder::start().await.unwrap(),
            large_every: None,
            before: footprint(stage).expect("the server runs"),
            history: Mutex::default(),
            ballast: Mutex::default(),
        }
    }

    /// The same with a result that becomes a file in every `every`th answer.
    pub(crate) fn with_large_results(mut self, every: u64) -> Self {
        self.large_every = Some(every);
        self
    }

    /// How many requests the receiver has had.
    pub(crate) fn arrived(&self) -> usize {
        self.recorder.count()
    }

    /// Another endpoint of the receiver.
    pub(crate) fn hook(&self, path: &str) -> String {
        self.recorder.url(path)
    }

    /// Makes request `number`, with `ballast` bytes that nobody reads. `None` when nothing was sent.
    pub(crate) async fn send(&self, number: u64, ballast: usize) -> Option<Known> {
        self.ballast.lock().unwrap().insert(number, ballast);
        let known = self.ask(number).await?;
        self.history.lock().unwrap().insert(number, known.clone());
        Some(known)
    }

    /// Every second request has a key, so that it can be made again.
    async fn ask(&self, number: u64) -> Option<Known> {
        let ballast = self.ballast.lock().unwrap()[&number];
        let large = self.large_every.is_some_and(|every| number.is_multiple_of(every));
        let request = json!({
            "path": self.effects, "value": number, "ballast": "x".repeat(ballast),
            "answer_bytes": if large { LARGE } else { 0 }, "webhook_endpoint": self.recorder.url("hook"),
        });
        let mut post = self.http.post(&self.path).header("authorization", &self.key).json(&request);
        if number.is_multiple_of(2) {
            post = post.header("idempotency-key", format!("request-{number}"));
        }
        post = post.header("x-webhook-secret", CALLERS_SECRET);
        post = post.header("x-webhook-headers", json!({HEADER: HEADERS_VALUE}).to_string());
        Some(match post.send().await {
            Ok(answer) if answer.status() == 200 => match answer.json::<Value>().await {
                Ok(ack) => Known::Acked(ack["run_id"].as_str().unwrap().to_owned()),
                Err(_) => Known::Unknown,
            },
            Ok(answer) => {
                let status = answer.status().as_u16();
                match answer.json::<Value>().await {
                    Ok(problem) if problem["code"] != "outcome_unknown" => Known::Refused(status),
                    _ => Known::Unknown,
                }
            }
            Err(error) if error.is_connect() => return None,
            Err(_) => Known::Unknown,
        })
    }

    /// Makes every request with a key again whose fate is unknown, as a client would.
    async fn ask_again(&self) -> BTreeMap<u64, String> {
        let history = self.history.lock().unwrap().clone();
        let unknown =
            history.iter().filter(|(number, known)| **known == Known::Unknown && number.is_multiple_of(2));
        let mut retried = BTreeMap::new();
        for (number, _) in unknown {
            let Some(Known::Acked(run)) = self.ask(*number).await else {
                panic!("request {number} cannot be made again")
            };
            retried.insert(*number, run);
        }
        retried
    }

    /// Kills a replica of those that have run user code, once there is one. A replica
    /// that dies again and again while it starts is another matter, and ends runs as `failed_to_start`.
    pub(crate) async fn kill_a_replica(&self, stage: &mut Stage, chance: impl FnOnce(usize) -> usize) {
        let began = Instant::now();
        let builds = stage.home.data_dir().join("builds").to_str().unwrap().to_owned();
        let replicas = loop {
            let known: HashSet<u64> = executions(&self.effects).iter().map(|known| known.pid).collect();
            let mut found = processes::mentioning(&builds);
            found.retain(|process| known.contains(&u64::from(process.pid)));
            if !found.is_empty() {
                break found;
            }
            assert!(began.elapsed() < PATIENCE, "no replica works");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let from = wall_clock();
        replicas[chance(replicas.len())].kill();
        stage.crashes.push(Crash { victim: Victim::Replica, from, to: wall_clock() });
    }

    /// Waits until the server is idle, restarts it on the way, and gathers what everybody knows.
    pub(crate) async fn evidence(&self, stage: &mut Stage) -> Evidence {
        let crashes = stage.crashes.clone();
        let retried = self.ask_again().await;
        idle(stage).await;
        self.deliver(stage).await;
        let mut outputs = Vec::new();
        let runs = self.every_run(stage, &mut outputs).await;
        let after = self.come_back(stage).await;
        outputs.extend(shown(stage).await);
        outputs.extend(refusals(stage).await);
        outputs.extend(process_list(&stage.home.data_dir()));
        stage.stop().await;
        stage.restart().await;
        let runs_later = self.every_run(stage, &mut outputs).await;
        let survivors = stage.survivors();
        stage.stop().await;
        outputs.push(Output { place: "the log".to_owned(), text: stage.home.log() });
        outputs.extend(files(&stage.home.data_dir()));
        let arrivals = self.recorder.arrivals();
        outputs.extend(arrivals.iter().map(|arrival| {
            let mut headers = arrival.headers.clone();
            if arrival.path == "/hook" {
                assert_eq!(headers.remove(HEADER).unwrap(), HEADERS_VALUE);
            }
            Output {
                place: format!("webhook {}", arrival.header("webhook-id")),
                text: format!("{headers:?} {}", String::from_utf8_lossy(&arrival.body)),
            }
        }));
        Evidence {
            history: self.history.lock().unwrap().clone(),
            retried,
            runs,
            runs_later,
            arrivals,
            effects: executions(&self.effects),
            crashes,
            survivors,
            damage: checker::damage(&stage.home.data_dir()),
            footprints: after.map(|after| (self.before, after)),
            delay_max: None,
            secrets: secrets(stage),
            outputs,
        }
    }

    /// Every run in full.
    async fn every_run(&self, stage: &Stage, outputs: &mut Vec<Output>) -> Vec<Run> {
        let mut runs = Vec::new();
        for id in run_ids(stage).await {
            let path = stage.control(&format!("runs/{id}"));
            let get =
                self.http.get(format!("{}{path}", stage.home.url())).bearer_auth(&stage.keys.private_key);
            let text = get.send().await.unwrap().text().await.unwrap();
            runs.push(
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("run {id}: {error}: {text}")),
            );
            outputs.push(Output { place: format!("run {id}"), text });
        }
        runs
    }

    /// Has the deliveries made at once that wait for their next attempt, and waits until all have ended.
    async fn deliver(&self, stage: &Stage) {
        let began = Instant::now();
        let open = async |state: &str| {
            let path = stage.control(&format!("deliveries?limit=1&state={state}"));
            let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
            !page["items"].as_array().unwrap().is_empty()
        };
        while open("pending").await || open("sending").await {
            let path = stage.control("deliveries/redeliver");
            let failed = json!({"receiver": self.recorder.url(""), "since": "1970-01-01T00:00:00Z"});
            let answer = stage.request(Method::POST, &path).json(&failed).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
            // The checker says which of them do not end.
            if began.elapsed() > PATIENCE {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the server takes once it has given back what it took for the load.
    async fn come_back(&self, stage: &Stage) -> Option<Footprint> {
        let began = Instant::now();
        loop {
            let after = footprint(stage)?;
            let evidence = Evidence { footprints: Some((self.before, after)), ..Evidence::default() };
            if evidence.findings().is_empty() || began.elapsed() > COMES_BACK {
                return Some(after);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Stage {
    /// Kills the server, if it runs.
    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            let from = wall_clock();
            tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
            self.crashes.push(Crash { victim: Victim::Server, from, to: wall_clock() });
        }
    }

    /// Starts the server again, and has an eye on what the one before may have left.
    pub(crate) async fn restart(&mut self) {
        let before = processes::mentioning(self.home.data_dir().to_str().unwrap());
        let server = tokio::task::block_in_place(|| self.home.start());
        self.server = Some(server);
        self.watches.push(std::thread::spawn(move || {
            let ready = Instant::now();
            let alive = || before.iter().filter(|process| process.is_alive());
            while alive().next().is_some() && ready.elapsed() < OUTLIVE {
                std::thread::sleep(Duration::from_millis(20));
            }
            alive().map(|process| format!("{}: {}", process.pid, process.command)).collect()
        }));
    }

    /// Processes that outlived their server.
    fn survivors(&mut self) -> Vec<String> {
        self.watches.drain(..).flat_map(|watch| watch.join().unwrap()).collect()
    }
}

fn footprint(stage: &Stage) -> Option<Footprint> {
    Footprint::of(stage.server.as_ref()?.pid(), &stage.home.data_dir())
}

/// What user code wrote down, one line each time that it ran.
fn executions(effects: &Path) -> Vec<Execution> {
    let text = std::fs::read_to_string(effects).unwrap_or_default();
    let line = |line: &str| {
        let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
        let &[request, at, pid] = figures.as_slice() else { panic!("`{line}` is no execution") };
        Execution { request, at, pid }
    };
    text.lines().map(line).collect()
}

fn secrets(stage: &Stage) -> Vec<(String, String)> {
    let keys = &stage.keys;
    let plain = keys.webhook_secret.trim_start_matches("whsec_");
    let named = [
        ("public key", keys.public_key.as_str()),
        ("private key", &keys.private_key),
        ("service account token", &keys.service_account_token),
        ("webhook secret", plain),
        ("caller's secret", CALLERS_SECRET),
        ("value of a webhook header", HEADERS_VALUE),
    ];
    named.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// What the command line and the metrics show.
async fn shown(stage: &Stage) -> Vec<Output> {
    let mut outputs = Vec::new();
    for words in [&["runs"][..], &["runs", "--json"], &["deliveries", "list"], &["apps"], &["logs", "basic"]]
    {
        let mut command = stage.home.command();
        let output = command.args(words).stdin(std::process::Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let place = format!("postback {}", words.join(" "));
        assert!(output.status.success(), "{place}: {}", String::from_utf8_lossy(&text));
        outputs.push(Output { place, text: String::from_utf8_lossy(&text).into_owned() });
    }
    let metrics = stage.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    outputs.push(Output { place: "/metrics".to_owned(), text: metrics });
    outputs
}

/// What callers are told whose requests are refused, with secrets at the right place and at wrong ones.
async fn refusals(stage: &Stage) -> Vec<Output> {
    let keys = &stage.keys;
    let planted = json!({HEADER: HEADERS_VALUE}).to_string();
    let too_long = format!("{CALLERS_SECRET}{}", "x".repeat(2_000));
    let mut outputs = Vec::new();
    for (what, path, key, secret, headers, body) in [
        ("no JSON", "basic/echo", &keys.public_key, CALLERS_SECRET, planted.as_str(), "{"),
        ("no such app", "nobody/echo", &keys.public_key, CALLERS_SECRET, &planted, "{}"),
        ("no such function", "basic/nothing", &keys.public_key, CALLERS_SECRET, &planted, "{}"),
        ("a long secret", "basic/echo", &keys.public_key, &too_long, &planted, "{}"),
        ("no object", "basic/echo", &keys.public_key, CALLERS_SECRET, HEADERS_VALUE, "{}"),
        (
            "a header that is ours",
            "basic/echo",
            &keys.public_key,
            CALLERS_SECRET,
            &json!({"host": HEADERS_VALUE}).to_string(),
            "{}",
        ),
        (
            "an address within",
            "basic/echo",
            &keys.private_key,
            CALLERS_SECRET,
            &planted,
            r#"{"webhook_endpoint": "http://169.254.169.254/"}"#,
        ),
        ("another's key", "basic/echo", &keys.webhook_secret, CALLERS_SECRET, &planted, "{}"),
    ] {
        let request = stage.bare(Method::POST, &stage.v3(path)).header("authorization", key);
        let request = request.header("x-webhook-secret", secret).header("x-webhook-headers", headers);
        let answer = request.body(body.to_owned()).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{what}: {}", answer.status());
        let headers = format!("{:?}", answer.headers());
        let text = headers + &answer.text().await.unwrap();
        outputs.push(Output { place: format!("the refusal of {what}"), text });
    }
    outputs
}

/// Command line and environment of the server and of all that it started.
fn process_list(data_dir: &Path) -> Vec<Output> {
    let found = processes::mentioning(data_dir.to_str().unwrap());
    assert!(!found.is_empty(), "the server is no process");
    let shown = found.into_iter().map(|process| {
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        Output {
            place: format!("process {} `{}`", process.pid, process.command),
            text: format!("{} {}", process.command, String::from_utf8_lossy(&environment)),
        }
    });
    shown.collect()
}

/// The files that the store writes: whoever has a copy of them has no secret.
fn files(data_dir: &Path) -> Vec<Output> {
    let mut paths = Vec::new();
    for folder in [data_dir.to_owned(), data_dir.join("results")] {
        paths.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.is_file() && !path.ends_with("credentials.json") && !path.ends_with("reserve"));
    assert!(paths.iter().any(|path| path.ends_with("postback.db")), "{paths:?}");
    let read = |path: PathBuf| Output {
        place: path.display().to_string(),
        text: String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Waits until nothing is queued or running.
async fn idle(stage: &Stage) {
    let began = Instant::now();
    for state in ["queued", "running", "queued"] {
        loop {
            let path = stage.control(&format!("runs?limit=1&state={state}"));
            let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
            if page["items"].as_array().unwrap().is_empty() {
                break;
            }
            assert!(began.elapsed() < PATIENCE * 2, "runs stay {state}: {page}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The id of every run, newest first.
async fn run_ids(stage: &Stage) -> Vec<String> {
    let mut ids = Vec::new();
    let mut path = stage.control("runs");
    loop {
        let page = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
        let items = page["items"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(token) = page["nextToken"].as_str() else { return ids };
        path = stage.control(&format!("runs?nextToken={token}"));
    }
}
