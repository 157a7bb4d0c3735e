//! Debian packages: the build says which are missing, and installs them only where whoever runs the server wants
//! that.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::EnvironmentError;
use crate::build_log::BuildLog;
use crate::command::{CommandError, Commands, Invocation, Stop};

/// Whether builds may install Debian packages on this machine.
#[derive(Debug)]
pub(super) enum Apt {
    /// They are somebody else's business.
    Refused,
    /// They may, one build after the other.
    Allowed(Mutex<()>),
}

/// Sees to it that a build's Debian packages are installed, or refuses it.
pub(super) async fn provide(
    apt: &Apt,
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
    if missing.is_empty() {
        return Ok(());
    }
    let missing_names = missing.join(" ");
    match apt {
        Apt::Refused => Err(EnvironmentError::Apt { missing: missing_names }),
        Apt::Allowed(_) if !rustix::process::geteuid().is_root() => {
            Err(EnvironmentError::AptWithoutRoot { missing: missing_names })
        }
        Apt::Allowed(turn) => {
            let _turn = tokio::select! {
                turn = turn.lock() => turn,
                () = stop.token.cancelled() => return Err(EnvironmentError::Stopped),
            };
            install(commands, search_path, &missing, log, stop).await
        }
    }
}

async fn install(
    commands: &Commands,
    search_path: &[PathBuf],
    names: &[String],
    log: &BuildLog,
    stop: &Stop,
) -> Result<(), EnvironmentError> {
    let program = search_path.iter().map(|folder| folder.join("apt-get")).find(|path| path.is_file());
    let Some(program) = program else { return Err(EnvironmentError::Apt { missing: names.join(" ") }) };
    log.say(format!("==> installing Debian packages: {}", names.join(" ")));
    let named = names.iter().map(String::as_str);
    // Without the progress that is made for terminals.
    let install = ["install", "-qq", "--yes", "--no-install-recommends", "--"].into_iter().chain(named);
    for arguments in [vec!["update", "-qq"], install.collect()] {
        let invocation = Invocation {
            program: &program,
            arguments: arguments.into_iter().map(OsString::from).collect(),
            folder: Path::new("/"),
            environment: vec![("DEBIAN_FRONTEND".into(), "noninteractive".into())],
            strangers: None,
        };
        commands
            .run(invocation, log, stop)
            .await
            .map_err(super::step("the Debian packages could not be installed"))?;
    }
    Ok(())
}

async fn is_installed(
    commands: &Commands,
    program: &Path,
    name: &str,
    stop: &Stop,
) -> Result<bool, EnvironmentError> {
    let arguments = ["--show", "--showformat=${db:Status-Status}", "--", name].map(OsString::from).to_vec();
    let invocation =
        Invocation { program, arguments, folder: Path::new("/"), environment: Vec::new(), strangers: None };
    match commands.answer(invocation, stop).await {
        Ok(status) => Ok(status.lines().any(|status| status == "installed")),
        Err(CommandError::Stopped) => Err(EnvironmentError::Stopped),
        Err(_) => Ok(false),
    }
}
