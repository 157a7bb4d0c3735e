//! Floods of HTTP/2 frames: opened and reset, headers without an end, pings and settings that nobody
//! wants to have answered.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Bystander, connect, impatient};
use crate::support::{PATIENCE, Stage};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// As many as it takes for any server to have had enough.
const MANY: u32 = 100_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET http://a/healthz` in HPACK: indexed method and scheme, the rest spelled out.
fn get() -> Vec<u8> {
    [&[0x82, 0x86, 0x04, 8][..], b"/healthz", &[0x01, 1], b"a"].concat()
}

/// Sends frames without end until the server closes; whether it said GOAWAY before.
async fn flood(stage: &Stage, reads: bool, mut next: impl FnMut(u32) -> Vec<u8>) -> bool {
    let (mut read, mut write) = connect(stage).await.into_split();
    let flood = async {
        let mut begin = PREFACE.to_vec();
        begin.extend(frame(SETTINGS, 0, 0, &[]));
        write.write_all(&begin).await?;
        for number in 0..MANY {
            write.write_all(&next(number)).await?;
        }
        // Whoever says nothing more must be closed as well.
        std::future::pending::<std::io::Result<()>>().await
    };
    let mut said = Vec::new();
    let listen = async {
        if reads {
            let _ = read.read_to_end(&mut said).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let ended = async {
        tokio::select! {
            sent = flood => assert!(sent.is_err()),
            () = listen => {}
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the server closes the connection");
    let mut at = 0;
    while let Some(head) = said.get(at..at + 9) {
        if head[3] == GOAWAY {
            return true;
        }
        at += 9 + usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_own_connection_and_nothing_else() {
    let mut stage = impatient();
    let bystander = Bystander::begin(&stage);
    let reset = |number: u32| {
        let stream = number * 2 + 1;
        let mut both = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get());
        both.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        both
    };
    let told = flood(&stage, true, reset).await;
    println!("streams opened and reset: closed, GOAWAY: {told}");
    let endless = |number: u32| match number {
        0 => frame(HEADERS, END_STREAM, 1, &get()),
        // A name and a value that are never indexed, again and again.
        _ => frame(CONTINUATION, 0, 1, &[&[0x00, 1][..], b"x", &[127, 0x80, 0x70], &[b'y'; 14_463]].concat()),
    };
    let told = flood(&stage, true, endless).await;
    println!("headers without an end: closed, GOAWAY: {told}");
    let empty = |number: u32| match number {
        0 => frame(HEADERS, END_STREAM, 1, &get()),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    flood(&stage, true, empty).await;
    println!("empty continuations: closed");
    flood(&stage, false, |_| frame(PING, 0, 0, &[7; 8]).repeat(100)).await;
    println!("pings whose answers nobody reads: closed");
    flood(&stage, false, |_| frame(SETTINGS, 0, 0, &[]).repeat(100)).await;
    println!("settings whose answers nobody reads: closed");
    let many = |number: u32| frame(HEADERS, END_HEADERS, number * 2 + 1, &get());
    flood(&stage, true, many).await;
    println!("requests that never end: closed");
    let zeros = |_| vec![0; 1024];
    flood(&stage, true, zeros).await;
    println!("no frames at all: closed");
    bystander.end(&mut stage, "floods of frames").await;
}
