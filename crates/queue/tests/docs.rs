//! Pages that repeat what the code says are made from it.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use queue::lease::{LEASE_LOST, Release};
use queue::outcome::Code;
use queue::reason;
use queue::run::RunState;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn check(page: &str, made: &str) {
    let path = docs().join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, made, "run `UPDATE_DOCS=1 cargo test -p postback-queue --test docs`");
}

#[test]
fn the_page_of_limits_is_the_table_in_the_code() {
    check("reference/limits.md", &queue::limits::page());
}

#[test]
fn the_page_of_retries_is_the_schedule_in_the_code() {
    check("reference/retries.md", &queue::retry::page());
}

/// How a run ends.
const ENDS: [&str; 4] = ["succeeded", "failed", "cancelled", "expired"];
/// How an attempt of a run ends.
const ATTEMPTS: [&str; 15] = [
    "user_error",
    "timeout",
    "worker_crashed",
    "worker_exited",
    "out_of_memory",
    "output_limit",
    "result_too_large",
    "result_invalid",
    "protocol_error",
    "failed_to_start",
    "crash_loop",
    "server_lost",
    "lease_lost",
    "drained",
    "interrupted",
];
/// How an attempt of a delivery, or a delivery, fails.
const DELIVERIES: [&str; 12] = [
    "http_status",
    "timeout",
    "refused",
    "reset",
    "dns",
    "tls",
    "redirect",
    "address_not_allowed",
    "bad_response",
    "outcome_unknown",
    "endpoint_disabled",
    "exhausted",
];
/// What was found beside them: the fault is on this side, and nothing was sent.
const OURS: [&str; 3] = [reason::SERVER_EXHAUSTED, reason::NO_SIGNING_KEY, reason::BODY_UNREADABLE];

fn set<'w>(words: impl IntoIterator<Item = &'w str>) -> BTreeSet<&'w str> {
    words.into_iter().collect()
}

/// The files of a folder, by name without `.md`.
fn pages() -> BTreeSet<String> {
    let files = std::fs::read_dir(docs().join("errors")).unwrap();
    files.map(|file| file.unwrap().file_name().to_str().unwrap().trim_end_matches(".md").to_owned()).collect()
}

#[test]
fn the_words_of_the_code_are_those_that_were_promised() {
    let ends = RunState::ALL.into_iter().filter(|state| state.is_terminal()).map(RunState::as_str);
    assert_eq!(set(ends), set(ENDS));
    let codes = Code::ALL.into_iter().map(Code::as_str).filter(|code| !ENDS.contains(code));
    let attempts = codes.chain(Release::ALL.into_iter().map(Release::as_str)).chain([LEASE_LOST]);
    assert_eq!(set(attempts), set(ATTEMPTS));
    assert_eq!(set(reason::ALL), set(DELIVERIES.into_iter().chain(OURS)));
}

#[test]
fn every_word_has_a_page_that_the_index_names_and_there_is_no_other_page() {
    let index = std::fs::read_to_string(docs().join("errors/README.md")).unwrap();
    let runs = set(ENDS).union(&set(ATTEMPTS)).map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let deliveries = reason::ALL.map(|word| format!("delivery-{word}"));
    let known: BTreeSet<_> = runs.into_iter().chain(deliveries).collect();
    for name in &known {
        let word = name.trim_start_matches("delivery-");
        let page = std::fs::read_to_string(docs().join("errors").join(format!("{name}.md")));
        let page = page.unwrap_or_else(|error| panic!("docs/errors/{name}.md: {error}"));
        assert!(page.starts_with(&format!("# `{word}")), "docs/errors/{name}.md is about something else");
        assert!(index.contains(&format!("`]({name}.md)")), "docs/errors/README.md does not name {name}.md");
    }
    // The one answer to a request that has a page.
    let others = ["README", "storage_full"].map(str::to_owned);
    let unknown: Vec<_> =
        pages().into_iter().filter(|name| !known.contains(name) && !others.contains(name)).collect();
    assert_eq!(unknown, [""; 0], "pages about words that there are not");
}

#[test]
fn every_word_has_a_test_that_brings_it_about() {
    let page = std::fs::read_to_string(docs().join("failures.md")).unwrap();
    let (_, words) = page.split_once("## Every word").unwrap();
    let rows: Vec<_> = words.lines().filter(|line| line.starts_with("| `")).collect();
    for word in set(ENDS).into_iter().chain(ATTEMPTS).chain(reason::ALL) {
        let row = rows.iter().find(|row| {
            row.strip_prefix("| `").is_some_and(|row| {
                row.starts_with(&format!("{word}`")) || row.starts_with(&format!("{word}:"))
            })
        });
        let row = row.unwrap_or_else(|| panic!("docs/failures.md has no row for `{word}`"));
        let test =
            row.split('`').find(|code| code.contains("::")).unwrap_or_else(|| panic!("no test: {row}"));
        let (file, name) = test.split_once("::").unwrap();
        let text = std::fs::read_to_string(docs().join("..").join(file)).unwrap();
        assert!(text.contains(&format!("{name}(")), "{file} has no test {name}");
        // By its name in the code, or by itself.
        let name: String = word.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
        assert!(text.contains(&name) || text.contains(word), "{file} does not speak of {word}");
    }
}
