//! The models that ship ready: each is deployed in one command with its own packages, and works on real input.

use serde_json::{Value, json};
use testkit::recorder::Recorder;

use crate::support::{PATIENCE, Stage, json as body};

/// A model, what it returns in a word, and whether the result of its sample is right.
type Model = (&'static str, &'static str, fn(&Value) -> bool);

const MODELS: [Model; 5] = [
    ("content-moderation", "verdict", |result| {
        result["safe"] == true && result["probability"].as_f64().unwrap() < 0.5
    }),
    ("file-type", "type", |result| result["label"] == "python" && result["mime_type"] == "text/x-python"),
    ("speech-to-text", "text", |result| {
        result["text"] == "the weather is very nice today" && result["words"].as_array().unwrap().len() == 6
    }),
    ("text-recognition", "text", |result| {
        result["text"] == "Invoice 2024-117\nTotal: 48.50 EUR\nThank you!"
            && result["lines"][0]["box"].as_array().unwrap().len() == 4
    }),
    // A second of silence, a sentence of less than two, a second of silence.
    ("voice-activity", "times", |result| {
        let speech = result["speech"].as_array().unwrap();
        let start = speech[0]["start"].as_f64().unwrap();
        let end = speech[speech.len() - 1]["end"].as_f64().unwrap();
        (0.9..1.6).contains(&start) && (2.4..3.2).contains(&end)
    }),
];

/// Models whose weights come from the hub: `runner/tests/test_prebuilt.py` tests what they do without it, `script/models`
/// runs them.
const FROM_THE_HUB: [&str; 3] = ["chat", "dreambooth", "whisper"];

fn postback(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.home.command().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Half a second of silence as a WAV file, in base64.
fn silence() -> String {
    use base64::Engine as _;
    let samples = vec![0_u8; 16_000];
    let mut file = Vec::new();
    for part in [
        b"RIFF".as_slice(),
        &(36 + 16_000_u32).to_le_bytes(),
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &16_000_u32.to_le_bytes(),
        &32_000_u32.to_le_bytes(),
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &16_000_u32.to_le_bytes(),
        &samples,
    ] {
        file.extend_from_slice(part);
    }
    base64::engine::general_purpose::STANDARD.encode(file)
}

#[tokio::test]
async fn every_model_of_the_catalogue_is_deployed_and_works() {
    let stage = Stage::empty();
    let recorder = Recorder::start().await.unwrap();
    let listed: Value = serde_json::from_str(&postback(&stage, &["prebuilt", "list", "--json"])).unwrap();
    let listed: Vec<_> =
        listed.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    let mut named: Vec<_> = MODELS.iter().map(|(name, ..)| *name).chain(FROM_THE_HUB).collect();
    named.sort_unstable();
    assert_eq!(listed, named, "a model without a row here is not tested");

    for (name, returns, is_right) in MODELS {
        postback(&stage, &["prebuilt", "deploy", name]);
        let sample = postback(&stage, &["prebuilt", "show", name, "--sample"]);
        let path = format!("/{name}-webhook/predict");
        let answer = body(stage.call(&path, sample.clone()).await).await;
        assert!(is_right(&answer["result"]), "{name}: {answer}");

        let mut request: Value = serde_json::from_str(&sample).unwrap();
        request["webhook_endpoint"] = json!(recorder.url(name));
        let acknowledged = body(stage.call(&path, request.to_string()).await).await;
        assert_eq!(
            acknowledged["message"],
            format!("We will return the {returns} to the endpoint provided when the task is complete.")
        );
        let wanted = format!("/{name}");
        let told = recorder.wait_until(PATIENCE, |all| all.iter().any(|one| one.path == wanted)).await;
        assert!(told, "{name}: no webhook came");
        let told = recorder.arrivals().pop().unwrap().json();
        assert!(is_right(&told["result"]), "{name}: {told}");

        let refused = stage.call(&stage.v4(&format!("{name}/predict")), "{}").await;
        assert_eq!(refused.status(), 422);
        let message = body(refused).await["result"]["message"].clone();
        assert!(message.as_str().unwrap().contains("file_url"), "{name}: {message}");
        if name == "speech-to-text" {
            let quiet = json!({"audio": silence()}).to_string();
            let quiet = body(stage.call(&stage.v3(&format!("{name}/predict")), quiet).await).await;
            assert_eq!(quiet["result"], json!({"text": "", "words": [], "seconds": 0.5}));
        }
        postback(&stage, &["apps", "delete", name]);
    }
}

#[test]
fn a_model_that_needs_a_gpu_is_refused_where_there_is_none() {
    // None is visible, whatever this machine has.
    let home = testkit::server::Home::new(crate::support::binary()).with_env("CUDA_VISIBLE_DEVICES", "");
    let stage = Stage::on(home);
    let output = stage.home.command().args(["prebuilt", "deploy", "dreambooth"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("`GPU`, which this server does not have; it has: CPU"),
        "{said}"
    );
}

#[test]
fn a_model_can_be_copied_and_an_unknown_one_is_answered_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::support::binary());
        command.current_dir(folder.path()).args(arguments).output().unwrap()
    };
    assert!(run(&["prebuilt", "copy", "file-type"]).status.success());
    assert!(folder.path().join("file-type/main.py").is_file());
    let again = run(&["prebuilt", "copy", "file-type"]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));
    let unknown = run(&["prebuilt", "show", "whisper-huge"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        !unknown.status.success() && said.contains("`whisper-huge`") && said.contains("speech-to-text"),
        "{said}"
    );
}
