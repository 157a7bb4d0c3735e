//! Whether a web server has come up, and whether it is well.
//!
//! Without a `healthcheck_endpoint` a server is well while it takes connections, and its process tells when it
//! ends. With one, a server that answers it with anything but 2xx three times in a row is replaced; one that is
//! merely slow is not, since a server that works on calls may have no time for questions. Without the
//! `readycheck_endpoint`'s 2xx a server is given nothing new.

use std::time::Duration;

use queue::limits::{HEALTH_EVERY, HEALTH_FAILURES_MAX};
use queue::web::{CustomRuntime, Head};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::client::{Client, Connection, nothing};
use super::ports;

/// Between two looks at a server that is starting, at first and later.
const LOOK_FIRST: Duration = Duration::from_millis(25);
const LOOK_LATER: Duration = Duration::from_millis(250);
/// Time for one answer, while starting and later.
const ANSWER_LIMIT: Duration = HEALTH_EVERY;

/// What is known of a server.
#[derive(Debug)]
pub(super) enum Word {
    /// What keeps it from being up.
    NotYet(String),
    /// It is up, on this port.
    Up(u16),
    /// It may be given requests, or not.
    Ready(bool),
    /// It must be replaced.
    Sick(String),
}

/// What is looked at.
pub(super) struct Looks {
    pub(super) client: Client,
    pub(super) runtime: CustomRuntime,
    /// The port it was told to listen on.
    pub(super) port: u16,
    /// Nobody listened on the configured port when it started.
    pub(super) configured_was_free: bool,
    /// Its process.
    pub(super) root: Option<u32>,
}

enum Look {
    Well,
    Slow,
    Wrong(String),
}

impl Looks {
    /// Looks until nobody listens any more.
    pub(super) async fn go_on(self, words: mpsc::UnboundedSender<Word>) {
        let Some(port) = self.come_up(&words).await else { return };
        if words.send(Word::Up(port)).is_err() {
            return;
        }
        let (mut failures, mut ready) = (0, true);
        loop {
            sleep(HEALTH_EVERY).await;
            if let Some(path) = &self.runtime.healthcheck_endpoint {
                match self.ask(port, path).await {
                    Look::Wrong(_) => failures += 1,
                    Look::Well => failures = 0,
                    Look::Slow => {}
                }
                if failures >= HEALTH_FAILURES_MAX {
                    let why = format!("`GET {path}`, its health check, failed {failures} times in a row");
                    let _ = words.send(Word::Sick(why));
                    return;
                }
            }
            if let Some(path) = &self.runtime.readycheck_endpoint {
                let is_ready = match self.ask(port, path).await {
                    Look::Well => true,
                    Look::Wrong(_) => false,
                    Look::Slow => ready,
                };
                if is_ready != ready {
                    ready = is_ready;
                    if words.send(Word::Ready(ready)).is_err() {
                        return;
                    }
                }
            }
            if words.is_closed() {
                return;
            }
        }
    }

    /// The port on which it is up.
    async fn come_up(&self, words: &mpsc::UnboundedSender<Word>) -> Option<u16> {
        let mut pause = LOOK_FIRST;
        let mut said = String::new();
        loop {
            let mut why = match self.is_up(self.port).await {
                Ok(()) => return Some(self.port),
                Err(why) => why,
            };
            let configured = self.runtime.port;
            if self.configured_was_free && configured != self.port && self.is_owner(configured) == Some(true)
            {
                match self.is_up(configured).await {
                    Ok(()) => return Some(configured),
                    Err(of_configured) => why = of_configured,
                }
            }
            if why != said {
                words.send(Word::NotYet(why.clone())).ok()?;
                said = why;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_LATER);
            if words.is_closed() {
                return None;
            }
        }
    }

    async fn is_up(&self, port: u16) -> Result<(), String> {
        if !ports::is_taken(port).await {
            return Err(format!("nothing takes connections on port {port}"));
        }
        if self.is_owner(port) == Some(false) {
            return Err(format!("somebody else's server has port {port}"));
        }
        let checks = [&self.runtime.healthcheck_endpoint, &self.runtime.readycheck_endpoint];
        for path in checks.into_iter().flatten() {
            match self.ask(port, path).await {
                Look::Well => {}
                Look::Slow => return Err(format!("`GET {path}` on port {port} was not answered in time")),
                Look::Wrong(why) => return Err(format!("`GET {path}` on port {port}: {why}")),
            }
        }
        Ok(())
    }

    fn is_owner(&self, port: u16) -> Option<bool> {
        ports::belongs_to(port, self.root?)
    }

    async fn ask(&self, port: u16, path: &str) -> Look {
        let agent = ("user-agent".to_owned(), bytes::Bytes::from_static(b"postback-health"));
        let host = ("host".to_owned(), format!("127.0.0.1:{port}").into());
        let head = Head { method: "GET".to_owned(), target: path.to_owned(), headers: vec![host, agent] };
        let asked = self.client.send(Connection::Fresh, port, &head, nothing());
        match timeout(ANSWER_LIMIT, asked).await {
            Err(_) => Look::Slow,
            Ok(Ok(answer)) if answer.status().is_success() => Look::Well,
            Ok(Ok(answer)) => Look::Wrong(format!("answered {}", answer.status())),
            Ok(Err(failed)) => Look::Wrong(failed.message),
        }
    }
}
