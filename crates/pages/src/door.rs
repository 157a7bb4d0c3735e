//! Who may open a page, and what a browser may do with what it gets.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{StatusCode, Uri};
use url::Url;

/// Our own script and style, and nothing else; the script cannot turn text into markup.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";
/// The same for pages with forms, which lead to us.
const FORM_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; \
     require-trusted-types-for 'script'; trusted-types 'none'";
/// For what strangers wrote: an origin of its own, without scripts.
const SANDBOX_POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const FETCH_SITE: &str = "sec-fetch-site";

/// The names under which pages may be opened: the public one, `localhost`, IP addresses, and some more.
#[derive(Clone, Debug)]
pub struct Hosts {
    public: Option<String>,
    more: Arc<[String]>,
}

impl Hosts {
    /// Those of a server with this public address.
    pub fn new(public_url: &Url, more: Vec<String>) -> Self {
        Self { public: public_url.host_str().map(str::to_owned), more: more.into() }
    }

    fn include(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost"
            || address.parse::<IpAddr>().is_ok()
            || self.public.as_deref() == Some(host)
            || self.more.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// Refuses pages under a name that is not ours. A web page of somebody else can point its own name
/// at 127.0.0.1 (DNS rebinding) and would then read ours as its own; an IP address cannot be
/// re-pointed so.
pub async fn check_host(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    if host(request.uri(), request.headers()).is_some_and(|host| hosts.include(&host)) {
        return next.run(request).await;
    }
    let message = "this server does not show pages under this host name; \
                   open the address it was started with (`--public-url`)\n";
    (StatusCode::FORBIDDEN, message).into_response()
}

/// The host the browser believes it talks to, without its port.
pub fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    Some(authority(uri, headers)?.host().trim_end_matches('.').to_ascii_lowercase())
}

fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => Authority::try_from(headers.get(HOST)?.as_bytes()).ok(),
    }
}

/// Whether a request that changes something comes from a page of ours: what a browser says of its sender must name
/// this very origin. One that says nothing at all is not from a browser of this century, and is refused.
pub fn is_own_origin(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(authority) = authority(uri, headers) else { return false };
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let sender = origin.and_then(|origin| origin.split_once("://")).map(|(_, sender)| sender);
    sender.is_some_and(|sender| sender.eq_ignore_ascii_case(authority.as_str()))
}

/// The headers every page answer carries, unless its handler set a stricter one.
pub async fn lock_down(response: Response) -> Response {
    locked(response, PAGE_POLICY)
}

/// The same for pages with forms.
pub async fn lock_down_to_forms(response: Response) -> Response {
    locked(response, FORM_POLICY)
}

fn locked(mut response: Response, policy: &'static str) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, policy);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CACHE_CONTROL, "no-store");
    set(RESOURCE_POLICY, "same-origin");
    set(OPENER_POLICY, "same-origin");
    response
}

/// The headers of an answer that may hold what strangers wrote.
pub fn sandbox(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX_POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_change_comes_from_a_page_of_ours_or_is_refused() {
        let here = ("host", "127.0.0.1:4100");
        for (pairs, own) in [
            (vec![here, ("sec-fetch-site", "same-origin")], true),
            (vec![here, ("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:4100")], false),
            (vec![here, ("sec-fetch-site", "cross-site")], false),
            (vec![here, ("sec-fetch-site", "none")], false),
            (vec![here, ("origin", "http://127.0.0.1:4100")], true),
            (vec![here, ("origin", "http://127.0.0.1:4101")], false),
            (vec![here, ("origin", "http://evil.example")], false),
            (vec![here, ("origin", "null")], false),
            (vec![here], false),
        ] {
            assert_eq!(is_own_origin(&Uri::from_static("/dashboard"), &headers(&pairs)), own, "{pairs:?}");
        }
    }

    #[test]
    fn pages_open_under_our_names_alone() {
        let hosts =
            Hosts::new(&Url::parse("https://hooks.example:8443").unwrap(), vec!["lan.example".into()]);
        for good in ["localhost", "127.0.0.1", "[::1]", "hooks.example", "lan.example", "LAN.example"] {
            assert!(hosts.include(good), "{good}");
        }
        for bad in ["evil.example", "hooks.example.evil.example", "localhost.evil.example", ""] {
            assert!(!hosts.include(bad), "{bad}");
        }
    }
}
