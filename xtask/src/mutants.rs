//! `cargo xtask mutants`: deliberate bugs, each of which its test must find.
//!
//! A suite that is green on a broken build proves nothing. Each mutant is a feature of one crate that puts
//! one bug in, and is part of no build that does not name it. The test beside it must fail, in the words
//! beside it; one that passes, or fails in another way, fails this task.

use std::time::Instant;

use anyhow::{bail, ensure};

use crate::tests::{Run, SKIP};

/// A deliberate bug.
pub(crate) struct Mutant {
    /// The feature that puts it in.
    feature: &'static str,
    /// Whose feature and whose test.
    package: &'static str,
    /// `--lib` or `--test it`.
    target: &'static [&'static str],
    /// The test that must find it.
    test: &'static str,
    /// Words of its finding.
    finding: &'static str,
}

const IT: &[&str] = &["--test", "it"];

/// Those that need no server first: they are the quickest.
const MUTANTS: [Mutant; 8] = [
    Mutant {
        feature: "mutant-ack-before-commit",
        package: "postback-store",
        target: &["--lib"],
        test: "a_failed_commit_is_unknown_to_all_of_its_batch_and_ends_the_store",
        finding: "Ok(())",
    },
    Mutant {
        feature: "mutant-completion-without-token",
        package: "postback-store",
        target: IT,
        test: "a_stale_lease_changes_nothing",
        finding: "Finished::Stale",
    },
    Mutant {
        feature: "mutant-attempt-row-after-send",
        package: "postback-store",
        target: IT,
        test: "the_first_attempt_rides_in_the_finish",
        finding: "left: [Pending, Pending, Pending]",
    },
    Mutant {
        feature: "mutant-id-per-attempt",
        package: "postback-delivery",
        target: IT,
        test: "every_attempt_has_the_same_id_and_bytes_and_a_signature_of_its_own",
        finding: "one id for every attempt",
    },
    Mutant {
        feature: "mutant-body-without-limit",
        package: "postback-delivery",
        target: IT,
        test: "an_endless_answer_is_cut_and_its_status_counts",
        finding: "left: (Retry(",
    },
    Mutant {
        feature: "mutant-guard-at-accept-only",
        package: "postback-delivery",
        target: IT,
        test: "what_a_name_meant_a_moment_ago_counts_for_nothing",
        finding: "right: Some(\"address_not_allowed\")",
    },
    Mutant {
        feature: "mutant-sync-normal",
        package: "postback",
        target: IT,
        test: "faults::power_cuts",
        finding: "which is lost",
    },
    Mutant {
        feature: "mutant-device-errors-pass",
        package: "postback",
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
        wanted.is_empty() || wanted.iter().any(|wanted| mutant.feature.contains(wanted.as_str()))
    };
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(named).collect();
    if mutants.is_empty() {
        let names = MUTANTS.map(|mutant| mutant.feature).join(", ");
        bail!("no mutant is called `{}`; there are {names}", wanted.join("`, `"));
    }
    let (mut found, mut skipped) = (0, 0);
    for mutant in mutants {
        let Mutant { feature, package, target, test, finding } = mutant;
        let began = Instant::now();
        let run = Run::new(package, target, test).features(&[*feature]).finish(&[])?;
        let seconds = began.elapsed().as_secs();
        if run.said.contains(SKIP) {
            skipped += 1;
            println!("mutants: {feature}: {SKIP} its test skips here");
            continue;
        }
        ensure!(!run.passed, "`{feature}` lives: {test} passes with the bug in");
        ensure!(run.said.contains(finding), "`{feature}` fails in another way:\n{}", run.said);
        found += 1;
        println!("mutants: {feature}: found by {test} ({seconds} s)");
    }
    Ok((found, skipped))
}
