//! Containment: how far code of users is kept from the rest of the machine, in words that whoever starts
//! processes shares with the launcher that puts them into practice.
//!
//! A [`Policy`] travels to the launcher as one argument. It names folders and numbers, never a secret.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::AppId;

/// How far code of users is contained. A higher one includes the lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// A session of its own, limits of the process, an environment that was chosen.
    #[default]
    S0,
    /// Landlock, seccomp and no capabilities: only its own files, no dangerous system calls.
    S1,
    /// Namespaces: it sees only its own files and its own processes.
    S2,
    /// Control groups for memory, processes and CPU; under root a user id for each app.
    S3,
}

impl Tier {
    /// Every tier, the weakest first.
    pub const ALL: [Self; 4] = [Self::S0, Self::S1, Self::S2, Self::S3];

    /// What it consists of, in a few words.
    pub fn means(self) -> &'static str {
        match self {
            Self::S0 => "limits only: code of apps can read and do what the server can",
            Self::S1 => "Landlock and seccomp: its own files only, no dangerous system calls",
            Self::S2 => "namespaces: it sees only its own files and processes",
            Self::S3 => "namespaces and control groups: memory, processes and CPU have hard bounds",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What whoever runs the server asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// The highest tier that the machine offers.
    #[default]
    Auto,
    /// No higher than this one, whatever the machine offers.
    AtMost(Tier),
    /// At least [`Tier::S2`], or no start.
    Strict,
    /// [`Tier::S0`].
    Off,
}

/// The networks that a process may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Everything that the server can reach.
    #[default]
    Open,
    /// All but what [`is_forbidden`] names, the server's own ports among it.
    Guarded {
        /// TCP ports of this machine on which the server listens.
        own_ports: Vec<u16>,
    },
    /// None.
    Closed,
}

/// A user and a group that own nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// One for each app.
    pub user: u32,
    /// One for each project: its apps share the persistent storage.
    pub group: u32,
}

/// The first of the ids that apps get: above those of people, services and containers.
const IDS_FROM: u32 = 1_900_000_000;
const IDS: u32 = 200_000_000;

impl Identity {
    /// Nobody's.
    pub const TRIAL: Self = Self { user: IDS_FROM + IDS, group: IDS_FROM + IDS };

    /// The same for an app whenever and wherever it is started.
    pub fn of(app: &AppId) -> Self {
        let id = |name: &str| {
            // FNV-1a: short, and the same in every version.
            let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            IDS_FROM + u32::try_from(hash % u64::from(IDS)).unwrap_or(0)
        };
        Self { user: id(app.as_str()), group: id(app.project().as_str()) }
    }
}

/// What the launcher is told about one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How far it is contained.
    pub tier: Tier,
    /// The program that makes its namespaces.
    pub bubblewrap: Option<String>,
    /// Programs that it may run, with what belongs to them, beside the system's and its own.
    pub programs: Vec<String>,
    /// Files and folders that it may read and execute, beside the system's.
    pub read: Vec<String>,
    /// Folders that it may write to.
    pub write: Vec<String>,
    /// Its `/tmp`.
    pub tmp: Option<String>,
    /// Its `/persistent-storage`, where it has namespaces.
    pub storage: Option<String>,
    /// Whom it runs as; the server's own user when not given.
    pub identity: Option<Identity>,
    /// The control groups that it joins, by their folders.
    pub control_groups: Vec<String>,
    /// Processes and threads that it may have at once.
    pub processes: Option<u64>,
    /// The largest file that it may write, in bytes.
    pub file_bytes: Option<u64>,
    /// What it may reach.
    pub network: Network,
}

/// What a [`Policy`] follows on the supervisor's command line.
pub const POLICY: &str = "--policy";
/// What the supervisor's own arguments end with.
pub const END_OF_OPTIONS: &str = "--";

/// What to put before a command so that it is supervised under a policy: `supervisor` is what makes it so
/// without one, and ends with [`END_OF_OPTIONS`]. Without a supervisor there is nothing that could contain.
pub fn supervised(supervisor: &[OsString], policy: &Policy) -> Vec<OsString> {
    let mut words = supervisor.to_vec();
    if *policy == Policy::default() || words.pop().is_none() {
        return supervisor.to_vec();
    }
    let policy = serde_json::to_string(policy).unwrap_or_default();
    words.extend([POLICY.into(), policy.into(), END_OF_OPTIONS.into()]);
    words
}

/// Addresses that no code of users has business with: this server, the machine's metadata service and
/// whatever else is link-local. `is_local` says whether an address is one of this machine.
pub fn is_forbidden(ip: IpAddr, port: u16, own_ports: &[u16], is_local: impl Fn(IpAddr) -> bool) -> bool {
    let ip = plain(ip);
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80 || METADATA_V6.contains(&ip),
    };
    // An unspecified address means this machine.
    link_local || (own_ports.contains(&port) && (ip.is_loopback() || ip.is_unspecified() || is_local(ip)))
}

/// Metadata services outside the link-local network: Azure's wire server, Alibaba's, Oracle's.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// Those of Amazon and of Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The address that is meant by one that carries an address of IPv4: mapped, compatible or by NAT64.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [.., high, low] = v6.segments();
    let carried = Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => IpAddr::V4(carried),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => IpAddr::V4(carried),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_and_metadata_are_forbidden_however_they_are_written() {
        let forbidden = |ip: &str, port| {
            is_forbidden(ip.parse().unwrap(), port, &[4100], |ip| ip == IpAddr::from([192, 168, 1, 7]))
        };
        for ip in ["169.254.169.254", "::ffff:169.254.1.1", "64:ff9b::a9fe:a9fe", "fe80::1", "168.63.129.16"]
        {
            assert!(forbidden(ip, 80), "{ip}");
        }
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "192.168.1.7", "::ffff:127.0.0.1"] {
            assert!(forbidden(ip, 4100), "{ip}");
            assert!(!forbidden(ip, 4101), "{ip}");
        }
        for ip in ["93.184.216.34", "192.168.1.8", "2606:4700::1111", "10.0.0.1"] {
            assert!(!forbidden(ip, 4100) && !forbidden(ip, 443), "{ip}");
        }
    }

    #[test]
    fn apps_have_users_of_their_own_and_share_the_group_of_their_project() {
        let of = |app: &str| Identity::of(&app.parse().unwrap());
        let (one, two, other) = (of("p-1234abcd-one"), of("p-1234abcd-two"), of("p-1234abce-one"));
        assert_eq!(one, of("p-1234abcd-one"));
        assert!(one.user != two.user && one.group == two.group && one.group != other.group);
        assert!([one, two, other].iter().all(|id| (IDS_FROM..IDS_FROM + IDS).contains(&id.user)));
    }

    #[test]
    fn a_policy_survives_its_journey() {
        let policy = Policy {
            tier: Tier::S3,
            read: vec!["/a b".into()],
            identity: Some(Identity { user: 7, group: 8 }),
            network: Network::Guarded { own_ports: vec![4100] },
            ..Policy::default()
        };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        let supervisor = ["postback", "__supervise", "--"].map(OsString::from);
        let expected = ["postback", "__supervise", POLICY, &text, "--"].map(OsString::from);
        assert_eq!(supervised(&supervisor, &policy), expected);
        assert_eq!(supervised(&supervisor, &Policy::default()), supervisor);
        assert!(supervised(&[], &policy).is_empty());
        assert!(Tier::S0 < Tier::S1 && Tier::S2 < Tier::S3);
    }
}
