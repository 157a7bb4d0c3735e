//! Keys and secrets: the key file, and what is refused without it.

use std::os::unix::fs::PermissionsExt as _;

use queue::signature::SIGNATURE_HEADER;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::recorder::{Arrival, Recorder};

use crate::support::{PATIENCE, Stage, json as body, verify_with_public_libraries};

/// Calls `echo` until a webhook arrives that is signed as `enough` wants it; the server may take a second
/// to sign with a new secret.
async fn signed(stage: &Stage, recorder: &Recorder, enough: impl Fn(&[&str]) -> bool) -> Arrival {
    let began = std::time::Instant::now();
    loop {
        let before = recorder.count();
        let request = json!({"value": "ünïcode", "webhook_endpoint": recorder.url("hook")}).to_string();
        assert_eq!(stage.call(&stage.v3("basic/echo"), request).await.status(), 200);
        assert!(recorder.wait_until(PATIENCE, |arrivals| arrivals.len() > before).await);
        let arrival = recorder.arrivals().remove(before);
        assert_eq!(arrival.headers.get_all(SIGNATURE_HEADER).iter().count(), 1, "one header line");
        if enough(&arrival.header(SIGNATURE_HEADER).split(' ').collect::<Vec<_>>()) {
            return arrival;
        }
        assert!(began.elapsed() < PATIENCE, "still signed as {}", arrival.header(SIGNATURE_HEADER));
    }
}

/// The public libraries accept the delivery with each of the secrets.
fn verify(stage: &mut Stage, arrival: &Arrival, secrets: &[&str]) {
    for secret in secrets {
        let webhook = standardwebhooks::Webhook::new(secret).unwrap();
        webhook.verify(&arrival.body, &arrival.headers).expect("the Rust library accepts it");
        (*secret).clone_into(&mut stage.keys.webhook_secret);
        verify_with_public_libraries(stage, std::slice::from_ref(arrival));
    }
}

fn say(stage: &Stage, arguments: &[&str]) -> Value {
    let output = stage.home.command().args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_replaced_webhook_secret_and_a_v1a_key_sign_beside_the_new_one() {
    let mut stage = Stage::basic();
    let recorder = Recorder::start().await.unwrap();
    let old = stage.keys.webhook_secret.clone();
    let told = say(&stage, &["keys", "rotate", "--only", "webhook-secret"]);
    let new = told["webhookSecret"].as_str().unwrap().to_owned();
    assert_eq!(told.as_object().unwrap().len(), 1, "only what was asked for: {told}");
    let keys = stage.home.keys();
    assert_eq!(keys.webhook_secret, new, "the server rewrites the file");
    assert_eq!(keys.private_key, stage.keys.private_key);

    let arrival = signed(&stage, &recorder, |items| items.len() == 2).await;
    let newest = standardwebhooks::Webhook::new(&new).unwrap();
    let (id, at) = (arrival.header("webhook-id"), arrival.header("webhook-timestamp").parse().unwrap());
    let first = newest.sign(id, at, &arrival.body).unwrap();
    assert!(arrival.header(SIGNATURE_HEADER).starts_with(&first), "the newest comes first");
    verify(&mut stage, &arrival, &[&new, &old]);

    let view = say(&stage, &["keys", "v1a", "on"]);
    let public = view["webhookPublicKeys"][0]["publicKey"].as_str().unwrap();
    assert!(public.starts_with("whpk_"), "{view}");
    let arrival = signed(&stage, &recorder, |items| items.len() == 3).await;
    let items: Vec<_> = arrival.header(SIGNATURE_HEADER).split(' ').map(|item| &item[..3]).collect();
    assert_eq!(items, ["v1,", "v1,", "v1a"]);
    verify(&mut stage, &arrival, &[&new, &old]);
    let published = stage.bare(Method::GET, &stage.control("webhook-keys")).send().await.unwrap();
    let published = body(published).await;
    assert_eq!(published["keys"][0]["whpk"], public, "{published}");

    // A secret that somebody else has seen: nothing of it goes on, after a restart neither.
    let told = say(&stage, &["keys", "rotate", "--only", "webhook-secret", "--overlap", "0"]);
    let newest = told["webhookSecret"].as_str().unwrap().to_owned();
    stage.crash_and_restart();
    let arrival = signed(&stage, &recorder, |items| items.len() == 2).await;
    verify(&mut stage, &arrival, &[&newest]);
    for gone in [&new, &old] {
        let webhook = standardwebhooks::Webhook::new(gone).unwrap();
        assert!(webhook.verify(&arrival.body, &arrival.headers).is_err());
    }
}

#[tokio::test]
async fn api_keys_are_replaced_with_their_file_and_a_half_done_rotation_is_settled_by_the_next_start() {
    let mut stage = Stage::empty();
    let before = stage.home.keys();
    let told = say(&stage, &["keys", "rotate"]);
    let after = stage.home.keys();
    assert_eq!(told["privateKey"], after.private_key.as_str());
    for (old, new) in [
        (&before.public_key, &after.public_key),
        (&before.private_key, &after.private_key),
        (&before.service_account_token, &after.service_account_token),
        (&before.webhook_secret, &after.webhook_secret),
    ] {
        assert_ne!(old, new);
    }
    let status = async |stage: &Stage, key: &str| {
        let request = stage.bare(Method::GET, "/v2/projects").header("authorization", key);
        request.send().await.unwrap().status().as_u16()
    };
    for (key, expected) in [
        (&before.private_key, 401),
        (&before.service_account_token, 401),
        (&after.private_key, 200),
        (&after.service_account_token, 200),
    ] {
        assert_eq!(status(&stage, key).await, expected);
    }
    // As a kill leaves it between the store and the file, and as one before the store does.
    let path = stage.home.data_dir().join("credentials.json");
    let staged = stage.home.data_dir().join("credentials.json.next");
    let good = std::fs::read_to_string(&path).unwrap();
    let former = good.replace(&after.private_key, &before.private_key);
    for (counts, waits) in [(&former, &good), (&good, &former)] {
        stage.server.take().unwrap().kill();
        std::fs::write(&path, counts).unwrap();
        std::fs::write(&staged, waits).unwrap();
        stage.server = Some(stage.home.start());
        assert_eq!(stage.home.keys().private_key, after.private_key);
        assert!(!staged.exists());
        assert_eq!(status(&stage, &stage.home.keys().private_key).await, 200);
    }
}

/// Somebody keeps the keys elsewhere, and no file of them.
#[tokio::test]
async fn keys_whose_file_was_removed_go_on_working() {
    let mut stage = Stage::empty();
    let key = stage.keys.private_key.clone();
    let path = stage.home.data_dir().join("credentials.json");
    stage.server.take().unwrap().terminate();
    std::fs::remove_file(&path).unwrap();
    stage.server = Some(stage.home.start());
    let request = stage.bare(Method::GET, "/v2/projects").header("authorization", &key);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert!(!path.exists(), "no other keys are made in their place");
}

/// What a server says that refuses to start.
fn refusal(stage: &Stage) -> String {
    let output = stage.home.command().args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8(output.stderr).unwrap()
}

/// Such as a copy of another server's file, or one that somebody has edited.
#[tokio::test]
async fn a_file_of_keys_that_do_not_open_the_project_is_named_and_left_alone() {
    let (mut stage, other) = (Stage::empty(), Stage::empty());
    stage.server.take().unwrap().terminate();
    let path = stage.home.data_dir().join("credentials.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let (mine, theirs) = (&stage.keys, &other.keys);
    let token_of_nobody = format!("{}x", mine.service_account_token);
    for (from, to, word) in [
        (&mine.public_key, &theirs.public_key, "public-key"),
        (&mine.public_key, &mine.private_key, "public-key"),
        (&mine.private_key, &theirs.private_key, "private-key"),
        (&mine.private_key, &mine.public_key, "private-key"),
        (&mine.service_account_token, &theirs.service_account_token, "service-account-token"),
        (&mine.service_account_token, &token_of_nobody, "service-account-token"),
    ] {
        let wrong = good.replace(from.as_str(), to);
        assert_ne!(wrong, good);
        std::fs::write(&path, &wrong).unwrap();
        let said = refusal(&stage);
        for part in [word, path.to_str().unwrap(), "hint: ", "move it away", &format!("--only {word} ")] {
            assert!(said.contains(part), "no `{part}` in: {said}");
        }
        assert!(!said.contains(to.as_str()), "a key is told: {said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), wrong, "it is changed");
    }
    // What is proposed helps.
    let wrong = good.replace(&mine.public_key, &theirs.public_key);
    let wrong = wrong.replace(&mine.private_key, &theirs.private_key);
    std::fs::write(&path, wrong).unwrap();
    let only = "public-key,private-key";
    assert!(refusal(&stage).contains(&format!("--only {only} ")));
    let output = stage.home.command().args(["keys", "rotate", "--only", only]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stage.server = Some(stage.home.start());
    let keys = stage.home.keys();
    assert_eq!(keys.service_account_token, stage.keys.service_account_token);
    for key in [&keys.private_key, &keys.service_account_token] {
        let request = stage.bare(Method::GET, "/v2/projects").header("authorization", key.as_str());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_server_without_its_key_file_names_it_and_does_not_start() {
    let mut stage = Stage::empty();
    stage.server.take().unwrap().terminate();
    let path = stage.home.data_dir().join("secret.key");
    let database = stage.home.data_dir().join("postback.db");
    let (key, before) = (std::fs::read(&path).unwrap(), std::fs::read(&database).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    std::fs::remove_file(&path).unwrap();
    let said = refusal(&stage);
    assert!(said.contains(path.to_str().unwrap()) && said.contains("put it back"), "{said}");
    assert!(!path.exists(), "no new key is made over what the old one encrypted");
    std::fs::write(&path, &key).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refusal(&stage);
    assert!(said.contains("chmod 600") && said.contains(path.to_str().unwrap()), "{said}");
    assert!(std::fs::read(&database).unwrap() == before, "nothing was changed");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let changed = stage.home.command().args(["keys", "rotate", "--encryption"]).output().unwrap();
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    assert_ne!(std::fs::read(&path).unwrap(), key);
    stage.server = Some(stage.home.start());
}
