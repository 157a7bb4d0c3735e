//! The accept loop over real sockets: slow, idle, greedy and stopping.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use gateway::listener::{Drained, ListenerOptions, serve};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use queue::inbox::ResetConnection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than the buffers of two sockets hold.
const BIG: usize = 32 << 20;

struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<Drained>,
    /// `/slow` is being worked on.
    begun: Arc<Semaphore>,
    /// `/slow` may end.
    go: Arc<Semaphore>,
}

fn options() -> ListenerOptions {
    ListenerOptions {
        header_limit: Duration::from_millis(150),
        idle_limit: Duration::from_millis(400),
        body_stall_limit: Duration::from_millis(150),
        ..ListenerOptions::default()
    }
}

async fn start(options: ListenerOptions) -> Served {
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let slow = {
        let (begun, go) = (begun.clone(), go.clone());
        move || async move {
            begun.add_permits(1);
            go.acquire().await.unwrap().forget();
            "slow"
        }
    };
    let router = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }))
        .route("/slow", get(slow))
        .route("/reset", get(|| async { Extension(ResetConnection).into_response() }))
        .route("/big", get(|| async { vec![b'x'; BIG] }))
        .route("/echo", post(|body: Bytes| async move { body }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let ended = tokio::spawn(serve(listener, router, stop.clone(), options));
    Served { address, stop, ended, begun, go }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Reads until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await;
    let _ = read.expect("the server closes in time");
    String::from_utf8(text).unwrap()
}

/// Reads until `needle` has come.
async fn until(stream: &mut TcpStream, needle: &str) -> String {
    let mut text = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&text).contains(needle) {
            let count = stream.read_buf(&mut text).await.unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&text));
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("it comes in time");
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_handler_knows_its_peer_and_a_connection_serves_many_requests() {
    let served = start(options()).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(until(&mut stream, "127.0.0.1").await.starts_with("HTTP/1.1 200"));
    }
    // Pipelined: answered in order.
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let both = rest(&mut stream).await;
    assert!(both.find(" 200 ").unwrap() < both.find(" 404 ").unwrap());
}

#[tokio::test]
async fn an_answer_that_is_a_reset_resets_the_connection() {
    let served = start(options()).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "127.0.0.1").await;
    stream.write_all(b"GET /reset HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it ends in time");
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(String::from_utf8_lossy(&read), "");
    // Others go on.
    let mut stream = served.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "127.0.0.1").await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_a_header_is_closed() {
    let served = start(ListenerOptions { idle_limit: PATIENCE * 10, ..options() }).await;
    for said in ["", "GET / HT", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let mut stream = served.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        rest(&mut stream).await;
    }
    // So is one that was good before.
    let mut stream = served.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "127.0.0.1").await;
    stream.write_all(b"GET / HT").await.unwrap();
    rest(&mut stream).await;
}

#[tokio::test]
async fn idle_is_allowed_longer_than_a_slow_header_but_not_for_ever() {
    let served = start(options()).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut stream, "127.0.0.1").await;
    let idle = tokio::time::Instant::now();
    rest(&mut stream).await;
    assert!(idle.elapsed() > Duration::from_millis(350), "closed after {:?}", idle.elapsed());
}

#[tokio::test]
async fn a_request_that_is_worked_on_is_not_idle() {
    let served = start(options()).await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    served.begun.acquire().await.unwrap().forget();
    // Far beyond every limit of this listener.
    let mut byte = [0];
    let quiet = tokio::time::timeout(Duration::from_millis(900), stream.read(&mut byte)).await;
    assert!(quiet.is_err(), "the connection was closed or answered");
    served.go.add_permits(1);
    until(&mut stream, "slow").await;
}

#[tokio::test]
async fn a_body_that_stalls_or_drips_fails_its_request() {
    let served = start(ListenerOptions { body_rate_min: 1 << 20, ..options() }).await;
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc";
    let mut stalled = served.connect().await;
    stalled.write_all(head).await.unwrap();
    assert!(until(&mut stalled, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));

    let dripping = served.connect().await;
    let (mut read, mut write) = dripping.into_split();
    write.write_all(head).await.unwrap();
    let drip = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if write.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, read.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    drip.abort();
}

#[tokio::test]
async fn headers_are_bounded_in_number_and_size() {
    let served = start(options()).await;
    for head in ["X: y\r\n".repeat(101), format!("X: {}\r\n", "y".repeat(70 << 10))] {
        let mut stream = served.connect().await;
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes()).await.unwrap();
        assert!(until(&mut stream, "\r\n").await.starts_with("HTTP/1.1 431"));
    }
}

#[tokio::test]
async fn connections_beyond_the_most_wait_for_a_place() {
    let served = start(ListenerOptions { connections_max: 1, ..options() }).await;
    let mut first = served.connect().await;
    first.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    served.begun.acquire().await.unwrap().forget();
    let mut second = served.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(100), second.peek(&mut byte)).await.is_err());
    served.go.add_permits(1);
    assert!(rest(&mut first).await.contains("slow"));
    assert!(rest(&mut second).await.contains("200"));
}

#[tokio::test]
async fn stopping_lets_requests_end_and_takes_no_new_connections() {
    let served = start(ListenerOptions { idle_limit: PATIENCE, ..options() }).await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut idle, "127.0.0.1").await;
    let mut working = served.connect().await;
    working.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    served.begun.acquire().await.unwrap().forget();
    served.stop.cancel();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed at once");
    assert!(!served.ended.is_finished());
    served.go.add_permits(1);
    assert!(rest(&mut working).await.contains("slow"));
    assert_eq!(served.ended.await.unwrap(), Drained { cut: 0 });
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_and_counted() {
    let served = start(ListenerOptions { drain_limit: Duration::from_millis(50), ..options() }).await;
    let mut working = served.connect().await;
    working.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    served.begun.acquire().await.unwrap().forget();
    served.stop.cancel();
    assert_eq!(served.ended.await.unwrap(), Drained { cut: 1 });
    assert_eq!(rest(&mut working).await, "");
}

#[tokio::test]
async fn http2_is_spoken_and_its_idle_connections_end_too() {
    let served = start(options()).await;
    let stream = TokioIo::new(served.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "127.0.0.1");
    let _ = tokio::time::timeout(PATIENCE, connection).await.expect("it is closed when idle");
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_closed_and_a_slow_one_is_not() {
    // One place only: whoever comes next is served once it is free.
    let limits = ListenerOptions { connections_max: 1, idle_limit: PATIENCE * 10, ..options() };
    let served = start(limits).await;
    let mut stuck = served.connect().await;
    stuck.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut next = served.connect().await;
    next.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut next).await.contains("200"), "the place is free again");
    let mut part = Vec::new();
    let _ = stuck.read_to_end(&mut part).await;
    assert!(part.len() < BIG, "{} bytes were taken", part.len());

    // Longer than the limit in all, but never slower than the rate.
    let mut slow = served.connect().await;
    slow.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let (mut taken, mut piece) = (0, vec![0; BIG / 10]);
    let began = tokio::time::Instant::now();
    loop {
        let read = tokio::time::timeout(PATIENCE, slow.read(&mut piece)).await.unwrap().unwrap();
        taken += read;
        if read == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(taken >= BIG, "{taken} bytes came in {:?}", began.elapsed());
}

#[tokio::test]
async fn one_address_has_its_share_of_the_connections() {
    let served = start(ListenerOptions { connections_per_address_max: 1, ..options() }).await;
    let mut first = served.connect().await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(&mut first, "127.0.0.1").await;
    assert!(rest(&mut served.connect().await).await.starts_with("HTTP/1.1 429"));
    // A proxy brings the connections of others.
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let served =
        start(ListenerOptions { connections_per_address_max: 1, trusted_proxies, ..options() }).await;
    for mut stream in [served.connect().await, served.connect().await] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(until(&mut stream, "127.0.0.1").await.starts_with("HTTP/1.1 200"));
    }
}
