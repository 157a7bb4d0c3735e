//! `cargo xtask prove`: the kill harness for longer, and deliberate bugs that its tests must find.
//!
//! A suite that is green on a broken build proves nothing. Each mutant is a feature of one crate that
//! puts a bug in; the test named beside it must fail, in the words named beside it.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail, ensure};

/// A deliberate bug, the test that must find it, and words of the finding.
struct Mutant {
    feature: &'static str,
    test: &'static str,
    finding: &'static str,
}

const MUTANTS: [Mutant; 2] = [
    Mutant { feature: "mutant-sync-normal", test: "faults::power_cuts", finding: "which is lost" },
    Mutant {
        feature: "mutant-device-errors-pass",
        test: "faults::io_errors",
        finding: "neither webhook nor end",
    },
];

const KILLS: &str = "200";
const RUNS: &str = "10000";

/// Runs it all and prints the report.
///
/// # Errors
/// When the arguments are malformed, a test fails that should not, or the other way round.
#[expect(clippy::print_stdout, reason = "the report is for the terminal")]
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let (mut kills, mut runs) = (KILLS, RUNS);
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--kills" => kills = value,
            [name, value] if name == "--runs" => runs = value,
            _ => bail!("`{}` is not understood; `--kills N` and `--runs M` are", pair.join(" ")),
        }
    }
    println!("prove: {runs} runs through {kills} kills");
    let environment = [("POSTBACK_PROVE_KILLS", kills), ("POSTBACK_PROVE_RUNS", runs)];
    let crash = test(&[], "crash::", &environment)?;
    report(&crash.said, &["seed:", "fsync p50", "finding(s)"]);
    ensure!(crash.passed, "the kill harness has findings:\n{}", crash.said);

    println!("prove: the faults, on the product as it is");
    let faults = test(&[], "faults::", &[])?;
    report(&faults.said, &["crash points", "power cuts,", "the slowest end", "SKIP"]);
    ensure!(faults.passed, "a fault test failed:\n{}", faults.said);

    for Mutant { feature, test: name, finding } in MUTANTS {
        let mutant = test(&["--features", feature], name, &[])?;
        if mutant.said.contains("SKIP:") {
            println!("  SKIP: {feature}: its test skips here");
            continue;
        }
        ensure!(!mutant.passed, "`{feature}` lives: {name} passes with the bug in");
        ensure!(mutant.said.contains(finding), "`{feature}` fails in another way:\n{}", mutant.said);
        println!("  {feature}: found by {name}");
    }
    println!("prove: proven");
    Ok(ExitCode::SUCCESS)
}

struct Told {
    passed: bool,
    said: String,
}

fn test(features: &[&str], name: &str, environment: &[(&str, &str)]) -> anyhow::Result<Told> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--locked", "--package", "postback", "--test", "it"])
        .args(features)
        .args(["--", "--nocapture", "--test-threads=1", name])
        .envs(environment.iter().copied())
        .output()
        .context("cargo cannot be started")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(said.contains("running "), "the tests were not built:\n{said}");
    Ok(Told { passed: output.status.success(), said })
}

/// Lines that contain one of these.
#[expect(clippy::print_stdout, reason = "the report is for the terminal")]
fn report(said: &str, wanted: &[&str]) {
    for line in said.lines().filter(|line| wanted.iter().any(|word| line.contains(word))) {
        println!("  {line}");
    }
}
