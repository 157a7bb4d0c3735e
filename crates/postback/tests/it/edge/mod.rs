//! The HTTP edge of the built server over raw sockets: what is malformed, oversized, slow or sent in
//! floods is answered with a 4xx or closed; the server lives, and everybody else is served meanwhile.

mod floods;
mod malformed;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::server::Home;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Stage, app_folder, binary};

/// A server whose limits are so short that no test waits for them.
fn impatient() -> Stage {
    let flags = ["--header-timeout", "0.5", "--idle-timeout", "1", "--body-timeout", "0.5"];
    let stage = Stage::on(Home::new(binary()).with_flags(&flags));
    stage.deploy(&app_folder("basic"), &["basic"]);
    stage
}

fn address(stage: &Stage) -> String {
    stage.home.url().trim_start_matches("http://").to_owned()
}

async fn connect(stage: &Stage) -> TcpStream {
    TcpStream::connect(address(stage)).await.unwrap()
}

/// Sends bytes, says no more, and reads until the server closes.
///
/// # Panics
/// When it does not close.
async fn converse(stage: &Stage, bytes: &[u8]) -> String {
    let (mut read, mut write) = connect(stage).await.into_split();
    let said = async move {
        // A server that has heard enough does not read on.
        let _ = write.write_all(bytes).await;
        write
    };
    let mut answer = Vec::new();
    let heard = async {
        let _ = read.read_to_end(&mut answer).await;
    };
    let both = async { tokio::join!(said, heard) };
    tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| {
        panic!("the connection stays open after {:.200?}", String::from_utf8_lossy(bytes))
    });
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of every answer in what the server sent.
fn statuses(said: &str) -> Vec<u16> {
    let lines = said.split("HTTP/1.1 ").skip(1);
    lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
}

/// Somebody who calls all the time while others misbehave.
struct Bystander {
    over: Arc<AtomicBool>,
    calls: tokio::task::JoinHandle<Vec<Duration>>,
    served: Arc<AtomicUsize>,
}

impl Bystander {
    fn begin(stage: &Stage) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let request = || {
            stage
                .bare(reqwest::Method::POST, &stage.v4("basic/echo"))
                .header("authorization", &stage.keys.public_key)
                .body(r#"{"value":1}"#)
        };
        let request = request();
        let (stop, count) = (Arc::clone(&over), Arc::clone(&served));
        let calls = tokio::spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let began = Instant::now();
                let answer = request.try_clone().unwrap().send().await.expect("a bystander is answered");
                assert_eq!(answer.status(), 200, "a bystander is served");
                times.push(began.elapsed());
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            times
        });
        Self { over, calls, served }
    }

    /// Once it has been served again.
    async fn is_served(&self) {
        let before = self.served.load(Ordering::SeqCst);
        let began = Instant::now();
        while self.served.load(Ordering::SeqCst) < before + 2 {
            assert!(began.elapsed() < PATIENCE && !self.calls.is_finished(), "a bystander is not served");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn end(self, stage: &mut Stage, what: &str) {
        self.is_served().await;
        self.over.store(true, Ordering::SeqCst);
        let mut times = self.calls.await.unwrap();
        times.sort_unstable();
        let slowest = times[times.len() * 99 / 100];
        println!("{what}: a bystander was served {} times, p99 {slowest:?}", times.len());
        assert!(stage.server.as_mut().unwrap().ended().is_none(), "the server lives");
    }
}
