//! `cargo xtask bench` and `cargo xtask instructions`: the crate `bench`, built and run.

use std::process::{Command, ExitCode};

/// Hands the arguments over.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Whoever takes times must not be in their way. Counted are the instructions of the server, which is built for
    // release in either case, and most of what a debug build needs is there from the tests.
    let counts = arguments.first().is_some_and(|first| first == "instructions");
    let profile: &[&str] = if counts { &[] } else { &["--release"] };
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--locked", "--package", "bench"])
        .args(profile)
        .arg("--")
        .args(arguments)
        .status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
