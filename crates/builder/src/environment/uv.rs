//! uv: the one on the search path, else one that the machine's pip installs for us, once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::interpreter::{Interpreter, Interpreters};
use super::pip;
use crate::build_log::BuildLog;
use crate::command::{CommandError, Commands, Invocation, Stop, Strangers};

/// What pip is asked for: uv keeps the options used here within these.
const REQUIREMENT: &str = "uv>=0.5,<1";

/// Below the cache.
const PACKAGES: &str = "packages";

/// A uv that works, and the environment that it needs.
#[derive(Clone, Debug)]
pub(crate) struct Uv {
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    /// Where it keeps what it downloaded.
    packages: PathBuf,
}

/// Beginnings of variables that may name files of certificates, credentials and packages.
const NAMING_FILES: &[&str] =
    &["SSL_CERT_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "UV_", "PIP_", "GIT_SSL_", "NIX_SSL_"];
/// Files below the home that uv and git read.
const OF_HOME: &[&str] = &[".netrc", ".config/uv", ".gitconfig", ".config/git", ".git-credentials"];

/// Why there is no uv.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoUv {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(
        "this machine has neither uv nor pip nor venv, so no packages can be installed; install one of them: \
         `apt install python3-pip` (or `python3-venv`), or uv from https://docs.astral.sh/uv"
    )]
    NothingToInstallWith,
    #[error("uv could not be installed with pip, so no packages can be installed: {0}")]
    NotInstalled(String),
    #[error("cannot keep uv in {folder}: {source}")]
    Io { folder: PathBuf, source: std::io::Error },
}

/// The lists of requirements of an environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lists<'a> {
    /// What is installed.
    pub(crate) requirements: &'a Path,
    /// What counts instead of what packages ask for.
    pub(crate) overrides: Option<&'a Path>,
}

impl Uv {
    /// Finds uv on the search path or in `cache`, or installs it there.
    pub(crate) async fn find(
        interpreters: &Interpreters<'_>,
        cache: &Path,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<Self, NoUv> {
        let commands = interpreters.commands;
        let machine = interpreters.find(None, stop).await?;
        let environment = handed_over(commands, cache, machine.as_ref(), stop).await?;
        let installed = cache.join("uv/bin/uv");
        let packages = cache.join(PACKAGES);
        for folder in interpreters.search_path {
            let program = folder.join("uv");
            if program.is_file() && works(commands, &program, stop).await? {
                return Ok(Self { program, environment, packages });
            }
        }
        if !works(commands, &installed, stop).await? {
            let machine = machine.ok_or(NoUv::NothingToInstallWith)?;
            log.say("==> installing uv, once for this machine");
            install(commands, cache, &machine, stop).await?;
        }
        Ok(Self { program: installed, environment, packages })
    }

    /// Installs requirements into an environment, from the cache when the index cannot be reached.
    pub(crate) async fn install(
        &self,
        commands: &Commands,
        python: &Path,
        lists: Lists<'_>,
        folder: &Path,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), CommandError> {
        let arguments = |offline: bool| {
            let mut arguments: Vec<OsString> =
                ["pip", "install", "--compile-bytecode", "--link-mode", "copy", "--python"]
                    .map(Into::into)
                    .to_vec();
            arguments.push(python.into());
            arguments.push("--requirement".into());
            arguments.push(lists.requirements.into());
            if let Some(overrides) = lists.overrides {
                arguments.push("--override".into());
                arguments.push(overrides.into());
            }
            if offline {
                arguments.push("--offline".into());
            }
            arguments
        };
        // Packages without a wheel are built here, by code of their own.
        let environment = python.parent().and_then(Path::parent).unwrap_or(python);
        let strangers = Strangers {
            programs: vec![python.to_owned()],
            read: self.named_files(commands),
            write: vec![environment.to_owned(), folder.to_owned(), self.packages.clone()],
        };
        std::fs::create_dir_all(&self.packages)
            .map_err(|source| CommandError::Spawn { program: "uv".to_owned(), source })?;
        let contained = |offline| Invocation {
            strangers: Some(strangers.clone()),
            ..self.invocation(arguments(offline), folder)
        };
        match commands.run(contained(false), log, stop).await {
            Err(error @ CommandError::Failed { .. }) => {
                let offline = contained(true);
                if commands.answer(offline, stop).await.is_err() {
                    return Err(error);
                }
                log.say("==> the index could not be reached; every package was in the cache");
                Ok(())
            }
            other => other,
        }
    }

    /// Files and folders that the environment names, and those that are found without a name.
    fn named_files(&self, commands: &Commands) -> Vec<PathBuf> {
        let variables = || commands.environment.iter().chain(&self.environment);
        let names_files = |name: &str| {
            let name = name.to_ascii_uppercase();
            NAMING_FILES.iter().any(|beginning| name.starts_with(beginning))
        };
        let named = variables()
            .filter(|(name, _)| name.to_str().is_some_and(names_files))
            .flat_map(|(_, value)| std::env::split_paths(value).collect::<Vec<_>>());
        let home = variables().find(|(name, _)| name == "HOME").map(|(_, home)| PathBuf::from(home));
        let of_home = home.iter().flat_map(|home| OF_HOME.iter().map(|file| home.join(file)));
        named.chain(of_home).filter(|path| path.is_absolute() && path.exists()).collect()
    }

    /// An interpreter of this version that uv knows of, such as one it manages itself, or one that was fetched
    /// into `place`.
    pub(crate) async fn python(
        &self,
        commands: &Commands,
        version: &str,
        place: Option<&Path>,
        stop: &Stop,
    ) -> Result<Option<PathBuf>, CommandError> {
        let arguments = ["python", "find", "--no-project", "--no-python-downloads", version];
        let mut invocation = self.invocation(arguments.map(Into::into).to_vec(), Path::new("/"));
        invocation.environment.extend(place.map(installed_in));
        match commands.answer(invocation, stop).await {
            Ok(path) => Ok(Some(PathBuf::from(path.trim()))),
            Err(CommandError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches an interpreter of this version into `place`.
    pub(crate) async fn fetch_python(
        &self,
        commands: &Commands,
        version: &str,
        place: &Path,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), CommandError> {
        let arguments = ["python", "install", version];
        let mut invocation = self.invocation(arguments.map(Into::into).to_vec(), Path::new("/"));
        invocation.environment.push(installed_in(place));
        // No command of it appears in anybody's search path.
        invocation.environment.push(("UV_PYTHON_INSTALL_BIN".into(), "0".into()));
        commands.run(invocation, log, stop).await
    }

    fn invocation<'a>(&'a self, arguments: Vec<OsString>, folder: &'a Path) -> Invocation<'a> {
        let environment = self.environment.clone();
        Invocation { program: &self.program, arguments, folder, environment, strangers: None }
    }
}

fn installed_in(place: &Path) -> (OsString, OsString) {
    ("UV_PYTHON_INSTALL_DIR".into(), place.into())
}

async fn works(commands: &Commands, program: &Path, stop: &Stop) -> Result<bool, CommandError> {
    if !program.is_file() {
        return Ok(false);
    }
    let arguments = vec!["--version".into()];
    let invocation =
        Invocation { program, arguments, folder: Path::new("/"), environment: Vec::new(), strangers: None };
    match commands.answer(invocation, stop).await {
        Ok(answer) => Ok(answer.starts_with("uv ")),
        Err(CommandError::Stopped) => Err(CommandError::Stopped),
        Err(_) => Ok(false),
    }
}

/// pip's settings in uv's words, and where uv keeps what it downloaded.
async fn handed_over(
    commands: &Commands,
    cache: &Path,
    machine: Option<&Interpreter>,
    stop: &Stop,
) -> Result<Vec<(OsString, OsString)>, CommandError> {
    let mut listing = String::new();
    if let Some(machine) = machine {
        let arguments = ["-m", "pip", "config", "list"].map(Into::into).to_vec();
        let invocation = Invocation {
            program: &machine.path,
            arguments,
            folder: Path::new("/"),
            environment: Vec::new(),
            strangers: None,
        };
        listing = match commands.answer(invocation, stop).await {
            Ok(listing) => listing,
            Err(CommandError::Stopped) => return Err(CommandError::Stopped),
            Err(_) => String::new(),
        };
    }
    if listing.is_empty() {
        // Without pip, its variables are still what the user wrote.
        for (name, value) in &commands.environment {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
                && let Some(setting) = name.strip_prefix("PIP_")
            {
                let setting = setting.to_ascii_lowercase().replace('_', "-");
                listing.push_str(&format!(":env:.{setting}='{value}'\n"));
            }
        }
    }
    let mut environment = pip::for_uv(&pip::settings(&listing), &commands.environment);
    environment.push(("UV_CACHE_DIR".into(), cache.join(PACKAGES).into()));
    environment.push(("UV_NO_PROGRESS".into(), "1".into()));
    environment.push(("NO_COLOR".into(), "1".into()));
    Ok(environment)
}

/// Has pip put uv into a folder of its own: nothing of the machine's Python is touched.
async fn install(commands: &Commands, cache: &Path, machine: &Interpreter, stop: &Stop) -> Result<(), NoUv> {
    let io = |source| NoUv::Io { folder: cache.to_owned(), source };
    std::fs::create_dir_all(cache).map_err(io)?;
    let fresh = tempfile::Builder::new().prefix(".uv-").tempdir_in(cache).map_err(io)?;
    let target = fresh.path().join("uv");
    let run = async |program: &Path, arguments: Vec<OsString>| {
        let environment = vec![
            ("PIP_ROOT_USER_ACTION".into(), "ignore".into()),
            ("PIP_DISABLE_PIP_VERSION_CHECK".into(), "1".into()),
            ("PIP_NO_INPUT".into(), "1".into()),
        ];
        commands
            .answer(Invocation { program, arguments, folder: cache, environment, strangers: None }, stop)
            .await
    };
    let pip_install: Vec<OsString> = ["-m", "pip", "install", "--quiet", "--target"]
        .map(OsString::from)
        .into_iter()
        .chain([target.clone().into(), REQUIREMENT.into()])
        .collect();
    let mut outcome = match run(&machine.path, ["-m", "pip", "--version"].map(Into::into).to_vec()).await {
        Ok(_) => run(&machine.path, pip_install.clone()).await,
        Err(CommandError::Failed { .. }) => {
            // No pip: an environment of the machine's Python brings one, where `venv` is whole.
            let venv = fresh.path().join("venv");
            let arguments = [OsString::from("-m"), "venv".into(), venv.clone().into()];
            match run(&machine.path, arguments.to_vec()).await {
                Ok(_) => run(&venv.join("bin/python"), pip_install).await,
                Err(CommandError::Failed { .. }) => return Err(NoUv::NothingToInstallWith),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    if let Err(CommandError::Failed { how, .. }) = &mut outcome {
        return Err(NoUv::NotInstalled(std::mem::take(how)));
    }
    outcome?;
    let place = cache.join("uv");
    if std::fs::rename(&target, &place).is_err() {
        // Another server was faster, or an older one does not work any more.
        if !works(commands, &place.join("bin/uv"), stop).await? {
            std::fs::remove_dir_all(&place).map_err(io)?;
            std::fs::rename(&target, &place).map_err(io)?;
        }
    }
    Ok(())
}
