//! Who is connected: so many connections from one address, and no more.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::net::TcpStream;

/// Bits of an IPv6 address that are one customer's.
const V6_PREFIX: u32 = 64;

/// Connections by the address they come from.
pub(super) struct Crowd {
    /// Of one address at most; 0 for any number.
    most: usize,
    /// Proxies speak for many, so they are not counted.
    exempt: Vec<IpNet>,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place in the crowd.
pub(super) struct Member(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    pub(super) fn new(most: usize, exempt: Vec<IpNet>) -> Arc<Self> {
        Arc::new(Self { most, exempt, open: Mutex::default() })
    }

    /// A place for one more from there, if there is one.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Member> {
        let from = from.to_canonical();
        if self.most == 0 || self.exempt.iter().any(|net| net.contains(&from)) {
            return Some(Member(None));
        }
        let from = one_customer(from);
        let mut open = self.lock();
        let count = open.entry(from).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Member(Some((Arc::clone(self), from))))
    }

    /// The connections are bounded, so are the entries: one without connections is removed.
    fn leave(&self, from: IpAddr) {
        let mut open = self.lock();
        if let Some(count) = open.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                open.remove(&from);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some((crowd, from)) = self.0.take() {
            crowd.leave(from);
        }
    }
}

/// The address as far as it names a customer.
pub(crate) fn one_customer(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> (128 - V6_PREFIX) << (128 - V6_PREFIX)).into(),
        v4 => v4,
    }
}

/// Tells a connection that there is no place for it, as far as that works without waiting.
pub(super) fn turn_away(stream: TcpStream) {
    const BODY: &str = r#"{"message":"too many connections are open from this address; close some, or keep them open for several requests","code":"too_many_connections"}"#;
    let Ok(mut stream) = stream.into_std() else { return };
    // What was sent already must be taken, or closing would destroy the answer on its way.
    let _ = stream.read(&mut [0; 4096]);
    let _ = write!(
        stream,
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let crowd = Crowd::new(2, vec!["10.0.0.0/8".parse().unwrap()]);
        let first = crowd.admit(ip("192.0.2.1")).unwrap();
        let _second = crowd.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(crowd.admit(ip("192.0.2.1")).is_none(), "mapped or not, it is the same address");
        assert!(crowd.admit(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(crowd.admit(ip("192.0.2.1")).is_some());
        // Of IPv6, a customer has a whole prefix.
        let _v6 = [crowd.admit(ip("2001:db8::1")).unwrap(), crowd.admit(ip("2001:db8::2")).unwrap()];
        assert!(crowd.admit(ip("2001:db8::3")).is_none());
        assert!(crowd.admit(ip("2001:db8:0:1::3")).is_some());
        let _proxied: Vec<_> = (0..9).map(|_| crowd.admit(ip("10.1.2.3")).unwrap()).collect();
        assert_eq!(crowd.lock().len(), 2, "whoever has left is forgotten");
    }

    #[test]
    fn no_bound_is_no_bound() {
        let crowd = Crowd::new(0, Vec::new());
        let _all: Vec<_> = (0..9).map(|_| crowd.admit(ip("192.0.2.1")).unwrap()).collect();
    }
}
