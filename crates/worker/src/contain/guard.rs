//! The guard of connections: the supervisor makes them in place of the contained process, where they may go.
//!
//! A filter cannot look at addresses, which lie in memory, and what a process wrote there it can change after
//! it was looked at. So nothing that was judged is looked at twice: the address is copied once, the socket too,
//! and the connection is made from here, to the copy. Servers of the process itself are not affected: it
//! binds, listens and accepts as ever.
//!
//! Local sockets are connected to only inside the folders that the process may write to.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use queue::contain::{Policy, Tier, is_forbidden};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::notify::{self, Question};

/// The longest address that there is.
const ADDRESS_BYTES_MAX: u64 = 128;
/// Connections that wait for their other end at once, each with a thread of its own.
const WAITING_MAX: usize = 256;
/// What a thread needs that makes one system call.
const STACK_BYTES: usize = 64 << 10;

/// Hands the listener of a filter to the supervisor.
pub(super) fn hand_over(to: &UnixStream, listener: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(to, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

fn take_over(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let handed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    handed.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// What a process may connect to.
#[derive(Debug)]
struct Rules {
    own_ports: Vec<u16>,
    /// Where its local sockets may lie; everywhere, when it sees nothing else anyway.
    folders: Option<Vec<PathBuf>>,
}

/// Answers the questions of the process whose listener comes through `from`, until it is gone.
pub(crate) fn watch(from: UnixStream, policy: &Policy, own_ports: Vec<u16>) -> io::Result<()> {
    let folders =
        (policy.tier < Tier::S2).then(|| policy.write.iter().chain(&policy.tmp).map(PathBuf::from).collect());
    let rules = Rules { own_ports, folders };
    let begin = move || {
        let Ok(listener) = take_over(&from).map(Arc::new) else { return };
        drop(from);
        loop {
            match notify::next_question(&listener) {
                Ok(question) => consider(&listener, question, &rules),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::NotFound) => {}
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().stack_size(STACK_BYTES * 4).name("guard".to_owned()).spawn(begin).map(drop)
}

/// Answers one question, in a thread of its own if that may take long.
fn consider(listener: &Arc<OwnedFd>, question: Question, rules: &Rules) {
    let (socket, target) = match judge(listener, question, rules) {
        Ok(judged) => judged,
        Err(error) => return notify::answer(listener, &question, Err(error)),
    };
    let waits = matches!(target, Target::Internet(_))
        && rustix::net::sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && rustix::fs::fcntl_getfl(&socket).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK));
    if !waits {
        return notify::answer(listener, &question, connect(&socket, &target));
    }
    if Arc::strong_count(listener) > WAITING_MAX {
        return notify::answer(listener, &question, Err(io::Error::from_raw_os_error(libc::EAGAIN)));
    }
    let kept = Arc::clone(listener);
    let wait = move || notify::answer(&kept, &question, connect(&socket, &target));
    if std::thread::Builder::new().stack_size(STACK_BYTES).spawn(wait).is_err() {
        notify::answer(listener, &question, Err(io::Error::from_raw_os_error(libc::EAGAIN)));
    }
}

enum Target {
    Internet(SocketAddr),
    Local(SocketAddrUnix, OwnedFd),
    Nobody,
}

fn connect(socket: &OwnedFd, target: &Target) -> io::Result<()> {
    match target {
        Target::Internet(address) => rustix::net::connect(socket, address)?,
        Target::Local(address, _found) => rustix::net::connect(socket, address)?,
        Target::Nobody => rustix::net::connect_unspec(socket)?,
    }
    Ok(())
}

fn judge(listener: &OwnedFd, question: Question, rules: &Rules) -> io::Result<(OwnedFd, Target)> {
    if question.length > ADDRESS_BYTES_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let process = PathBuf::from(format!("/proc/{}", question.thread));
    let mut bytes = vec![0; usize::try_from(question.length).unwrap_or_default()];
    File::open(process.join("mem"))?
        .read_exact_at(&mut bytes, question.address)
        .map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let pid = process_of(&process).ok_or(io::ErrorKind::NotFound)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let socket = rustix::process::pidfd_getfd(&pidfd, question.socket, PidfdGetfdFlags::empty())?;
    let target = read_address(&bytes, &process)?;
    // Whatever was read above was read of the process that asked.
    if !notify::still_waits(listener, &question) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let refused = || io::Error::from_raw_os_error(libc::EACCES);
    match &target {
        Target::Internet(address)
            if is_forbidden(address.ip(), address.port(), &rules.own_ports, is_of_this_machine) =>
        {
            Err(refused())
        }
        Target::Local(_, found) if !rules.allow(found) => Err(refused()),
        _ => Ok((socket, target)),
    }
}

impl Rules {
    fn allow(&self, found: &OwnedFd) -> bool {
        let Some(folders) = &self.folders else { return true };
        let place = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()));
        place.is_ok_and(|place| folders.iter().any(|folder| place.starts_with(folder)))
    }
}

/// The process of a thread.
fn process_of(thread: &Path) -> Option<Pid> {
    let status = fs::read_to_string(thread.join("status")).ok()?;
    let number = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Pid::from_raw(number.trim().parse().ok()?)
}

/// Only an address of this machine can be bound.
fn is_of_this_machine(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

fn read_address(bytes: &[u8], process: &Path) -> io::Result<Target> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let (family, rest) = bytes.split_first_chunk::<2>().ok_or_else(invalid)?;
    match AddressFamily::from_raw(u16::from_ne_bytes(*family)) {
        AddressFamily::UNSPEC => Ok(Target::Nobody),
        AddressFamily::INET => {
            let [a, b, c, d, e, f] = *rest.first_chunk().ok_or_else(invalid)?;
            Ok(Target::Internet((Ipv4Addr::new(c, d, e, f), u16::from_be_bytes([a, b])).into()))
        }
        AddressFamily::INET6 => {
            let (port, rest) = rest.split_first_chunk::<2>().ok_or_else(invalid)?;
            let (flow, rest) = rest.split_first_chunk::<4>().ok_or_else(invalid)?;
            let (ip, rest) = rest.split_first_chunk::<16>().ok_or_else(invalid)?;
            let scope = rest.first_chunk::<4>().map_or(0, |scope| u32::from_ne_bytes(*scope));
            let port = u16::from_be_bytes(*port);
            let address = SocketAddrV6::new(Ipv6Addr::from(*ip), port, u32::from_ne_bytes(*flow), scope);
            Ok(Target::Internet(address.into()))
        }
        AddressFamily::UNIX => local(rest, process),
        _ => Err(io::Error::from_raw_os_error(libc::EACCES)),
    }
}

/// A socket in the file system, found as the process would find it. Names without a file are of nobody's folder.
fn local(name: &[u8], process: &Path) -> io::Result<Target> {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if name.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    let path = Path::new(OsStr::from_bytes(name));
    let from = process.join(if path.is_absolute() { "root" } else { "cwd" });
    let folder = rustix::fs::open(&from, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&folder, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)?;
    let mut own_name = OsString::from("/proc/self/fd/");
    own_name.push(found.as_raw_fd().to_string());
    Ok(Target::Local(SocketAddrUnix::new(&*own_name)?, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[&[u8]]) -> String {
        match read_address(&bytes.concat(), Path::new("/proc/self")) {
            Ok(Target::Internet(address)) => address.to_string(),
            Ok(Target::Local(..)) => "local".to_owned(),
            Ok(Target::Nobody) => "nobody".to_owned(),
            Err(error) => error.raw_os_error().unwrap_or_default().to_string(),
        }
    }

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let family = |family: i32| u16::try_from(family).unwrap().to_ne_bytes();
        let (four, six, unix) = (family(libc::AF_INET), family(libc::AF_INET6), family(libc::AF_UNIX));
        assert_eq!(read(&[&four, &[0, 80, 169, 254, 169, 254], &[0; 8]]), "169.254.169.254:80");
        let ip = "fe80::1".parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(read(&[&six, &[1, 187], &[0; 4], &ip, &3_u32.to_ne_bytes()]), "[fe80::1%3]:443");
        assert_eq!(read(&[&family(libc::AF_UNSPEC), &[0; 14]]), "nobody");
        assert_eq!(read(&[&four, &[0, 80]]), libc::EINVAL.to_string());
        assert_eq!(read(&[&[1]]), libc::EINVAL.to_string());
        assert_eq!(read(&[&unix, b"\0abstract"]), libc::ECONNREFUSED.to_string());
        assert_eq!(read(&[&unix, b"/no/such/socket\0"]), libc::ENOENT.to_string());
    }
}
