//! The golden frames of `protocol/frames`, which the runner's tests read too.

use std::path::Path;

use bytes::Bytes;
use queue::RunId;
use serde_json::Value;
use worker::frames::{CallFrame, FromRunner, Incoming, Outgoing, Start, Values};

fn golden(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/frames").join(folder);
    let mut frames: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        })
        .collect();
    frames.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(!frames.is_empty());
    frames
}

fn bytes(frame: &Value) -> Vec<u8> {
    hex::decode(frame["frame_hex"].as_str().unwrap()).unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

fn is_to_runner(frame: &Value) -> bool {
    frame["direction"] == "worker to runner"
}

/// What the worker's side of a connection puts on the wire.
async fn written(outgoing: &mut Outgoing) -> Vec<u8> {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    ours.writable().await.unwrap();
    outgoing.write_to(&ours).unwrap();
    assert!(outgoing.is_empty());
    drop(ours);
    let mut all = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut { theirs }, &mut all).await.unwrap();
    all
}

#[tokio::test]
async fn frames_to_the_runner_are_the_golden_ones_to_the_byte() {
    for (name, frame) in golden("").into_iter().filter(|(_, frame)| is_to_runner(frame)) {
        let fields = &frame["fields"];
        let call = number(&frame["call"]);
        let mut outgoing = Outgoing::default();
        match frame["name"].as_str().unwrap() {
            "start" => {
                let start: Start = serde_json::from_str(fields["json"].as_str().unwrap()).unwrap();
                outgoing.start(&start);
            }
            name @ ("call" | "stream" | "live") => {
                let run: RunId = fields["run_id"].as_str().unwrap().parse().unwrap();
                let body = Bytes::from(fields["json"].as_str().unwrap().to_owned());
                let (function, attempt) = (number(&fields["function"]), number(&fields["attempt"]));
                outgoing.call(&CallFrame {
                    call,
                    function,
                    attempt,
                    run,
                    body: &body,
                    values: match name {
                        "stream" => Values::Told,
                        "live" => Values::Live,
                        _ => Values::Gathered,
                    },
                });
            }
            "cancel" => outgoing.cancel(call),
            "stop" => outgoing.stop(),
            other => panic!("{name}: {other}"),
        }
        assert_eq!(hex::encode(written(&mut outgoing).await), frame["frame_hex"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn golden_frames_from_the_runner_are_read_back_as_their_fields() {
    for (name, frame) in golden("").into_iter().filter(|(_, frame)| !is_to_runner(frame)) {
        let mut incoming = Incoming::default();
        incoming.extend(&bytes(&frame));
        let fields = &frame["fields"];
        let json = || serde_json::from_str::<Value>(fields["json"].as_str().unwrap()).unwrap();
        let number_of_call: u32 = number(&frame["call"]);
        match incoming.next_frame().unwrap().unwrap() {
            FromRunner::Ready(ready) => assert_eq!(serde_json::to_value(ready).unwrap(), json(), "{name}"),
            FromRunner::Failed(failed) => assert_eq!(serde_json::to_value(failed).unwrap(), json(), "{name}"),
            FromRunner::Result { call, status, milliseconds, json } => {
                assert_eq!(call, number_of_call, "{name}");
                assert_eq!(u64::from(status), fields["status"].as_u64().unwrap(), "{name}");
                assert_eq!(Some(milliseconds), fields["milliseconds"].as_f64(), "{name}");
                assert_eq!(json, fields["json"].as_str().unwrap(), "{name}");
            }
            FromRunner::Error { call, milliseconds, error } => {
                assert_eq!(call, number_of_call, "{name}");
                assert_eq!(Some(milliseconds), fields["milliseconds"].as_f64(), "{name}");
                assert_eq!(serde_json::to_value(error).unwrap(), json(), "{name}");
            }
            FromRunner::Log { call, stream, microseconds, line } => {
                assert_eq!(call, number_of_call, "{name}");
                let stream = if stream == queue::log::Stream::Stdout { 1 } else { 2 };
                assert_eq!(stream, fields["stream"].as_u64().unwrap(), "{name}");
                assert_eq!(microseconds, fields["microseconds"].as_u64().unwrap(), "{name}");
                assert_eq!(line, fields["line"].as_str().unwrap(), "{name}");
            }
            FromRunner::Chunk { call, text } => {
                assert_eq!(call, number_of_call, "{name}");
                assert_eq!(text, fields["text"].as_str().unwrap(), "{name}");
            }
            FromRunner::Output { call, json } => {
                assert_eq!(call, number_of_call, "{name}");
                assert_eq!(json.unwrap_or_default(), fields["json"].as_str().unwrap(), "{name}");
            }
        }
        assert!(incoming.is_empty(), "{name}");
    }
}

#[test]
fn broken_frames_from_the_runner_are_refused() {
    for (name, frame) in golden("broken").into_iter().filter(|(_, frame)| !is_to_runner(frame)) {
        let mut incoming = Incoming::default();
        incoming.extend(&bytes(&frame));
        assert!(incoming.next_frame().is_err(), "{name}: {}", frame["why"]);
    }
}
