//! `cargo xtask screenshots`: a picture of every page, by day, by night and on a phone.
//!
//! The tests that open every page take them: the server is a fresh one with apps, runs and receivers that fail.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::tests::{Run, SKIP};

const TEST: &str = "browser::tour::every_page_can_be_used_by_everybody_and_loads_at_once";

/// Writes them to the folder of the first argument, or to `target/screenshots`; the best of them stand in `docs/screenshots`.
///
/// # Errors
/// When there is no browser, or a page has a fault.
#[expect(clippy::print_stdout, reason = "it says where the pictures are")]
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = arguments.first().map_or_else(|| root.join("target/screenshots"), PathBuf::from);
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    // The test runs in another folder.
    let folder = folder.canonicalize()?;
    let environment = [("POSTBACK_SCREENSHOTS", folder.to_string_lossy().into_owned())];
    let told =
        Run::new("postback", &["--test", "it"], TEST).environment(&environment).finish(&[SKIP, " bytes"])?;
    ensure!(!told.said.contains(SKIP), "no pictures could be taken: `script/test` installs what is missing");
    ensure!(told.passed, "a page has a fault:\n{}", told.said);
    println!("the pictures are in {}", folder.display());
    Ok(ExitCode::SUCCESS)
}
