//! The supervisor: a small process between the server and each replica (or build command) that
//! makes sure that nothing outlives either.
//!
//! Promise: when the command ends, when the supervisor gets SIGTERM, or when the server dies, by
//! `kill -9` too, every descendant of the command is gone within moments, daemons that forked twice
//! and left the session included. On Linux orphans come back to the supervisor (it is their
//! subreaper), so it kills children until it has none. Elsewhere it kills the process group.
//!
//! The server's death is seen at the lifeline: a pipe whose write end only the server holds. A death
//! signal would not do, since it is bound to the thread that forked, and threads come and go.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;

use queue::contain::{END_OF_OPTIONS, POLICY, Policy};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, getrlimit, setrlimit};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::contain::{self, Contained};

/// The hidden subcommand of the binary.
const SUBCOMMAND: &str = "__supervise";

/// The signal at which a supervisor asks its command to end, by SIGTERM, and waits on.
pub(crate) const ASK_TO_END: Signal = Signal::USR1;

/// Before the names of variables that are the command's own.
const SET_ASIDE: &str = "POSTBACK_OF_COMMAND_";

const LIFELINE: &str = "--lifeline";
const OPEN_FILES: &str = "--open-files";
/// `env`'s and `timeout`'s exit status for their own failures.
const CANNOT_RUN: u8 = 126;
/// Between two looks at processes that were sent SIGKILL and are not gone yet.
const PAUSE: Duration = Duration::from_millis(2);

/// A pipe that is open for writing exactly as long as this process lives.
#[derive(Debug)]
pub struct Lifeline {
    /// Inherited by every process that the server starts; says nothing but "the server is gone".
    read: io::PipeReader,
    /// Close-on-exec, and never written to.
    _write: io::PipeWriter,
    /// Descriptors that what is started may open.
    open_files: Option<u64>,
}

impl Lifeline {
    /// Opens it. Call once, before anything is started.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn open() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        rustix::io::fcntl_setfd(&read, rustix::io::FdFlags::empty())?;
        Ok(Self { read, _write: write, open_files: None })
    }

    /// What is started may open so many files: what the server was started with, not what it needs for
    /// itself, since programs that use `select` break with more.
    #[must_use]
    pub fn with_open_files(self, open_files: Option<u64>) -> Self {
        Self { open_files, ..self }
    }

    /// What to put before a command so that it is supervised: `program` is the path of an
    /// executable that calls [`launcher`] with its arguments.
    pub fn prefix(&self, program: &Path) -> Vec<OsString> {
        let descriptor = self.read.as_raw_fd().to_string();
        let mut words = vec![program.into(), SUBCOMMAND.into(), LIFELINE.into(), descriptor.into()];
        if let Some(open_files) = self.open_files {
            words.extend([OPEN_FILES.into(), open_files.to_string().into()]);
        }
        words.push(END_OF_OPTIONS.into());
        words
    }
}

/// Does what this program's own hidden subcommands are for; `None` when the arguments name none of them. To be
/// asked before anything else: the process must have no other thread.
pub fn launcher(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let first = args.next()?;
    if first == SUBCOMMAND {
        return Some(supervise(args, &Aside::of(environment)));
    }
    #[cfg(target_os = "linux")]
    if first == contain::ENTER {
        return Some(contain::enter(args, &Aside::of(environment)));
    }
    (first == contain::NOTHING).then(|| contain::nothing(args))
}

/// Runs a command to its end and takes everything it started with it.
///
/// `args` are those after [`SUBCOMMAND`]: `[--lifeline FD] [--open-files N] [--policy POLICY] -- COMMAND ARG…`. Ends
/// as the command ended: with its exit status, or by the same signal.
fn supervise(args: impl IntoIterator<Item = OsString>, aside: &Aside) -> ExitCode {
    let (lifeline, command) = match parse(args, aside) {
        Ok(parsed) => parsed,
        Err(why) => return refuse(&why),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("cannot wait for events: {error}")),
    };
    match runtime.block_on(watch(lifeline, command)) {
        Ok(status) => end_as(status),
        Err(error) => refuse(&error.to_string()),
    }
}

fn parse(
    args: impl IntoIterator<Item = OsString>,
    aside: &Aside,
) -> Result<(Option<OwnedFd>, Contained), String> {
    let mut args = args.into_iter();
    let mut lifeline = None;
    let mut policy = Policy::default();
    loop {
        let argument = args.next().ok_or("no command given")?;
        if argument == END_OF_OPTIONS {
            break;
        }
        if argument == POLICY {
            policy = contain::read_policy(&args.next().ok_or("no policy given")?)?;
            continue;
        }
        if argument == OPEN_FILES {
            let number = args.next().and_then(|number| number.to_str()?.parse().ok());
            limit_open_files(number.ok_or("`--open-files` needs a number")?)?;
            continue;
        }
        if argument != LIFELINE {
            return Err(format!("unknown option {}", argument.display()));
        }
        let number = args.next().and_then(|number| number.to_str()?.parse::<RawFd>().ok());
        let number = number.ok_or("`--lifeline` needs the number of a descriptor")?;
        lifeline = Some(crate::posix::adopt(number).map_err(|error| format!("no lifeline: {error}"))?);
    }
    let words: Vec<_> = args.collect();
    if words.is_empty() {
        return Err("no command given".to_owned());
    }
    let contained = contain::contained(&policy, &words, aside);
    Ok((lifeline, contained.map_err(|error| format!("cannot contain the command: {error}"))?))
}

/// The name under which a variable reaches the command and means nothing to whoever starts it, to this process and
/// its loader least of all.
pub(crate) fn set_aside(name: &OsStr) -> OsString {
    let mut aside = OsString::from(SET_ASIDE);
    aside.push(name);
    aside
}

/// Variables that were set aside for a command, by the names that it is to see.
pub(crate) struct Aside(Vec<(OsString, OsString)>);

impl Aside {
    fn of(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let meant = |(name, value): (OsString, OsString)| {
            let name = name.as_bytes().strip_prefix(SET_ASIDE.as_bytes())?;
            Some((OsStr::from_bytes(name).to_owned(), value))
        };
        Self(environment.into_iter().filter_map(meant).collect())
    }

    /// Gives them to the command, whose environment is otherwise that of this process.
    pub(crate) fn give(&self, command: &mut Command) {
        for (name, value) in &self.0 {
            command.env_remove(set_aside(name)).env(name, value);
        }
    }
}

/// Lowers what this process and its children may open.
fn limit_open_files(number: u64) -> Result<(), String> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(number), maximum })
        .map_err(|error| format!("cannot limit the open files to {number}: {error}"))
}

#[expect(clippy::print_stderr, reason = "the process is a launcher; its stderr is the replica's log")]
pub(crate) fn refuse(why: &str) -> ExitCode {
    eprintln!("postback supervisor: {why}");
    ExitCode::from(CANNOT_RUN)
}

async fn watch(lifeline: Option<OwnedFd>, mut contained: Contained) -> io::Result<ExitStatus> {
    let command = &mut contained.command;
    // Fails where the starter has done it already.
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let lifeline = lifeline.map(Receiver::from_owned_fd).transpose()?;
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked = signal(SignalKind::user_defined1())?;

    crate::posix::dies_with_starter(command);
    let child = command.stdin(std::process::Stdio::null()).spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("cannot start {}: {error}", command.get_program().display()))
    })?;
    let child = Pid::from_child(&child);
    contained.started()?;

    let mut status = None;
    while status.is_none() {
        tokio::select! {
            biased;
            () = gone(lifeline.as_ref()) => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = asked.recv() => {
                let _ = rustix::process::kill_process_group(contained.group(child), Signal::TERM);
            }
            _ = children.recv() => status = reap(child)?.status,
        }
    }
    let ended = match end_all(child)? {
        Some(killed) => status.unwrap_or(killed),
        None => status.ok_or_else(|| io::Error::other("the command vanished"))?,
    };
    Ok(contained.end().unwrap_or(ended))
}

/// Nothing is ever written to the lifeline: readable means closed.
async fn gone(lifeline: Option<&Receiver>) {
    match lifeline {
        Some(lifeline) => drop(lifeline.readable().await),
        None => std::future::pending().await,
    }
}

struct Reaped {
    /// How the command ended, if it was among them.
    status: Option<ExitStatus>,
    /// Whether there are children left.
    some_left: bool,
}

/// Collects every child that has ended: the command, and orphans that came to us.
fn reap(child: Pid) -> io::Result<Reaped> {
    let mut status = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, ended))) if pid == child => status = Some(ExitStatus::from_raw(ended.as_raw())),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return Ok(Reaped { status, some_left: true }),
            Err(rustix::io::Errno::CHILD) => return Ok(Reaped { status, some_left: false }),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills until no descendant is left; how the command ended, if that was not known yet.
fn end_all(child: Pid) -> io::Result<Option<ExitStatus>> {
    let mut status = None;
    loop {
        // The group of a command that was reaped is signalled all the same: its number stays taken
        // while the group has members, and who left it is found as a child below.
        let _ = rustix::process::kill_process_group(child, Signal::KILL);
        for descendant in descendants() {
            let _ = rustix::process::kill_process(descendant, Signal::KILL);
        }
        let reaped = reap(child)?;
        status = status.or(reaped.status);
        if !reaped.some_left {
            return Ok(status);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Everything below this process, parents before their children.
#[cfg(target_os = "linux")]
fn descendants() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut children = std::collections::HashMap::<i32, Vec<i32>>::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // `pid (name) state parent …`, where the name may hold anything.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&rustix::process::getpid().as_raw_pid()).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

#[cfg(not(target_os = "linux"))]
fn descendants() -> Vec<Pid> {
    Vec::new()
}

fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(code) = status.code() {
        return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
    }
    let signal = status.signal().unwrap_or(libc::SIGKILL);
    // The command dumped its core, if it was to; a second one of the supervisor helps nobody.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    crate::posix::die_by(signal);
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
