//! A server's life: open, wire, serve, drain.
//!
//! The order never varies. Start: lock and open the store, make the credentials, bind the port, wire
//! the rooms, begin to serve. Stop: say "not ready", stop accepting, let replicas finish or give
//! their runs back, let attempts under way end, sync and close the store.

mod drift;
mod launch;
mod open_files;
mod options;
mod rooms;
mod upkeep;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use delivery::OwnServer;
use gateway::listener::{self, Drained, ListenerOptions};
pub(crate) use launch::{Launch, search_path};
use open_files::OpenFiles;
pub(crate) use options::Options;
use rooms::Rooms;

use crate::credentials::Credentials;

/// Exit status after a part of the server ended by itself: what it did nobody does any more.
pub(crate) const EXIT_PART_FAILED: u8 = 70;
/// Exit status after the disk failed under a commit: nobody may go on writing to it.
pub(crate) const EXIT_STORE_FAILED: u8 = 74;

/// What replicas need beyond the drain's time to give back what they did not finish.
const SPARE: Duration = queue::limits::CANCEL_GRACE;

/// A server that is serving.
pub(crate) struct Server {
    /// The address it listens on.
    pub(crate) address: SocketAddr,
    /// The address people and webhooks use, without a slash at its end.
    pub(crate) public_url: String,
    /// How far code of apps is contained, and why not further.
    pub(crate) containment: String,
    /// The first project's keys; `None` when their file was removed.
    pub(crate) credentials: Option<Credentials>,
    rooms: Rooms,
    stop_accepting: CancellationToken,
    stop_working: CancellationToken,
    stop_delivering: CancellationToken,
    http: JoinHandle<Drained>,
    working: JoinHandle<()>,
    delivering: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    drain_timeout: Duration,
}

/// Why a server stopped serving.
pub(crate) enum Stopped {
    /// It was asked to.
    Asked,
    /// A commit failed on the disk: what follows must be decided by a fresh start.
    StoreFailed(String),
    /// A part of it ended without being asked to; it says which, and how.
    PartFailed(String),
}

impl Server {
    /// Opens the data directory and begins to serve.
    ///
    /// # Errors
    /// When another server has the directory, the port is taken, or something cannot be opened.
    pub(crate) async fn start(options: Options) -> anyhow::Result<Self> {
        Self::begin(options, None).await
    }

    /// The same on a port that is taken already, and that nobody can snatch away meanwhile.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) async fn start_on(options: Options, taken: std::net::TcpListener) -> anyhow::Result<Self> {
        Self::begin(options, Some(taken)).await
    }

    async fn begin(options: Options, taken: Option<std::net::TcpListener>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("failed to make the data directory `{}`", options.data_dir.display()))?;
        restrict(&options.data_dir)?;
        let files = OpenFiles::raise();
        let (sandbox, scratch) = (options.sandbox, options.data_dir.join("tmp"));
        let launch = tokio::task::spawn_blocking(move || Launch::prepare(sandbox, &scratch, files.inherited));
        let store = rooms::open_store(&options).await?;
        let launch = launch.await??;
        let containment = launch.summary();
        tracing::info!(containment.tier = %launch.containment.tier, "{containment}");
        let bound = match taken {
            Some(taken) => taken.set_nonblocking(true).and_then(|()| TcpListener::from_std(taken)),
            None => TcpListener::bind(options.listen).await,
        };
        let socket = bound.with_context(|| {
            format!(
                "failed to listen on {}; another program may be using the port: choose one with `--listen`",
                options.listen
            )
        })?;
        let address = socket.local_addr()?;
        let public_url = options.public_url.clone().unwrap_or_else(|| {
            format!("http://{}", OwnServer { listen: address, public_url: None }.local_address())
        });
        let (stop_accepting, stop_working, stop_delivering) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (rooms, worker, delivery) =
            Rooms::wire(&options, store, address, &public_url, launch, stop_accepting.clone())?;
        let credentials = rooms.ensure_credentials(&options.data_dir).await?;

        let working = tokio::spawn(worker.run(stop_working.clone()));
        let delivering = tokio::spawn(delivery.run(stop_delivering.clone()));
        let limits = options.listener.clone();
        let connections_max = files.connections(limits.connections_max);
        tracing::info!(files.max = files.now, connections.max = connections_max, "limits of this process");
        let limits =
            ListenerOptions { drain_limit: options.drain_timeout + SPARE, connections_max, ..limits };
        let http = tokio::spawn(listener::serve(socket, rooms.surface(), stop_accepting.clone(), limits));
        rooms.builder.resume().await.context("failed to take up unfinished builds")?;
        let upkeep = tokio::spawn(upkeep::run(rooms.upkeep(), stop_delivering.clone()));
        rooms.set_ready(true);
        Ok(Self {
            address,
            public_url,
            containment,
            credentials,
            rooms,
            stop_accepting,
            stop_working,
            stop_delivering,
            http,
            working,
            delivering,
            upkeep,
            drain_timeout: options.drain_timeout,
        })
    }

    /// Waits for SIGTERM, SIGINT, a failed disk, or the end of a part that should not end.
    pub(crate) async fn wait(&mut self) -> Stopped {
        tokio::select! {
            biased;
            () = interrupted() => Stopped::Asked,
            reason = self.rooms.store.failed() => Stopped::StoreFailed(reason.to_string()),
            why = failure_of("the listener", &mut self.http) => Stopped::PartFailed(why),
            why = failure_of("the worker", &mut self.working) => Stopped::PartFailed(why),
            why = failure_of("the delivery engine", &mut self.delivering) => Stopped::PartFailed(why),
            why = failure_of("the upkeep", &mut self.upkeep) => Stopped::PartFailed(why),
        }
    }

    /// Drains and closes. A second signal cuts the draining short: runs under way are given back.
    pub(crate) async fn stop(self) {
        tracing::info!("shutting down: finishing what is under way; a second signal cuts it short");
        self.rooms.set_ready(false);
        let Self { rooms, http, working, delivering, upkeep, .. } = self;
        let drain = async {
            // Synchronous callers still wait for replicas, so the listener drains while they work.
            self.stop_accepting.cancel();
            let work = async {
                self.stop_working.cancel();
                let _ = working.await;
            };
            let _ = tokio::join!(http, work, rooms.builder.stop());
            self.stop_delivering.cancel();
            let _ = tokio::join!(delivering, upkeep);
        };
        let limit = self.drain_timeout + SPARE + queue::limits::DELIVERY_LIMIT;
        tokio::select! {
            () = drain => {}
            () = interrupted() => tracing::warn!("second signal: giving up on what is under way"),
            () = tokio::time::sleep(limit) => tracing::warn!("draining took too long: giving up on what is under way"),
        }
        rooms.leave();
        rooms.store.close().await;
        tracing::info!("stopped");
    }
}

/// Keys and bodies lie in the data directory: nobody else on the machine reads it.
fn restrict(data_dir: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("failed to restrict `{}` to its owner", data_dir.display()))
}

/// Resolves when `part`, which runs until it is stopped, has ended all the same.
async fn failure_of<T>(part: &str, task: &mut JoinHandle<T>) -> String {
    match task.await {
        Ok(_) => format!("{part} ended although nobody asked it to"),
        Err(error) => format!("{part} failed: {error}"),
    }
}

/// Resolves at the next SIGTERM or SIGINT.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_or_panics_is_named_and_one_that_works_is_left_alone() {
        let mut ended = tokio::spawn(async {});
        assert!(failure_of("the worker", &mut ended).await.contains("the worker ended"));
        let mut panicked = tokio::spawn(async { panic!("out of tune") });
        let why: String = failure_of::<()>("the worker", &mut panicked).await;
        assert!(why.contains("the worker failed") && why.contains("out of tune"), "{why}");
        let mut working = tokio::spawn(std::future::pending::<()>());
        let limit = Duration::from_millis(20);
        assert!(tokio::time::timeout(limit, failure_of("the worker", &mut working)).await.is_err());
        working.abort();
    }
}
