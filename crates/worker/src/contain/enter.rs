//! The last step before a contained program: this process, which is to become it, gives up what the policy
//! says, then executes it.
//!
//! In a pid namespace the launcher is process 1. There it stays, since somebody must collect orphans and tell
//! the supervisor how the program ended; when it goes, the kernel takes everything in the namespace with it.

use std::ffi::OsString;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use queue::contain::{Identity, Policy};
use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, set_capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};

use super::{GUARD, STATUS, Tier, calls, files, guard, notify};
use crate::supervise::{Aside, refuse};

/// Files that a contained process may open at most, whatever it asks for.
const OPEN_FILES_MAX: u64 = 65_536;
/// The highest capability that a kernel may have.
const CAPABILITIES_MAX: u32 = 64;
/// What an interpreter that was unpacked by its owner may be.
const CLOSED: &str = ": every app runs as a user of its own, to whom the program or its folder is closed; open it \
                      (`chmod -R o+rX`), or install one for all (`apt install python3`)";

/// `[--status FD] [--guard FD] POLICY -- COMMAND ARG…`: becomes the command, or runs it as process 1.
pub(crate) fn enter(args: impl IntoIterator<Item = OsString>, aside: &Aside) -> ExitCode {
    let Arguments { policy, status, guard, words } = match parse(args) {
        Ok(parsed) => parsed,
        Err(why) => return refuse(&why),
    };
    let program = PathBuf::from(&words[0]);
    let mut command = Command::new(&program);
    command.args(&words[1..]);
    aside.give(&mut command);
    if policy.tier >= Tier::S2 {
        let is_another = policy.identity.is_some();
        return match run_as_init(policy, guard, &program, command, status) {
            Ok(code) => code,
            Err(error) => {
                let closed = is_another && error.kind() == io::ErrorKind::PermissionDenied;
                let hint = if closed { CLOSED } else { "" };
                refuse(&format!("cannot start {}: {error}{hint}", program.display()))
            }
        };
    }
    if let Err(why) = restrict(&policy, guard.as_ref(), &program) {
        return refuse(&why);
    }
    let error = command.exec();
    refuse(&format!("cannot start {}: {error}", program.display()))
}

struct Arguments {
    policy: Policy,
    status: Option<PipeWriter>,
    guard: Option<UnixStream>,
    words: Vec<OsString>,
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Arguments, String> {
    let mut args = args.into_iter();
    let (mut status, mut guard) = (None, None);
    let policy = loop {
        let argument = args.next().ok_or("no policy given")?;
        if argument != STATUS && argument != GUARD {
            break super::read_policy(&argument)?;
        }
        let number = args.next().and_then(|number| number.to_str()?.parse::<RawFd>().ok());
        let number =
            number.ok_or_else(|| format!("`{}` needs the number of a descriptor", argument.display()))?;
        let adopted = crate::posix::adopt(number).map_err(|error| format!("no descriptor: {error}"))?;
        if argument == STATUS {
            status = Some(PipeWriter::from(adopted));
        } else {
            guard = Some(UnixStream::from(adopted));
        }
    };
    if args.next().is_none_or(|argument| argument != "--") {
        return Err("no command given".to_owned());
    }
    let words: Vec<_> = args.collect();
    if words.is_empty() {
        Err("no command given".to_owned())
    } else {
        Ok(Arguments { policy, status, guard, words })
    }
}

/// Gives up everything that the policy does not grant. The order matters: each step takes rights that an
/// earlier one needs.
fn restrict(policy: &Policy, guard: Option<&UnixStream>, program: &Path) -> Result<(), String> {
    rustix::process::umask(Mode::from_raw_mode(if policy.identity.is_some() { 0o002 } else { 0o022 }));
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let maximum = maximum.map_or(OPEN_FILES_MAX, |maximum| maximum.min(OPEN_FILES_MAX));
    let current = current.map_or(maximum, |current| current.min(maximum));
    let limit = |resource, current, maximum| {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
            .map_err(|error| format!("cannot set a limit: {error}"))
    };
    limit(Resource::Nofile, current, maximum)?;
    limit(Resource::Core, 0, 0)?;
    if let Some(bytes) = policy.file_bytes {
        limit(Resource::Fsize, bytes, bytes)?;
    }
    // In a user namespace it counts what is in the namespace; elsewhere all that the user has.
    if policy.tier >= Tier::S2
        && policy.identity.is_none()
        && let Some(processes) = policy.processes
    {
        limit(Resource::Nproc, processes, processes)?;
    }
    // What cannot be dropped here cannot be gained either: `no_new_privs` below sees to it.
    for number in 0..CAPABILITIES_MAX {
        let _ =
            rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number));
    }
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    let _ = set_capabilities_secure_bits(bits);
    if let Some(identity) = policy.identity {
        become_user(identity).map_err(|error| format!("cannot become the app's user: {error}"))?;
    }
    drop_capabilities().map_err(|error| format!("cannot drop capabilities: {error}"))?;
    set_no_new_privs(true).map_err(|error| format!("cannot refuse new privileges: {error}"))?;
    files::restrict(policy, program, rustix::process::geteuid().is_root())
        .map_err(|why| format!("cannot restrict files: {why}"))?;
    calls::restrict(&policy.network).map_err(|why| format!("cannot restrict system calls: {why}"))?;
    let guarded = match guard {
        Some(guard) => {
            notify::ask_about_connections().and_then(|listener| guard::hand_over(guard, &listener))
        }
        None => notify::refuse_other_word_size(),
    };
    guarded.map_err(|error| format!("cannot guard connections: {error}"))
}

fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

fn become_user(Identity { user, group }: Identity) -> io::Result<()> {
    let (user, group) = (rustix::process::Uid::from_raw(user), rustix::process::Gid::from_raw(group));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// Runs the command, collects whatever ends meanwhile, and tells how the command ended.
fn run_as_init(
    policy: Policy,
    guard: Option<UnixStream>,
    program: &Path,
    mut command: Command,
    status: Option<PipeWriter>,
) -> io::Result<ExitCode> {
    let program = program.to_owned();
    crate::posix::before_exec(&mut command, move || {
        restrict(&policy, guard.as_ref(), &program).map_err(|why| {
            // Only a number would reach the parent.
            refuse(&why);
            io::Error::from(io::ErrorKind::PermissionDenied)
        })
    });
    let child = Pid::from_child(&command.spawn()?);
    drop_capabilities()?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, ended))) if pid == child => {
                if let Some(mut status) = status {
                    status.write_all(&ended.as_raw().to_ne_bytes())?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
