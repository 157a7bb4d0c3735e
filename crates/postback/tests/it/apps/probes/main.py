"""Tries to leave the place that an app is meant to stay in, in forty ways, and says which of them worked.

`probe` gets from the test what there is to find: paths of others' files, processes and sockets outside.
"""

import ctypes
import os
import platform
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
# The numbers of the calls that the C library has no function for: on x86-64, and on 64-bit Arm.
NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241),
    "add_key": (248, 217), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "init_module": (175, 105),
    "sethostname": (170, 161), "settimeofday": (164, 170), "chroot": (161, 51),
    "open_by_handle_at": (304, 265), "pivot_root": (155, 41),
}
# More than the kernel counts to.
NOBODY = 0x3FFFFFF
NEW_USER, NEW_NET = 0x10000000, 0x40000000


def call(name, *arguments):
    """Whether the call did something, or the kernel at least looked at what it was given."""
    ctypes.set_errno(0)
    number = NUMBERS[name][0 if X86 else 1]
    done = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(value) if isinstance(value, int) else value for value in arguments])
    # EPERM and ENOSYS are refusals; another error means that the call was let through to its code.
    return done, ctypes.get_errno()


def let_through(name, *arguments):
    done, error = call(name, *arguments)
    return done >= 0 or error not in (1, 38)


def reads(path):
    try:
        with open(path, "rb") as file:
            file.read(1)
        return True
    except OSError:
        return False


def writes(path):
    try:
        with open(path, "ab"):
            return True
    except OSError:
        return False


def makes(folder):
    path = os.path.join(folder, "postback-probe")
    try:
        with open(path, "x"):
            pass
        os.unlink(path)
        return True
    except OSError:
        return False


def sees(folder, name):
    try:
        return name in os.listdir(folder)
    except OSError:
        return False


def links(path):
    here = os.path.join(os.getcwd(), "postback-link")
    try:
        os.link(path, here)
        os.unlink(here)
        return True
    except OSError:
        return False


def reads_through_a_link(path):
    here = os.path.join(os.getcwd(), "postback-symlink")
    try:
        os.symlink(path, here)
        try:
            return reads(here)
        finally:
            os.unlink(here)
    except OSError:
        return False


def signals(pid):
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False


def connects(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as to:
        to.settimeout(1)
        try:
            to.connect(address)
            return True
        except PermissionError:
            return False
        except ConnectionRefusedError:
            # Nobody listens there, but the question went out. Names without a file are another matter.
            return family != socket.AF_UNIX
        except OSError:
            return family != socket.AF_UNIX


def fast_opens(address):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as to:
        to.settimeout(1)
        try:
            to.sendto(b"x", 0x20000000, address)
            return True
        except OSError:
            return False


def opens_socket(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol).close()
        return True
    except OSError:
        return False


def status(name):
    with open("/proc/self/status") as file:
        return next((line.split()[1] for line in file if line.startswith(name + ":")), "")


def takes_over_namespace(pid):
    try:
        namespace = os.open("/proc/{}/ns/net".format(pid), os.O_RDONLY)
    except OSError:
        return False
    try:
        return let_through("setns", namespace, NEW_NET)
    finally:
        os.close(namespace)


def in_child(action):
    """What cannot be undone is done by a child."""
    child = os.fork()
    if child == 0:
        done = 1
        try:
            done = 0 if action() else 1
        finally:
            os._exit(done)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 if hasattr(os, "waitstatus_to_exitcode") else os.waitpid(child, 0)[1] == 0


def steals_a_descriptor(pid):
    pidfd, _ = call("pidfd_open", pid, 0)
    if pidfd < 0:
        return False
    try:
        return let_through("pidfd_getfd", pidfd, 0, 0)
    finally:
        os.close(pidfd)


def injects_into_a_terminal():
    import fcntl

    try:
        leader, follower = os.openpty()
    except OSError:
        return False
    try:
        fcntl.ioctl(follower, 0x5412, b"x")
        return True
    except OSError:
        return False
    finally:
        os.close(leader)
        os.close(follower)


def makes_a_device():
    path = os.path.join(os.getcwd(), "postback-device")
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 1))
        os.unlink(path)
        return True
    except OSError:
        return False


def probe(data_dir, key_file, other_app, other_tmp, secret, host_tmp, server, port, local, abstract):
    """Each probe by its name, and whether it got out."""
    me = os.getpid()
    word = ctypes.create_string_buffer(8)
    vector = struct.pack("QQ", ctypes.addressof(word), 8)
    of_server = "/proc/{}/".format(server)
    attempts = [
        ("read the database", lambda: reads(os.path.join(data_dir, "postback.db"))),
        ("read the key file", lambda: reads(key_file)),
        ("read the credentials", lambda: reads(os.path.join(data_dir, "credentials.json"))),
        ("list the data directory", lambda: sees(data_dir, "postback.db")),
        ("read another app's code", lambda: reads(other_app)),
        ("change another app's code", lambda: writes(other_app)),
        ("read another app's temporary files", lambda: reads(other_tmp)),
        ("read a file of the server's user", lambda: reads(secret)),
        ("read it through a symbolic link", lambda: reads_through_a_link(secret)),
        ("link to it", lambda: links(secret)),
        ("read the machine's /tmp", lambda: reads(host_tmp)),
        ("read /etc/shadow", lambda: reads("/etc/shadow")),
        ("change /etc", lambda: makes("/etc")),
        ("change the system", lambda: makes("/usr/lib")),
        ("change its environment", lambda: makes(sys.prefix)),
        ("change a setting of the kernel", lambda: writes("/proc/sys/kernel/core_pattern")),
        ("make a device", makes_a_device),
        ("see the server's process", lambda: reads(of_server + "cmdline")),
        ("read the server's environment", lambda: reads(of_server + "environ")),
        ("read the server's memory", lambda: reads(of_server + "maps") or let_through("process_vm_readv", server, vector, 1, vector, 1, 0)),
        ("signal the server", lambda: signals(server)),
        ("signal its supervisor", lambda: signals(os.getppid())),
        ("trace a process", lambda: let_through("ptrace", 0x4206, NOBODY, 0, 0)),
        ("take a descriptor of a process", lambda: steals_a_descriptor(me)),
        ("enter the server's namespaces", lambda: in_child(lambda: takes_over_namespace(server))),
        ("make a user namespace", lambda: in_child(lambda: let_through("unshare", NEW_USER))),
        ("mount", lambda: in_child(lambda: let_through("mount", b"none", b".", b"no-such-file-system", 0, 0))),
        ("change its root", lambda: in_child(lambda: let_through("chroot", b"/tmp") or let_through("pivot_root", b".", b"."))),
        ("load a program into the kernel", lambda: let_through("bpf", 0, 0, 0) or let_through("init_module", 0, 0, b"")),
        ("count events of the machine", lambda: let_through("perf_event_open", 0, 0, -1, -1, 0)),
        ("keep a key in the kernel", lambda: let_through("add_key", b"user", b"postback", b"x", 1, -3)),
        ("handle page faults", lambda: let_through("userfaultfd", 0)),
        ("use io_uring", lambda: let_through("io_uring_setup", 1, 0)),
        ("open a file by its handle", lambda: let_through("open_by_handle_at", -1, 0, 0)),
        ("set the clock or the name of the machine", lambda: let_through("settimeofday", 0, 0) or let_through("sethostname", b"x", -1)),
        ("type into a terminal", injects_into_a_terminal),
        ("keep or gain privileges", lambda: int(status("CapEff"), 16) != 0 or status("NoNewPrivs") != "1"),
        ("send raw packets", lambda: opens_socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300) or opens_socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        ("connect to the server or to metadata", lambda: connects(socket.AF_INET, ("127.0.0.1", port)) or connects(socket.AF_INET, ("169.254.169.254", 80)) or fast_opens(("127.0.0.1", port))),
        ("connect to a local socket outside", lambda: connects(socket.AF_UNIX, local) or connects(socket.AF_UNIX, "\0" + abstract)),
    ]
    results = []
    for name, attempt in attempts:
        try:
            got_out = bool(attempt())
        except Exception as error:  # Whatever goes wrong shows in the table, not as a success.
            got_out = "{}: {}".format(type(error).__name__, error)
        results.append([name, got_out])
    return results


def reach(port):
    """What an app may do: connect to others on this machine."""
    socket.create_connection(("127.0.0.1", port), 10).close()
    return "connected"
