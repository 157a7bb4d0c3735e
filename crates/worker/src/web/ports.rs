//! Ports for web servers: a free one for each replica, and whose server it is that answers there.
//!
//! Somebody else's server on a port would be given requests that are not meant for it, so before a replica
//! serves it is looked up that the socket belongs to its own processes.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use queue::Entropy;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::memory::read_tree;

/// Below the ports that systems give to connections of their own accord.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const TRIES: usize = 100;
/// Time for a look at a port of this machine.
const LOOK_LIMIT: Duration = Duration::from_millis(500);

/// Ports that replicas of this process have, or are about to have.
static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that no other replica gets while this is held.
#[derive(Debug)]
pub(super) struct Port(u16);

impl Port {
    /// One that nobody listens on, and not `except`.
    pub(super) fn free(entropy: &dyn Entropy, except: u16) -> Option<Self> {
        (0..TRIES).find_map(|_| {
            let mut chance = [0; 2];
            entropy.fill(&mut chance);
            let number = FIRST + u16::from_le_bytes(chance) % COUNT;
            if number == except || !given(|ports| ports.insert(number)) {
                return None;
            }
            let port = Self(number);
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok().then_some(port)
        })
    }

    pub(super) const fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        given(|ports| ports.remove(&self.0));
    }
}

fn given(change: impl FnOnce(&mut HashSet<u16>) -> bool) -> bool {
    change(GIVEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Whether anybody takes connections there.
pub(super) async fn is_taken(port: u16) -> bool {
    matches!(timeout(LOOK_LIMIT, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await, Ok(Ok(_)))
}

/// Whether the process `root` or a descendant listens on `port`; `None` where the system does not say.
pub(super) fn belongs_to(port: u16, root: u32) -> Option<bool> {
    let sockets: HashSet<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(|table| listening(table, port)).collect();
    if sockets.is_empty() {
        return fs::exists("/proc/net/tcp").ok()?.then_some(false);
    }
    let mut tree = Vec::new();
    read_tree(root, &mut tree);
    let mut unreadable = false;
    for pid in tree {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            unreadable = true;
            continue;
        };
        let is_ours = |entry: fs::DirEntry| {
            fs::read_link(entry.path())
                .is_ok_and(|link| link.to_str().is_some_and(|link| sockets.contains(link)))
        };
        if descriptors.flatten().any(is_ours) {
            return Some(true);
        }
    }
    if unreadable { None } else { Some(false) }
}

/// The listening sockets of a port, as the links of descriptors name them.
fn listening(table: &str, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let wanted = format!(":{port:04X}");
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
            let inode = words.nth(5)?;
            (state == "0A" && local.ends_with(&wanted)).then(|| format!("socket:[{inode}]"))
        })
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    struct Counting(std::sync::atomic::AtomicU64);
    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            let next = self.0.fetch_add(7, std::sync::atomic::Ordering::Relaxed).to_le_bytes();
            bytes.iter_mut().zip(next).for_each(|(byte, next)| *byte = next);
        }
    }

    #[test]
    fn no_port_is_given_twice_while_it_is_held() {
        let chance = Counting(4_000.into());
        let first = Port::free(&chance, 0).unwrap();
        let again = Counting(u64::from(first.number() - FIRST).into());
        let second = Port::free(&again, 0).unwrap();
        assert_ne!(first.number(), second.number());
        let number = first.number();
        drop(first);
        let freed = Counting(u64::from(number - FIRST).into());
        assert_eq!(Port::free(&freed, 0).unwrap().number(), number);
    }

    #[tokio::test]
    async fn a_listener_belongs_to_its_own_process_alone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_taken(port).await);
        assert_eq!(belongs_to(port, std::process::id()), Some(true));
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(belongs_to(port, other.id()), Some(false));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(belongs_to(port, other.id()), None, "nobody can look into it");
        drop(listener);
        assert_eq!(belongs_to(port, std::process::id()), Some(false));
    }
}
