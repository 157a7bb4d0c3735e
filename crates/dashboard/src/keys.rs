//! Keys: what there is, since when, replacing, making and revoking them. A new one is told once, on the page that
//! follows.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::limits::{KEY_NAME_BYTES_MAX, KEYS_MAX, ROTATION_OVERLAP};
use queue::port::TooManySecrets;
use queue::registry::{CreatedKey, KeyKind, KeyView, KeyWish, NewKeys, Project, Scope};
use queue::signature::WebhookSecret;
use queue::since::Since;
use queue::{ProjectId, Timestamp};
use serde::Deserialize;

use crate::Shared;
use crate::assets::Frame;
use crate::error::{Shown, Trouble};
use crate::session::SignedIn;
use crate::shape;

/// A kind of key, for people.
struct Kind {
    word: &'static str,
    name: &'static str,
    what: &'static str,
    /// What happens to whoever holds the old one.
    then: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        word: KeyKind::PublicKey.as_str(),
        name: "Public key",
        what: "Opens inference, and nothing else. Fit for code that others can read.",
        then: "Callers with the old one are refused at once.",
    },
    Kind {
        word: KeyKind::PrivateKey.as_str(),
        name: "Private key",
        what: "Opens everything in this project, this dashboard too.",
        then: "Everybody who holds the old one is signed out at once, you as well.",
    },
    Kind {
        word: KeyKind::ServiceAccountToken.as_str(),
        name: "Service-account token",
        what: "What the command-line clients send.",
        then: "Tokens made before open nothing any more, and sessions of this dashboard end.",
    },
    Kind {
        word: KeyKind::WebhookSecret.as_str(),
        name: "Webhook secret",
        what: "Signs deliveries, so that receivers know who sent them.",
        then: "Deliveries are signed with both for as long as you say: receivers change over in their own time.",
    },
];

/// A secret that signs.
struct Signing {
    since: String,
    /// Until when a replaced one goes on.
    until: Option<String>,
}

impl Signing {
    fn of(secret: &WebhookSecret, now: Timestamp) -> Self {
        Self {
            since: shape::relative(secret.created_at, now),
            until: secret.expires_at.map(|until| format!("{} UTC", shape::moment(until))),
        }
    }
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    frame: Frame,
    project: String,
    kinds: &'static [Kind],
    signing: Vec<Signing>,
    named: Vec<NamedKey>,
    lives: [(&'static str, &'static str); 5],
    name_max: usize,
    /// What was made just now: name and key.
    fresh: Option<(String, String)>,
    overlap_hours_max: u64,
}

/// A key that somebody made and named.
struct NamedKey {
    id: String,
    name: String,
    scope: Scope,
    made: String,
    expires: String,
    expired: bool,
    used: String,
}

impl NamedKey {
    fn of(key: &KeyView, now: Timestamp) -> Self {
        let expired = key.expires_at.is_some_and(|at| at <= now);
        Self {
            id: key.id.clone(),
            name: visible(&key.name).into_owned(),
            scope: key.scope,
            made: shape::relative(key.created_at, now),
            expires: match key.expires_at {
                Some(at) if expired => format!("expired {}", shape::relative(at, now)),
                Some(at) => format!("{} UTC", shape::moment(at)),
                None => "never".to_owned(),
            },
            expired,
            used: match key.last_used_at {
                Some(at) if now.since(at) < Duration::from_secs(3_600) => "in the last hour".to_owned(),
                Some(at) => shape::relative(at, now),
                None => "never".to_owned(),
            },
        }
    }
}

/// How long a new key may live.
const LIVES: [(&str, &str); 5] =
    [("", "never"), ("24h", "in a day"), ("7d", "in a week"), ("30d", "in 30 days"), ("365d", "in a year")];

impl KeysPage {
    fn of(project: &Project, keys: &[KeyView], fresh: Option<(String, String)>, now: Timestamp) -> Self {
        Self {
            frame: Frame::new(Some(project.id.to_string())),
            project: project.id.to_string(),
            kinds: &KINDS,
            signing: project
                .webhook_secrets
                .iter()
                .filter(|secret| secret.signs_at(now))
                .map(|secret| Signing::of(secret, now))
                .collect(),
            named: keys.iter().map(|key| NamedKey::of(key, now)).collect(),
            lives: LIVES,
            name_max: KEY_NAME_BYTES_MAX,
            fresh,
            overlap_hours_max: ROTATION_OVERLAP.as_secs() / 3_600,
        }
    }
}

impl Shared {
    async fn own(&self, project: &ProjectId) -> Shown<Project> {
        self.ports.registry.project(project).await?.ok_or(Trouble::Unknown("project"))
    }
}

async fn page(room: &Shared, project: &ProjectId, fresh: Option<(String, String)>) -> Shown<Response> {
    let keys = room.ports.registry.keys(project).await?;
    let page = KeysPage::of(&room.own(project).await?, &keys, fresh, room.ports.clock.now());
    Ok(pages::html(StatusCode::OK, &page))
}

/// `/dashboard/keys`
pub(crate) async fn show(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    page(&room, &project, None).await
}

#[derive(Deserialize)]
pub(crate) struct Make {
    name: String,
    scope: String,
    expires: Option<String>,
}

/// `POST /dashboard/keys/named`: makes a further key, and tells it this once.
pub(crate) async fn create(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Form(make): Form<Make>,
) -> Shown<Response> {
    let now = room.ports.clock.now();
    let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == make.scope);
    let scope = scope.ok_or(Trouble::Unknown("scope"))?;
    let expires = make.expires.as_deref().filter(|text| !text.is_empty()).map(Since::parse).transpose();
    let expires = expires.map_err(|wanted| Trouble::Invalid(format!("A key ends at a time: {wanted}.")))?;
    let wish = KeyWish::new(&make.name, scope, expires.map(|when| when.after(now)), now);
    let wish = wish.map_err(|error| Trouble::Invalid(format!("No key was made: {error}.")))?;
    match room.ports.keyring.create(&project, wish).await? {
        CreatedKey::Done { key, view } => {
            page(&room, &project, Some((visible(&view.name).into_owned(), key))).await
        }
        CreatedKey::TooMany => Err(Trouble::Refused(format!(
            "The project has {KEYS_MAX} named keys, as many as it may. Revoke one that nobody needs any more."
        ))),
        CreatedKey::Unknown => Err(Trouble::Unknown("project")),
    }
}

/// `POST /dashboard/keys/named/{key}/revoke`
pub(crate) async fn revoke(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Path(key): Path<String>,
) -> Shown<Response> {
    if !room.ports.registry.revoke_key(&project, &key).await? {
        return Err(Trouble::Unknown("key"));
    }
    Ok(Redirect::to("/dashboard/keys").into_response())
}

#[derive(Deserialize)]
pub(crate) struct Replace {
    kind: String,
    overlap_hours: Option<u64>,
}

/// `POST /dashboard/keys`: replaces one, and tells the new one this once.
pub(crate) async fn rotate(
    SignedIn(project): SignedIn,
    State(room): State<Arc<Shared>>,
    Form(replace): Form<Replace>,
) -> Shown<Response> {
    let known = KINDS.iter().find(|kind| kind.word == replace.kind);
    let kind = KeyKind::ALL.into_iter().find(|kind| kind.as_str() == replace.kind);
    let (Some(known), Some(kind)) = (known, kind) else { return Err(Trouble::Unknown("kind of key")) };
    let most = ROTATION_OVERLAP.as_secs() / 3_600;
    let hours = replace.overlap_hours.unwrap_or(most);
    if hours > most {
        return Err(Trouble::Invalid(format!("Replaced secrets go on for {most} hours at most.")));
    }
    let overlap = Duration::from_secs(hours * 3_600);
    let made = match room.ports.keyring.rotate(&project, &[kind], overlap).await? {
        Some(Ok(keys)) => keys,
        Some(Err(TooManySecrets(until))) => {
            return Err(Trouble::Refused(format!(
                "As many replaced secrets as may sign still do; the first of them ends at {} UTC. Replace then, or \
                 with an overlap of 0 hours, which ends all of them now.",
                shape::moment(until)
            )));
        }
        None => return Err(Trouble::Unknown("project")),
    };
    page(&room, &project, text(made).map(|key| (known.name.to_owned(), key))).await
}

/// The one key that was made.
fn text(made: NewKeys) -> Option<String> {
    made.public_key.or(made.private_key).or(made.service_account_token).or(made.webhook_secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_key_says_what_it_opens_how_long_and_when_it_was_used() {
        let now = Timestamp::from_millis(10 * 86_400_000);
        let project = Project {
            id: "p-11111111".parse().unwrap(),
            webhook_secrets: Vec::new(),
            webhook_keys: Vec::new(),
            sign_v1a: false,
            token_secret: Vec::new(),
            created_at: now,
        };
        let key = |name: &str, expires: Option<i64>, used: Option<i64>| KeyView {
            id: format!("key_{name}"),
            name: format!("<b>{name}"),
            scope: Scope::Inference,
            created_at: Timestamp::from_millis(0),
            expires_at: expires.map(Timestamp::from_millis),
            last_used_at: used.map(Timestamp::from_millis),
        };
        let keys = [
            key("old", Some(9 * 86_400_000), Some(86_400_000)),
            key("new", Some(11 * 86_400_000), Some(now.as_millis() - 60_000)),
            key("idle", None, None),
        ];
        let html = KeysPage::of(&project, &keys, None, now).render().unwrap();
        for said in [
            "expired 1 d ago",
            "9 d ago",
            "1970-01-12 00:00:00 UTC",
            "in the last hour",
            "/keys/named/key_idle/revoke",
        ] {
            assert!(html.contains(said), "{said}: {html}");
        }
        assert!(!html.contains("<b>idle"), "{html}");
    }
}
