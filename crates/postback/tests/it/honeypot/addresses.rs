//! Addresses that webhooks may not go to, and the ways to write them.

use std::net::{IpAddr, Ipv4Addr};

/// At least one of every range; all of them lead to the honeypot.
pub(super) const FORBIDDEN: &[&str] = &[
    "169.254.169.254",
    "10.0.0.1",
    "127.0.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "fd00:ec2::254",
    "::1",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.0.1",
    "192.168.255.254",
    "100.64.0.1",
    "100.127.255.254",
    "169.254.170.2",
    "192.0.0.192",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.1",
    "203.0.113.1",
    "240.0.0.1",
    "10.255.255.254",
    "127.255.255.254",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "::",
    "fd20:ce::254",
    "fd00::1",
    "fc00::1",
    "fec0::1",
    "fe80::1",
    "2001:db8::1",
    "3fff::1",
    "2001::7f00:1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "5f00::1",
    "4000::1",
    "::7f00:1",
    "::a9fe:a9fe",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
];

/// Every way to write an IPv4 address that some parser takes for one.
fn spellings(ip: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = ip.octets();
    let number = ip.to_bits();
    let (hi, lo) = (number >> 16, number & 0xffff);
    let circled = |digits: String| -> String {
        digits
            .chars()
            .map(|digit| ['⓪', '①', '②', '③', '④', '⑤', '⑥', '⑦', '⑧', '⑨'][digit as usize - 48])
            .collect()
    };
    vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{a}.{b}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("{a}.{}", number & 0xff_ffff),
        format!("{number}"),
        format!("0x{number:x}"),
        format!("0X{number:X}"),
        format!("0{number:o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("0x{a:x}.{b}.0{c:o}.{d}"),
        format!("{a}.0x{b:x}.{}", u32::from(c) << 8 | u32::from(d)),
        format!("{a}。{b}。{c}。{d}"),
        format!(
            "{}.{}.{}.{}",
            circled(a.to_string()),
            circled(b.to_string()),
            circled(c.to_string()),
            circled(d.to_string())
        ),
        format!("{a}.{b}.{c}.{}", percent(d)),
        format!("[::ffff:{a}.{b}.{c}.{d}]"),
        format!("[::ffff:{hi:x}:{lo:x}]"),
        format!("[0:0:0:0:0:ffff:{hi:x}:{lo:x}]"),
        format!("[::{hi:x}:{lo:x}]"),
        format!("[64:ff9b::{hi:x}:{lo:x}]"),
        format!("[2002:{hi:x}:{lo:x}::]"),
    ]
}

fn percent(number: u8) -> String {
    number.to_string().bytes().map(|digit| format!("%{digit:02x}")).collect()
}

/// At least `count` addresses, by every spelling, scheme and port.
pub(super) fn literals(count: usize) -> Vec<String> {
    let mut urls = Vec::new();
    for address in FORBIDDEN {
        let hosts = match address.parse().unwrap() {
            IpAddr::V4(ip) => spellings(ip),
            IpAddr::V6(ip) => vec![
                format!("[{ip}]"),
                format!("[{}]", ip.segments().map(|part| format!("{part:04x}")).join(":")),
            ],
        };
        let ends = ["http://HOST/", "https://HOST:443/latest/meta-data/", "http://HOST:6379/"];
        let all =
            hosts.iter().enumerate().map(|(number, host)| ends[number % ends.len()].replace("HOST", host));
        urls.extend(all);
    }
    assert!(urls.len() >= count, "{} literals", urls.len());
    urls
}
