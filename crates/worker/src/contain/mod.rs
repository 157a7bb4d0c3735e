//! Containment: what the machine offers to keep code of users from the rest of it, and the launcher that uses
//! it.
//!
//! ```text
//! server ─► supervisor ─► launcher ─► program                     S1
//! server ─► supervisor ─► bwrap ─► launcher, process 1 ─► program S2, S3
//! ```
//!
//! Promises: a process gets the tier that was chosen at the start, or it is not started; nothing that it is
//! not granted by its [`Policy`] is left to it when its first instruction runs.

mod examine;

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod enter;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod folders;
mod groups;
#[cfg(target_os = "linux")]
mod guard;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod notify;

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use queue::contain::{Network, Policy, Tier};
use rustix::process::{Pid, getpgid};

use crate::memory::read_tree;
use crate::supervise::Aside;

#[cfg(target_os = "linux")]
pub(crate) use enter::enter;
pub use examine::{Containment, Lack, Machine, examine};
pub(crate) use groups::Group;
pub use groups::Groups;

/// The hidden subcommand that becomes a contained program.
pub(crate) const ENTER: &str = "__confine";
/// The hidden subcommand that does nothing, which shows that a program can be started.
pub(crate) const NOTHING: &str = "__nothing";
const STATUS: &str = "--status";
const GUARD: &str = "--guard";
/// A port that the trial of the guard takes for the server's.
const TRIAL_PORT: u16 = 1;
/// Of 1,000: a replica rather than the server, or whatever else the machine is for.
const FIRST_TO_GO: &str = "500";
/// Where apps that were written for Cerebrium look for what outlives them.
const STORAGE: &str = "/persistent-storage";

/// Whether the kernel can keep a process from files.
fn files_can_be_restricted() -> bool {
    #[cfg(target_os = "linux")]
    return files::is_there();
    #[cfg(not(target_os = "linux"))]
    return false;
}

/// Does nothing, with success; or, where connections are guarded, makes sure that they are.
pub(crate) fn nothing(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    if args.next().is_none_or(|argument| argument != GUARD) {
        return ExitCode::SUCCESS;
    }
    // Without the guard somebody would answer there, or nobody.
    let refused = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, TRIAL_PORT))
        .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if refused { ExitCode::SUCCESS } else { crate::supervise::refuse("connections are not guarded") }
}

pub(crate) fn read_policy(text: &OsStr) -> Result<Policy, String> {
    let text = text.to_str().ok_or("the policy is not UTF-8")?;
    serde_json::from_str(text).map_err(|error| format!("the policy cannot be read: {error}"))
}

/// The command of a contained program, and what the supervisor has to do with it.
#[derive(Debug)]
pub(crate) struct Contained {
    pub(crate) command: Command,
    policy: Policy,
    /// The supervisor's ends of what the program's launcher inherits.
    status: Option<PipeReader>,
    listener: Option<UnixStream>,
    /// The launcher's ends, kept until it was started.
    inherited: Vec<OwnedFd>,
}

impl Contained {
    fn new(command: Command, policy: &Policy) -> Self {
        let policy = policy.clone();
        Self { command, policy, status: None, listener: None, inherited: Vec::new() }
    }

    /// What is left to do once the command was started.
    ///
    /// # Errors
    /// When the machine has no threads left.
    pub(crate) fn started(&mut self) -> io::Result<()> {
        self.inherited.clear();
        #[cfg(target_os = "linux")]
        if let (Network::Guarded { own_ports }, Some(listener)) = (&self.policy.network, self.listener.take())
        {
            guard::watch(listener, &self.policy, own_ports.clone())?;
        }
        Ok(())
    }

    /// The group of the program, of which `child` was started: what makes its namespaces takes them down when it is
    /// signalled, so the group is that of its only child, which has a session of its own.
    pub(crate) fn group(&self, child: Pid) -> Pid {
        if self.policy.tier < Tier::S2 {
            return child;
        }
        let mut tree = Vec::new();
        read_tree(child.as_raw_pid().unsigned_abs(), &mut tree);
        let launcher = tree.get(1).and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        launcher.and_then(|launcher| getpgid(Some(launcher)).ok()).unwrap_or(child)
    }

    /// How the program ended, if its launcher was its parent. Asked when nobody is left.
    pub(crate) fn end(self) -> Option<ExitStatus> {
        let mut status = [0; 4];
        self.status?.read_exact(&mut status).ok()?;
        Some(ExitStatus::from_raw(i32::from_ne_bytes(status)))
    }
}

/// What to start for `words` under a policy.
#[cfg(target_os = "linux")]
pub(crate) fn contained(policy: &Policy, words: &[OsString], aside: &Aside) -> io::Result<Contained> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    if policy.tier == Tier::S0 {
        let mut command = Command::new(program);
        command.args(arguments);
        aside.give(&mut command);
        return Ok(joining(Contained::new(command, policy)));
    }
    let launcher = std::env::current_exe()?;
    let mut command = if policy.tier == Tier::S1 {
        Command::new(launcher)
    } else {
        let bubblewrap = policy.bubblewrap.as_deref();
        let bubblewrap = bubblewrap.ok_or_else(|| io::Error::other("no bubblewrap is named"))?;
        let folder = std::env::current_dir()?;
        let prefix = namespaces::command(policy, bubblewrap, &launcher, &folder, program.as_ref());
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]);
        command
    };
    command.arg(ENTER);
    let mut contained = Contained::new(command, policy);
    if policy.tier >= Tier::S2 {
        let (reader, writer) = io::pipe()?;
        contained.status = Some(reader);
        contained.inherit(STATUS, writer.into())?;
    }
    if matches!(policy.network, Network::Guarded { .. }) {
        let (ours, theirs) = UnixStream::pair()?;
        contained.listener = Some(ours);
        contained.inherit(GUARD, theirs.into())?;
    }
    let policy: OsString = serde_json::to_string(policy)?.into();
    contained.command.args([policy, "--".into()]).args(words);
    Ok(joining(contained))
}

#[cfg(target_os = "linux")]
impl Contained {
    /// The launcher gets a descriptor, and is told its number.
    fn inherit(&mut self, option: &str, descriptor: OwnedFd) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty())?;
        self.command.args([option, &descriptor.as_raw_fd().to_string()]);
        self.inherited.push(descriptor);
        Ok(())
    }
}

/// The command joins its control groups before anything of it runs, and is the first to go when the machine has
/// no memory left.
#[cfg(target_os = "linux")]
fn joining(mut contained: Contained) -> Contained {
    let groups = contained.policy.control_groups.clone();
    if contained.policy != Policy::default() {
        crate::posix::before_exec(&mut contained.command, move || {
            let _ = std::fs::write("/proc/self/oom_score_adj", FIRST_TO_GO);
            groups.iter().try_for_each(|group| std::fs::write(format!("{group}/cgroup.procs"), "0"))
        });
    }
    contained
}

/// Elsewhere there is only the weakest tier.
#[cfg(not(target_os = "linux"))]
pub(crate) fn contained(policy: &Policy, words: &[OsString], aside: &Aside) -> io::Result<Contained> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    if policy.tier != Tier::S0 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut command = Command::new(program);
    command.args(arguments);
    aside.give(&mut command);
    Ok(Contained::new(command, policy))
}
