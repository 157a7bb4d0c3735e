//! `cargo xtask mutants`: deliberate bugs, each of which its test must find.
//!
//! A suite that is green on a broken build proves nothing. The feature `mutants` builds all bugs in, so that there is
//! one build to wait for, and a variable has one at a time show; no other build has any. The test beside it must fail,
//! in the words beside it; one that passes, or fails in another way, fails this task.

use std::time::Instant;

use anyhow::{bail, ensure};

use crate::tests::{Run, SKIP};

/// A deliberate bug.
pub(crate) struct Mutant {
    /// What the code asks for, by the variable.
    name: &'static str,
    /// `--lib` or `--test it`.
    target: &'static [&'static str],
    /// The test that must find it.
    test: &'static str,
    /// Words of its finding.
    finding: &'static str,
}

/// Has one of them show, by its name.
const CHOSEN: &str = "POSTBACK_MUTANT";
/// What has some.
const FEATURES: [&str; 3] = ["postback/mutants", "postback-delivery/mutants", "postback-store/mutants"];

const IT: &[&str] = &["--test", "it"];

/// Those that need no server first: they are the quickest.
const MUTANTS: [Mutant; 8] = [
    Mutant {
        name: "ack-before-commit",
        target: &["--lib"],
        test: "a_failed_commit_is_unknown_to_all_of_its_batch_and_ends_the_store",
        finding: "Ok(())",
    },
    Mutant {
        name: "completion-without-token",
        target: IT,
        test: "a_stale_lease_changes_nothing",
        finding: "Finished::Stale",
    },
    Mutant {
        name: "attempt-row-after-send",
        target: IT,
        test: "the_first_attempt_rides_in_the_finish",
        finding: "left: [Pending, Pending, Pending]",
    },
    Mutant {
        name: "id-per-attempt",
        target: IT,
        test: "every_attempt_has_the_same_id_and_bytes_and_a_signature_of_its_own",
        finding: "one id for every attempt",
    },
    Mutant {
        name: "body-without-limit",
        target: IT,
        test: "an_endless_answer_is_cut_and_its_status_counts",
        finding: "left: (Retry(",
    },
    Mutant {
        name: "guard-at-accept-only",
        target: IT,
        test: "what_a_name_meant_a_moment_ago_counts_for_nothing",
        finding: "right: Some(\"address_not_allowed\")",
    },
    Mutant { name: "sync-normal", target: IT, test: "faults::power_cuts", finding: "which is lost" },
    Mutant {
        name: "device-errors-pass",
        target: IT,
        test: "faults::io_errors",
        finding: "neither webhook nor end",
    },
];

/// Builds and tests the mutants whose names contain one of `wanted`, or all; returns how many were found,
/// and how many could not be looked for on this machine.
///
/// # Errors
/// When a mutant lives, fails in another way, or no mutant has such a name.
#[expect(clippy::print_stdout, reason = "the task tells its terminal how far it is")]
pub(crate) fn run(wanted: &[String]) -> anyhow::Result<(usize, usize)> {
    let named = |mutant: &&Mutant| {
        wanted.is_empty() || wanted.iter().any(|wanted| mutant.name.contains(wanted.as_str()))
    };
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(named).collect();
    if mutants.is_empty() {
        let names = MUTANTS.map(|mutant| mutant.name).join(", ");
        bail!("no mutant is called `{}`; there are {names}", wanted.join("`, `"));
    }
    let (mut found, mut skipped) = (0, 0);
    for mutant in mutants {
        let Mutant { name, target, test, finding } = mutant;
        let began = Instant::now();
        // All crates together, as `cargo test --workspace` has just built what they depend on.
        let chosen = [(CHOSEN, (*name).to_owned())];
        let run = Run::workspace(target, test).features(&FEATURES).environment(&chosen).finish(&[])?;
        let seconds = began.elapsed().as_secs();
        if run.said.contains(SKIP) {
            skipped += 1;
            println!("mutants: {name}: {SKIP} its test skips here");
            continue;
        }
        ensure!(!run.passed, "`{name}` lives: {test} passes with the bug in");
        ensure!(run.said.contains(finding), "`{name}` fails in another way:\n{}", run.said);
        found += 1;
        println!("mutants: {name}: found by {test} ({seconds} s)");
    }
    Ok((found, skipped))
}
