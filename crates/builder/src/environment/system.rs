//! Debian packages: the build says which are missing; it does not change the machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::EnvironmentError;
use crate::build_log::BuildLog;
use crate::command::{CommandError, Commands, Invocation, Stop};

/// Refuses a build whose Debian packages are not installed.
pub(super) async fn check(
    commands: &Commands,
    search_path: &[PathBuf],
    packages: &[String],
    log: &BuildLog,
    stop: &Stop,
) -> Result<(), EnvironmentError> {
    if packages.is_empty() {
        return Ok(());
    }
    let Some(program) =
        search_path.iter().map(|folder| folder.join("dpkg-query")).find(|path| path.is_file())
    else {
        log.say(format!(
            "==> this machine has no dpkg; whether these packages are there is for you to know: {}",
            packages.join(", ")
        ));
        return Ok(());
    };
    let mut missing = Vec::new();
    for package in packages {
        // Versions are those of another system's repositories; only the name can be looked for here.
        let name = package.split(['=', '<', '>', ' ']).next().unwrap_or(package);
        if !is_installed(commands, &program, name, stop).await? {
            missing.push(name.to_owned());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(EnvironmentError::Apt { missing: missing.join(" ") }) }
}

async fn is_installed(
    commands: &Commands,
    program: &Path,
    name: &str,
    stop: &Stop,
) -> Result<bool, EnvironmentError> {
    let arguments = ["--show", "--showformat=${db:Status-Status}", "--", name].map(OsString::from).to_vec();
    let invocation = Invocation { program, arguments, folder: Path::new("/"), environment: Vec::new() };
    match commands.answer(invocation, stop).await {
        Ok(status) => Ok(status.lines().any(|status| status == "installed")),
        Err(CommandError::Stopped) => Err(EnvironmentError::Stopped),
        Err(_) => Ok(false),
    }
}
