//! Signing in: the private key is shown once, and a signed cookie stands for it from then on.
//!
//! The cookie names the key by its hash and ends by itself; a key that is rotated ends all that were opened with it.
//! Nobody can make one without the project's own secret, and no script can read it.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::{Method, StatusCode, Uri};
use queue::port::Stored;
use queue::registry::{KeyHash, Scope};
use queue::{ProjectId, Timestamp};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::Shared;
use crate::assets::Frame;
use crate::error::Trouble;

/// The prefix makes browsers keep it to this host, this path and secure ways.
const NAME: &str = "__Host-postback";
/// How long a session lasts.
const LASTS_SECS: i64 = 12 * 3_600;
/// What is signed, apart from everything else that is signed with the same secret.
const PURPOSE: &[u8] = b"postback dashboard session 1";
pub(crate) const HASH_BYTES: usize = 32;
pub(crate) const TIME_BYTES: usize = 8;
/// Longer keys are none of ours.
const KEY_BYTES_MAX: usize = 256;

/// Who looks at a page.
pub(crate) struct SignedIn(pub(crate) ProjectId);

impl FromRequestParts<Arc<Shared>> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, room: &Arc<Shared>) -> Result<Self, Response> {
        match room.project_of(&parts.headers).await {
            Ok(Some(project)) => Ok(Self(project)),
            Ok(None) if parts.method == Method::GET => {
                let here = parts.uri.path_and_query().map_or("/dashboard", |here| here.as_str());
                let next: String = url::form_urlencoded::byte_serialize(here.as_bytes()).collect();
                Err(Redirect::to(&format!("/dashboard/sign-in?next={next}")).into_response())
            }
            Ok(None) => Err(Redirect::to("/dashboard/sign-in").into_response()),
            Err(error) => Err(Trouble::from(error).into_response()),
        }
    }
}

impl Shared {
    /// The project whose session the cookie is.
    async fn project_of(&self, headers: &HeaderMap) -> Stored<Option<ProjectId>> {
        Ok(self.session(headers).await?.map(|(project, ..)| project))
    }

    /// The key that opened the session, with the secret that signs in its name.
    pub(crate) async fn key_of(&self, headers: &HeaderMap) -> Stored<Option<(KeyHash, Vec<u8>)>> {
        Ok(self.session(headers).await?.map(|(_, key, secret)| (key, secret)))
    }

    async fn session(&self, headers: &HeaderMap) -> Stored<Option<(ProjectId, KeyHash, Vec<u8>)>> {
        let Some(Claimed { key, until, mac }) = Claimed::read(headers) else { return Ok(None) };
        if until <= self.ports.clock.now().as_secs() {
            return Ok(None);
        }
        let Some((project, secret)) = self.secret_of(&key).await? else { return Ok(None) };
        let ours = session_signer(&secret, &key, until).verify_slice(&mac).is_ok();
        Ok(ours.then_some((project, key, secret)))
    }

    /// The project that the private key opens, with the secret that signs its sessions.
    pub(crate) async fn secret_of(&self, key: &KeyHash) -> Stored<Option<(ProjectId, Vec<u8>)>> {
        let identity = self.ports.registry.identify(key).await?;
        let Some(identity) = identity.filter(|identity| identity.scope == Scope::Everything) else {
            return Ok(None);
        };
        let project = self.ports.registry.project(&identity.project).await?;
        Ok(project.map(|project| (project.id, project.token_secret)))
    }
}

/// What a cookie says of itself.
struct Claimed {
    key: KeyHash,
    until: i64,
    mac: [u8; HASH_BYTES],
}

impl Claimed {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        let mut pairs =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == NAME)?;
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (key, rest) = bytes.split_first_chunk::<HASH_BYTES>()?;
        let (until, mac) = rest.split_first_chunk::<TIME_BYTES>()?;
        Some(Self { key: *key, until: i64::from_be_bytes(*until), mac: mac.try_into().ok()? })
    }
}

/// A signature over these parts: the first says what it is for, the others have lengths of their own.
pub(crate) fn signer(secret: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let signer = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    parts.iter().fold(signer, hmac::Mac::chain_update)
}

fn session_signer(secret: &[u8], key: &KeyHash, until: i64) -> Hmac<Sha256> {
    signer(secret, &[PURPOSE, key, &until.to_be_bytes()])
}

fn cookie(secret: &[u8], key: &KeyHash, now: Timestamp) -> HeaderValue {
    let until = now.as_secs() + LASTS_SECS;
    let mac = session_signer(secret, key, until).finalize().into_bytes();
    let value = URL_SAFE_NO_PAD.encode([&key[..], &until.to_be_bytes(), &mac].concat());
    let text = format!("{NAME}={value}; Path=/; Max-Age={LASTS_SECS}; Secure; HttpOnly; SameSite=Strict");
    HeaderValue::from_str(&text).expect("base64 fits a header")
}

/// A change that no page of ours asks for does not happen.
pub(crate) async fn refuse_foreign_changes(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || pages::is_own_origin(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let message = "this change was asked for by another site; open the dashboard itself and try there\n";
    (StatusCode::FORBIDDEN, message).into_response()
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInPage {
    frame: Frame,
    next: String,
    trouble: Option<&'static str>,
}

#[derive(Deserialize)]
pub(crate) struct Ask {
    next: Option<String>,
}

/// `GET /dashboard/sign-in`
pub(crate) async fn ask(
    State(room): State<Arc<Shared>>,
    Query(ask): Query<Ask>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let trouble = (!room.is_safe(&uri, &headers)).then_some(UNSAFE);
    page(StatusCode::OK, ask.next.as_deref(), trouble)
}

fn page(status: StatusCode, next: Option<&str>, trouble: Option<&'static str>) -> Response {
    let next = own_path(next);
    pages::html(status, &SignInPage { frame: Frame::new(None), next, trouble })
}

const UNSAFE: &str = "This page came over plain HTTP, where anybody on the way could read the key. Open it as \
    http://127.0.0.1 on the server's machine (an SSH tunnel will do), or put TLS in front and start with --public-url https://…";
const WRONG: &str = "This is no private key of this server. `postback keys show` on the server's machine prints it; it begins with `private-`.";

#[derive(Deserialize)]
pub(crate) struct SignIn {
    key: String,
    next: Option<String>,
}

/// `POST /dashboard/sign-in`
pub(crate) async fn sign_in(
    State(room): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Response {
    if !room.is_safe(&uri, &headers) {
        return page(StatusCode::FORBIDDEN, form.next.as_deref(), Some(UNSAFE));
    }
    let key = form.key.trim();
    let hash: KeyHash = Sha256::digest(key.as_bytes()).into();
    let found = if key.len() <= KEY_BYTES_MAX { room.secret_of(&hash).await } else { Ok(None) };
    match found {
        Ok(Some((_, secret))) => {
            let cookie = cookie(&secret, &hash, room.ports.clock.now());
            let mut response = Redirect::to(&own_path(form.next.as_deref())).into_response();
            response.headers_mut().insert(SET_COOKIE, cookie);
            response
        }
        Ok(None) => page(StatusCode::UNAUTHORIZED, form.next.as_deref(), Some(WRONG)),
        Err(error) => Trouble::from(error).into_response(),
    }
}

/// `POST /dashboard/sign-out`
pub(crate) async fn sign_out() -> Response {
    let mut response = Redirect::to("/dashboard/sign-in").into_response();
    let gone = format!("{NAME}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    response.headers_mut().insert(SET_COOKIE, HeaderValue::from_str(&gone).expect("it fits a header"));
    response
}

impl Shared {
    /// Whether a key may travel this way: on the machine itself, or under the public name when that is https.
    fn is_safe(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        pages::host(uri, headers).is_some_and(|host| is_safe_under(&host, &self.options.public_url))
    }
}

fn is_safe_under(host: &str, public: &Url) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost"
        || address.is_ok_and(|address| address.is_loopback())
        || (public.scheme() == "https" && public.host_str() == Some(host))
}

/// A path below the dashboard; anything else leads to its first page.
fn own_path(text: Option<&str>) -> String {
    let own = |path: &&str| path.starts_with("/dashboard/") && !path.starts_with("/dashboard/sign-");
    text.filter(own).filter(|path| !path.contains(['\\', '\r', '\n'])).unwrap_or("/dashboard").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        assert_eq!(own_path(Some("/dashboard/runs?state=failed")), "/dashboard/runs?state=failed");
        for foreign in [
            "https://evil.example",
            "//evil.example",
            "/v2/projects",
            "/dashboard/sign-out",
            "/dashboard/\\x",
        ] {
            assert_eq!(own_path(Some(foreign)), "/dashboard", "{foreign}");
        }
        assert_eq!(own_path(None), "/dashboard");
    }

    #[test]
    fn a_key_travels_on_the_machine_itself_or_under_the_public_name_with_tls() {
        let public = |url: &str| Url::parse(url).unwrap();
        let (plain, tls) = (public("http://hooks.example"), public("https://hooks.example"));
        let host = |uri: &str, header: Option<&str>| {
            let headers = header.map(|host| (http::header::HOST, HeaderValue::from_str(host).unwrap()));
            pages::host(&uri.parse().unwrap(), &headers.into_iter().collect()).unwrap()
        };
        // HTTP/2 has no such header: the name stands in the address.
        for host in [host("/x", Some("HOOKS.example:443")), host("https://hooks.example./x", None)] {
            assert!(is_safe_under(&host, &tls) && !is_safe_under(&host, &plain), "{host}");
        }
        for good in
            [host("/x", Some("127.0.0.1:4100")), host("/x", Some("[::1]:1")), host("/x", Some("localhost"))]
        {
            assert!(is_safe_under(&good, &plain), "{good}");
        }
        for bad in ["192.168.0.1", "evil.example", "localhost.evil.example"] {
            assert!(!is_safe_under(bad, &tls), "{bad}");
        }
    }

    #[test]
    fn a_cookie_is_bound_to_its_key_its_time_and_the_secret() {
        let (key, now) = ([7; 32], Timestamp::from_millis(1_000));
        let header = cookie(b"secret", &key, now);
        let value = header.to_str().unwrap().split_once(';').unwrap().0.to_owned();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(&format!("a=b; {value}; c=d")).unwrap());
        let claimed = Claimed::read(&headers).unwrap();
        assert_eq!((claimed.key, claimed.until), (key, 1 + LASTS_SECS));
        assert!(session_signer(b"secret", &key, claimed.until).verify_slice(&claimed.mac).is_ok());
        assert!(session_signer(b"other", &key, claimed.until).verify_slice(&claimed.mac).is_err());
        assert!(session_signer(b"secret", &key, claimed.until + 1).verify_slice(&claimed.mac).is_err());
        assert!(session_signer(b"secret", &[8; 32], claimed.until).verify_slice(&claimed.mac).is_err());
        for attribute in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(header.to_str().unwrap().contains(attribute), "{attribute}");
        }
    }
}
