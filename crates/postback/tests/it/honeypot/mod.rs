//! A honeypot at every address that webhooks may not reach, in a network of the test's own: the built
//! server is given hundreds of addresses of each kind, and nobody may ever come to it.
//!
//! The test starts itself again inside fresh namespaces (user, network, mounts), where all of these
//! addresses lead to this machine and names mean what the test's own name server says. The same harness
//! with the guard opened shows that the honeypot counts.

mod addresses;
mod pot;

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::dns::{NameServer, Question, Record, Reply};
use testkit::receiver::{Evil, Fault};
use testkit::server::Home;

use crate::support::{PATIENCE, Stage, app_folder, binary, json as body};
use addresses::{FORBIDDEN, literals};
use pot::Honeypot;

/// Set for the inner process; a test of this name may not run outside of it.
const INSIDE: &str = "POSTBACK_TEST_HONEYPOT";
/// Of each kind of address.
const COUNT: usize = 500;
const AT_ONCE: usize = 8;
/// An address of the internet; nothing leads there from inside.
const PUBLIC: &str = "93.184.216.34";
/// A receiver that may be called, and that sends its callers elsewhere.
const REDIRECTOR: &str = "127.99.0.1:8081";

#[test]
fn nobody_ever_comes_to_the_honeypot() {
    let inside = "ip link set lo up && exec \"$0\" --exact honeypot::inside --ignored --nocapture";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", inside])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "yes")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return println!("SKIP: unshare cannot be started: {error}"),
    };
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("ip: not found") {
        return println!("SKIP: no namespace can be made here: {said}");
    }
    println!("{said}");
    assert!(output.status.success(), "it failed inside the namespace");
    assert!(said.contains("1 passed"), "the test was not found inside the namespace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespaces that the other test makes"]
async fn inside() {
    if std::env::var(INSIDE).is_err() {
        return println!("SKIP: runs in the namespaces that `nobody_ever_comes_to_the_honeypot` makes");
    }
    let pot = Honeypot::open(FORBIDDEN).await;
    let names = NameServer::start("127.0.0.1:53".parse().unwrap(), zone).await.unwrap();
    use_name_server();
    let targets = FORBIDDEN.len();
    let moved = Evil::start_at(REDIRECTOR.parse().unwrap(), move |path| {
        let number = path.trim_matches('/').parse::<usize>().unwrap_or(0);
        let target = host(FORBIDDEN[number % targets].parse().unwrap());
        let status =
            ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
                [number % 4];
        Fault::status(status, &[&format!("location: http://{target}/")])
    })
    .await
    .unwrap();

    // Only the rule about addresses is left: schemes and ports are opened.
    let open = ["--allow-http-webhooks", "--allow-webhook-ports", "22,6379,8080"];
    let strict = [&open[..], &["--allow-private-webhooks", "127.99.0.1/32"]].concat();
    let stage = Stage::on(Home::new(binary()).with_flags(&strict));
    stage.deploy(&app_folder("basic"), &["basic"]);

    refused_at_accept(&stage, "literal", literals(COUNT)).await;
    refused_at_accept(&stage, "name", names_of("direct")).await;
    refused_at_accept(&stage, "mixed", names_of("mixed")).await;
    refused_at_accept(&stage, "alias", names_of("alias")).await;
    refused_at_accept(&stage, "many", names_of("many").into_iter().take(20).collect()).await;
    fails_at_attempt(&stage, "rebinding", names_of("rebind"), &["address_not_allowed"]).await;
    fails_at_attempt(
        &stage,
        "late",
        names_of("late").into_iter().take(50).collect(),
        &["address_not_allowed"],
    )
    .await;
    let redirects = (0..COUNT).map(|number| format!("http://{REDIRECTOR}/{number}")).collect();
    fails_at_attempt(&stage, "redirect", redirects, &["redirect"]).await;
    let nowhere = ["silent", "nothing", "garbage"].map(|kind| format!("http://1.{kind}.test/")).to_vec();
    fails_at_attempt(&stage, "nowhere", nowhere, &["dns", "timeout:dns"]).await;
    println!("{} questions to the name server, {} redirects", names.asked(), moved.accepted());
    assert!(names.asked() > 3 * COUNT, "the names were hardly asked for");
    assert!(moved.accepted() >= COUNT, "the redirects were hardly followed up to the first step");
    assert_eq!(pot.accepted(), [""; 0], "somebody came");

    // The same with the guard opened for two ranges: the honeypot counts.
    drop(stage.server);
    let opened = [&open[..], &["--allow-private-webhooks", "10.0.0.0/8,fd00::/8,169.254.0.0/16"]].concat();
    let stage = Stage::on(stage.home.with_flags(&opened));
    for url in ["http://10.0.0.1/", "http://[fd00::1]:8080/", "http://open.test/"] {
        let run = call(&stage, url).await.unwrap_or_else(|refused| panic!("{url}: {refused}"));
        // The honeypot hangs up, so every attempt ends as one that came to it does.
        assert_eq!(first_reason(&stage, &run).await, "reset", "{url}");
    }
    for url in ["http://169.254.169.254/", "http://[fd00:ec2::254]/"] {
        assert_eq!(call(&stage, url).await.unwrap_err()["code"], "address_not_allowed", "{url}");
    }
    let came = pot.accepted();
    println!("with the guard opened: {came:?}");
    for expected in ["10.0.0.1:80", "[fd00::1]:8080"] {
        assert!(came.iter().any(|at| at == expected), "{expected} is missing: {came:?}");
    }
    let never = |at: &&String| at.contains("169.254") || at.contains("ec2");
    assert_eq!(came.iter().find(never), None, "metadata is opened to nobody");
}

/// `http://…` or `https://…`, for a host.
fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// `{number}.{kind}.test`, of which every number means another forbidden address.
fn names_of(kind: &str) -> Vec<String> {
    let scheme = |number: usize| if number.is_multiple_of(2) { "http" } else { "https" };
    (0..COUNT).map(|number| format!("{}://{number}.{kind}.test/", scheme(number))).collect()
}

/// What names mean here.
fn zone(question: &Question) -> Reply {
    let mut labels = question.name.split('.');
    let number = labels.next().and_then(|label| label.parse::<usize>().ok()).unwrap_or(0);
    let kind = labels.next().unwrap_or_default();
    let forbidden: IpAddr = FORBIDDEN[number % FORBIDDEN.len()].parse().unwrap();
    let public: IpAddr = PUBLIC.parse().unwrap();
    match kind {
        "direct" => Reply::addresses([forbidden]),
        "mixed" if number.is_multiple_of(2) => Reply::addresses([public, forbidden]),
        "mixed" => Reply::addresses([forbidden, public]),
        "alias" => Reply::Records(
            0,
            vec![
                Record::Alias(format!("a{number}.elsewhere.test")),
                Record::Alias(format!("b{number}.elsewhere.test")),
                Record::Address(forbidden),
            ],
        ),
        "many" => {
            let ordinary = (0..499_u32).map(|last| IpAddr::from((0x5db8_0000 + last).to_be_bytes()));
            Reply::addresses(ordinary.chain([forbidden]))
        }
        // The first to ask is the acceptance, the next ones are attempts.
        "rebind" if question.before == 0 => Reply::addresses([public]),
        "rebind" => Reply::addresses([forbidden]),
        // Too late for the acceptance, which does not wait.
        "late" if question.before == 0 => Reply::Silence,
        "late" => Reply::addresses([forbidden]),
        "silent" => Reply::Silence,
        "garbage" => Reply::Garbage,
        "test" => Reply::addresses(["10.0.0.1".parse().unwrap()]),
        _ => Reply::NoSuchName,
    }
}

/// The resolver of this namespace's processes is the test's own.
fn use_name_server() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nameserver 127.0.0.1\n").unwrap();
    let (_, path) = file.keep().unwrap();
    let status = Command::new("mount").arg("--bind").arg(&path).arg("/etc/resolv.conf").status();
    assert!(status.unwrap().success(), "/etc/resolv.conf cannot be replaced in this namespace");
    let _ = std::fs::remove_file(path);
}

/// The run's id, or the answer that refused it.
async fn call(stage: &Stage, hook: &str) -> Result<String, Value> {
    let request = json!({"value": 1, "webhook_endpoint": hook}).to_string();
    let answer = stage.call(&stage.v3("basic/echo"), request).await;
    let status = answer.status();
    let answer = body(answer).await;
    match status.as_u16() {
        200 => Ok(answer["run_id"].as_str().unwrap().to_owned()),
        422 => Err(answer),
        _ => panic!("{hook}: {status} {answer}"),
    }
}

/// Asks about all of them, a few at a time.
async fn each<'a, T>(urls: &'a [String], ask: impl AsyncFn(&'a str) -> T) -> Vec<T> {
    let asked = futures_util::stream::iter(urls).map(|url| ask(url));
    asked.buffered(AT_ONCE).collect().await
}

async fn refused_at_accept(stage: &Stage, kind: &str, urls: Vec<String>) {
    each(&urls, async |url| match call(stage, url).await {
        Err(refused) => assert_eq!(refused["code"], "address_not_allowed", "{url}: {refused}"),
        Ok(run) => {
            // A resolver that is slow refuses nobody: the attempt does.
            assert_ne!(kind, "literal", "{url} was accepted");
            assert_eq!(first_reason(stage, &run).await, "address_not_allowed", "{url}");
        }
    })
    .await;
    println!("{kind}: {} addresses refused", urls.len());
}

async fn fails_at_attempt(stage: &Stage, kind: &str, urls: Vec<String>, reasons: &[&str]) {
    let runs = each(&urls, async |url| {
        call(stage, url).await.unwrap_or_else(|refused| panic!("{kind}: {url}: {refused}"))
    });
    let mut proven = 0;
    for (run, url) in runs.await.iter().zip(&urls) {
        let (reason, warning) = first_attempt(stage, run).await;
        // On a busy machine the acceptance can give up before its question is sent. The attempt then is the
        // first to ask, and is told the public address, where nobody is.
        let was_first = kind == "rebinding" && reason == "refused" && warning.is_string();
        assert!(was_first || reasons.contains(&reason.as_str()), "{kind}: {url}: {reason}, {warning}");
        proven += usize::from(!was_first);
    }
    assert!(proven * 2 > urls.len(), "{kind}: only {proven} of {} show anything", urls.len());
    println!("{kind}: {proven} addresses, each first attempt {}", reasons.join(" or "));
}

/// Why the first attempt of the run's only delivery failed.
async fn first_reason(stage: &Stage, run: &str) -> String {
    first_attempt(stage, run).await.0
}

/// The same, and what the call was warned of.
async fn first_attempt(stage: &Stage, run: &str) -> (String, Value) {
    let began = Instant::now();
    loop {
        let path = stage.control(&format!("runs/{run}"));
        let view = body(stage.request(Method::GET, &path).send().await.unwrap()).await;
        let attempt = &view["deliveries"][0]["attempts"][0];
        if let Some(reason) = attempt["reason"].as_str() {
            return (reason.to_owned(), view["warning"].clone());
        }
        assert!(began.elapsed() < PATIENCE, "no attempt has ended: {view}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
