//! Pages that repeat what the code says are made from it.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::path::{Path, PathBuf};

use queue::outcome::Code;

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

#[test]
fn every_end_code_has_a_page_that_the_index_names() {
    let index = std::fs::read_to_string(docs().join("errors/README.md")).unwrap();
    for code in Code::ALL {
        let file = format!("{}.md", code.as_str());
        assert!(docs().join("errors").join(&file).is_file(), "docs/errors/{file} is missing");
        assert!(index.contains(&file), "docs/errors/README.md does not name {file}");
    }
}
