//! Keys: what there is, since when, and replacing each. What is replaced is told once, on the page that follows.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use queue::limits::ROTATION_OVERLAP;
use queue::port::TooManySecrets;
use queue::registry::{KeyKind, NewKeys, Project};
use queue::signature::WebhookSecret;
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
    /// What was made just now: name and key.
    fresh: Option<(&'static str, String)>,
    overlap_hours_max: u64,
}

impl KeysPage {
    fn of(project: &Project, fresh: Option<(&'static str, String)>, now: Timestamp) -> Self {
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

/// `/dashboard/keys`
pub(crate) async fn show(SignedIn(project): SignedIn, State(room): State<Arc<Shared>>) -> Shown<Response> {
    let page = KeysPage::of(&room.own(&project).await?, None, room.ports.clock.now());
    Ok(pages::html(StatusCode::OK, &page))
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
        return Err(Trouble::Refused(format!("Replaced secrets go on for {most} hours at most.")));
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
    let fresh = text(made).map(|key| (known.name, key));
    let page = KeysPage::of(&room.own(&project).await?, fresh, room.ports.clock.now());
    Ok(pages::html(StatusCode::OK, &page))
}

/// The one key that was made.
fn text(made: NewKeys) -> Option<String> {
    made.public_key.or(made.private_key).or(made.service_account_token).or(made.webhook_secret)
}
