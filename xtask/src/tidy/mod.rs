//! What no compiler checks. Each rule is a pure function from facts to findings, with a test that
//! shows it finding something.

mod codes;
mod dependencies;
mod edges;
mod failures;
mod text;

use anyhow::Context as _;
use cargo_metadata::MetadataCommand;

/// Runs every rule over the workspace; the findings, one line each.
///
/// # Errors
/// When the workspace cannot be read.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new().other_options(["--locked".into()]).exec()?;
    let root = metadata.workspace_root.as_std_path();
    let files = text::read(root).context("failed to read the repository's files")?;
    let mut findings = edges::check(&edges::of(&metadata));
    findings.extend(dependencies::check(&dependencies::of(&metadata)));
    findings.extend(text::check(&files));
    findings.extend(failures::check(&files));
    findings.extend(codes::check(&files));
    Ok(findings)
}
