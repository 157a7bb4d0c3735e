//! What this machine offers: found out by doing it, once, at the start.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use queue::contain::{Identity, Network, Policy, Sandbox, Tier, supervised};

use super::{Groups, NOTHING};
use crate::memory::Bounds;

/// Time in which a contained program that does nothing must have ended.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);
/// What of a complaint is shown.
const COMPLAINT_CHARS_MAX: usize = 300;
const BUBBLEWRAP: &str = "bwrap";
const INSTALL: &str =
    "install bubblewrap: `apt install bubblewrap`, `dnf install bubblewrap` or `apk add bubblewrap`";
const USERNS: &str = "allow this user to make user namespaces: `sysctl user.max_user_namespaces=10000`; on Ubuntu \
                      also `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or an AppArmor profile for bwrap; in a \
                      container, run it with `--security-opt seccomp=unconfined` or as root";

const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
const DELEGATE: &str = "run the server as root, or have systemd hand it a control group: `Delegate=yes` in its unit, or \
                        `systemd-run --user --scope -p Delegate=yes postback serve`";
/// Enough for a program that does nothing.
const TRIAL_MEMORY: u64 = 1 << 30;
const TRIAL_PROCESSES: u64 = 64;

/// What is examined.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What is put before every command: [`crate::Lifeline::prefix`].
    pub supervisor: Vec<OsString>,
    /// The folders in which programs are looked for.
    pub search_path: Vec<PathBuf>,
    /// A folder for what the trial needs; made if it is not there.
    pub scratch: PathBuf,
}

/// Something that keeps the machine from a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The lowest tier that needs it.
    pub tier: Tier,
    /// What is missing.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// The tier that processes get, and why it is not a higher one.
#[derive(Clone, Debug, Default)]
pub struct Containment {
    /// The tier.
    pub tier: Tier,
    /// Where bubblewrap is, if the tier needs it.
    pub bubblewrap: Option<String>,
    /// What processes connect to is looked at.
    pub guards_connections: bool,
    /// Where replicas get control groups.
    pub groups: Option<Groups>,
    /// Every app runs as a user of its own.
    pub identities: bool,
    /// What keeps it from the next tiers, the lowest first. Empty at the highest.
    pub lacks: Vec<Lack>,
}

impl Containment {
    /// The policy that every process begins with.
    pub fn template(&self) -> Policy {
        Policy { tier: self.tier, bubblewrap: self.bubblewrap.clone(), ..Policy::default() }
    }

    /// What processes may reach when the server listens on `own_ports`.
    pub fn network(&self, own_ports: Vec<u16>) -> Network {
        if self.guards_connections { Network::Guarded { own_ports } } else { Network::Open }
    }
}

/// Finds the tier that was asked for, as far as the machine has it.
pub fn examine(sandbox: Sandbox, machine: &Machine) -> Containment {
    if sandbox == Sandbox::Off {
        let what = "the server was started with `--sandbox=off`".to_owned();
        let remedy = "start it with `--sandbox=auto`".to_owned();
        let lacks = vec![Lack { tier: Tier::S1, what, remedy }];
        return Containment { lacks, ..Containment::default() };
    }
    let mut found = Containment::default();
    let most = if let Sandbox::AtMost(tier) = sandbox { tier } else { Tier::S3 };
    match rise(machine, &mut found, most) {
        Ok(()) => {}
        Err(lack) => found.lacks.push(lack),
    }
    found
}

fn rise(machine: &Machine, found: &mut Containment, most: Tier) -> Result<(), Lack> {
    let asked_for = |tier: Tier| {
        let what = format!("the server was started with `--sandbox={most}`").to_lowercase();
        if tier > most {
            Err(Lack { tier, what, remedy: "start it with `--sandbox=auto`".to_owned() })
        } else {
            Ok(())
        }
    };
    let lack = |tier: Tier, what: String, remedy: &str| Lack { tier, what, remedy: remedy.to_owned() };
    if !super::files_can_be_restricted() {
        let what = "this kernel has no Landlock".to_owned();
        return Err(lack(Tier::S1, what, "use Linux 5.13 or later with `landlock` in its `lsm=` parameter"));
    }
    try_out(machine, &Policy { tier: Tier::S1, ..found.template() })
        .map_err(|why| lack(Tier::S1, why, "see what keeps this process from Landlock or seccomp"))?;
    found.tier = Tier::S1;
    let guarded = Network::Guarded { own_ports: vec![super::TRIAL_PORT] };
    match try_out(machine, &Policy { network: guarded, ..found.template() }) {
        Ok(()) => found.guards_connections = true,
        Err(why) => found.lacks.push(lack(
            Tier::S1,
            format!("apps can reach this server and metadata addresses, since connections cannot be guarded: {why}"),
            "allow this user to look into its own processes: `sysctl kernel.yama.ptrace_scope=1`, Linux 5.6 or later",
        )),
    }

    asked_for(Tier::S2)?;
    let bubblewrap =
        machine.search_path.iter().map(|folder| folder.join(BUBBLEWRAP)).find(|path| path.is_file());
    let bubblewrap = bubblewrap.and_then(|path| path.to_str().map(str::to_owned));
    let bubblewrap =
        bubblewrap.ok_or_else(|| lack(Tier::S2, "bubblewrap is not installed".to_owned(), INSTALL))?;
    let spaces = Policy { tier: Tier::S2, bubblewrap: Some(bubblewrap.clone()), ..Policy::default() };
    try_out(machine, &spaces)
        .map_err(|why| lack(Tier::S2, format!("no namespaces can be made here: {why}"), USERNS))?;
    (found.tier, found.bubblewrap) = (Tier::S2, Some(bubblewrap));

    asked_for(Tier::S3)?;
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = Groups::find(Path::new(CONTROL_GROUPS), &membership, std::process::id())
        .map_err(|why| lack(Tier::S3, why, DELEGATE))?;
    let is_root = rustix::process::geteuid().is_root();
    in_a_group(machine, found, &groups, is_root).map_err(|why| {
        groups.remove();
        let what = format!(
            "a process cannot be put into a control group{}: {why}",
            if is_root { " as a user of its own" } else { "" }
        );
        lack(Tier::S3, what, DELEGATE)
    })?;
    (found.tier, found.groups, found.identities) = (Tier::S3, Some(groups), is_root);
    Ok(())
}

fn in_a_group(machine: &Machine, found: &Containment, groups: &Groups, is_root: bool) -> Result<(), String> {
    let bounds = Bounds { memory: Some(TRIAL_MEMORY), processes: TRIAL_PROCESSES, cpu: Some(1.0) };
    let group = groups.make("trial", bounds).map_err(|error| error.to_string())?;
    let folders = group.folders().filter_map(|folder| folder.to_str().map(str::to_owned));
    let policy = Policy {
        tier: Tier::S3,
        control_groups: folders.collect(),
        identity: is_root.then_some(Identity::TRIAL),
        ..found.template()
    };
    try_out(machine, &policy)
}

/// Runs a program that does nothing under a policy; what was complained when it could not be run.
fn try_out(machine: &Machine, policy: &Policy) -> Result<(), String> {
    let program =
        std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let _ = std::fs::create_dir_all(&machine.scratch);
    // A disk that is full is no reason to contain less.
    let tmp = tempfile::tempdir_in(&machine.scratch).or_else(|_| tempfile::tempdir());
    let tmp = tmp.map_err(|error| format!("no folder: {error}"))?;
    if let Some(Identity { user, group }) = policy.identity {
        std::os::unix::fs::chown(tmp.path(), Some(user), Some(group))
            .map_err(|error| format!("a folder cannot be given to another user: {error}"))?;
    }
    let policy = Policy { tmp: tmp.path().to_str().map(str::to_owned), ..policy.clone() };
    let words = supervised(&machine.supervisor, &policy);
    let (first, rest) = words.split_first().ok_or("there is no supervisor")?;
    let mut command = Command::new(first);
    command.args(rest).arg(&program).arg(NOTHING).current_dir("/");
    if policy.network != Network::Open {
        command.arg(super::GUARD);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("it cannot be started: {error}"))?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < CHECK_LIMIT => std::thread::sleep(PAUSE),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("a program that does nothing did not end".to_owned());
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let output = child.wait_with_output().map(|output| output.stderr).unwrap_or_default();
    let said = String::from_utf8_lossy(&output);
    let said: String = said.trim().chars().take(COMPLAINT_CHARS_MAX).collect();
    Err(if said.is_empty() { format!("it ended with {status}") } else { said.replace('\n', "; ") })
}
