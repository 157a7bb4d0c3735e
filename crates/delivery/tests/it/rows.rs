//! What receivers do to a delivery on the wire, beyond what the other files try: each has its own word.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use queue::delivery::{DeliveryState, Verdict};
use queue::port::Outbox as _;
use testkit::receiver::{Evil, Fault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::fakes::{PATIENCE, World};

/// Reads until the client has sent something, says these bytes, and waits for the client to leave.
async fn answering(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut said = [0; 4096];
            let _ = stream.read(&mut said).await;
            let _ = stream.write_all(&bytes).await;
            while stream.read(&mut said).await.is_ok_and(|read| read > 0) {}
        }
    });
    address
}

async fn reason(world: &World, url: &str) -> String {
    let id = world.deliver(url);
    world.shelf.first_end(id).await.report.reason.expect("it fails")
}

#[tokio::test]
async fn a_receiver_that_speaks_old_tls_alone_is_named_so() {
    let world = World::new();
    // A ServerHello of TLS 1.0, and the alert with which others refuse what is newer.
    let hello = [&[0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let alert = vec![0x15, 3, 1, 0, 2, 2, 70];
    for answer in [hello, alert] {
        let at = answering(answer).await;
        assert_eq!(reason(&world, &format!("https://{at}/")).await, "tls:version");
    }
}

#[tokio::test]
async fn a_handshake_that_is_broken_off_is_no_reset() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    assert_eq!(reason(&world, &format!("https://{at}/")).await, "tls:closed");
}

#[tokio::test]
async fn a_connection_that_is_never_taken_is_a_timeout_of_connect() {
    let world = World::with(|options| options.connect_limit = Duration::from_millis(300));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let at = full.local_addr().unwrap();
    // Nobody accepts: once its queue is full, the system answers no more.
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(at)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 100, "the queue never fills");
    }
    let id = world.deliver(&format!("http://{at}/x"));
    let report = world.shelf.first_end(id).await.report;
    assert_eq!(report.reason.as_deref(), Some("timeout:connect"));
    assert_eq!(report.timings.connect, None);
}

#[tokio::test]
async fn an_answer_before_the_request_was_read_counts_by_its_status() {
    // To sign so large a body takes seconds without optimisation, and the limit is not the subject.
    let world = World::with(|options| options.attempt_limit = PATIENCE);
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec();
    let no = b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n".to_vec();
    for (answer, status) in [(ok, 200), (no, 413)] {
        // It reads the first bytes of eight million, more than lie between the two, answers, and reads no more.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let taken = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut first = [0; 64];
            stream.read_exact(&mut first).await.unwrap();
            stream.write_all(&answer).await.unwrap();
            stream
        });
        let mut due = world.shelf.put_begun(&url);
        due.body = Bytes::from(vec![b' '; 8 << 20]);
        world.handle.reserve(&due.url, 0).unwrap().send(due.clone());
        let end = world.shelf.first_end(due.id).await;
        assert_eq!(end.report.status_code, Some(status), "{:?}", end.report);
        assert_eq!(end.verdict == Verdict::Delivered, status == 200);
        drop(taken.await.unwrap());
    }
}

#[tokio::test]
async fn a_compressed_answer_is_neither_unpacked_nor_kept_beyond_its_bound() {
    let world = World::new();
    let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5000000\r\n\r\n\x1f\x8b\x08";
    let bomb = [head.as_slice(), &[0xee; 5_000_000 - 3]].concat();
    let receiver = Evil::start(Fault::Say(bomb)).await.unwrap();
    let id = world.deliver(&receiver.url("x"));
    let end = world.shelf.first_end(id).await;
    assert_eq!((end.verdict, end.report.status_code), (Verdict::Delivered, Some(200)));
    let kept = end.report.response.unwrap().len();
    assert!((8_000..=8 << 10).contains(&kept), "{kept} bytes kept");
}

#[tokio::test]
async fn a_200_that_is_lost_on_its_way_brings_the_same_delivery_once_more() {
    let world = World::with(|options| options.schedule = [0, 20].map(Duration::from_millis).into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let read = Arc::clone(&requests);
    tokio::spawn(async move {
        for answer in [b"".as_slice(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}}") {
                stream.read_buf(&mut request).await.unwrap();
            }
            read.lock().unwrap().push(String::from_utf8(request).unwrap());
            stream.write_all(answer).await.unwrap();
        }
    });
    let id = world.deliver(&url);
    world.shelf.wait_until(|shelf| shelf.state(id) == DeliveryState::Delivered).await;
    let ends = world.shelf.ends_of(id);
    assert_eq!(ends[0].report.reason.as_deref(), Some("reset"));
    let requests = requests.lock().unwrap();
    let part = |number: usize, begins: &str| {
        let found = requests[number].lines().find(|line| line.starts_with(begins));
        found.unwrap_or_else(|| panic!("no {begins} in {}", requests[number])).to_owned()
    };
    for same in ["webhook-id: ", "{"] {
        assert_eq!(part(0, same), part(1, same));
    }
}
