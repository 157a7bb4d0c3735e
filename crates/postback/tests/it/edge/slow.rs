//! Connections that take their time: half a header, a body that drips, many from one address.

use std::time::Duration;

use testkit::server::Home;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::{Bystander, connect, converse, impatient, statuses};
use crate::support::{PATIENCE, Stage, binary, json as body};

const HALF_OPEN: usize = 1_000;
const DRIPPING: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_connections_are_closed_at_the_limit_and_felt_by_nobody() {
    let mut stage = impatient();
    let bystander = Bystander::begin(&stage);
    let mut waiting = JoinSet::new();
    let halves =
        ["", "G", "GET / HT", "POST /v4/x HTTP/1.1\r\nHost: a\r\nX-Slow: ", "PRI * HTTP/2.0\r\n\r\nSM"];
    for number in 0..HALF_OPEN {
        let mut stream = connect(&stage).await;
        stream.write_all(halves[number % halves.len()].as_bytes()).await.unwrap();
        waiting.spawn(async move {
            let mut rest = Vec::new();
            // Closed, politely or not; whatever is said is no success.
            let _ = stream.read_to_end(&mut rest).await;
            statuses(&String::from_utf8_lossy(&rest)).into_iter().all(|status| (400..500).contains(&status))
        });
    }
    bystander.is_served().await;
    let closed = tokio::time::timeout(PATIENCE, waiting.join_all()).await.expect("all of them are closed");
    assert!(closed.into_iter().all(|fine| fine), "half a request got an answer");
    bystander.end(&mut stage, "1,000 half-open connections").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_drip_are_given_up_and_felt_by_nobody() {
    let mut stage = impatient();
    let bystander = Bystander::begin(&stage);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: 1000000\r\n\r\n{{",
        stage.v4("basic/echo"),
        stage.keys.public_key
    );
    let mut dripping = JoinSet::new();
    for _ in 0..DRIPPING {
        let (mut read, mut write) = connect(&stage).await.into_split();
        let head = head.clone();
        dripping.spawn(async move {
            write.write_all(head.as_bytes()).await.unwrap();
            let drip = async {
                let mut tick = tokio::time::interval(Duration::from_millis(50));
                while write.write_all(b" ").await.is_ok() {
                    tick.tick().await;
                }
                // Whoever is late meets the closed connection first; what was said on it can be read still.
                std::future::pending::<()>().await;
            };
            let mut answer = [0; 12];
            tokio::select! {
                () = drip => unreachable!("it drips for ever"),
                heard = read.read_exact(&mut answer) => assert!(heard.is_ok(), "closed without a word"),
            }
            String::from_utf8_lossy(&answer).into_owned()
        });
    }
    bystander.is_served().await;
    let said = tokio::time::timeout(PATIENCE, dripping.join_all()).await.expect("all of them are given up");
    assert!(said.iter().all(|line| line == "HTTP/1.1 408"), "{said:?}");
    bystander.end(&mut stage, "100 dripping bodies").await;
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let stage = Stage::on(Home::new(binary()).with_flags(&["--max-connections-per-address", "5"]));
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&stage).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        open.push(stream);
    }
    let refused = converse(&stage, b"").await;
    assert_eq!(statuses(&refused), [429], "{refused}");
    assert!(
        refused.contains(r#""code":"too_many_connections""#) && refused.contains("retry-after"),
        "{refused}"
    );
    open.pop();
    let began = std::time::Instant::now();
    let ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    while statuses(&converse(&stage, ask).await) != [200] {
        assert!(began.elapsed() < PATIENCE, "the place is not given back");
    }
}

#[tokio::test]
async fn a_caller_may_be_bounded_in_requests_a_second() {
    let stage = Stage::basic();
    drop(stage.server);
    let stage = Stage::on(stage.home.with_flags(&["--requests-per-second-per-key", "2"]));
    let echo = stage.v4("basic/echo");
    let mut refused = None;
    for _ in 0..50 {
        let answer = stage.call(&echo, r#"{"value":1}"#).await;
        if answer.status() != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("50 calls take less than 24 seconds");
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(body(refused).await["code"], "too_many_requests");
    // Another key is another caller.
    let other = stage.request(reqwest::Method::GET, "/v2/projects").send().await.unwrap();
    assert_eq!(other.status(), 200);
    for _ in 0..50 {
        assert_eq!(stage.bare(reqwest::Method::GET, "/healthz").send().await.unwrap().status(), 200);
    }
}
