//! The supervisor alone, for this crate's tests. The product runs it as `postback __supervise`.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::launcher(std::env::args_os().skip(1), std::env::vars_os()).unwrap_or(ExitCode::FAILURE)
}
