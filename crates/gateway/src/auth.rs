//! Who is calling: a project's key, raw or as `Bearer`, or a service-account token.
//!
//! Keys are looked up by their SHA-256; tokens are JWTs that this server signed with the project's own
//! secret (HS256). Whatever cannot be read or checked is a 401, never a fault.

use axum::extract::{FromRequestParts, RawPathParams};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use queue::ProjectId;
use queue::registry::{Identity, Scope};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::Gateway;
use crate::problem::{Answer, Problem};

/// Longer credentials are refused unread.
const CREDENTIAL_BYTES_MAX: usize = 8 << 10;
/// How far the clocks of two machines may differ.
const CLOCK_SKEW_SECS: f64 = 60.0;

const MISSING: &str = "this request carries no key; send `Authorization: public-…` or `Authorization: Bearer …` \
                       with a key of the project (`postback keys` shows them)";
const REFUSED: &str = "this key is not known here; `postback keys` shows the keys of this server's projects";

/// How a caller says who it is.
#[derive(Clone, Copy)]
pub(crate) enum Credential<'a> {
    /// By a key in the request's headers.
    InHeaders,
    /// Another room knows that it is of this project.
    Known(&'a ProjectId),
}

/// Who is calling, in the extensions of a request that another room of this process makes: none that came over the
/// network has any.
#[derive(Clone)]
pub(crate) struct Known(pub(crate) Identity);

/// Who sent a request with these headers.
pub(crate) async fn identify(gateway: &Gateway, headers: &HeaderMap) -> Answer<Identity> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Err(Problem::unauthorized(MISSING));
    };
    let credential = value.to_str().map_err(|_| Problem::unauthorized(REFUSED))?;
    let credential = without_scheme(credential).trim();
    if credential.is_empty() {
        return Err(Problem::unauthorized(MISSING));
    }
    if credential.len() > CREDENTIAL_BYTES_MAX {
        return Err(Problem::unauthorized(REFUSED));
    }
    let identity = if credential.contains('.') {
        by_token(gateway, credential).await?
    } else {
        gateway.registry.identify(&Sha256::digest(credential.as_bytes()).into()).await?
    };
    let identity = identity.ok_or_else(|| Problem::unauthorized(REFUSED))?;
    if let Some(rate) = &gateway.rate_of_key {
        rate.count(credential, Instant::now())?;
    }
    Ok(identity)
}

fn without_scheme(value: &str) -> &str {
    match value.trim_start().split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest,
        _ if value.trim().eq_ignore_ascii_case("bearer") => "",
        _ => value,
    }
}

/// The claims we read. Cerebrium's own clients read `project_id`, its tokens carry `projectId`.
#[derive(Deserialize)]
struct Claims {
    project_id: Option<String>,
    #[serde(rename = "projectId")]
    project_id_camel: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Claims {
    fn project(&self) -> Option<ProjectId> {
        self.project_id.as_deref().or(self.project_id_camel.as_deref())?.parse().ok()
    }
}

async fn by_token(gateway: &Gateway, token: &str) -> Answer<Option<Identity>> {
    let Some(claimed) = claimed_project(token) else { return Ok(None) };
    let Some(project) = gateway.registry.project(&claimed).await? else { return Ok(None) };
    // Time is checked below, by the clock the server was given.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(&project.token_secret);
    let Ok(checked) = jsonwebtoken::decode::<Claims>(token, &key, &validation) else { return Ok(None) };
    let claims = checked.claims;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    let now = gateway.clock.now().as_secs() as f64;
    if claims.exp.is_some_and(|exp| now > exp + CLOCK_SKEW_SECS) {
        return Err(Problem::unauthorized(
            "this service-account token has expired; take a fresh one from `credentials.json`",
        ));
    }
    let early = claims.nbf.is_some_and(|nbf| now < nbf - CLOCK_SKEW_SECS);
    let same = claims.project().as_ref() == Some(&project.id);
    Ok((same && !early).then_some(Identity { project: project.id, scope: Scope::Everything }))
}

/// The project that a token says it is of, before anything about it is proven: it only chooses the
/// secret that the proof is made with.
fn claimed_project(token: &str) -> Option<ProjectId> {
    let mut parts = token.split('.');
    let (_header, payload, _signature, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok()?.project()
}

/// A caller with any key of the project. On a route with `{project}`, that project.
pub(crate) struct Caller(pub(crate) Identity);

/// A caller who may do everything in the project. On a route with `{project}`, that project.
pub(crate) struct Control(pub(crate) ProjectId);

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let identity = match parts.extensions.get::<Known>() {
            Some(Known(identity)) => identity.clone(),
            None => identify(gateway, &parts.headers).await?,
        };
        let params = RawPathParams::from_request_parts(parts, gateway)
            .await
            .map_err(|_| Problem::bad_request("bad_path", "the path is not UTF-8"))?;
        match params.iter().find(|(name, _)| *name == "project") {
            Some((_, asked)) if asked != identity.project.as_str() => Err(Problem::unknown_project(asked)),
            _ => Ok(Self(identity)),
        }
    }
}

impl FromRequestParts<Gateway> for Control {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Answer<Self> {
        let Caller(identity) = Caller::from_request_parts(parts, gateway).await?;
        match identity.scope {
            Scope::Everything => Ok(Self(identity.project)),
            Scope::Inference => Err(Problem::forbidden(
                "the public key opens inference only; use the private key (`private-…`) or a service-account token",
            )),
        }
    }
}
