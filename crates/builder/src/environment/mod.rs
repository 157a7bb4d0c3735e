//! Python environments: made once for each set of interpreter and packages, and shared by the builds
//! that ask for the same.
//!
//! An environment is made in its final place, since scripts in it carry their own path, and counts from
//! the moment its marker file is there; one without a marker is thrown away and made again. Commands of
//! the user see the app's files and may change either, so an app that has some gets an environment for
//! each build.

mod bytecode;
mod conda;
mod interpreter;
mod known;
mod pip;
mod system;
mod uv;
mod wanted;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use queue::BuildId;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use crate::build_log::BuildLog;
use crate::command::{CommandError, Commands, Invocation, Stop, Strangers};
use conda::Conda;
use interpreter::{Interpreter, Interpreters};
use queue::app::AppConfig;
use uv::Uv;
use wanted::Wanted;

/// The file that says an environment is whole. Its time of change is the environment's last use.
const MARKER: &str = "postback-complete";

/// Why an environment could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("there is no Python {wanted} on this machine, and it could not be fetched; {}", those(there))]
    NoPython { wanted: String, there: Vec<String> },
    #[error("there is no python3 on this machine; install it (`apt install python3`), version 3.8 or later")]
    NoPythonAtAll,
    #[error(
        "these conda packages need micromamba, which this machine does not have: {wanted}; put it on the server's PATH or \
         name it in MAMBA_EXE (https://mamba.readthedocs.io says how to install it), or name their counterparts under pip"
    )]
    NoConda { wanted: String },
    #[error(
        "these Debian packages are not installed on this machine: {missing}; run `apt install {missing}`, or start the \
         server with `--install-apt-packages`"
    )]
    Apt { missing: String },
    #[error(
        "these Debian packages are not installed on this machine: {missing}; the server may install them, but is not \
         root: run `apt install {missing}`"
    )]
    AptWithoutRoot { missing: String },
    #[error(transparent)]
    NoUv(#[from] uv::NoUv),
    #[error("{0}: {1}")]
    Step(&'static str, CommandError),
    #[error("the build was stopped")]
    Stopped,
    #[error("the environment could not be kept: {0}")]
    Io(#[from] std::io::Error),
}

fn those(versions: &[String]) -> String {
    match versions {
        [] => "install it, or name another in `python_version`".to_owned(),
        versions => format!("there are {}: name one of them in `python_version`", versions.join(", ")),
    }
}

impl From<CommandError> for EnvironmentError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Stopped => Self::Stopped,
            error => Self::Step("a tool failed", error),
        }
    }
}

/// What an environment begins with.
#[derive(Debug)]
enum Base {
    /// An interpreter of this machine.
    Machine(Interpreter),
    /// Packages that bring their own.
    Conda(Conda),
}

impl Base {
    /// What makes two environments differ before anything is installed.
    fn identity(&self) -> String {
        match self {
            Self::Machine(interpreter) => interpreter.identity(),
            Self::Conda(conda) => format!("conda {}", conda.lines().join(", ")),
        }
    }
}

/// An environment that is there.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Its interpreter.
    pub(crate) python: PathBuf,
    /// Its name below the folder of environments.
    pub(crate) key: String,
}

/// The environments of this server.
#[derive(Debug)]
pub(crate) struct Environments {
    pub(crate) commands: Commands,
    pub(crate) search_path: Vec<PathBuf>,
    /// `<data>/environments`.
    pub(crate) folder: PathBuf,
    /// uv and the packages it downloaded; shared by all servers of a user.
    pub(crate) cache: PathBuf,
    /// The folder of the Python side, where this server starts replicas.
    runner: Option<PathBuf>,
    apt: system::Apt,
    /// One at a time makes a certain environment; the others find it made.
    turns: Mutex<HashMap<String, Arc<Turn<()>>>>,
    uv: Turn<Option<Uv>>,
    known: known::Known,
}

impl Environments {
    pub(crate) fn new(
        commands: Commands,
        search_path: Vec<PathBuf>,
        folder: PathBuf,
        cache: PathBuf,
        runner: Option<PathBuf>,
        installs_apt: bool,
    ) -> Self {
        let apt = if installs_apt { system::Apt::Allowed(Turn::default()) } else { system::Apt::Refused };
        Self {
            commands,
            search_path,
            folder,
            cache,
            runner,
            apt,
            turns: Mutex::default(),
            uv: Turn::default(),
            known: known::Known::default(),
        }
    }

    /// Makes or finds the environment of a build whose files are in `app_folder`.
    pub(crate) async fn prepare(
        &self,
        config: &AppConfig,
        build: &BuildId,
        app_folder: &Path,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<Environment, EnvironmentError> {
        let wanted = Wanted::of(config, app_folder)?;
        system::provide(&self.apt, &self.commands, &self.search_path, &wanted.apt, log, stop).await?;
        let base = self.base(config.python_version.as_deref(), &wanted, log, stop).await?;
        if let (Base::Machine(interpreter), Some(runner)) = (&base, &self.runner) {
            bytecode::provide(&self.commands, runner, interpreter, stop).await;
        }
        let key = wanted.key(&base.identity(), build);
        let folder = self.folder.join(&key);
        let environment = Environment { python: folder.join("bin/python"), key: key.clone() };
        let turn = self.turn(&key);
        let _turn = match turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                log.say("==> waiting for another build that makes the same environment");
                tokio::select! {
                    turn = turn.lock() => turn,
                    () = stop.token.cancelled() => return Err(EnvironmentError::Stopped),
                }
            }
        };
        if folder.join(MARKER).is_file() && environment.python.exists() {
            touch(&folder.join(MARKER));
            log.say("==> the environment is there already");
            return Ok(environment);
        }
        let made = self.make(&wanted, &base, &folder, app_folder, build, log, stop).await;
        if made.is_err() {
            remove(&folder);
        }
        made?;
        Ok(environment)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `prepare`, split off for its length")]
    async fn make(
        &self,
        wanted: &Wanted,
        base: &Base,
        folder: &Path,
        app_folder: &Path,
        build: &BuildId,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), EnvironmentError> {
        let began = Instant::now();
        remove(folder);
        std::fs::create_dir_all(&self.folder)?;
        log.say("==> making the environment");
        let python = folder.join("bin/python");
        match base {
            Base::Machine(interpreter) => {
                let arguments = ["-I", "-m", "venv", "--without-pip"].map(OsString::from);
                let venv = Invocation {
                    program: &interpreter.path,
                    arguments: arguments.into_iter().chain([folder.into()]).collect(),
                    folder: &self.folder,
                    environment: Vec::new(),
                    strangers: None,
                };
                let made = self.commands.run(venv, log, stop).await;
                made.map_err(step("the environment could not be made"))?;
            }
            Base::Conda(conda) => conda.make(&self.commands, folder, &self.cache, log, stop).await?,
        }

        let has_commands = !wanted.before.is_empty() || !wanted.after.is_empty();
        let mut requirements = wanted.requirements.clone();
        if has_commands {
            // Such commands often call it; those that do not can do without.
            match self.install(&["pip".to_owned()], &[], folder, app_folder, log, stop).await {
                Ok(()) => requirements.push("pip".to_owned()),
                Err(EnvironmentError::Stopped) => return Err(EnvironmentError::Stopped),
                Err(error) => log.say(format!("    the commands must do without pip: {error}")),
            }
        }
        self.shell("pre_build_commands", &wanted.before, folder, app_folder, build, log, stop).await?;
        if !wanted.requirements.is_empty() {
            log.say(format!("==> installing {}", count(wanted.requirements.len(), "requirement")));
            self.install(&requirements, &wanted.overrides, folder, app_folder, log, stop).await?;
        }
        self.shell("shell_commands", &wanted.after, folder, app_folder, build, log, stop).await?;
        if !python.exists() {
            return Err(std::io::Error::other("the commands removed the environment's interpreter").into());
        }
        let about = serde_json::json!({"base": base.identity(), "requirements": wanted.requirements});
        std::fs::write(folder.join(MARKER), about.to_string())?;
        log.say(format!("    the environment took {}", seconds(began)));
        Ok(())
    }

    async fn install(
        &self,
        requirements: &[String],
        overrides: &[String],
        folder: &Path,
        app_folder: &Path,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), EnvironmentError> {
        let uv = self.uv(log, stop).await?;
        // Beside the app's own files, since lines such as `-r more.txt` are relative to the list.
        let listed = |lines: &[String]| -> std::io::Result<tempfile::NamedTempFile> {
            let mut list =
                tempfile::Builder::new().prefix(".requirements-").suffix(".txt").tempfile_in(app_folder)?;
            for line in lines {
                std::io::Write::write_all(&mut list, format!("{line}\n").as_bytes())?;
            }
            Ok(list)
        };
        let overriding = if overrides.is_empty() { None } else { Some(listed(overrides)?) };
        let list = listed(requirements)?;
        let lists = uv::Lists {
            requirements: list.path(),
            overrides: overriding.as_ref().map(tempfile::NamedTempFile::path),
        };
        uv.install(&self.commands, &folder.join("bin/python"), lists, app_folder, log, stop)
            .await
            .map_err(step("the requirements could not be installed"))
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `make`, done twice")]
    async fn shell(
        &self,
        what: &'static str,
        lines: &[String],
        folder: &Path,
        app_folder: &Path,
        build: &BuildId,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), EnvironmentError> {
        if lines.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        log.say(format!("==> running {what}"));
        log.say(lines.iter().map(|line| format!("    $ {line}\n")).collect::<String>());
        // Cerebrium's clients wrap these lines for bash, so people write bash.
        let shells =
            ["bash", "sh"].map(|shell| self.search_path.iter().map(move |folder| folder.join(shell)));
        let shell = shells.into_iter().flatten().find(|shell| shell.is_file());
        let shell = shell.unwrap_or_else(|| PathBuf::from("/bin/sh"));
        let bin = folder.join("bin");
        let path = std::env::join_paths(std::iter::once(&bin).chain(&self.search_path))
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        let invocation = Invocation {
            program: &shell,
            arguments: vec!["-e".into(), "-c".into(), lines.join("\n").into()],
            folder: app_folder,
            environment: vec![
                ("PATH".into(), path),
                ("VIRTUAL_ENV".into(), folder.into()),
                ("BUILD_ID".into(), build.as_str().into()),
            ],
            strangers: Some(Strangers {
                programs: vec![folder.join("bin/python")],
                read: self.search_path.iter().filter(|folder| folder.is_dir()).cloned().collect(),
                write: vec![folder.to_owned(), app_folder.to_owned()],
            }),
        };
        self.commands.run(invocation, log, stop).await.map_err(step(what))?;
        log.say(format!("    {what} took {}", seconds(began)));
        Ok(())
    }

    /// What the environment is made of before anything is installed.
    async fn base(
        &self,
        version: Option<&str>,
        wanted: &Wanted,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<Base, EnvironmentError> {
        if wanted.conda.is_empty() {
            let found = self.interpreter(version, log, stop).await?;
            log.say(format!("    python {} at {}", found.version_text(), found.path.display()));
            return Ok(Base::Machine(found));
        }
        let own = match version {
            Some(_) => None,
            // As good as any other, and what the app would get without conda.
            None => self.interpreters().find(None, stop).await?,
        };
        let own = own.map(|found| format!("{}.{}", found.version.0, found.version.1));
        let version = version.or(own.as_deref());
        Ok(Base::Conda(Conda::of(&self.commands, &self.search_path, &wanted.conda, version)?))
    }

    async fn interpreter(
        &self,
        version: Option<&str>,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<Interpreter, EnvironmentError> {
        log.say(format!("==> resolving python {}", version.unwrap_or("of this machine")));
        let interpreters = self.interpreters();
        if let Some(found) = interpreters.find(version, stop).await? {
            return Ok(found);
        }
        let Some(version) = version else { return Err(EnvironmentError::NoPythonAtAll) };
        if let Ok(uv) = self.uv(log, stop).await {
            let fetched = self.cache.join("python");
            for place in [None, Some(fetched.as_path())] {
                if let Some(path) = uv.python(&self.commands, version, place, stop).await?
                    && let Some(found) = interpreters.probe(&path, stop).await?
                {
                    return Ok(found);
                }
            }
            log.say(format!("==> there is none on this machine; fetching python {version}"));
            match uv.fetch_python(&self.commands, version, &fetched, log, stop).await {
                Ok(()) => {
                    if let Some(path) = uv.python(&self.commands, version, Some(&fetched), stop).await?
                        && let Some(found) = interpreters.probe(&path, stop).await?
                    {
                        return Ok(found);
                    }
                }
                Err(error @ (CommandError::Stopped | CommandError::TimedOut { .. })) => {
                    return Err(error.into());
                }
                // What uv said is in the log; what there is instead is said below.
                Err(_) => {}
            }
        }
        let there = interpreters.all(stop).await?;
        let there = there.iter().map(Interpreter::version_text).collect();
        Err(EnvironmentError::NoPython { wanted: version.to_owned(), there })
    }

    fn interpreters(&self) -> Interpreters<'_> {
        Interpreters { commands: &self.commands, search_path: &self.search_path, known: &self.known }
    }

    async fn uv(&self, log: &BuildLog, stop: &Stop) -> Result<Uv, EnvironmentError> {
        let mut known = self.uv.lock().await;
        if let Some(uv) = &*known {
            return Ok(uv.clone());
        }
        let uv = Uv::find(&self.interpreters(), &self.cache, log, stop).await?;
        Ok(known.insert(uv).clone())
    }

    fn turn(&self, key: &str) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(key.to_owned()).or_default().clone()
    }

    /// Removes environments that no build in `used` has and that were last used before `before`.
    pub(crate) fn collect(&self, used: &[String], before: SystemTime) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let key = entry.file_name().to_string_lossy().into_owned();
            let last_use = std::fs::metadata(entry.path().join(MARKER)).and_then(|marker| marker.modified());
            let turn = self.turn(&key);
            let Ok(_turn) = turn.try_lock() else { continue };
            // Without a marker and without anybody at work on it, it was left by a process that died.
            if last_use.map_or(true, |last_use| last_use < before) && !used.contains(&key) {
                tracing::info!(environment.key = %key, "an unused environment is removed");
                remove(&entry.path());
            }
        }
    }
}

fn step(what: &'static str) -> impl Fn(CommandError) -> EnvironmentError {
    move |error| match error {
        CommandError::Stopped => EnvironmentError::Stopped,
        error => EnvironmentError::Step(what, error),
    }
}

/// The marker's time is the environment's last use; failing to set it only shortens its life.
fn touch(marker: &Path) {
    if let Ok(file) = std::fs::File::options().append(true).open(marker) {
        let times = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
            last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        };
        let _ = rustix::fs::futimens(&file, &times);
    }
}

fn remove(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(error = %error, folder = %folder.display(), "a folder could not be removed");
        }
        _ => {}
    }
}

/// `1 requirement`, `2 requirements`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `0.3 s` since then.
pub(crate) fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}
