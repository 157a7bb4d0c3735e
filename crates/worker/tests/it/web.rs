//! Web servers of apps: answers that come at the last moment, and exchanges that fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use queue::app::AppConfig;
use queue::outcome::Code;
use queue::port::{Call, Dispatch as _};
use queue::web::{Answer, CustomRuntime, Entrypoint, Head, Request, Visitor};

use crate::house::{House, Plan};

/// Answers a POST with so many letters as the path says; who has taken them all is left alone for good.
const SERVER: &str = r#"
import os, socket

server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    connection, _ = server.accept()
    request = connection.recv(65536)
    if request.startswith(b"POST /"):
        letters = int(request.split()[1].strip(b"/"))
        head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (letters + 2)
        try:
            connection.sendall(head.encode() + b'"' + b"x" * letters + b'"')
        except OSError:
            continue
        os._exit(0)
    connection.close()
"#;

async fn house() -> House {
    let words = ["python3", "main.py"].map(str::to_owned).to_vec();
    let runtime = CustomRuntime {
        entrypoint: Entrypoint::Words(words),
        port: 8000,
        healthcheck_endpoint: None,
        readycheck_endpoint: None,
    };
    let config = AppConfig { runtime: Some(runtime), replica_concurrency: Some(1), ..AppConfig::default() };
    // Its end is heard of at once.
    let adjust: fn(&mut worker::Options) = |options| options.supervisor = Vec::new();
    House::with(SERVER, Plan { config, adjust: Some(adjust), ..Plan::default() }).await
}

#[tokio::test]
async fn an_answer_that_is_whole_counts_although_its_server_is_gone() {
    let house = house().await;
    let letters = 20_000_000;
    let run = house.submit(house.run(&letters.to_string(), "{}"));
    let outcome = house.outcome(run).await;
    assert_eq!(outcome.result.as_ref().map(bytes::Bytes::len), Some(letters + 2), "{:?}", outcome.error);
    assert_eq!(house.memory.releases(), []);
}

/// A caller whose task fails when the answer begins.
#[derive(Debug)]
struct Clumsy(Mutex<Option<Head>>);

impl Visitor for Clumsy {
    fn request(&self) -> Option<Request> {
        let head = self.0.lock().unwrap().take()?;
        Some(Request { head, body: None, upgrade: false })
    }

    fn answer(&self, _: Answer) {
        panic!("the answer is dropped");
    }
}

#[tokio::test]
async fn a_call_whose_exchange_panicked_ends_long_before_its_limit() {
    let house = house().await;
    // More than its connection holds: the server is still at it when nobody reads any more, and lives on.
    let head = Head { method: "POST".into(), target: "/200000000".into(), headers: Vec::new() };
    let call = house.new_call("/", "", Duration::from_secs(3_600));
    let outcome = house.handle.call(Call { visitor: Some(Arc::new(Clumsy(Mutex::new(Some(head))))), ..call });
    let outcome = tokio::time::timeout(crate::house::PATIENCE, outcome).await.expect("it ends").unwrap();
    let error = outcome.error.unwrap();
    assert_eq!((error.code, outcome.status_code), (Code::UserError, 502), "{}", error.message);
}
