//! What is found out about runs and endpoints afterwards: by API, command line and dashboard alike.

use reqwest::Method;
use serde_json::{Value, json as object};
use testkit::receiver::{Evil, Fault};
use testkit::recorder::Recorder;

use crate::dashboard::Visitor;
use crate::support::{Stage, json};

async fn found(stage: &Stage, query: &str) -> Vec<String> {
    let path = stage.control(&format!("runs?{query}"));
    let page = json(stage.request(Method::GET, &path).send().await.unwrap()).await;
    page["items"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

fn said(stage: &Stage, arguments: &[&str]) -> (bool, String) {
    let output = stage.home.command().args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

async fn visitor(stage: &Stage) -> Visitor {
    let mut visitor = Visitor::of(stage);
    visitor.sign_in(&stage.keys.private_key).await;
    visitor
}

#[tokio::test]
async fn a_run_is_found_by_what_it_says_and_when_it_was() {
    let stage = Stage::basic();
    let call = async |value: &str, order: u32| {
        let request = stage.bare(Method::POST, &stage.v4("basic/echo?async=true"));
        let request = request.header("authorization", &stage.keys.public_key);
        let request = request.header("x-metadata", object!({"order": order}).to_string());
        let body = object!({"value": value}).to_string();
        let run = json(request.body(body).send().await.unwrap()).await["run_id"].as_str().unwrap().to_owned();
        stage.ended_run(&run).await;
        run
    };
    let (plum, pear) = (call("Plum", 17).await, call("pear", 18).await);
    let accepted = |run: &str| {
        let run: queue::RunId = run.parse().unwrap();
        run.accepted_at()
    };
    let between = queue::Timestamp::from_millis(accepted(&plum).as_millis() + 1).to_rfc3339();
    for (query, runs) in [
        ("text=pLUM", vec![&plum]),
        ("metadata=order%3D18", vec![&pear]),
        ("metadata=order%3D18&text=plum", vec![]),
        ("text=echo", vec![&pear, &plum]),
        (&*format!("since={between}"), vec![&pear]),
        (&*format!("until={between}&text=order"), vec![&plum]),
        (&*format!("text={plum}"), vec![&plum]),
    ] {
        assert_eq!(found(&stage, query).await.iter().collect::<Vec<_>>(), runs, "{query}");
    }
    let path = stage.control("runs?metadata=order");
    let refused = stage.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("`order=17`"));

    let (_, listed) =
        said(&stage, &["runs", "list", "--text", "plum", "--since", "1h", "--metadata", "order=17"]);
    assert!(listed.contains(&plum) && !listed.contains(&pear), "{listed}");
    let visitor = visitor(&stage).await;
    let page = visitor.page("/dashboard/runs?since=1h&text=plum&metadata=order%3D17").await;
    assert!(page.contains(&plum) && !page.contains(&pear), "{page}");
    let page = visitor.page(&format!("/dashboard/runs?from={between}")).await;
    assert!(page.contains(&pear) && !page.contains(&plum), "{page}");
    assert!(visitor.page("/dashboard/runs?text=quince").await.contains("No run fits"));
}

/// The endpoint of this address, as the list has it.
async fn endpoint(stage: &Stage, url: &str) -> Value {
    let path = stage.control("endpoints");
    let list = json(stage.request(Method::GET, &path).send().await.unwrap()).await;
    let found = list["items"].as_array().unwrap().iter().find(|endpoint| endpoint["url"] == url);
    found.unwrap_or_else(|| panic!("{url} is not in {list}")).clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_shows_what_a_receiver_makes_of_it() {
    let stage = Stage::empty();
    let (good, bad) = (
        Recorder::start().await.unwrap(),
        Evil::start(Fault::status("500 Internal Server Error", &[])).await.unwrap(),
    );
    let (taken, words) = said(&stage, &["endpoints", "test", &good.url("hook")]);
    assert!(taken && words.contains("took the test event with 200"), "{words}");
    let arrival = good.arrivals().remove(0);
    let body: Value = serde_json::from_slice(&arrival.body).unwrap();
    assert_eq!((&body["result"]["test"], &body["metadata"]["test"]), (&true.into(), &true.into()), "{body}");
    let secret = &stage.keys.webhook_secret;
    crate::support::verify_at_arrival(&standardwebhooks::Webhook::new(secret).unwrap(), &arrival);

    // Tried once, and no duty is left.
    let (taken, words) = said(&stage, &["endpoints", "test", &bad.url("hook")]);
    assert!(!taken && words.contains("did not take the test event with 500"), "{words}");
    let shown = endpoint(&stage, &bad.url("hook")).await;
    assert_eq!((&shown["figures"]["attempts"], &shown["figures"]["succeeded"]), (&1.into(), &0.into()));
    assert_eq!(shown["figures"]["pending"], 0);

    let visitor = visitor(&stage).await;
    let id = endpoint(&stage, &good.url("hook")).await["id"].as_str().unwrap().to_owned();
    assert!(visitor.page("/dashboard/endpoints").await.contains(&id));
    let sent = visitor.press(&format!("/dashboard/endpoints/{id}/test"), &[]).await;
    assert_eq!(sent.status(), 303);
    let run = sent.headers()["location"].to_str().unwrap().to_owned();
    visitor.until(&run, &["webhook delivered with 200", "webhook-test"]).await;
    assert!(visitor.page(&format!("/dashboard/endpoints/{id}")).await.contains("of 2 attempts"));
    let refused = stage.request(Method::POST, &stage.control("endpoints/test"));
    let refused = refused.json(&object!({"url": "ftp://a.example/"})).send().await.unwrap();
    assert_eq!(refused.status(), 422);
}

#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_until_it_is_enabled() {
    let stage = Stage::basic();
    let receiver = Recorder::start().await.unwrap();
    let url = receiver.url("hook");
    let tell = async || {
        let body = object!({"value": 1, "webhook_endpoint": url}).to_string();
        json(stage.call(&stage.v3("basic/echo"), body).await).await["run_id"].as_str().unwrap().to_owned()
    };
    tell().await;
    assert!(receiver.wait_until(crate::support::PATIENCE, |arrivals| arrivals.len() == 1).await);
    let (done, words) = said(&stage, &["endpoints", "disable", &url]);
    assert!(done && words.contains("disabled; what is due"), "{words}");
    assert!(said(&stage, &["endpoints", "disable", &url]).1.contains("disabled already"));
    let waits = tell().await;
    stage.ended_run(&waits).await;
    let shown = endpoint(&stage, &url).await;
    assert_eq!((&shown["state"], &shown["waiting"]), (&"disabled".into(), &1.into()), "{shown}");
    let path = stage.control(&format!("endpoints/{}/test", shown["id"].as_str().unwrap()));
    assert_eq!(stage.request(Method::POST, &path).send().await.unwrap().status(), 409);
    assert_eq!(receiver.count(), 1);

    let visitor = visitor(&stage).await;
    let page = format!("/dashboard/endpoints/{}", shown["id"].as_str().unwrap());
    visitor.until(&page, &["Enable and deliver what waits", "until it is enabled"]).await;
    assert_eq!(visitor.press(&format!("{page}/enable"), &[]).await.status(), 303);
    assert!(receiver.wait_until(crate::support::PATIENCE, |arrivals| arrivals.len() == 2).await);
    visitor.until(&page, &["Send a test event", "requested"]).await;
    assert_eq!(visitor.press(&format!("{page}/disable"), &[]).await.status(), 303);
    assert_eq!(endpoint(&stage, &url).await["state"], "disabled");
}

#[tokio::test]
async fn a_named_key_opens_what_it_is_for_and_takes_its_sessions_along() {
    let stage = Stage::basic();
    let (made, key) = said(&stage, &["keys", "create", "website", "--expires", "30d"]);
    assert!(made, "{key}");
    let key = key.lines().find(|line| line.starts_with("public-")).unwrap().to_owned();
    let call = async |key: &str| {
        let request = stage.bare(Method::POST, &stage.v3("basic/echo")).header("authorization", key);
        request.body(r#"{"value": 1}"#).send().await.unwrap().status().as_u16()
    };
    assert_eq!(call(&key).await, 200);
    let control = stage.bare(Method::GET, &stage.control("keys")).header("authorization", &key);
    assert_eq!(control.send().await.unwrap().status(), 403);
    let (_, listed) = said(&stage, &["keys", "list"]);
    assert!(listed.contains("website") && listed.contains("inference") && !listed.contains(&key), "{listed}");
    let id = listed.split_whitespace().find(|word| word.starts_with("key_")).unwrap().to_owned();

    // One that opens everything opens the dashboard, where it makes another and is revoked itself.
    let (_, all) = said(&stage, &["--json", "keys", "create", "laptop", "--scope", "everything"]);
    let all: Value = serde_json::from_str(&all).unwrap();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(all["key"].as_str().unwrap()).await;
    let form = [("name", "<i>till</i>"), ("scope", "inference"), ("expires", "24h")];
    let page = visitor.press("/dashboard/keys/named", &form).await.text().await.unwrap();
    assert!(page.contains("public-") && page.contains("website") && !page.contains("<i>till"), "{page}");
    assert_eq!(visitor.press(&format!("/dashboard/keys/named/{id}/revoke"), &[]).await.status(), 303);
    assert_eq!(call(&key).await, 401);
    assert_eq!(visitor.open("/dashboard/keys").await.status(), 200);
    let (revoked, words) = said(&stage, &["keys", "revoke", all["id"].as_str().unwrap()]);
    assert!(revoked && words.contains("opens nothing any more"), "{words}");
    assert_eq!(visitor.open("/dashboard/keys").await.status(), 303, "signed out at once");
    let (again, words) = said(&stage, &["keys", "revoke", "key_00000000"]);
    assert!(!again && words.contains("postback keys list"), "{words}");
    let refused = stage.request(Method::POST, &stage.control("keys"));
    let refused =
        refused.json(&object!({"name": "x", "expiresAt": "2020-01-01T00:00:00Z"})).send().await.unwrap();
    assert_eq!(refused.status(), 422);
}

#[tokio::test]
async fn the_node_says_what_it_is_and_what_it_keeps_to() {
    let stage = Stage::empty();
    let page = visitor(&stage).await.page("/dashboard/settings").await;
    for said in [env!("CARGO_PKG_VERSION"), "contained by tier S", "are free", "metadata of a call"] {
        assert!(page.contains(said), "{said}: {page}");
    }
}
