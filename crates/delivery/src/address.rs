//! Which IP addresses belong to the public internet, by a table of our own.
//!
//! The standard library's helpers are unstable or too narrow, so the special-purpose registries of
//! IANA stand here as data, together with the metadata addresses of clouds that lie in public space.
//! IPv6 works the other way round from IPv4: only `2000::/3` is public at all, minus its exceptions,
//! so a range allotted tomorrow is refused until somebody says what it is.

#[cfg(test)]
mod registry;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an address is, when it is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Special {
    /// The range it lies in.
    pub(crate) net: IpNet,
    /// In words: "a loopback address".
    pub(crate) what: &'static str,
    /// Whether `--allow-private-webhooks` can open it. Link-local, metadata and addresses that are
    /// no single machine never open.
    pub(crate) can_be_allowed: bool,
}

const LOOPBACK: &str = "a loopback address";
const PRIVATE: &str = "a private address";
const SHARED: &str = "an address shared by a provider's customers";
const DOCUMENTATION: &str = "an address reserved for documentation";
const BENCHMARK: &str = "an address reserved for benchmarks";
const LINK_LOCAL: &str = "a link-local address";
const METADATA: &str = "a cloud's metadata address";
const UNSPECIFIED: &str = "an unspecified address";
const MULTICAST: &str = "a multicast address";
const PROTOCOL: &str = "an address reserved for protocols";
const RESERVED: &str = "a reserved address";
const EMBEDDED: &str = "an IPv6 address that carries an IPv4 address";

const OPEN: bool = true;
const NEVER: bool = false;

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8, what: &'static str, can_be_allowed: bool) -> Special {
    let net = Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length);
    Special { net: IpNet::V4(net), what, can_be_allowed }
}

const fn v6(words: [u16; 8], length: u8, what: &'static str, can_be_allowed: bool) -> Special {
    let [a, b, c, d, e, f, g, h] = words;
    let net = Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length);
    Special { net: IpNet::V6(net), what, can_be_allowed }
}

/// Narrow ranges stand before the wide ones that hold them: the first match decides.
const V4: &[Special] = &[
    v4(168, 63, 129, 16, 32, METADATA, NEVER),
    v4(100, 100, 100, 200, 32, METADATA, NEVER),
    v4(192, 0, 0, 192, 32, METADATA, NEVER),
    v4(0, 0, 0, 0, 8, UNSPECIFIED, NEVER),
    v4(10, 0, 0, 0, 8, PRIVATE, OPEN),
    v4(100, 64, 0, 0, 10, SHARED, OPEN),
    v4(127, 0, 0, 0, 8, LOOPBACK, OPEN),
    v4(169, 254, 0, 0, 16, LINK_LOCAL, NEVER),
    v4(172, 16, 0, 0, 12, PRIVATE, OPEN),
    v4(192, 0, 0, 0, 24, PROTOCOL, NEVER),
    v4(192, 0, 2, 0, 24, DOCUMENTATION, OPEN),
    v4(192, 88, 99, 0, 24, PROTOCOL, NEVER),
    v4(192, 168, 0, 0, 16, PRIVATE, OPEN),
    v4(198, 18, 0, 0, 15, BENCHMARK, OPEN),
    v4(198, 51, 100, 0, 24, DOCUMENTATION, OPEN),
    v4(203, 0, 113, 0, 24, DOCUMENTATION, OPEN),
    v4(224, 0, 0, 0, 4, MULTICAST, NEVER),
    v4(240, 0, 0, 0, 4, RESERVED, NEVER),
];

const V6: &[Special] = &[
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, METADATA, NEVER),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, METADATA, NEVER),
    v6([0; 8], 128, UNSPECIFIED, NEVER),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, LOOPBACK, OPEN),
    v6([0; 8], 96, EMBEDDED, NEVER),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, EMBEDDED, NEVER),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, EMBEDDED, NEVER),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, RESERVED, NEVER),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, PROTOCOL, NEVER),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, DOCUMENTATION, OPEN),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, EMBEDDED, NEVER),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, DOCUMENTATION, OPEN),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, PRIVATE, OPEN),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LINK_LOCAL, NEVER),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, PRIVATE, OPEN),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, MULTICAST, NEVER),
];

const PUBLIC_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const NOT_PUBLIC_V6: Special = v6([0; 8], 0, RESERVED, NEVER);

/// What is special about `ip`; `None` when it is an ordinary public address.
///
/// An IPv4-mapped address is its IPv4 address; the other ways of carrying one are refused whole.
pub(crate) fn special(ip: IpAddr) -> Option<Special> {
    let ip = ip.to_canonical();
    let table = if ip.is_ipv4() { V4 } else { V6 };
    let found = table.iter().find(|special| special.net.contains(&ip)).copied();
    match ip {
        IpAddr::V6(ip) if !PUBLIC_V6.contains(&ip) => found.or(Some(NOT_PUBLIC_V6)),
        _ => found,
    }
}

/// Whether `ip` is an address of this machine. Connecting a datagram socket sends nothing; the
/// kernel picks the address itself as the source exactly when it is one of ours.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    std::net::UdpSocket::bind((any, 0))
        .and_then(|socket| {
            socket.connect((ip, 9))?;
            socket.local_addr()
        })
        .is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The last address before each range, its first, its last, and the one behind it.
    #[test]
    fn the_boundaries_of_the_ipv4_ranges() {
        for (before, first, last, after) in [
            (None, "0.0.0.0", "0.255.255.255", Some("1.0.0.0")),
            (Some("9.255.255.255"), "10.0.0.0", "10.255.255.255", Some("11.0.0.0")),
            (Some("100.63.255.255"), "100.64.0.0", "100.127.255.255", Some("100.128.0.0")),
            (Some("126.255.255.255"), "127.0.0.0", "127.255.255.255", Some("128.0.0.0")),
            (Some("168.63.129.15"), "168.63.129.16", "168.63.129.16", Some("168.63.129.17")),
            (Some("169.253.255.255"), "169.254.0.0", "169.254.255.255", Some("169.255.0.0")),
            (Some("172.15.255.255"), "172.16.0.0", "172.31.255.255", Some("172.32.0.0")),
            (Some("191.255.255.255"), "192.0.0.0", "192.0.0.255", Some("192.0.1.0")),
            (Some("192.0.1.255"), "192.0.2.0", "192.0.2.255", Some("192.0.3.0")),
            (Some("192.88.98.255"), "192.88.99.0", "192.88.99.255", Some("192.88.100.0")),
            (Some("192.167.255.255"), "192.168.0.0", "192.168.255.255", Some("192.169.0.0")),
            (Some("198.17.255.255"), "198.18.0.0", "198.19.255.255", Some("198.20.0.0")),
            (Some("198.51.99.255"), "198.51.100.0", "198.51.100.255", Some("198.51.101.0")),
            (Some("203.0.112.255"), "203.0.113.0", "203.0.113.255", Some("203.0.114.0")),
            (Some("223.255.255.255"), "224.0.0.0", "255.255.255.255", None),
        ] {
            for inside in [first, last] {
                assert!(special(ip(inside)).is_some(), "{inside}");
                assert!(special(ip(&format!("::ffff:{inside}"))).is_some(), "mapped {inside}");
            }
            for outside in [before, after].into_iter().flatten() {
                assert_eq!(special(ip(outside)), None, "{outside}");
                assert_eq!(special(ip(&format!("::ffff:{outside}"))), None, "mapped {outside}");
            }
        }
    }

    #[test]
    fn the_boundaries_of_the_ipv6_ranges() {
        for inside in [
            "::",
            "::1",
            "::2",
            "::7f00:1",
            "::ffff:ffff",
            "0:0:0:0:0:1::",
            "64:ff9b::a00:1",
            "64:ff9b::ffff:ffff",
            "64:ff9b:1::",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "100::",
            "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001::",
            "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            "2002::",
            "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "3fff::",
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            "4000::",
            "5f00::1",
            "fc00::",
            "fd00:ec2::254",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe80::1",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fec0::",
            "ff02::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(special(ip(inside)).is_some(), "{inside}");
        }
        for outside in [
            "2000::",
            "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:200::",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2003::",
            "2606:4700:4700::1111",
            "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "3fff:1000::",
        ] {
            assert_eq!(special(ip(outside)), None, "{outside}");
        }
    }

    #[test]
    fn link_local_and_metadata_addresses_open_for_nobody() {
        for never in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            assert!(!special(ip(never)).unwrap().can_be_allowed, "{never}");
        }
        for openable in ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "fd12::1", "100.64.0.1"] {
            assert!(special(ip(openable)).unwrap().can_be_allowed, "{openable}");
        }
    }

    #[test]
    fn the_machine_knows_its_own_addresses() {
        assert!(is_own(ip("127.0.0.1")));
        assert!(!is_own(ip("192.0.2.1")));
    }
}
