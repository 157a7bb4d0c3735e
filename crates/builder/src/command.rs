//! Runs the commands of a build, the user's and our own: supervised, in a process group of their own, with
//! an environment we chose, their output read line by line, within the build's limit.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use queue::contain::{Policy, Tier, supervised};
use queue::limits::LOG_LINE_BYTES_MAX;
use queue::log::Stream;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::build_log::BuildLog;

/// Time the supervisor has to end everything below it.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// Time that output may still come after the command has ended.
const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// Output kept of a command whose output is an answer.
const CAPTURED_BYTES_MAX: usize = 1 << 20;

/// When a command must not go on.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// Somebody stopped the build, or the server stops.
    pub(crate) token: CancellationToken,
    /// The build's limit …
    pub(crate) limit: Duration,
    /// … and when it is reached.
    pub(crate) deadline: Instant,
}

fn spoken(limit: Duration) -> String {
    match limit.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot start {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("{program} {how}")]
    Failed { program: String, how: String },
    #[error("the build was stopped")]
    Stopped,
    #[error("the build took longer than {}", spoken(*limit))]
    TimedOut { limit: Duration },
}

/// How this server runs commands.
#[derive(Debug)]
pub(crate) struct Commands {
    /// Put before every command: ends it and all it started when the server is gone. May be empty.
    pub(crate) supervisor: Vec<OsString>,
    /// The environment of every command.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// How commands that run code of strangers are contained: what each is granted comes on top.
    pub(crate) policy: Policy,
    /// Such commands have their temporary folders below it.
    pub(crate) scratch: PathBuf,
}

/// What a command runs that is not ours, and what it needs for that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers {
    /// Programs that it runs.
    pub(crate) programs: Vec<PathBuf>,
    /// Files and folders that it may read.
    pub(crate) read: Vec<PathBuf>,
    /// Folders that it may write to.
    pub(crate) write: Vec<PathBuf>,
}

/// One command.
pub(crate) struct Invocation<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: &'a Path,
    /// Beside the environment of every command.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// It runs code of strangers: an app's commands, or the builds of packages.
    pub(crate) strangers: Option<Strangers>,
}

impl Commands {
    /// Runs a command; what it prints goes to the build's log.
    pub(crate) async fn run(
        &self,
        invocation: Invocation<'_>,
        log: &BuildLog,
        stop: &Stop,
    ) -> Result<(), CommandError> {
        let ended = self.run_reading(&invocation, stop, |stream, line| log.printed(stream, line)).await;
        log.end_of_output();
        succeeded(invocation.program, ended?)
    }

    /// Runs a command whose standard output is an answer; its standard error becomes part of the failure.
    pub(crate) async fn answer(
        &self,
        invocation: Invocation<'_>,
        stop: &Stop,
    ) -> Result<String, CommandError> {
        let (mut output, mut complaint) = (String::new(), String::new());
        let status = self
            .run_reading(&invocation, stop, |stream, line| {
                let kept = if stream == Stream::Stdout { &mut output } else { &mut complaint };
                if kept.len() + line.len() < CAPTURED_BYTES_MAX {
                    kept.push_str(line);
                    kept.push('\n');
                }
            })
            .await?;
        succeeded(invocation.program, status).map_err(|error| match (error, complaint.trim_end()) {
            (CommandError::Failed { program, how }, complaint) if !complaint.is_empty() => {
                CommandError::Failed { program, how: format!("{how}:\n{complaint}") }
            }
            (error, _) => error,
        })?;
        Ok(output)
    }

    async fn run_reading(
        &self,
        invocation: &Invocation<'_>,
        stop: &Stop,
        mut read: impl FnMut(Stream, &str),
    ) -> Result<ExitStatus, CommandError> {
        if stop.token.is_cancelled() {
            return Err(CommandError::Stopped);
        }
        let tmp = self.tmp_for(invocation)?;
        let mut child = self.spawn(invocation, tmp.as_ref().map(tempfile::TempDir::path))?;
        let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let mut stdout = Lines::new(child.stdout.take());
        let mut stderr = Lines::new(child.stderr.take());
        let mut ended = None;
        let mut drained = Instant::now() + Duration::from_secs(86_400 * 365);
        while ended.is_none() || stdout.open || stderr.open {
            tokio::select! {
                biased;
                () = stop.token.cancelled(), if ended.is_none() => {
                    self.end(&mut child, group).await;
                    return Err(CommandError::Stopped);
                }
                () = tokio::time::sleep_until(stop.deadline), if ended.is_none() => {
                    self.end(&mut child, group).await;
                    return Err(CommandError::TimedOut { limit: stop.limit });
                }
                bytes = stdout.fill(), if stdout.open => stdout.split(bytes, |line| read(Stream::Stdout, line)),
                bytes = stderr.fill(), if stderr.open => stderr.split(bytes, |line| read(Stream::Stderr, line)),
                status = child.wait(), if ended.is_none() => {
                    ended = Some(status);
                    drained = Instant::now() + DRAIN_GRACE;
                    // What the command left behind does not outlive it.
                    self.kill_group(group);
                }
                // Something that left the group holds the pipe; its output is nobody's.
                () = tokio::time::sleep_until(drained), if ended.is_some() => break,
            }
        }
        match ended {
            Some(Ok(status)) => Ok(status),
            Some(Err(source)) => Err(CommandError::Spawn { program: name(invocation.program), source }),
            None => Err(CommandError::Stopped),
        }
    }

    /// A temporary folder for a command that is contained.
    fn tmp_for(&self, invocation: &Invocation<'_>) -> Result<Option<tempfile::TempDir>, CommandError> {
        if invocation.strangers.is_none() || self.policy.tier == Tier::S0 {
            return Ok(None);
        }
        let made = std::fs::create_dir_all(&self.scratch)
            .and_then(|()| tempfile::Builder::new().prefix("build-").tempdir_in(&self.scratch));
        made.map(Some).map_err(|source| CommandError::Spawn { program: name(invocation.program), source })
    }

    /// What a command is granted: what it needs, and a temporary folder.
    fn policy_of(&self, invocation: &Invocation<'_>, tmp: Option<&Path>) -> Policy {
        let (Some(strangers), Some(tmp)) = (&invocation.strangers, tmp) else { return Policy::default() };
        let texts = |paths: &[PathBuf]| {
            paths.iter().filter_map(|path| Some(path.to_str()?.to_owned())).collect::<Vec<_>>()
        };
        let mut policy = self.policy.clone();
        policy.programs.extend(texts(&strangers.programs));
        policy.read.extend(texts(&strangers.read));
        policy.write.extend(texts(&strangers.write));
        policy.tmp = tmp.to_str().map(str::to_owned);
        policy
    }

    fn spawn(&self, invocation: &Invocation<'_>, tmp: Option<&Path>) -> Result<Child, CommandError> {
        let policy = self.policy_of(invocation, tmp);
        let own_tmp = tmp.map(|tmp| if policy.tier >= Tier::S2 { Path::new("/tmp") } else { tmp });
        let supervisor = supervised(&self.supervisor, &policy);
        let mut words = supervisor.iter().map(OsString::as_os_str).chain([invocation.program.as_os_str()]);
        let first = words.next().unwrap_or(OsStr::new(""));
        let mut command = Command::new(first);
        command
            .args(words)
            .args(&invocation.arguments)
            .current_dir(invocation.folder)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(invocation.environment.iter().map(|(name, value)| (name, value)))
            .envs(own_tmp.map(|tmp| ("TMPDIR", tmp)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if self.supervisor.is_empty() {
            // A supervisor makes a session of its own, which a group's leader cannot.
            command.process_group(0);
        }
        command.spawn().map_err(|source| CommandError::Spawn { program: name(invocation.program), source })
    }

    /// Ends a command with everything it started.
    async fn end(&self, child: &mut Child, group: Option<Pid>) {
        if !self.supervisor.is_empty()
            && let Some(pid) = group
            && rustix::process::kill_process(pid, Signal::TERM).is_ok()
            && tokio::time::timeout(KILL_GRACE, child.wait()).await.is_ok()
        {
            return;
        }
        self.kill_group(group);
        let _ = child.kill().await;
    }

    fn kill_group(&self, group: Option<Pid>) {
        if self.supervisor.is_empty()
            && let Some(group) = group
        {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

fn name(program: &Path) -> String {
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

fn succeeded(program: &Path, status: ExitStatus) -> Result<(), CommandError> {
    use std::os::unix::process::ExitStatusExt as _;
    let how = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(9)) => "was killed (out of memory?)".to_owned(),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    };
    Err(CommandError::Failed { program: name(program), how })
}

/// Cuts a stream of bytes into lines. Progress bars end theirs with a carriage return.
struct Lines<R> {
    input: Option<R>,
    buffer: Vec<u8>,
    line: Vec<u8>,
    open: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(input: Option<R>) -> Self {
        Self { open: input.is_some(), input, buffer: vec![0; 8 << 10], line: Vec::new() }
    }

    /// Reads once, and returns how many bytes there are now; 0 at the end. Dropping it loses nothing.
    async fn fill(&mut self) -> usize {
        match &mut self.input {
            Some(input) => input.read(&mut self.buffer).await.unwrap_or(0),
            None => 0,
        }
    }

    /// Hands out the lines that are whole after a [`Lines::fill`].
    fn split(&mut self, bytes: usize, mut each: impl FnMut(&str)) {
        for byte in &self.buffer[..bytes] {
            match byte {
                b'\n' | b'\r' => Self::flush(&mut self.line, &mut each),
                _ if self.line.len() < LOG_LINE_BYTES_MAX => self.line.push(*byte),
                _ => {}
            }
        }
        if bytes == 0 {
            Self::flush(&mut self.line, &mut each);
            self.open = false;
        }
    }

    fn flush(line: &mut Vec<u8>, each: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(line);
        if !text.trim().is_empty() {
            each(text.trim_end());
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Commands {
        Commands {
            supervisor: Vec::new(),
            environment: vec![("GIVEN".into(), "yes".into())],
            policy: Policy::default(),
            scratch: std::env::temp_dir(),
        }
    }

    fn shell(script: &str) -> Invocation<'_> {
        Invocation {
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            folder: Path::new("/"),
            environment: vec![("OWN".into(), "too".into())],
            strangers: None,
        }
    }

    fn within(limit: Duration) -> Stop {
        Stop { token: CancellationToken::new(), limit, deadline: Instant::now() + limit }
    }

    async fn answer(script: &str) -> Result<String, CommandError> {
        commands().answer(shell(script), &within(Duration::from_secs(60))).await
    }

    #[tokio::test]
    async fn a_command_sees_only_the_environment_it_was_given() {
        let seen = answer("env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort").await.unwrap();
        assert_eq!(seen, "GIVEN=yes\nOWN=too\n");
    }

    #[tokio::test]
    async fn output_comes_line_by_line_bounded_and_without_progress_bars_joined() {
        let seen = answer("printf 'a\\r50%%\\r100%%\\n\\nlast without end'").await.unwrap();
        assert_eq!(seen, "a\n50%\n100%\nlast without end\n");
        let long = answer("head -c 100000 /dev/zero | tr '\\0' x").await.unwrap();
        assert_eq!(long.len(), LOG_LINE_BYTES_MAX + 1);
    }

    #[tokio::test]
    async fn a_failure_says_how_the_command_ended_and_what_it_complained() {
        let error = answer("echo oh no >&2; exit 4").await.unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status 4:\noh no");
        assert_eq!(answer("kill -TERM $$").await.unwrap_err().to_string(), "sh was ended by signal 15");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_ended() {
        let stop = Stop { limit: Duration::from_secs(3600), ..within(Duration::from_millis(50)) };
        let error = commands().answer(shell("sleep 600"), &stop).await.unwrap_err();
        assert_eq!(error.to_string(), "the build took longer than 60 minutes");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_neither_outlives_it_nor_holds_it_up() {
        let began = Instant::now();
        let pid = answer("sleep 600 & echo $!").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(30));
        // A killed process takes a moment to go, and may stay a zombie for a while.
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(began.elapsed() < Duration::from_secs(30), "it runs on");
            tokio::task::yield_now().await;
        }
    }
}
