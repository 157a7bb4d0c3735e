//! seccomp: the system calls that a contained process may not make, whatever its user could.
//!
//! Refused is what reaches into other processes, mounts, keys, the kernel's own programs and modules, the
//! clock, new namespaces and networks of other kinds. Most are refused with EPERM; those that programs try
//! first and can do without with ENOSYS, so that they fall back: `clone3` has its flags in memory, where no
//! filter can look, and glibc then uses `clone`.

use std::collections::BTreeMap;

use queue::contain::Network;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Every one of these, whatever its arguments.
const REFUSED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_lookup_dcookie,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Programs that try these do without.
const MISSING: &[i64] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// What `clone` must not be asked for.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Puts characters into somebody's terminal, and the console's own.
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, 0x541C];
/// A connection in a packet with data, which `connect` never sees.
const FAST_OPEN: u64 = 0x2000_0000;
const NETLINK_ROUTE: u64 = 0;
/// The rest of a socket's type are flags.
const SOCKET_KIND: u64 = 0xf;

/// From here on this process and what it starts make none of these calls.
pub(super) fn restrict(network: &Network) -> Result<(), String> {
    let [missing, refused] = filters(network).map_err(|error| error.to_string())?;
    for filter in [missing, refused] {
        seccompiler::apply_filter(&filter).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn filters(network: &Network) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let always = |calls: &[i64]| calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let missing = always(MISSING);
    let mut refused = always(REFUSED);
    refused.extend(always(REFUSED_HERE));
    refused.insert(libc::SYS_clone, any_bit_of(0, NAMESPACES)?);
    refused.insert(libc::SYS_mknodat, devices(2)?);
    #[cfg(target_arch = "x86_64")]
    refused.insert(libc::SYS_mknod, devices(1)?);
    let terminal = TERMINAL_INPUT.map(|request| all(&[when(1, Is::Eq, request)?]));
    refused.insert(libc::SYS_ioctl, terminal.into_iter().collect::<Result<_, _>>()?);
    let sends = [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];
    for (call, flags) in sends {
        refused.insert(call, vec![all(&[when(flags, Is::MaskedEq(FAST_OPEN), FAST_OPEN)?])?]);
    }
    refused.insert(libc::SYS_socket, sockets(network)?);
    let compile = |rules, errno: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let arch = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?.try_into()
    };
    Ok([compile(missing, libc::ENOSYS)?, compile(refused, libc::EPERM)?])
}

/// Sockets that are refused: all but local ones, those of the internet, and the questions about addresses
/// and routes that resolving a name takes.
fn sockets(network: &Network) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let is_not = |family: i32| when(0, Is::Ne, unsigned(family));
    if *network == Network::Closed {
        return Ok(vec![all(&[is_not(libc::AF_UNIX)?])?]);
    }
    let other = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(is_not);
    Ok(vec![
        all(&other.into_iter().collect::<Result<Vec<_>, _>>()?)?,
        all(&[when(0, Is::Eq, unsigned(libc::AF_NETLINK))?, when(2, Is::Ne, NETLINK_ROUTE)?])?,
        // Raw sockets of the internet.
        all(&[
            is_not(libc::AF_UNIX)?,
            is_not(libc::AF_NETLINK)?,
            masked(1, SOCKET_KIND, unsigned(libc::SOCK_RAW))?,
        ])?,
    ])
}

/// Nodes of devices, by the kind in this argument.
fn devices(kind: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |device: u32| all(&[masked(kind, libc::S_IFMT.into(), device.into())?]);
    [libc::S_IFBLK, libc::S_IFCHR].into_iter().map(rule).collect()
}

fn any_bit_of(argument: u8, bits: i32) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let set = (0..32).map(|bit| 1_u64 << bit).filter(|bit| unsigned(bits) & bit != 0);
    set.map(|bit| all(&[when(argument, Is::MaskedEq(bit), bit)?])).collect()
}

fn all(conditions: &[SeccompCondition]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.to_vec())
}

fn when(argument: u8, is: Is, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Length::Dword, is, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    when(argument, Is::MaskedEq(mask), value)
}

/// Flags and families are positive but for the highest flag, whose bit is meant.
fn unsigned(number: i32) -> u64 {
    u64::from(u32::from_ne_bytes(number.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_made_for_every_network() {
        for network in [Network::Open, Network::Guarded { own_ports: vec![1] }, Network::Closed] {
            let filters = filters(&network).unwrap();
            // The kernel takes 4,096 instructions.
            assert!(filters.iter().all(|filter| filter.len() < 4_096));
        }
        assert_eq!(any_bit_of(0, NAMESPACES).unwrap().len(), 7);
    }
}
