//! Keys of a project: shown as far as they can be, made, revoked, replaced, and published for receivers.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use queue::limits::ROTATION_OVERLAP;
use queue::port::TooManySecrets;
use queue::registry::{CreatedKey, KeyKind, KeyView, KeyWish, Project, Scope};
use queue::signature::WebhookSecret;
use queue::signature::ed25519::PrivateKey;
use queue::{ProjectId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::request::{Fields, refused};
use crate::Gateway;
use crate::auth::Control;
use crate::problem::{Answer, Problem, clip};

/// How long receivers may go by public keys that they have read: much less than an overlap.
const PUBLISHED_FOR: &str = "public, max-age=300";

/// What a project signs its deliveries with.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeysView {
    project_id: ProjectId,
    webhook_secrets: Vec<SecretView>,
    v1a: bool,
    webhook_public_keys: Vec<PublicKeyView>,
    /// Those that were made beside the two that the project began with.
    keys: Vec<KeyView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecretView {
    secret: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeyView {
    public_key: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl KeysView {
    fn of(project: &Project, keys: Vec<KeyView>, now: Timestamp) -> Self {
        let secret = |secret: &WebhookSecret| SecretView {
            secret: secret.secret.clone(),
            created_at: secret.created_at,
            expires_at: secret.expires_at,
        };
        let public = |key: &WebhookSecret| {
            let parsed = PrivateKey::parse(&key.secret).ok()?;
            let (created_at, expires_at) = (key.created_at, key.expires_at);
            Some(PublicKeyView { public_key: parsed.public().as_text(), created_at, expires_at })
        };
        let live = |secret: &&WebhookSecret| secret.signs_at(now);
        Self {
            project_id: project.id.clone(),
            webhook_secrets: project.webhook_secrets.iter().filter(live).map(secret).collect(),
            v1a: project.sign_v1a,
            webhook_public_keys: project.webhook_keys.iter().filter(live).filter_map(public).collect(),
            keys,
        }
    }
}

/// Secrets in an answer stay nowhere on its way.
fn unstored(answer: impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

async fn view(gateway: &Gateway, project: &ProjectId) -> Answer<Response> {
    let keys = gateway.registry.keys(project).await?;
    Ok(unstored(KeysView::of(&own(gateway, project).await?, keys, gateway.clock.now())))
}

async fn own(gateway: &Gateway, project: &ProjectId) -> Answer<Project> {
    let found = gateway.registry.project(project).await?;
    found.ok_or_else(|| Problem::unknown_project(project.as_str()))
}

/// What deliveries are signed with, and the named keys.
pub(super) async fn show(Control(project): Control, State(gateway): State<Gateway>) -> Answer<Response> {
    view(&gateway, &project).await
}

/// A key, this once.
#[derive(Serialize)]
struct Made {
    key: String,
    #[serde(flatten)]
    view: KeyView,
}

/// Makes a further key.
pub(super) async fn create(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Response> {
    fields.only(&["name", "scope", "expiresAt"])?;
    let now = gateway.clock.now();
    let name = fields.text(&["name"])?.unwrap_or_default();
    let scope = match fields.text(&["scope"])? {
        None => Scope::Inference,
        Some(text) => Scope::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let words = Scope::ALL.map(Scope::as_str).join(" or ");
            refused(format!("`scope` must be {words}, not `{}`", clip(text)))
        })?,
    };
    let expires_at = match fields.text(&["expiresAt"])? {
        None => None,
        Some(text) => Some(Timestamp::parse_rfc3339(text).ok_or_else(|| {
            refused(format!("`expiresAt` must be a time such as 2027-01-31T12:00:00Z, not `{}`", clip(text)))
        })?),
    };
    let wish = KeyWish::new(name, scope, expires_at, now).map_err(|error| refused(error.to_string()))?;
    match gateway.keyring.create(&project, wish).await? {
        CreatedKey::Done { key, view } => Ok(unstored(Made { key, view })),
        CreatedKey::TooMany => Err(Problem::conflict("too_many_keys", TOO_MANY)),
        CreatedKey::Unknown => Err(Problem::unknown_project(project.as_str())),
    }
}

const TOO_MANY: &str = "the project has as many named keys as it may; revoke one that nobody needs any more";

#[derive(Serialize)]
pub(super) struct Revoked {
    message: String,
}

/// Revokes a named key: whoever holds it is refused at once.
pub(super) async fn revoke(
    Control(project): Control,
    State(gateway): State<Gateway>,
    Path((_, key)): Path<(String, String)>,
) -> Answer<Json<Revoked>> {
    if gateway.registry.revoke_key(&project, &key).await? {
        return Ok(Json(Revoked { message: format!("`{key}` opens nothing any more") }));
    }
    let message =
        format!("this project has no key `{}`; `postback keys list` shows those it has", clip(&key));
    Err(Problem::not_found("unknown_key", message))
}

/// Replaces some of the keys, and tells the new ones this once.
pub(super) async fn rotate(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Response> {
    fields.only(&["keys", "overlapSeconds"])?;
    let kinds = kinds(&fields.texts(&["keys"])?)?;
    let most = ROTATION_OVERLAP.as_secs();
    let overlap =
        fields.whole::<u64>(&["overlapSeconds"], 0..=most)?.map_or(ROTATION_OVERLAP, Duration::from_secs);
    match gateway.keyring.rotate(&project, &kinds, overlap).await? {
        Some(Ok(keys)) => Ok(unstored(keys)),
        Some(Err(TooManySecrets(until))) => Err(Problem::conflict(
            "too_many_secrets",
            format!(
                "as many replaced secrets as may sign still do; the first of them ends at {until}: rotate then, or \
                 with `overlapSeconds` 0, which ends all of them now"
            ),
        )),
        None => Err(Problem::unknown_project(project.as_str())),
    }
}

fn kinds(words: &[String]) -> Answer<Vec<KeyKind>> {
    let known = || KeyKind::ALL.map(KeyKind::as_str).join(", ");
    if words.is_empty() {
        return Err(refused(format!("`keys` must say which keys to replace: {}", known())));
    }
    let kind = |word: &String| {
        KeyKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| refused(format!("`keys` may hold {}, not `{}`", known(), clip(word))))
    };
    words.iter().map(kind).collect()
}

/// Switches the Ed25519 signature of deliveries.
pub(super) async fn sign(
    Control(project): Control,
    State(gateway): State<Gateway>,
    fields: Fields,
) -> Answer<Response> {
    fields.only(&["v1a"])?;
    let on = fields.flag(&["v1a"])?.ok_or_else(|| refused("`v1a` must be true or false"))?;
    if !gateway.keyring.sign_v1a(&project, on).await? {
        return Err(Problem::unknown_project(project.as_str()));
    }
    view(&gateway, &project).await
}

/// The public keys, for receivers: a JSON Web Key Set whose keys also say their `whpk_` form. A project
/// that publishes none cannot be told from one that does not exist.
pub(super) async fn published(
    State(gateway): State<Gateway>,
    Path(project): Path<String>,
) -> Answer<Response> {
    let found = match project.parse() {
        Ok(project) => gateway.registry.project(&project).await?,
        Err(_) => None,
    };
    let now = gateway.clock.now();
    let keys: Vec<Value> = found
        .filter(|project| project.sign_v1a)
        .into_iter()
        .flat_map(|project| project.webhook_keys)
        .filter(|key| key.signs_at(now))
        .filter_map(|key| Some(web_key(&PrivateKey::parse(&key.secret).ok()?)))
        .collect();
    Ok(([(CACHE_CONTROL, PUBLISHED_FOR)], Json(json!({"keys": keys}))).into_response())
}

fn web_key(key: &PrivateKey) -> Value {
    let public = key.public();
    let coordinate = public.coordinate();
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": &coordinate[..16],
        "x": coordinate,
        "whpk": public.as_text(),
    })
}
