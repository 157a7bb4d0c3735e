//! Who may open a page, and what a browser may do with what it gets.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{StatusCode, Uri};
use queue::inbox::Inbox;
use queue::port::Stored;
use subtle::ConstantTimeEq as _;

use crate::Shared;

/// Our own script and style, and nothing else; the script cannot turn text into markup.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";
/// For what strangers wrote: an origin of its own, without scripts.
const SANDBOX_POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

impl Shared {
    /// The inbox, for whoever shows its view token. A wrong token and an unknown inbox are one answer.
    pub(crate) async fn open(&self, id: &str, token: Option<&str>) -> Stored<Option<Inbox>> {
        let Ok(id) = id.parse() else { return Ok(None) };
        let inbox = self.inboxes.inbox(&id).await?;
        let token = token.unwrap_or_default().as_bytes();
        Ok(inbox.filter(|inbox| {
            !inbox.view_token.is_empty() && bool::from(inbox.view_token.as_bytes().ct_eq(token))
        }))
    }
}

/// Refuses pages under a name that is not ours. A web page of somebody else can point its own name
/// at 127.0.0.1 (DNS rebinding) and would then read ours as its own; an IP address cannot be
/// re-pointed so.
pub(crate) async fn check_host(State(room): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if host(request.uri(), request.headers()).is_some_and(|host| room.answers_to(&host)) {
        return next.run(request).await;
    }
    let message = "this server does not show pages under this host name; \
                   open the address it was started with (`--public-url`)\n";
    (StatusCode::MISDIRECTED_REQUEST, message).into_response()
}

/// The host the browser believes it talks to, without its port.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => Authority::try_from(headers.get(HOST)?.as_bytes()).ok()?,
    };
    Some(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

impl Shared {
    fn answers_to(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost"
            || address.parse::<IpAddr>().is_ok()
            || self.options.public_url.host_str() == Some(host)
            || self.options.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// The headers every page answer carries, unless its handler set a stricter one.
pub(crate) async fn lock_down(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CACHE_CONTROL, "no-store");
    set(RESOURCE_POLICY, "same-origin");
    set(OPENER_POLICY, "same-origin");
    response
}

/// The headers of an answer that may hold what strangers wrote.
pub(crate) fn sandbox(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX_POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}
