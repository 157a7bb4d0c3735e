//! The supervisor alone, for this crate's tests. The product runs it as `postback __supervise`.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::supervise(std::env::args_os().skip(2))
}
