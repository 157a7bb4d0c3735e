//! The few system calls that neither the standard library nor rustix offer as safe functions: what
//! must happen between fork and exec, and two moves of a process on itself.
#![expect(unsafe_code, reason = "pre_exec, adopting an inherited descriptor and signal dispositions")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::FdFlags;

/// The command starts in a session of its own and inherits `descriptor`, if there is one, which stays
/// close-on-exec here, so that nothing else started meanwhile gets it.
pub(crate) fn own_session_with(command: &mut Command, descriptor: Option<RawFd>) {
    // SAFETY: the closure runs between fork and exec and makes two system calls, both
    // async-signal-safe; it allocates nothing. The caller keeps `descriptor` open until the spawn.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if let Some(descriptor) = descriptor {
                rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(descriptor), FdFlags::empty())?;
            }
            Ok(())
        });
    }
}

/// The command gets a process group of its own and, on Linux, dies with the thread that starts it.
pub(crate) fn dies_with_starter(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let starter = rustix::process::getpid();
        // SAFETY: the closure runs between fork and exec and makes two async-signal-safe system
        // calls; it allocates nothing.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                // The starter may have died before the line above.
                if rustix::process::getppid() == Some(starter) {
                    Ok(())
                } else {
                    Err(io::ErrorKind::BrokenPipe.into())
                }
            });
        }
    }
}

/// Does `step` between fork and exec. Only for processes that have one thread: there the child may do whatever
/// its parent may, since nobody else can hold a lock.
#[cfg(target_os = "linux")]
pub(crate) fn before_exec(
    command: &mut Command,
    step: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: by the promise above the child is a whole copy of its parent: no lock is held by a thread that
    // it lacks, so allocating and writing are as safe as before the fork.
    unsafe {
        command.pre_exec(step);
    }
}

/// Takes over a descriptor that this process was started with, and keeps it from its children.
pub(crate) fn adopt(descriptor: RawFd) -> io::Result<OwnedFd> {
    if descriptor <= 2 {
        return Err(io::Error::other("the standard streams cannot be adopted"));
    }
    // SAFETY: only asked about, and only until the end of the statement; an unused number is
    // answered with EBADF.
    rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(descriptor) }, FdFlags::CLOEXEC)?;
    // SAFETY: it is open (the line above), was inherited for this purpose, and this function is
    // called once, first thing, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Ends this process by `signal`, so that its parent sees what its child saw. Returns only for a
/// signal that does not end processes.
pub(crate) fn die_by(signal: c_int) {
    // SAFETY: gives a signal its default action and sends it to this process; no memory is touched.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
