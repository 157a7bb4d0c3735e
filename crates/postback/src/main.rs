//! The `postback` binary: commands, configuration, and the wiring of the rooms.

mod cli;
mod client;
mod commands;
mod credentials;
mod embedded;
mod keyring;
mod print;
mod profile;
mod serve;
mod system;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

/// Requests are small and many, and so are their allocations: with the system's own a fifth of the
/// instructions of a call went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Replicas are started through this binary. That way is taken before anything else: it must not
    // have threads, and nobody calls it by hand.
    if let Some(ended) = worker::launcher(std::env::args_os().skip(1), std::env::vars_os()) {
        return ended;
    }
    let cli = cli::Cli::parse();
    // One provider for every TLS connection, the client's and the deliveries'.
    rustls::crypto::ring::default_provider().install_default().expect("nobody has chosen one before");
    let runtime = match runtime(cli.threads()) {
        Ok(runtime) => runtime,
        Err(error) => return print::fatal(&anyhow::Error::new(error).context("failed to start the runtime")),
    };
    match runtime.block_on(cli.run()) {
        Ok(status) => status.into(),
        Err(error) => print::fatal(&error),
    }
}

/// How long a thread that read something waits for more. An idle server reads twice, once a second: just longer than
/// that, so that it does not begin a thread each time. They wait in turn: ten seconds would keep twenty of them from
/// going after a burst.
const READER_LINGERS: std::time::Duration = std::time::Duration::from_millis(1_500);

/// One thread for everything, so many, or one per core.
fn runtime(threads: Option<u16>) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        Some(1) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if let Some(threads @ 2..) = threads {
        builder.worker_threads(threads.into());
    }
    builder.thread_keep_alive(READER_LINGERS).enable_all().build()
}
