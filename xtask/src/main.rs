//! Repository tasks, run as `cargo xtask TASK`.

mod bench;
mod mutants;
mod prove;
mod screenshots;
mod tests;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK

  bench [PIECE...] [--peers] [--quick] [--rounds N] [--out FOLDER]
         the server beside the physical limits and, with --peers, other servers from PyPI: a table,
         and with --out a chart; `bench help` lists the pieces
  prove [--kills N] [--runs M] [--seed S] [--debug] [--no-mutants]
         the promises under faults for longer (10,000 runs through 200 kills, on a release build),
         and the mutants; prints a report
  instructions [--check | --save] [--top N] [--out FOLDER]
         what one run costs the server in instructions, counted under valgrind; --check compares
         with bench/instructions.txt, --top shows where they go
  mutants [NAME...]
         deliberate bugs that the tests must find
  screenshots [FOLDER]
         a picture of every page, light, dark and on a phone (target/screenshots)
  tidy   check what no compiler checks: who depends on whom, licences and sources of
         dependencies, where SQL, processes and the environment may appear, file sizes";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks to its terminal")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("prove") => prove::run(&arguments[1..]).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        Some("bench" | "instructions") => bench::run(&arguments).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        Some("screenshots") => screenshots::run(&arguments[1..]).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        Some("mutants") => match mutants::run(&arguments[1..]) {
            Ok((found, skipped)) => {
                println!("mutants: {found} found, {skipped} skipped");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
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
