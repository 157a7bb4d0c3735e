//! What of a request goes on to a web server, and what of its answer comes back.
//!
//! The key, cookies and whatever belongs to one connection stay here; an answer's cookies and what would speak for the
//! whole origin too, since the dashboard lives on it.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request};
use hyper::upgrade::OnUpgrade;
use queue::RunId;
use queue::web::{Head, Headers};

use super::below_app;
use crate::Gateway;

/// Of one connection alone (RFC 9110, 7.6.1).
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Ours, or said anew.
const NOT_PASSED_ON: [&str; 10] = [
    "authorization",
    "cookie",
    "expect",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-request-id",
];
/// What answers may not say for the origin that they share with others.
const NOT_PASSED_BACK: [&str; 6] = [
    "set-cookie",
    "clear-site-data",
    "strict-transport-security",
    "service-worker-allowed",
    "alt-svc",
    "x-request-id",
];
/// Words of one attempt to ask, not of what is asked: they would make another call of a repetition.
const OF_ATTEMPT: [&str; 7] =
    ["x-forwarded-", "x-real-ip", "x-request-id", "x-amzn-", "x-b3-", "x-envoy-", "x-cloud-trace-"];
/// Options of the run, which are ours.
const OPTIONS: [&str; 7] =
    ["x-webhook-", "x-metadata", "x-delay", "x-max-queue-time", "x-priority", "x-retries", "x-max-attempts"];
/// Parameters of the query that are ours.
const PARAMETERS: [&str; 3] = ["async", "webhookEndpoint", "webhookEventsFilter"];

/// The connection that is to speak another protocol, if the request asks for that.
pub(super) fn wants_switch(parts: &request::Parts) -> Option<OnUpgrade> {
    asks_for_switch(parts).then(|| parts.extensions.get::<OnUpgrade>().cloned()).flatten()
}

fn asks_for_switch(parts: &request::Parts) -> bool {
    let has_word = |name: HeaderName, wanted: &str| {
        let values = parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    parts.version == Version::HTTP_11
        && parts.headers.contains_key(header::UPGRADE)
        && has_word(header::CONNECTION, "upgrade")
        && !has_word(header::UPGRADE, "h2c")
}

/// Where below the app a request goes, with what it asks.
fn target(parts: &request::Parts, query: Option<&str>) -> String {
    let rest = below_app(parts.uri.path()).map_or("", |(_, _, rest)| rest);
    match query.filter(|query| !query.is_empty()) {
        Some(query) => format!("/{rest}?{query}"),
        None => format!("/{rest}"),
    }
}

/// What a caller's request says to the web server.
pub(super) fn of_visit(gateway: &Gateway, parts: &request::Parts, run: RunId, switches: bool) -> Head {
    let named = named_by_connection(&parts.headers);
    let is_passed = |name: &str| {
        !OF_CONNECTION.contains(&name)
            && !NOT_PASSED_ON.contains(&name)
            && !named.iter().any(|other| other == name)
    };
    let mut headers = kept(&parts.headers, is_passed);
    let mut add = |name: &str, value: Bytes| headers.push((name.to_owned(), value));
    if switches {
        let wanted = parts.headers.get(header::UPGRADE).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        add("connection", Bytes::from_static(b"upgrade"));
        add("upgrade", wanted.unwrap_or_default());
    }
    for (name, value) in forwarded(gateway, parts) {
        add(name, value);
    }
    add("x-request-id", run.to_string().into());
    if !parts.headers.contains_key(header::HOST)
        && let Some(authority) = parts.uri.authority()
    {
        add("host", authority.to_string().into());
    }
    Head { method: parts.method.to_string(), target: target(parts, parts.uri.query()), headers }
}

/// What is kept of a request as the input of a run: what says how its body is to be read and answered, and headers
/// of the caller's own, but not those that say how it came here.
pub(super) fn of_run(parts: &request::Parts) -> Head {
    let begins = |name: &str, words: &[&str]| words.iter().any(|word| name.starts_with(word));
    let is_kept = |name: &str| {
        (name.starts_with("content-") && name != "content-length")
            || name.starts_with("accept")
            || (name.starts_with("x-")
                && !begins(name, &OF_ATTEMPT)
                && !begins(name, &OPTIONS)
                && name != "x-retry-on")
    };
    let query = parts.uri.query().map(|query| {
        let ours = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default();
            PARAMETERS.contains(&name)
        };
        query.split('&').filter(|pair| !ours(pair)).collect::<Vec<_>>().join("&")
    });
    Head {
        method: parts.method.to_string(),
        target: target(parts, query.as_deref()),
        headers: kept(&parts.headers, is_kept),
    }
}

fn kept(headers: &HeaderMap, is_kept: impl Fn(&str) -> bool) -> Headers {
    headers
        .iter()
        .filter(|(name, _)| is_kept(name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())))
        .collect()
}

fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// Who asks, and where. What the request itself says counts when a trusted proxy says it.
fn forwarded(gateway: &Gateway, parts: &request::Parts) -> Vec<(&'static str, Bytes)> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(address)| address.ip().to_canonical());
    let options = &gateway.options;
    let is_trusted = peer.is_some_and(|peer| options.trusted_proxies.iter().any(|net| net.contains(&peer)));
    let said = |name: &str| {
        parts.headers.get(name).filter(|_| is_trusted).map(|value| Bytes::copy_from_slice(value.as_bytes()))
    };
    let mut forwarded = Vec::with_capacity(4);
    if let Some(peer) = peer {
        let before =
            said("x-forwarded-for").map(|before| String::from_utf8_lossy(&before).into_owned() + ", ");
        forwarded.push(("x-forwarded-for", format!("{}{peer}", before.unwrap_or_default()).into()));
    }
    let scheme = if options.public_url.starts_with("https:") { "https" } else { "http" };
    forwarded.push(("x-forwarded-proto", said("x-forwarded-proto").unwrap_or_else(|| scheme.into())));
    if let Some(host) = said("x-forwarded-host").or_else(|| host(parts)) {
        forwarded.push(("x-forwarded-host", host));
    }
    forwarded.push(("x-forwarded-prefix", prefix(parts).into()));
    forwarded
}

fn host(parts: &request::Parts) -> Option<Bytes> {
    let said = parts.headers.get(header::HOST).map(|host| Bytes::copy_from_slice(host.as_bytes()));
    said.or_else(|| parts.uri.authority().map(|authority| authority.to_string().into()))
}

/// The path of the app.
fn prefix(parts: &request::Parts) -> String {
    below_app(parts.uri.path()).map_or_else(String::new, |(project, app, _)| format!("/v4/{project}/{app}"))
}

/// What of an answer comes back.
pub(super) fn back(parts: &request::Parts, answered: Headers, switches: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(answered.len() + 4);
    let mut named = Vec::new();
    for (name, value) in &answered {
        if name == "connection" {
            let words = String::from_utf8_lossy(value).to_ascii_lowercase();
            named.extend(words.split(',').map(|word| word.trim().to_owned()));
        }
    }
    for (name, value) in answered {
        let is_passed = !OF_CONNECTION.contains(&name.as_str())
            && !NOT_PASSED_BACK.contains(&name.as_str())
            && !named.contains(&name)
            || (switches && name == "upgrade");
        if let (true, Ok(name), Ok(value)) =
            (is_passed, name.parse::<HeaderName>(), HeaderValue::from_maybe_shared(value))
        {
            headers.append(name, value);
        }
    }
    if switches {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(moved) = headers.get(header::LOCATION).and_then(|location| below(parts, location)) {
        headers.insert(header::LOCATION, moved);
    }
    headers
}

/// Where a redirection leads that was made by a server that thinks it has the whole origin to itself.
fn below(parts: &request::Parts, location: &HeaderValue) -> Option<HeaderValue> {
    let location = location.to_str().ok()?;
    let host = host(parts).unwrap_or_default();
    let own = ["http://", "https://"].into_iter().find_map(|scheme| {
        let rest = location.strip_prefix(scheme)?.strip_prefix(std::str::from_utf8(&host).ok()?)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    });
    let path = match own {
        Some(path) => path,
        None if location.starts_with('/') && !location.starts_with("//") => location,
        None => return None,
    };
    let prefix = prefix(parts);
    if path == prefix || path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/')) {
        return None;
    }
    HeaderValue::from_str(&format!("{prefix}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let request = headers
            .iter()
            .fold(http::Request::builder().method(method).uri(uri), |request, (name, value)| {
                request.header(*name, *value)
            });
        request.body(()).unwrap().into_parts().0
    }

    fn names(headers: &Headers) -> Vec<&str> {
        headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_run_keeps_what_is_asked_and_not_how_it_came() {
        let parts = parts(
            "PUT",
            "/v4/p-1/a/x%20y/z?async=true&q=1&webhookEndpoint=https%3A%2F%2Fa&asynchronous=2&flag",
            &[
                ("content-type", "image/png"),
                ("content-length", "3"),
                ("accept", "application/json"),
                ("authorization", "Bearer secret"),
                ("cookie", "a=b"),
                ("x-own", "1"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-webhook-secret", "secret"),
                ("x-priority", "3"),
                ("x-retry-on", "timeout"),
                ("idempotency-key", "k"),
                ("traceparent", "00-1"),
            ],
        );
        let head = of_run(&parts);
        assert_eq!(head.target, "/x%20y/z?q=1&asynchronous=2&flag");
        assert_eq!(
            (head.method.as_str(), names(&head.headers)),
            ("PUT", vec!["content-type", "accept", "x-own"])
        );
        assert_eq!(of_run(&self::parts("GET", "/v4/p-1/a?async=1", &[])).target, "/");
    }

    #[test]
    fn an_answer_speaks_for_itself_alone() {
        let request = parts("GET", "/v4/p-1/a/x", &[("host", "h.example:1")]);
        let answered = |headers: &[(&str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes())));
            back(&request, headers.collect(), false)
        };
        let headers = answered(&[
            ("content-type", "text/html"),
            ("set-cookie", "a=b"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("strict-transport-security", "max-age=1"),
            ("x-two", "1"),
            ("x-two", "2"),
        ]);
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "x-two", "x-two"]);

        let location = |to: &'static str| {
            let headers = answered(&[("location", to)]);
            headers[header::LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(location("/docs/"), "/v4/p-1/a/docs/");
        assert_eq!(location("http://h.example:1/docs/?x=1"), "/v4/p-1/a/docs/?x=1");
        for stays in [
            "/v4/p-1/a/docs",
            "https://elsewhere.example/docs",
            "docs/",
            "//evil.example/",
            "http://h.example:10/x",
        ] {
            assert_eq!(location(stays), stays);
        }
    }

    #[test]
    fn only_a_whole_request_for_another_protocol_switches() {
        let asks = |headers: &[(&str, &str)]| asks_for_switch(&parts("GET", "/v4/p-1/a/x", headers));
        assert!(asks(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert!(!asks(&[("upgrade", "websocket")]));
        assert!(!asks(&[("connection", "upgrade")]));
        assert!(!asks(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")]));
    }
}
