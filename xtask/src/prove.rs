//! `cargo xtask prove`: the faults for longer, and the mutants; prints a report.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use crate::mutants;
use crate::tests::{Run, SKIP};

/// What the tests print for the report.
const REPORTED: [&str; 9] = [
    "seed:",
    "progress:",
    "figure:",
    "crash points",
    "power cuts,",
    "the slowest end",
    "finding(s)",
    "versions:",
    SKIP,
];

/// Webhooks that wait for a receiver which comes back.
const BACKLOG: u64 = 100_000;

struct Wanted {
    kills: u64,
    runs: u64,
    seed: Option<u64>,
    release: bool,
    mutants: bool,
}

impl Wanted {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut wanted = Self { kills: 200, runs: 10_000, seed: None, release: true, mutants: true };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let mut number = || -> anyhow::Result<u64> {
                let value = arguments.next().with_context(|| format!("`{name}` needs a number"))?;
                value.parse().with_context(|| format!("`{name} {value}`: that is no number"))
            };
            match name.as_str() {
                "--kills" => wanted.kills = number()?,
                "--runs" => wanted.runs = number()?,
                "--seed" => wanted.seed = Some(number()?),
                "--debug" => wanted.release = false,
                "--no-mutants" => wanted.mutants = false,
                _ => bail!(
                    "`{name}` is not understood; there are --kills N, --runs M, --seed S, --debug and --no-mutants"
                ),
            }
        }
        Ok(wanted)
    }
}

/// Runs it all and prints the report.
///
/// # Errors
/// When the arguments are malformed, a test fails that should not, or a mutant lives.
#[expect(clippy::print_stdout, reason = "the report is for the terminal")]
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let wanted = Wanted::read(arguments)?;
    let began = Instant::now();
    let Wanted { kills, runs, release, .. } = wanted;
    println!("prove: {runs} runs through {kills} kills, {} build", if release { "release" } else { "debug" });
    println!("  versions: {}", versions());
    let mut environment =
        vec![("POSTBACK_PROVE_KILLS", kills.to_string()), ("POSTBACK_PROVE_RUNS", runs.to_string())];
    environment.extend(wanted.seed.map(|seed| ("POSTBACK_TEST_SEED", seed.to_string())));
    let it = |name| Run::new("postback", &["--test", "it"], name).release(release);
    let crash = it("crash::").environment(&environment).finish(&REPORTED)?;
    ensure!(crash.passed, "verdict: NOT PROVEN, the kill harness has findings:\n{}", told(&crash.said));

    println!("prove: a receiver that comes back to {BACKLOG} webhooks");
    let backlog = [("POSTBACK_PROVE_BACKLOG", BACKLOG.to_string())];
    let backlog = it("backlog::").environment(&backlog).finish(&REPORTED)?;
    ensure!(backlog.passed, "verdict: NOT PROVEN, the queue of a receiver:\n{}", told(&backlog.said));

    println!("prove: the faults, one by one");
    let faults = it("faults::").finish(&REPORTED)?;
    ensure!(faults.passed, "verdict: NOT PROVEN, a fault test failed:\n{}", told(&faults.said));

    let mut verdict = format!("{kills} kills, 0 findings");
    if wanted.mutants {
        println!("prove: deliberate bugs");
        let (found, skipped) = mutants::run(&[])?;
        verdict += &format!(", {found} mutants found, {skipped} skipped");
    }
    if faults.said.contains(SKIP) {
        verdict += "; what is skipped above is not proven on this machine";
    }
    println!("verdict: PROVEN in {} s: {verdict}", began.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// What the tests themselves said, without the servers' log.
fn told(said: &str) -> String {
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("server: ")).collect();
    lines.join("\n")
}

/// What was proven, on what.
fn versions() -> String {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().next().map(str::to_owned)
    };
    let commit = first_line("git", &["describe", "--always", "--dirty"]).map(|id| format!("commit {id}"));
    let parts = [
        commit,
        first_line("rustc", &["--version"]),
        first_line("python3", &["--version"]),
        first_line("uname", &["-sr"]),
        std::thread::available_parallelism().ok().map(|cores| format!("{cores} cores")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
