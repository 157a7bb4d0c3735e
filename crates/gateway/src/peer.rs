//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::{HeaderMap, Request, header};
use ipnet::IpNet;

/// The header in which proxies say whom they speak for, each adding its own peer at the end.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address a request was sent from. What proxies say counts only as far as they are trusted: from
/// the end of the list, the first address that is no trusted proxy.
pub(crate) fn client<B>(request: &Request<B>, trusted: &[IpNet]) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.ip().to_canonical();
    for named in forwarded_for(request.headers()) {
        if !is_trusted(&client) {
            break;
        }
        let Ok(before) = named.parse::<IpAddr>() else { break };
        client = before.to_canonical();
    }
    Some(client)
}

/// The addresses that proxies named, the nearest first.
fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(',').map(str::trim))
}

/// Whether a request was sent on this machine, by a program rather than through a proxy or by a web
/// page whose name was made to point here (DNS rebinding).
pub(crate) fn is_local<B>(request: &Request<B>) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let from_loopback = peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback());
    let headers = request.headers();
    let forwarded = ["forwarded", FORWARDED_FOR, "x-real-ip"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
    from_loopback && !forwarded && host.is_none_or(names_loopback)
}

/// Whether an address leads to this machine by its very name.
pub(crate) fn is_loopback_url(url: &str) -> bool {
    url::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(names_loopback))
}

fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn local_is_a_loopback_peer_that_asks_for_loopback() {
        for host in ["127.0.0.1:4100", "localhost", "LOCALHOST:1", "[::1]:4100", "[::1]"] {
            assert!(is_local(&request("127.0.0.1:9", &[("host", host)])), "{host}");
        }
        assert!(is_local(&request("[::1]:9", &[])));
        assert!(is_local(&request("[::ffff:127.0.0.1]:9", &[])));
        assert!(!is_local(&request("10.0.0.1:9", &[("host", "localhost")])));
        assert!(!is_local(&request("127.0.0.1:9", &[("host", "evil.example:4100")])));
        assert!(!is_local(&request("127.0.0.1:9", &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")])));
        assert!(!is_local(&Request::new(())));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, forwarded: &[&str]| {
            let headers: Vec<_> = forwarded.iter().map(|line| (FORWARDED_FOR, *line)).collect();
            client(&request(peer, &headers), &trusted).unwrap().to_string()
        };
        assert_eq!(client("198.51.100.7:1", &["203.0.113.1"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1:1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1:1", &["203.0.113.1"]), "203.0.113.1");
        // The first entries are whatever the client made up.
        assert_eq!(client("10.0.0.1:1", &["1.1.1.1, 203.0.113.1, 10.0.0.2"]), "203.0.113.1");
        assert_eq!(client("10.0.0.1:1", &["1.1.1.1", "203.0.113.1"]), "203.0.113.1");
        assert_eq!(client("10.0.0.1:1", &["nonsense"]), "10.0.0.1");
    }
}
