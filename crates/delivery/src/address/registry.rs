//! The table of special addresses against the registries of IANA, whose rows stand in
//! `special_purpose.csv`: what they call unreachable is refused, and what is refused beyond that is
//! written down here.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{V4, V6, special};

const REGISTRY: &str = include_str!("special_purpose.csv");

/// Reachable by the registry, or unknown to it, and refused all the same: anycast of protocols that no
/// webhook speaks, forms that carry an IPv4 address, and metadata services in public space.
const STRICTER: [&str; 11] = [
    "168.63.129.16/32",
    "192.0.0.9/32",
    "192.0.0.10/32",
    "64:ff9b::/96",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:1::3/128",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:20::/28",
    "2001:30::/28",
];

struct Row {
    net: IpNet,
    is_reachable: bool,
}

fn rows() -> Vec<Row> {
    let lines = REGISTRY.lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<_> = lines
        .map(|line| {
            let [_, block, _, _, reachable] = line.split(',').collect::<Vec<_>>()[..] else {
                panic!("not five columns: {line}");
            };
            assert!(matches!(reachable, "yes" | "no" | "n/a"), "{line}");
            let net = block.parse::<IpNet>().unwrap();
            assert_eq!(net, net.trunc(), "{line}");
            Row { net, is_reachable: reachable == "yes" }
        })
        .collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    rows
}

fn stricter() -> Vec<IpNet> {
    STRICTER.iter().map(|net| net.parse().unwrap()).collect()
}

/// The longest row that holds the address decides, as in any table of prefixes.
fn is_public_by_registry(rows: &[Row], ip: IpAddr) -> bool {
    let holding = rows.iter().filter(|row| row.net.contains(&ip));
    holding.max_by_key(|row| row.net.prefix_len()).is_none_or(|row| row.is_reachable)
}

/// Says what is wrong with the answer for `ip`, if anything is.
fn judge(rows: &[Row], stricter: &[IpNet], ip: IpAddr) -> Result<(), String> {
    let public = is_public_by_registry(rows, ip) && !stricter.iter().any(|net| net.contains(&ip));
    match special(ip) {
        None if !public => Err(format!("{ip} may be called, and the registry says that it leads nowhere")),
        Some(special) if public => Err(format!("{ip} is refused as {}, and nobody says why", special.what)),
        _ => Ok(()),
    }
}

fn before(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn after(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// First and last address of every block, ours and IANA's, and their neighbours.
fn boundaries(rows: &[Row]) -> BTreeSet<IpAddr> {
    let ours = V4.iter().chain(V6).map(|special| special.net);
    let all = rows.iter().map(|row| row.net).chain(ours).chain(stricter());
    all.flat_map(|net| {
        let (first, last) = (net.network(), net.broadcast());
        [before(first), Some(first), after(first), before(last), Some(last), after(last)]
    })
    .flatten()
    .collect()
}

/// The mapped form of an IPv4 address must meet the fate of the address itself, not of its row.
fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

#[test]
fn the_table_agrees_with_iana_at_every_boundary() {
    let (rows, stricter) = (rows(), stricter());
    let boundaries = boundaries(&rows);
    let wrong: Vec<_> = boundaries
        .iter()
        .filter(|ip| !is_mapped(**ip))
        .filter_map(|ip| judge(&rows, &stricter, *ip).err())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(boundaries.len() > 250, "{} addresses", boundaries.len());
}

#[test]
fn a_mapped_address_shares_the_fate_of_the_one_it_carries() {
    for ip in boundaries(&rows()) {
        if let IpAddr::V4(v4) = ip {
            assert_eq!(special(v4.to_ipv6_mapped().into()), special(ip), "{ip}");
        }
    }
}

#[test]
fn the_table_agrees_with_iana_at_random_addresses() {
    // A failure names its address, which is all that repeating it takes.
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64 | 1);
    println!("seed: {seed}");
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (rows, stricter) = (rows(), stricter());
    let v6: Vec<_> = rows.iter().filter(|row| row.net.network().is_ipv6()).map(|row| row.net).collect();
    let mut refused = 0_u32;
    for number in 0..1_000_000 {
        let random = u128::from(next()) << 64 | u128::from(next());
        let ip: IpAddr = match number % 4 {
            0 | 1 => Ipv4Addr::from_bits((random >> 7) as u32).into(),
            2 => Ipv6Addr::from_bits(random).into(),
            // The blocks are specks in this space: begin with one of them, and lose one bit now and then.
            _ => {
                let net = v6[usize::try_from(next() % v6.len() as u64).unwrap()];
                let IpAddr::V6(network) = net.network() else { unreachable!() };
                let host = random.checked_shr(net.prefix_len().into()).unwrap_or(0);
                let flip = if next() % 2 == 0 { 1 << (next() % 128) } else { 0 };
                Ipv6Addr::from_bits((network.to_bits() | host) ^ flip).into()
            }
        };
        if is_mapped(ip) {
            continue;
        }
        judge(&rows, &stricter, ip).unwrap_or_else(|wrong| panic!("{wrong} (address {number})"));
        refused += u32::from(special(ip).is_some());
    }
    println!("{refused} of 1,000,000 refused");
    assert!(refused > 100_000, "hardly anything was refused: {refused}");
}
