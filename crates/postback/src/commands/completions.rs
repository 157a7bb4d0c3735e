//! `postback completions`

use clap::CommandFactory as _;

use super::{Context, ExitStatus};

/// Arguments of `postback completions`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shell
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// Never; the signature is that of every command.
pub(crate) fn run(args: Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::Cli::command(), "postback", &mut script);
    context.printer.data(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitStatus::Success)
}
