//! The launcher: a contained program ends as it would have, dies when it should, and can still do its work.

use std::ffi::OsString;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use queue::contain::{Network, Policy, Sandbox, Tier, supervised};
use worker::{Containment, Lifeline, Machine, examine};

use crate::house::{PATIENCE, python, supervisor};

/// A program to be contained, with a folder of its own.
struct Ground {
    lifeline: Lifeline,
    folder: tempfile::TempDir,
    tmp: tempfile::TempDir,
}

/// What this machine has, found out once.
fn containment() -> &'static Containment {
    static FOUND: OnceLock<Containment> = OnceLock::new();
    FOUND.get_or_init(|| {
        let lifeline = Lifeline::open().unwrap();
        let search_path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        let scratch = std::env::temp_dir();
        let found =
            examine(Sandbox::Auto, &Machine { supervisor: supervisor(&lifeline), search_path, scratch });
        found.groups.iter().for_each(worker::Groups::remove);
        for lack in &found.lacks {
            println!("SKIP: no {}: {}", lack.tier, lack.what);
        }
        found
    })
}

/// The tiers that this machine has without control groups.
fn tiers() -> impl Iterator<Item = Tier> {
    [Tier::S0, Tier::S1, Tier::S2].into_iter().filter(|tier| *tier <= containment().tier)
}

/// The interpreter itself: a shim would look for it where it may not.
fn real_python() -> String {
    let code =
        "import os, sys; print(os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable))";
    let output = Command::new(python()).args(["-c", code]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Ground {
    fn new() -> Self {
        let [folder, tmp] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        Self { lifeline: Lifeline::open().unwrap(), folder, tmp }
    }

    fn policy(&self, tier: Tier, own_ports: Vec<u16>) -> Policy {
        Policy {
            tier,
            bubblewrap: containment().bubblewrap.clone(),
            write: vec![self.folder.path().to_str().unwrap().to_owned()],
            tmp: Some(self.tmp.path().to_str().unwrap().to_owned()),
            network: if tier == Tier::S0 { Network::Open } else { containment().network(own_ports) },
            ..Policy::default()
        }
    }

    fn command(&self, policy: &Policy, code: &str) -> Command {
        let words: Vec<OsString> = supervised(&supervisor(&self.lifeline), policy);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args([&real_python(), "-c", code]);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    fn run(&self, policy: &Policy, code: &str) -> Output {
        self.command(policy, code).output().unwrap()
    }

    /// What it printed, having ended well.
    fn said(&self, policy: &Policy, code: &str) -> String {
        let output = self.run(policy, code);
        assert!(output.status.success(), "{}: {:?}", policy.tier, output);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

#[test]
fn a_contained_program_ends_as_it_would_have() {
    let ground = Ground::new();
    for tier in tiers() {
        let ended = |code: &str| ground.run(&ground.policy(tier, vec![]), code).status;
        assert_eq!(ended("pass").code(), Some(0), "{tier}");
        assert_eq!(ended("raise SystemExit(139)").code(), Some(139), "{tier}");
        assert_eq!(
            ended("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)").signal(),
            Some(11),
            "{tier}"
        );
        assert_eq!(
            ended("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").signal(),
            Some(9),
            "{tier}"
        );
    }
}

#[test]
fn a_program_that_cannot_be_started_is_named_in_every_tier() {
    let ground = Ground::new();
    for tier in tiers() {
        let words = supervised(&supervisor(&ground.lifeline), &ground.policy(tier, vec![]));
        let output = Command::new(&words[0])
            .args(&words[1..])
            .arg("/no/such/python")
            .current_dir(ground.folder.path())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{tier}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("cannot start /no/such/python"), "{tier}: {said}");
    }
}

#[test]
fn nobody_is_left_of_a_contained_program_when_the_server_dies() {
    for tier in tiers() {
        let ground = Ground::new();
        // A daemon that forked twice and left the session keeps the pipe open for as long as it lives.
        let code = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork():\n        os._exit(0)\n    \
                    print('here', flush=True)\ntime.sleep(600)";
        let mut child = ground.command(&ground.policy(tier, vec![]), code).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut here = [0; 5];
        stdout.read_exact(&mut here).unwrap();
        drop(ground.lifeline);
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(stdout.read_to_end(&mut Vec::new())));
        let outcome = ended.recv_timeout(PATIENCE);
        let _ = child.kill();
        child.wait().unwrap();
        outcome.unwrap_or_else(|_| panic!("{tier}: somebody is left")).unwrap();
    }
}

#[test]
fn a_contained_program_connects_where_it_may_and_nowhere_else() {
    let ground = Ground::new();
    let [open, own] = [(), ()].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let code = format!(
        "import asyncio, errno, socket, threading\n\
         def to(port, host='127.0.0.1'):\n    \
             try: socket.create_connection((host, port), None).close()\n    \
             except OSError as error: return errno.errorcode[error.errno]\n    \
             return 'connected'\n\
         async def later(port):\n    \
             (await asyncio.open_connection('127.0.0.1', port))[1].close()\n    \
             return 'connected'\n\
         print(to({open}), to({own}), to({own}, '0.0.0.0'), to(80, '169.254.169.254'), asyncio.run(later({open})))\n\
         udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect(('127.0.0.1', {open}))\n\
         server = socket.socket(socket.AF_UNIX); server.bind('here'); server.listen()\n\
         local = socket.socket(socket.AF_UNIX); local.connect('here'); server.accept()\n\
         threads = [threading.Thread(target=to, args=({open},)) for _ in range(20)]\n\
         [t.start() for t in threads]; [t.join() for t in threads]",
        open = port(&open),
        own = port(&own),
    );
    for tier in tiers().filter(|tier| *tier > Tier::S0) {
        if !containment().guards_connections {
            println!("SKIP: connections cannot be guarded here");
            return;
        }
        let said = ground.said(&ground.policy(tier, vec![port(&own)]), &code);
        assert_eq!(said, "connected EACCES EACCES EACCES connected", "{tier}");
        std::fs::remove_file(ground.folder.path().join("here")).unwrap();
    }
}

#[test]
fn a_contained_program_can_serve() {
    let ground = Ground::new();
    let code = "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n\
                print('%05d' % server.getsockname()[1], flush=True)\nserver.accept()[0].sendall(b'hello')";
    for tier in tiers() {
        let mut child = ground.command(&ground.policy(tier, vec![1]), code).spawn().unwrap();
        let mut port = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut port).unwrap();
        let port: u16 = std::str::from_utf8(&port).unwrap().parse().unwrap();
        let mut said = String::new();
        TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello", "{tier}");
        assert!(child.wait().unwrap().success(), "{tier}");
    }
}

#[test]
fn a_contained_program_finds_its_folders_and_only_those() {
    let ground = Ground::new();
    let secret = tempfile::NamedTempFile::new().unwrap();
    let code = format!(
        "import multiprocessing, os, subprocess, tempfile\n\
         open('own', 'w').close()\n\
         tempfile.mkdtemp(dir=os.environ.get('TMPDIR'))\n\
         subprocess.run(['/bin/sh', '-c', 'true'], check=True)\n\
         multiprocessing.Lock()\n\
         try: open('{}')\n\
         except OSError: print('closed')",
        secret.path().display()
    );
    for tier in tiers().filter(|tier| *tier > Tier::S0) {
        let policy = ground.policy(tier, vec![]);
        let tmp = if tier >= Tier::S2 { "/tmp".into() } else { ground.tmp.path().to_owned() };
        let output = ground.command(&policy, &code).env("TMPDIR", tmp).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "closed", "{tier}");
        assert!(output.status.success(), "{tier}");
        assert!(ground.folder.path().join("own").exists(), "{tier}");
        std::fs::remove_file(ground.folder.path().join("own")).unwrap();
    }
}

#[test]
fn a_contained_program_that_is_asked_to_end_does_so_in_its_own_way() {
    let ground = Ground::new();
    // Both processes are asked, and the one that began tells how the other ended.
    let code = "import os, signal, sys, time\nwith_word, word = os.pipe()\nchild = os.fork()\n\
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(7 if not child or os.wait()[1] == 7 << 8 else 1))\n\
                if child: os.read(with_word, 1); print('ready', flush=True)\nelse: os.write(word, b'1')\n\
                while True: time.sleep(0.01)";
    for tier in tiers() {
        let mut child = ground.command(&ground.policy(tier, vec![]), code).spawn().unwrap();
        let mut ready = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::USR1,
        )
        .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(7), "{tier}");
    }
}

#[test]
fn a_variable_that_was_set_aside_is_the_programs_alone() {
    let ground = Ground::new();
    let code =
        "import os\nprint(os.environ['LD_BIND_NOW'], [name for name in os.environ if 'OF_COMMAND' in name])";
    for tier in tiers() {
        let mut command = ground.command(&ground.policy(tier, vec![]), code);
        let output = command.env("POSTBACK_OF_COMMAND_LD_BIND_NOW", "it").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "it []", "{tier}");
    }
}
