//! The example with FastAPI and uvicorn, whose packages come the way those of any app come.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use testkit::recorder::Recorder;

use super::{ask, get};
use crate::support::{PATIENCE, Stage, example, json as body};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_with_fastapi_serves_all_it_says() {
    let stage = Arc::new(Stage::empty());
    stage.deploy(&example("fastapi"), &[]);
    let recorder = Recorder::start().await.unwrap();

    let answer =
        ask(&stage, Method::POST, "fastapi/generate").json(&json!({"prompt": "hello"})).send().await.unwrap();
    let run = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(body(answer).await, json!({"text": "HELLO", "run_id": run}));
    let wrong =
        ask(&stage, Method::POST, "fastapi/generate").json(&json!({"temperature": 1})).send().await.unwrap();
    assert_eq!(wrong.status(), 422);
    let item = body(get(&stage, "fastapi/items/7?detail=true").await).await;
    assert_eq!((&item["item"], &item["detail"]), (&json!(7), &json!(true)));
    assert_eq!(get(&stage, "fastapi/nowhere").await.status(), 404);

    let events = get(&stage, "fastapi/count?to=3").await.bytes_stream();
    let pieces: Vec<_> = events.map(|piece| piece.unwrap()).collect().await;
    assert!(pieces.len() >= 2, "they came in one piece: {pieces:?}");
    assert_eq!(pieces.concat(), b"data: 1\n\ndata: 2\n\ndata: 3\n\n");

    let hook: String = url::form_urlencoded::byte_serialize(recorder.url("file").as_bytes()).collect();
    let form = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                Content-Type: audio/wav\r\n\r\nRIFF\0\u{1}\r\n--b--\r\n";
    let sent = ask(
        &stage,
        Method::POST,
        &format!("fastapi/transcribe?language=de&async=true&webhookEndpoint={hook}"),
    )
    .header("content-type", "multipart/form-data; boundary=b")
    .body(form)
    .send()
    .await
    .unwrap();
    assert_eq!(sent.status(), 202);
    assert!(recorder.wait_until(PATIENCE, |all| !all.is_empty()).await, "the webhook never came");
    let told = recorder.arrivals()[0].json();
    assert_eq!(told["result"], json!({"file": "a.wav", "bytes": 6, "language": "de"}), "{told}");

    let talking = Arc::clone(&stage);
    tokio::task::spawn_blocking(move || talk(&talking)).await.unwrap();
}

/// A conversation over a WebSocket (RFC 6455), frame by frame.
fn talk(stage: &Stage) {
    let address = stage.home.url().replace("http://", "");
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        stage.v4("fastapi/talk"),
        stage.keys.public_key
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    for word in ["one", "two"] {
        // A masked text frame, as clients send them.
        let mut frame = vec![0x81, 0x80 | u8::try_from(word.len()).unwrap(), 1, 2, 3, 4];
        frame.extend(word.bytes().zip([1, 2, 3, 4].into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        stream.write_all(&frame).unwrap();
        let mut header = [0; 2];
        stream.read_exact(&mut header).unwrap();
        let mut text = vec![0; usize::from(header[1])];
        stream.read_exact(&mut text).unwrap();
        assert_eq!((header[0], String::from_utf8(text).unwrap()), (0x81, format!("you said {word}")));
    }
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    let mut close = [0; 2];
    stream.read_exact(&mut close).unwrap();
    assert_eq!(close[0], 0x88, "the goodbye comes back");
}
