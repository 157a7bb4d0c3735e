//! The kernel's side of asking about connections: a filter that hands every `connect` of a process to whoever
//! holds its listener, and the words in which the two speak.
#![expect(
    unsafe_code,
    reason = "installing a filter, and three ioctls, which nobody offers as safe functions"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// From here every later syscall number is of the other word size, which the tables do not know.
#[cfg(target_arch = "x86_64")]
const OTHER_WORD_SIZE: u32 = 0x4000_0000;

/// A `connect` that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    id: u64,
    /// The thread that asks.
    pub(super) thread: u32,
    /// Its socket, by its own number.
    pub(super) socket: i32,
    /// Where the address is in its memory, …
    pub(super) address: u64,
    /// … and how long it is.
    pub(super) length: u64,
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

fn program(asks: bool) -> Vec<libc::sock_filter> {
    let number = u32::try_from(std::mem::offset_of!(libc::seccomp_data, nr)).unwrap_or_default();
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let same = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = |with: u32| instruction(libc::BPF_RET | libc::BPF_K, with, 0, 0);
    let mut program = vec![instruction(load, number, 0, 0)];
    #[cfg(target_arch = "x86_64")]
    {
        let above = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
        program.push(instruction(above, OTHER_WORD_SIZE, 0, 1));
        program.push(answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()));
    }
    if asks {
        program.push(instruction(same, u32::try_from(libc::SYS_connect).unwrap_or_default(), 0, 1));
        program.push(answer(libc::SECCOMP_RET_USER_NOTIF));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// From here on every `connect` of this process and of what it starts is a [`Question`] to the listener.
pub(super) fn ask_about_connections() -> io::Result<OwnedFd> {
    let program = program(true);
    let killable = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // Before Linux 5.19 a signal may interrupt a question; the program then asks again.
    install(&program, killable)
        .or_else(|_| install(&program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER))
        .and_then(|descriptor| {
            let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
            // SAFETY: the kernel just made it for us, and nobody else knows it.
            Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
        })
}

/// Refuses calls of the other word size alone.
pub(super) fn refuse_other_word_size() -> io::Result<()> {
    install(&program(false), 0).map(drop)
}

fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives until the call returns, and writes nothing.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// Waits for the next question. An error other than `Interrupted` or `NotFound` means that nobody is left.
pub(super) fn next_question(listener: impl AsFd) -> io::Result<Question> {
    // SAFETY: all zeros is a value of this struct of numbers, and the one that the kernel asks for.
    let mut heard: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &mut heard)?;
    let [socket, address, length, ..] = heard.data.args;
    // The kernel reads the lower half of the register, too.
    let [.., a, b, c, d] = socket.to_be_bytes();
    let socket = i32::from_be_bytes([a, b, c, d]);
    let [.., a, b, c, d] = length.to_be_bytes();
    let length = u64::from(u32::from_be_bytes([a, b, c, d]));
    Ok(Question { id: heard.id, thread: heard.pid, socket, address, length })
}

/// Whether whoever asked still waits, so that its thread's number was its own until now.
pub(super) fn still_waits(listener: impl AsFd, question: &Question) -> bool {
    let mut id = question.id;
    ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
}

/// Lets the call return.
pub(super) fn answer(listener: impl AsFd, question: &Question, result: io::Result<()>) {
    let error = result.err().map_or(0, |error| -error.raw_os_error().unwrap_or(libc::EACCES));
    let mut answer = libc::seccomp_notif_resp { id: question.id, val: 0, error, flags: 0 };
    // Whoever asked may be gone.
    let _ = ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &mut answer);
}

fn ioctl<T>(listener: impl AsFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: each caller passes the type that its request reads and writes.
    let done = unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), request, &raw mut *argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
