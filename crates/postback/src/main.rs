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

fn main() -> ExitCode {
    // Replicas are started through this binary. That way is taken before anything else: it must not
    // have threads, and nobody calls it by hand.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == worker::SUBCOMMAND) {
        return worker::supervise(arguments);
    }
    let cli = cli::Cli::parse();
    // One provider for every TLS connection, the client's and the deliveries'.
    rustls::crypto::ring::default_provider().install_default().expect("nobody has chosen one before");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print::fatal(&anyhow::Error::new(error).context("failed to start the runtime")),
    };
    match runtime.block_on(cli.run()) {
        Ok(status) => status.into(),
        Err(error) => print::fatal(&error),
    }
}
