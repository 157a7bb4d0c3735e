//! `cargo xtask bench` and `cargo xtask instructions`: the crate `bench`, built for release and run.

use std::process::{Command, ExitCode};

/// Hands the arguments over.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--locked", "--package", "bench", "--"])
        .args(arguments)
        .status()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, Into::into))
}
