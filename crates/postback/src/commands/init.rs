//! `postback init`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use queue::AppName;

use super::{Context, ExitStatus};
use crate::print::WithHint;

/// Arguments of `postback init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write into, made if need be; its name becomes the app's
    #[arg(default_value = ".")]
    folder: PathBuf,
}

const MAIN: &str = r#""""Every function here whose name has no leading underscore can be called over HTTP."""


def run(prompt: str, run_id: str):
    # Keys of the request body arrive as arguments; `run_id` is filled in.
    print(f"working on {run_id}")
    # A dict's `status_code`, if there is one, becomes the HTTP status.
    return {"my_result": prompt}
"#;

/// Writes `cerebrium.toml` and `main.py`; never over what is there.
///
/// # Errors
/// When a file is there already or cannot be written.
pub(crate) fn write(folder: &Path, name: &AppName) -> anyhow::Result<()> {
    let config = format!(
        "[cerebrium.deployment]\nname = \"{name}\"\n# python_version = \"3.11\"   # omitted: the server's own python3\n\
         include = [\"./*\"]\nexclude = [\".*\"]\n\n\
         [cerebrium.hardware]\ncompute = \"CPU\"\n\n\
         [cerebrium.scaling]\n# Replicas are started on demand, up to max_replicas, and stop after `cooldown` idle seconds.\n\
         min_replicas = 0\nmax_replicas = 2\ncooldown = 30\n\
         # Calls one replica works on at once.\nreplica_concurrency = 10\n\
         # Seconds one run may take; 43200 (12 h) at most.\nresponse_grace_period = 900\n\n\
         [cerebrium.dependencies.pip]\n# numpy = \"latest\"\n# requests = \">=2.31\"\n"
    );
    std::fs::create_dir_all(folder).with_context(|| format!("failed to make `{}`", folder.display()))?;
    for file in ["cerebrium.toml", "main.py"] {
        if folder.join(file).exists() {
            return Err(WithHint::new(
                format!("`{}` is there already", folder.join(file).display()),
                "name another folder: `postback init my-model`",
            )
            .into());
        }
    }
    for (file, text) in [("cerebrium.toml", config.as_str()), ("main.py", MAIN)] {
        let path = folder.join(file);
        let mut written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("failed to write `{}`", path.display()))?;
        written
            .write_all(text.as_bytes())
            .with_context(|| format!("failed to write `{}`", path.display()))?;
    }
    Ok(())
}

/// Writes the files of a new app.
///
/// # Errors
/// When the folder's name is no app name, or a file is there already.
pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let folder = std::path::absolute(&args.folder)?;
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase().replace([' ', '.'], "-"));
    let name: AppName = name.unwrap_or_default().parse().map_err(|error: queue::id::InvalidId| {
        WithHint::new(error.to_string(), "name a folder: `postback init my-model`")
    })?;
    write(&folder, &name)?;
    context.printer.done(&format!("wrote cerebrium.toml and main.py into {}", folder.display()));
    context.printer.hint(&format!("cd {} && postback deploy", args.folder.display()));
    Ok(ExitStatus::Success)
}
