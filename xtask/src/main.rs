//! Repository tasks, run as `cargo xtask TASK`.

mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy

  tidy   check what no compiler checks: who depends on whom, licences and sources of
         dependencies, where SQL, processes and the environment may appear, file sizes";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]
fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => match tidy::check() {
            Ok(findings) if findings.is_empty() => {
                println!("tidy: nothing to report");
                ExitCode::SUCCESS
            }
            Ok(findings) => {
                for finding in &findings {
                    eprintln!("tidy: {finding}");
                }
                eprintln!("tidy: {} finding(s)", findings.len());
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
