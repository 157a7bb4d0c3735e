//! What a caller may do with a run beside waiting for it.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use testkit::footprint::Footprint;
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

async fn call_with(stage: &Stage, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut request = stage.request(Method::POST, path).body(body.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

fn lines(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_hundred_requests_with_one_key_are_one_run() {
    let mut stage = Stage::basic();
    let notes = stage.home.scratch().join("notes");
    let work = json!({"path": notes, "value": 1});
    let path = stage.v4("basic/note?async=true");
    let key = [("idempotency-key", "order-1")];
    let answers = join_all((0..100).map(|_| call_with(&stage, &path, &key, &work))).await;
    let mut runs = Vec::new();
    let mut replays = 0;
    for answer in answers {
        assert_eq!(answer.status(), 202);
        replays += usize::from(answer.headers().get("idempotency-replayed").is_some_and(|v| v == "true"));
        runs.push(body(answer).await["run_id"].as_str().unwrap().to_owned());
    }
    runs.dedup();
    assert_eq!((runs.len(), replays), (1, 99));
    let run = runs.remove(0);
    assert_eq!(stage.ended_run(&run).await["state"], "succeeded");

    // A caller that waits gets the same run's result, and so does one that asks after a crash.
    stage.crash_and_restart();
    let waited = call_with(&stage, &stage.v4("basic/note"), &key, &work).await;
    assert_eq!(
        (waited.status().as_u16(), &waited.headers()["idempotency-replayed"]),
        (200, &"true".parse().unwrap())
    );
    let waited = body(waited).await;
    assert_eq!((&waited["run_id"], &waited["result"]), (&json!(run), &json!(1)));
    assert_eq!(lines(&notes), 1, "it ran once");

    let other = call_with(&stage, &path, &key, &json!({"path": notes, "value": 2})).await;
    assert_eq!(other.status(), 422);
    let other = body(other).await;
    assert_eq!((&other["code"], &other["run_id"]), (&json!("idempotency_mismatch"), &json!(run)));
}

async fn cancel(stage: &Stage, run: &str) -> Response {
    stage.request(Method::DELETE, &stage.control(&format!("runs/{run}"))).send().await.unwrap()
}

#[tokio::test]
async fn a_run_can_be_cancelled_wherever_it_is() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let hook = |name: &str| json!({"seconds": 600, "webhook_endpoint": recorder.url(name)});
    let path = stage.v3("basic/nap");
    let start = async |name: &str| {
        body(call_with(&stage, &path, &[], &hook(name)).await).await["run_id"].as_str().unwrap().to_owned()
    };

    // Executed: the function sleeps in C and cannot be asked, so its process goes.
    let running = start("running").await;
    let state = async |run: &str| {
        body(stage.request(Method::GET, &stage.control(&format!("runs/{run}"))).send().await.unwrap()).await
    };
    while state(&running).await["state"] != "running" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = cancel(&stage, &running).await;
    assert_eq!(answer.status(), 200);
    let answer = body(answer).await;
    assert_eq!((&answer["state"], &answer["error"]["code"]), (&json!("cancelled"), &json!("cancelled")));

    // By the path of Cerebrium's dashboard, and by the command line.
    let second = start("second").await;
    let of_app = stage.control(&format!("apps/basic/runs/{second}"));
    let answer = stage.request(Method::DELETE, &of_app).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let third = start("third").await;
    let output = stage.home.command().args(["runs", "cancel", &third]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Each webhook is told once.
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 3).await, "a webhook did not come");
    for arrival in recorder.arrivals() {
        assert_eq!(arrival.json()["error"]["code"], "cancelled");
    }

    // Twice is once; what has ended otherwise stays so.
    assert_eq!(cancel(&stage, &third).await.status(), 200);
    let done = call_with(&stage, &stage.v4("basic/echo?async=true"), &[], &json!({"value": 1})).await;
    let done = body(done).await["run_id"].as_str().unwrap().to_owned();
    assert_eq!(stage.ended_run(&done).await["state"], "succeeded");
    let refused = cancel(&stage, &done).await;
    assert_eq!(refused.status(), 409);
    let refused = body(refused).await;
    assert_eq!(refused["code"], "already_ended");
    assert!(refused["message"].as_str().unwrap().contains("`succeeded`"), "{refused}");
    assert_eq!(cancel(&stage, "0192f0c1-0000-7000-8000-000000000000").await.status(), 404);
}

#[tokio::test]
async fn whoever_wins_between_cancel_and_finish_there_is_one_end_and_the_answer_names_it() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let path = stage.v4("basic/nap");
    let rounds = (0..40).map(|round| {
        let (stage, path) = (&stage, &path);
        let request = json!({"seconds": 0.05, "webhook_endpoint": recorder.url(&round.to_string())});
        async move {
            let run = body(call_with(stage, path, &[], &request).await).await["run_id"].clone();
            let run = run.as_str().unwrap().to_owned();
            tokio::time::sleep(Duration::from_millis(5 * round)).await;
            let answer = cancel(stage, &run).await;
            let status = answer.status().as_u16();
            let said = body(answer).await;
            let ended = stage.ended_run(&run).await;
            match status {
                200 => {
                    assert_eq!((&said["state"], &ended["state"]), (&json!("cancelled"), &json!("cancelled")));
                }
                409 => assert_eq!(
                    (&said["code"], &ended["state"]),
                    (&json!("already_ended"), &json!("succeeded"))
                ),
                202 => {}
                other => panic!("{other}: {said}"),
            }
        }
    });
    join_all(rounds).await;
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= 40).await, "a webhook did not come");
    assert_eq!(recorder.arrivals().len(), 40, "one end, one webhook");
}

#[tokio::test]
async fn a_run_that_does_not_start_in_time_expires_and_tells_its_webhook() {
    let stage = Stage::empty();
    let folder = stage.home.scratch().join("narrow");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("main.py"), "import time\ndef nap(seconds):\n    time.sleep(seconds)\n")
        .unwrap();
    let scaling = "[cerebrium.scaling]\nmax_replicas = 1\nreplica_concurrency = 1\n";
    std::fs::write(
        folder.join("cerebrium.toml"),
        format!("[cerebrium.deployment]\nname = \"narrow\"\n{scaling}"),
    )
    .unwrap();
    stage.deploy(&folder, &["narrow"]);
    let recorder = Recorder::start().await.unwrap();
    let path = stage.v3("narrow/nap");
    let nap = |name: &str| json!({"seconds": 600, "webhook_endpoint": recorder.url(name)});
    assert_eq!(call_with(&stage, &path, &[], &nap("busy")).await.status(), 200);

    // The one replica is busy: what comes now waits in the server's memory.
    let hurried = call_with(&stage, &path, &[("x-max-queue-time", "1")], &nap("hurried")).await;
    let hurried = body(hurried).await["run_id"].as_str().unwrap().to_owned();
    let ended = stage.ended_run(&hurried).await;
    assert_eq!((&ended["state"], &ended["error"]["code"]), (&json!("expired"), &json!("expired")));
    assert!(recorder.wait_until(PATIENCE, |arrivals| !arrivals.is_empty()).await, "no webhook came");
    assert_eq!(recorder.arrivals()[0].json()["error"]["code"], "expired");

    let waited =
        call_with(&stage, &stage.v4("narrow/nap?max_queue_time=1"), &[], &json!({"seconds": 0})).await;
    assert_eq!(waited.status(), 408);
    assert_eq!(body(waited).await["code"], "expired");
}

#[tokio::test]
async fn a_delayed_run_starts_when_it_is_due_and_a_crash_does_not_change_that() {
    let mut stage = Stage::basic();
    let path = stage.v4("basic/echo?async=true");
    let work = json!({"value": 1});
    let delayed = async |seconds: &str| {
        let answer = call_with(&stage, &path, &[("x-delay", seconds), ("x-priority", "7")], &work).await;
        assert_eq!(answer.status(), 202);
        body(answer).await["run_id"].as_str().unwrap().to_owned()
    };
    let (soon, late) = (delayed("4").await, delayed("600").await);
    stage.crash_and_restart();
    let ended = stage.ended_run(&soon).await;
    assert_eq!((&ended["state"], &ended["priority"]), (&json!("succeeded"), &json!(7)));
    let moment = |key: &str| queue::Timestamp::parse_rfc3339(ended[key].as_str().unwrap()).unwrap();
    assert_eq!(moment("notBefore"), moment("acceptedAt").plus(Duration::from_secs(4)));
    assert!(moment("startedAt") >= moment("notBefore"), "{ended}");

    let show = stage.home.command().args(["runs", "list"]).output().unwrap();
    let list = String::from_utf8_lossy(&show.stdout).into_owned();
    let line = list.lines().find(|line| line.contains(&late)).unwrap();
    assert!(line.contains("queued until 20"), "{list}");
    assert_eq!(cancel(&stage, &late).await.status(), 200);

    let waiting = call_with(&stage, &stage.v4("basic/echo"), &[("x-delay", "5")], &work).await;
    assert_eq!(waiting.status(), 422);
    assert!(body(waiting).await["message"].as_str().unwrap().contains("`?async=true`"));
}

#[tokio::test]
async fn a_run_is_executed_again_after_the_errors_that_its_app_or_its_call_chose() {
    let stage = Stage::empty();
    let folder = stage.home.scratch().join("moody");
    std::fs::create_dir(&folder).unwrap();
    let code = "import os\n\
                def third_time(path):\n    \
                    with open(path, 'a') as file:\n        file.write('.')\n    \
                    if os.path.getsize(path) < 3:\n        raise OSError('not yet')\n    \
                    return os.path.getsize(path)\n";
    std::fs::write(folder.join("main.py"), code).unwrap();
    let config = "[cerebrium.deployment]\nname = \"moody\"\n\
                  [cerebrium.postback]\nretries = 2\nretry_on = [\"user_error\"]\n";
    std::fs::write(folder.join("cerebrium.toml"), config).unwrap();
    stage.deploy(&folder, &["moody"]);
    let recorder = Recorder::start().await.unwrap();
    let path = stage.v3("moody/third_time");
    let call = async |name: &str, headers: &[(&str, &str)]| {
        let notes = stage.home.scratch().join(name);
        let work = json!({"path": notes, "webhook_endpoint": recorder.url(name)});
        let run = body(call_with(&stage, &path, headers, &work).await).await["run_id"].clone();
        stage.ended_run(run.as_str().unwrap()).await
    };
    let ended = call("app", &[]).await;
    assert_eq!((&ended["state"], &ended["result"]), (&json!("succeeded"), &json!(3)), "{ended}");
    assert_eq!(ended["retry"], json!({"retries": 2, "on": ["user_error"]}));
    let attempts = ended["attempts"].as_array().unwrap();
    let ends: Vec<_> = attempts.iter().map(|attempt| attempt["end"].as_str().unwrap()).collect();
    assert_eq!(ends, ["user_error", "user_error", "succeeded"]);
    assert_eq!(attempts[0]["error"]["message"], "not yet");

    let ended = call("less", &[("x-retries", "1")]).await;
    assert_eq!((&ended["state"], &ended["error"]["type"]), (&json!("failed"), &json!("OSError")));
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2);
    let ended = call("other", &[("x-retry-on", "timeout")]).await;
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 1);

    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() >= 3).await, "a webhook did not come");
    assert_eq!(recorder.arrivals().len(), 3, "one webhook per run");
}

#[tokio::test]
async fn a_run_that_the_store_ends_is_counted_under_the_word_of_its_end() {
    let stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let work = json!({"status": 3, "webhook_endpoint": recorder.url("x")});
    let answer = call_with(&stage, &stage.v3("basic/die"), &[("x-max-attempts", "1")], &work).await;
    let run = body(answer).await["run_id"].as_str().unwrap().to_owned();
    assert_eq!(stage.ended_run(&run).await["error"]["code"], "worker_exited");
    let began = std::time::Instant::now();
    loop {
        let metrics = stage.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let mut ends: Vec<_> =
            metrics.lines().filter(|line| line.starts_with("postback_runs_ended_total{")).collect();
        ends.retain(|line| !line.contains("succeeded"));
        if !ends.is_empty() {
            assert_eq!(ends, ["postback_runs_ended_total{ending=\"worker_exited\"} 1"]);
            return;
        }
        // It is counted when the worker has heard of it.
        assert!(began.elapsed() < PATIENCE, "it is not counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_run_that_may_be_executed_once_is_not_executed_again_after_a_crash() {
    let mut stage = Stage::empty();
    let folder = stage.home.scratch().join("careful");
    std::fs::create_dir(&folder).unwrap();
    let code = "import time\n\
                def pay(path):\n    \
                    with open(path, 'a') as file:\n        file.write('paid\\n')\n    \
                    times = len(open(path).readlines())\n    \
                    if times == 1:\n        time.sleep(600)\n    \
                    return times\n";
    std::fs::write(folder.join("main.py"), code).unwrap();
    let config = "[cerebrium.deployment]\nname = \"careful\"\n[cerebrium.scaling]\nreplica_concurrency = 2\n\
                  [cerebrium.postback]\nmax_attempts = 1\nretries = 3\n";
    std::fs::write(folder.join("cerebrium.toml"), config).unwrap();
    stage.deploy(&folder, &["careful"]);
    let recorder = Recorder::start().await.unwrap();
    let path = stage.v3("careful/pay");
    let scratch = stage.home.scratch().to_owned();
    let mut runs = Vec::new();
    for (name, headers) in [("once", &[][..]), ("twice", &[("x-max-attempts", "2")])] {
        let notes = scratch.join(name);
        let work = json!({"path": notes, "webhook_endpoint": recorder.url(name)});
        let run = body(call_with(&stage, &path, headers, &work).await).await["run_id"].clone();
        runs.push(run.as_str().unwrap().to_owned());
        let began = std::time::Instant::now();
        while lines(&notes) == 0 {
            assert!(began.elapsed() < PATIENCE, "`{name}` did not begin");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    stage.crash_and_restart();

    let once = stage.ended_run(&runs[0]).await;
    assert_eq!((&once["state"], &once["error"]["code"]), (&json!("failed"), &json!("interrupted")), "{once}");
    assert_eq!((&once["maxAttempts"], &once["attempts"][0]["end"]), (&json!(1), &json!("server_lost")));
    let twice = stage.ended_run(&runs[1]).await;
    assert_eq!((&twice["state"], &twice["result"]), (&json!("succeeded"), &json!(2)), "{twice}");
    assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() == 2).await, "a webhook did not come");
    let told = recorder.arrivals().iter().any(|arrival| arrival.json()["error"]["code"] == "interrupted");
    assert!(told, "its webhook says what became of it");
    assert_eq!((lines(&scratch.join("once")), lines(&scratch.join("twice"))), (1, 2));
}

/// What an app may say at once, as far as the server's memory is concerned.
const TALK_BYTES: u64 = 8 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_without_end_or_line_feed_costs_the_server_a_bounded_memory() {
    let stage = Stage::empty();
    let folder = tempfile::tempdir().unwrap();
    let code = r#"
import os, sys

def pour(megabytes):
    # No line feed, no UTF-8, and the orders of a terminal.
    chunk = (b"\xff\x1b[31m" + b"x" * 58) * (1 << 14)
    for _ in range(megabytes):
        os.write(1, chunk)
        os.write(2, chunk)
        sys.stdout.write("y" * (1 << 20))
    return megabytes
"#;
    std::fs::write(folder.path().join("main.py"), code).unwrap();
    std::fs::write(folder.path().join("cerebrium.toml"), "[cerebrium.deployment]\nname = \"pours\"\n")
        .unwrap();
    stage.deploy(folder.path(), &[]);
    let pour = async |megabytes: u64| {
        let path = stage.v4("pours/pour");
        body(stage.call(&path, format!(r#"{{"megabytes":{megabytes}}}"#)).await).await["result"].clone()
    };
    assert_eq!(pour(1).await, 1, "what a first call needs is there");

    let pid = stage.server.as_ref().unwrap().pid();
    let resident = || Footprint::of(pid, &stage.home.data_dir()).expect("it runs").resident;
    let (before, mut most) = (resident(), 0);
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let mut pouring = std::pin::pin!(pour(100));
    let poured = loop {
        tokio::select! {
            poured = &mut pouring => break poured,
            _ = look.tick() => most = most.max(resident()),
        }
    };
    assert_eq!(poured, 100);
    let grown = most.saturating_sub(before);
    assert!(grown <= TALK_BYTES, "300 MiB of output took {grown} bytes of the server's memory");
}
