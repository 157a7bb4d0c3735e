//! The process of a replica: how it is started, what it prints besides its frames, how it ended,
//! and how it is ended.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use queue::contain::supervised;
use queue::log::Stream;
use queue::outcome::{Code, RunError};
use queue::registry::Prepared;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::printed::Splitter;
use crate::replica::Grants;
use crate::{Options, supervise};

/// The environment variable with the number of the inherited socket.
const SOCKET_VARIABLE: &str = "POSTBACK_SOCKET_FD";
/// Time the supervisor has to clear up before it is killed itself.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(2);
/// Batches of printed lines that wait for the replica's task; beyond them the printer waits.
const PRINTED_BATCHES_MAX: usize = 16;
const READ_BYTES: usize = 16 << 10;

/// Lines that came through stdout or stderr, not over the socket.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stream: Stream,
    /// Bytes read for them, line ends and what was cut off included.
    pub(crate) bytes: usize,
    pub(crate) lines: Vec<String>,
}

/// A process that was started for a replica.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Option<Pid>,
    /// Its parent is a supervisor, which takes the whole tree down when asked.
    supervised: bool,
    ended: Option<Exit>,
}

/// Starts a runner: its process, the worker's end of its socket, and what it prints.
///
/// # Errors
/// When the command cannot be executed.
pub(crate) fn start(
    options: &Options,
    prepared: &Prepared,
    grants: &Grants,
) -> io::Result<(Process, UnixStream, mpsc::Receiver<Printed>)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let words = [OsStr::new(&prepared.python), options.runner.as_os_str()];
    let socket = (SOCKET_VARIABLE.into(), theirs.as_raw_fd().to_string().into());
    let (process, printed) =
        spawn(options, prepared, grants, &words, vec![socket], Some(theirs.as_raw_fd()))?;
    drop(theirs);
    Ok((process, UnixStream::from_std(ours)?, printed))
}

/// Starts a program that needs no socket to the worker, with `environment` over that of every replica. That
/// comes from users, so it is the program's alone: the supervisor, who is not contained, is not to be told by it
/// what to load.
///
/// # Errors
/// When the command cannot be executed.
pub(crate) fn start_program(
    options: &Options,
    prepared: &Prepared,
    grants: &Grants,
    words: &[&OsStr],
    environment: Vec<(OsString, OsString)>,
) -> io::Result<(Process, mpsc::Receiver<Printed>)> {
    let environment = if options.supervisor.is_empty() {
        environment
    } else {
        environment.into_iter().map(|(name, value)| (supervise::set_aside(&name), value)).collect()
    };
    spawn(options, prepared, grants, words, environment, None)
}

fn spawn(
    options: &Options,
    prepared: &Prepared,
    grants: &Grants,
    words: &[&OsStr],
    environment: Vec<(OsString, OsString)>,
    inherited: Option<RawFd>,
) -> io::Result<(Process, mpsc::Receiver<Printed>)> {
    let supervisor = supervised(&options.supervisor, &grants.policy);
    let mut words = supervisor.iter().map(OsString::as_os_str).chain(words.iter().copied());
    let mut command = std::process::Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .current_dir(&prepared.folder)
        .env_clear()
        .envs(options.environment.iter().chain(&grants.environment).map(|(name, value)| (name, value)))
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    crate::posix::own_session_with(&mut command, inherited);
    let mut child = Command::from(command).spawn()?;

    let (sender, printed) = mpsc::channel(PRINTED_BATCHES_MAX);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(read_lines(stdout, Stream::Stdout, sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(read_lines(stderr, Stream::Stderr, sender));
    }
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let process = Process { child, pid, supervised: !options.supervisor.is_empty(), ended: None };
    Ok((process, printed))
}

async fn read_lines(mut pipe: impl AsyncRead + Unpin, stream: Stream, printed: mpsc::Sender<Printed>) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = pipe.read(&mut buffer).await.unwrap_or(0);
        let mut lines = Vec::new();
        if count == 0 {
            lines.extend(splitter.rest());
        } else {
            splitter.split(&buffer[..count], &mut lines);
        }
        let said = count > 0 || !lines.is_empty();
        if said && printed.send(Printed { stream, bytes: count, lines }).await.is_err() {
            return;
        }
        if count == 0 {
            return;
        }
    }
}

impl Process {
    /// Its number, and that of the root of all it starts.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. Cancel-safe, and answers again after the end.
    pub(crate) async fn ended(&mut self) -> Exit {
        if let Some(exit) = self.ended {
            return exit;
        }
        let exit = match self.child.wait().await {
            Ok(status) => Exit::from(status),
            // Somebody else reaped it; all that is known is that it is gone.
            Err(_) => Exit::Status(-1),
        };
        self.ended = Some(exit);
        exit
    }

    /// Asks it to end in its own way, as a server is asked that has requests to finish.
    pub(crate) fn ask_to_end(&self) {
        match (self.supervised, self.pid, self.ended) {
            (true, ..) => self.signal(supervise::ASK_TO_END),
            (false, Some(pid), None) => {
                let _ = rustix::process::kill_process_group(pid, Signal::TERM);
            }
            _ => {}
        }
    }

    /// Ends it with everything it started, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Exit {
        if self.supervised {
            self.signal(Signal::TERM);
            // User code may have stopped its parent.
            self.signal(Signal::CONT);
            if let Ok(exit) = tokio::time::timeout(SUPERVISOR_GRACE, self.ended()).await {
                return exit;
            }
        }
        self.kill_group();
        self.ended().await
    }

    fn kill_group(&self) {
        if let (Some(pid), None) = (self.pid, self.ended) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let (Some(pid), None) = (self.pid, self.ended) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    /// For a task that was dropped half-way; the usual end is [`Process::kill`] or an exit.
    fn drop(&mut self) {
        if self.supervised {
            self.signal(Signal::TERM);
        } else {
            self.kill_group();
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Status(i32),
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Status(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

impl Exit {
    /// Whether somebody else ended the process, or a system without memory did.
    pub(crate) fn is_from_outside(self) -> bool {
        matches!(self, Self::Signal(libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGHUP))
    }

    /// What a call that was under way has to say about it.
    pub(crate) fn error(self) -> RunError {
        let code = match self {
            Self::Status(_) => Code::WorkerExited,
            Self::Signal(_) => Code::WorkerCrashed,
        };
        RunError::new(code, format!("the replica ended while it worked on the run: {self}"))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Status(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "abort",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "arithmetic error",
        libc::SIGILL => "illegal instruction",
        libc::SIGKILL => "killed, as a system does that runs out of memory",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGTERM => "terminated",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_and_a_signal_read_differently() {
        assert_eq!(Exit::Status(139).to_string(), "exit status 139");
        assert_eq!(Exit::Signal(11).to_string(), "signal 11 (segmentation fault)");
        assert_eq!(Exit::Signal(11).error().code, Code::WorkerCrashed);
        assert_eq!(Exit::Status(0).error().code, Code::WorkerExited);
    }
}
