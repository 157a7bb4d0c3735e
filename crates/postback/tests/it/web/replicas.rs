//! The processes of web servers: their ports, their health, their ends.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{ask, changed, get, log_with, stage, until};
use crate::support::{PATIENCE, Stage, json as body};

const CONFIG: &str = "[cerebrium.deployment]\nname = \"other\"\n[cerebrium.scaling]\ncooldown = 60\n";

fn config(runtime: &str) -> String {
    format!("{CONFIG}[cerebrium.runtime.custom]\n{runtime}")
}

/// Deploys what cannot come up; what is said about it.
fn refused(stage: &Stage, name: &str) -> String {
    let folder = stage.home.scratch().join(name);
    let output = stage.home.command().current_dir(folder).args(["deploy", name]).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_one_app_have_a_port_each() {
    let stage = Stage::empty();
    let entrypoint = "entrypoint = \"exec python server.py --port 8000\"\n";
    let scaled = config(entrypoint).replace(
        "cooldown = 60",
        "cooldown = 60\nmin_replicas = 2\nmax_replicas = 2\nreplica_concurrency = 1",
    );
    changed(&stage, "two", &scaled, |server| server);
    stage.deploy(&stage.home.scratch().join("two"), &["two"]);
    let began = std::time::Instant::now();
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 2 {
        let both = tokio::join!(get(&stage, "two/echo"), get(&stage, "two/echo"));
        for answer in [both.0, both.1] {
            seen.insert(body(answer).await["server"].as_str().unwrap().to_owned());
        }
        assert!(began.elapsed() < PATIENCE, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_ends_or_is_unwell_is_replaced_and_one_that_is_not_ready_gets_nothing() {
    let stage = stage();
    let first = body(get(&stage, "web/echo").await).await["server"].clone();
    let died = get(&stage, "web/die").await;
    assert_eq!(died.status(), 502);
    let text = died.text().await.unwrap();
    assert!(text.contains("worker_exited") && text.contains("exit status 3"), "{text}");
    let second = body(get(&stage, "web/echo").await).await["server"].clone();
    assert_ne!(first, second);
    log_with(&stage, "web", "dying as told").await;

    // It says that it is not well, three times in a row.
    assert_eq!(get(&stage, "web/unwell").await.status(), 200);
    let is_another = |told: &serde_json::Value| told["server"].is_string() && told["server"] != second;
    let third = until(&stage, "web/echo", is_another).await["server"].clone();
    log_with(&stage, "web", "its health check, failed 3 times in a row").await;

    // Not ready, it keeps what it has and gets nothing new.
    let file = stage.home.scratch().join("ready");
    assert_eq!(get(&stage, &format!("web/unready?until={}", file.display())).await.status(), 200);
    log_with(&stage, "web", "it gets no requests").await;
    let mut waits = Box::pin(get(&stage, "web/echo"));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut waits).await.is_err(), "it was answered");
    std::fs::write(&file, "").unwrap();
    assert_eq!(body(waits.await).await["server"], third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_come_up_says_why() {
    let stage = Stage::empty();
    let as_it_is = |server: String| server;
    changed(&stage, "missing", &config("entrypoint = [\"no-such-server\"]\n"), as_it_is);
    let said = refused(&stage, "missing");
    assert!(said.contains("no-such-server"), "{said}");

    changed(&stage, "raises", &config("entrypoint = \"python server.py --port 8000\"\n"), |server| {
        // Before it listens: once it takes connections, a server without checks is up.
        server.replace("server = ThreadingHTTPServer(", "raise SystemExit('no weights here')\n    server = (")
    });
    let said = refused(&stage, "raises");
    assert!(said.contains("the app's web server ended before it was up: exit status 1"), "{said}");
    assert!(said.contains("no weights here"), "{said}");

    let unwell = "entrypoint = \"python server.py --port 8000\"\nhealthcheck_endpoint = \"/status/500\"\n";
    let limited = format!(
        "{}\n[cerebrium.scaling]\n",
        config(unwell).replace("[cerebrium.scaling]\ncooldown = 60\n", "")
    )
    .replace("name = \"other\"", "name = \"other\"\ndeployment_initialization_timeout = 3");
    changed(&stage, "unwell", &limited, as_it_is);
    let said = refused(&stage, "unwell");
    assert!(said.contains("was not up within 3 s") && said.contains("answered 500"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_port_of_its_own_mind_is_found_there_and_stays_alone() {
    let stage = Stage::empty();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let stubborn = format!("entrypoint = \"python server.py\"\nport = {port}\n");
    let scaled = config(&stubborn).replace(
        "cooldown = 60",
        "cooldown = 60\nmin_replicas = 1\nmax_replicas = 3\nreplica_concurrency = 1",
    );
    changed(&stage, "stubborn", &scaled, |server| {
        server.replace("int(sys.argv[sys.argv.index(\"--port\") + 1])", &port.to_string())
    });
    let output = stage.deploy(&stage.home.scratch().join("stubborn"), &["stubborn"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("whatever `PORT` says"), "{said}");
    let answers = futures_util::future::join_all((0..4).map(|_| get(&stage, "stubborn/echo"))).await;
    let mut servers = std::collections::HashSet::new();
    for answer in answers {
        servers.insert(body(answer).await["server"].as_str().unwrap().to_owned());
    }
    assert_eq!(servers.len(), 1, "{servers:?}");

    // Its successor has the port after it, and whoever asks meanwhile waits.
    let asked = tokio::spawn(ask(&stage, Method::GET, "stubborn/text").send());
    stage.deploy(&stage.home.scratch().join("stubborn"), &["stubborn"]);
    let asked = asked.await.unwrap().unwrap();
    assert_eq!(asked.status(), 200);
    let successor = body(get(&stage, "stubborn/echo").await).await["server"].as_str().unwrap().to_owned();
    assert!(!servers.contains(&successor));
    let view = stage.request(Method::GET, &stage.control("apps/stubborn")).send().await.unwrap();
    let view = body(view).await;
    assert_eq!((&view["runtime"], &view["port"]), (&json!("custom"), &json!(port)), "{view}");
    assert_eq!(ask(&stage, Method::GET, "stubborn/text").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_server_is_contained_and_gets_its_secrets() {
    let stage = stage();
    let set = ["secrets", "set", "SECRET_OF_MINE=s3cret", "LD_BIND_NOW=1", "--app", "web", "--restart"];
    let output = stage.home.command().args(set).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let has_it = |told: &serde_json::Value| *told == json!("s3cret");
    until(&stage, "web/variable?name=SECRET_OF_MINE", has_it).await;
    assert_eq!(body(get(&stage, "web/variable?name=LD_BIND_NOW").await).await, json!("1"));
    // Its supervisor, who is not contained, is not told what to load.
    let supervisors = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let read = |file: &str| std::fs::read(process.path().join(file)).ok();
        let is_supervisor = read("cmdline")?.windows(11).any(|part| part == b"__supervise");
        let environment = String::from_utf8_lossy(&read("environ")?).into_owned();
        (is_supervisor && environment.contains("SECRET_OF_MINE=s3cret")).then_some(environment)
    });
    let supervisors: Vec<_> = supervisors.collect();
    assert!(!supervisors.is_empty(), "there is a supervisor");
    for environment in supervisors {
        assert!(
            !environment.split('\0').any(|variable| variable.starts_with("LD_BIND_NOW=")),
            "{environment}"
        );
    }
    let aside = body(get(&stage, "web/variable?name=POSTBACK_OF_COMMAND_SECRET_OF_MINE").await).await;
    assert_eq!(aside, json!(null));
    assert_eq!(body(get(&stage, "web/read?path=server.py").await).await, json!("read"));
    if stage.home.log().contains("contained by tier S0") {
        println!("SKIP: this machine contains nothing");
        return;
    }
    let key = stage.home.data_dir().join("secret.key");
    assert!(key.is_file());
    let told = body(get(&stage, &format!("web/read?path={}", key.display())).await).await;
    assert_eq!(told, json!("refused"));
}
