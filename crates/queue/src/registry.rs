//! What runs point at: projects and their keys, apps, builds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::{AppConfig, Function};
use crate::clock::{Entropy, Timestamp};
use crate::id::{AppId, BuildId, ProjectId};
use crate::limits::KEY_NAME_BYTES_MAX;
use crate::signature::{InvalidSecret, SigningKeys, WebhookSecret};

/// A project's secrets as they are made once, shown once, and kept hashed (but for the signing
/// secret, which the sender needs).
#[derive(Clone)]
pub struct NewProject {
    /// Its id.
    pub id: ProjectId,
    /// SHA-256 of the public key.
    pub public_key_hash: KeyHash,
    /// SHA-256 of the private key.
    pub private_key_hash: KeyHash,
    /// Signs deliveries: `whsec_` and base64.
    pub webhook_secret: String,
    /// Signs service-account tokens of this server (HS256).
    pub token_secret: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A project.
#[derive(Clone)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Sign deliveries, newest first: the first one is in force, the others were replaced and go on for a
    /// while.
    pub webhook_secrets: Vec<WebhookSecret>,
    /// Ed25519 keys, likewise; empty until somebody asks for `v1a`.
    pub webhook_keys: Vec<WebhookSecret>,
    /// Whether deliveries carry a `v1a` signature beside `v1`.
    pub sign_v1a: bool,
    /// Signs service-account tokens (HS256).
    pub token_secret: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Project {
    /// The webhook secret in force.
    pub fn webhook_secret(&self) -> &str {
        self.webhook_secrets.first().map_or("", |secret| &secret.secret)
    }

    /// What its deliveries are signed and checked with.
    ///
    /// # Errors
    /// When a secret is not one.
    pub fn signing_keys(&self) -> Result<SigningKeys, InvalidSecret> {
        let asymmetric = if self.sign_v1a { self.webhook_keys.as_slice() } else { &[] };
        SigningKeys::parse(&self.webhook_secrets, asymmetric)
    }
}

/// New keys and secrets of a project. What is `None` stays as it is.
#[derive(Clone, Default)]
pub struct FreshKeys {
    /// SHA-256 of the public key.
    pub public_key_hash: Option<KeyHash>,
    /// SHA-256 of the private key.
    pub private_key_hash: Option<KeyHash>,
    /// Signs service-account tokens; those signed with the one before open nothing any more.
    pub token_secret: Option<Vec<u8>>,
    /// Signs deliveries.
    pub webhook_secret: Option<String>,
    /// Signs deliveries, with Ed25519.
    pub webhook_key: Option<String>,
    /// How long replaced signing secrets and keys go on beside the new ones.
    pub overlap: Duration,
}

/// Secrets that are set or removed. Has no `Debug`: what it holds is for nobody's eyes.
#[derive(Clone, Default)]
pub struct SecretChange {
    /// Set to these values.
    pub set: BTreeMap<String, String>,
    /// Removed; those that are not there are none to remove.
    pub remove: Vec<String>,
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The new keys are in force.
    Done,
    /// Nothing changed: as many replaced secrets as there may be still sign, the first of them until then.
    TooMany(Timestamp),
    /// There is no such project.
    Unknown,
}

/// The keys of a project that can be replaced each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `public-…`
    PublicKey,
    /// `private-…`
    PrivateKey,
    /// The service-account token.
    ServiceAccountToken,
    /// `whsec_…`
    WebhookSecret,
    /// `whsk_…`, of which everybody may know `whpk_…`.
    WebhookKey,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::PublicKey, Self::PrivateKey, Self::ServiceAccountToken, Self::WebhookSecret, Self::WebhookKey];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublicKey => "publicKey",
            Self::PrivateKey => "privateKey",
            Self::ServiceAccountToken => "serviceAccountToken",
            Self::WebhookSecret => "webhookSecret",
            Self::WebhookKey => "webhookKey",
        }
    }
}

/// Keys that were made just now, in clear: told once. Never logged.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the kinds are described at `KeyKind`")]
pub struct NewKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_public_key: Option<String>,
}

/// SHA-256 of a key. Keys have 160 random bits or more, so no slow hash is needed.
pub type KeyHash = [u8; 32];

/// What a key opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Inference only (`public-…`).
    Inference,
    /// Everything (`private-…` and service-account tokens).
    Everything,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 2] = [Self::Inference, Self::Everything];

    /// The word of API, CLI and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Everything => "everything",
        }
    }
}

/// A further key of a project, as shown to people: the key itself is told once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// `key_` and 8 hex digits.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// When it last opened something, to the hour.
    pub last_used_at: Option<Timestamp>,
}

/// A key that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWish {
    name: String,
    scope: Scope,
    expires_at: Option<Timestamp>,
}

/// A key that cannot be made, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKey(String);

impl KeyWish {
    /// Checks what somebody wants.
    ///
    /// # Errors
    /// When the name is empty or too long, or the key would have expired already.
    pub fn new(
        name: &str,
        scope: Scope,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, InvalidKey> {
        let name = name.trim();
        if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(InvalidKey(format!(
                "`name` must say what the key is for, in one line of {KEY_NAME_BYTES_MAX} bytes at most"
            )));
        }
        if let Some(at) = expires_at.filter(|at| *at <= now) {
            return Err(InvalidKey(format!("`expiresAt` must be a time to come; {at} is past")));
        }
        Ok(Self { name: name.to_owned(), scope, expires_at })
    }

    /// What it is to open.
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The key as it is kept, made now.
    pub fn view(self, now: Timestamp, entropy: &dyn Entropy) -> KeyView {
        KeyView {
            id: format!("key_{}", entropy.hex(4)),
            name: self.name,
            scope: self.scope,
            created_at: now,
            expires_at: self.expires_at,
            last_used_at: None,
        }
    }
}

/// What became of a key that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMade {
    /// It opens what it is to open.
    Done,
    /// The project has as many as it may.
    TooMany,
    /// There is no such project.
    Unknown,
}

/// What became of the wish for a key. Has no `Debug`: it holds the key.
#[derive(Clone)]
pub enum CreatedKey {
    /// It was made.
    Done {
        /// The key, this once.
        key: String,
        /// What is kept of it.
        view: KeyView,
    },
    /// The project has as many as it may.
    TooMany,
    /// There is no such project.
    Unknown,
}

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The key's project.
    pub project: ProjectId,
    /// What the key opens.
    pub scope: Scope,
}

/// A deployed model.
#[derive(Clone, Debug)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// The build that serves it; `None` before the first one succeeded.
    pub live: Option<Build>,
    /// The newest build, live or not.
    pub latest_build: BuildId,
    /// The status of the newest build.
    pub latest_status: BuildStatus,
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// When its live build or its scaling last changed.
    pub updated_at: Timestamp,
}

impl App {
    /// The live build's function of that name.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.live.as_ref()?.functions.iter().find(|function| function.name == name)
    }

    /// Where it stands with so many replicas, in the words that Cerebrium's clients colour: `active`, `cold`,
    /// `pending`, `deploying` and whatever holds `error`.
    pub const fn standing(&self, replicas: usize) -> &'static str {
        match (self.latest_status, &self.live) {
            (BuildStatus::Building | BuildStatus::Initializing, _) => "deploying",
            (_, Some(_)) if replicas > 0 => "active",
            (_, Some(_)) => "cold",
            (BuildStatus::BuildFailure, None) => "build_error",
            (BuildStatus::InitFailure | BuildStatus::InitTimeout, None) => "init_error",
            (BuildStatus::Cancelled, None) => "cancelled",
            (BuildStatus::Pending | BuildStatus::Success, None) => "pending",
        }
    }
}

/// Where a build stands. The words are those that Cerebrium's clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// Registered; its archive has not arrived.
    Pending,
    /// Its environment is being made.
    Building,
    /// Its first replica is starting.
    Initializing,
    /// Live.
    Success,
    /// Its environment could not be made.
    BuildFailure,
    /// Its code could not be imported.
    InitFailure,
    /// Its code was not imported within the limit.
    InitTimeout,
    /// Somebody stopped it.
    Cancelled,
}

impl BuildStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Building,
        Self::Initializing,
        Self::Success,
        Self::BuildFailure,
        Self::InitFailure,
        Self::InitTimeout,
        Self::Cancelled,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Building => "building",
            Self::Initializing => "initializing",
            Self::Success => "success",
            Self::BuildFailure => "build_failure",
            Self::InitFailure => "init_failure",
            Self::InitTimeout => "init_timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen to the build.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Building | Self::Initializing)
    }
}

/// A build about to be registered.
#[derive(Clone, Debug)]
pub struct NewBuild {
    /// Its id.
    pub id: BuildId,
    /// The app it is a version of; made with it when it is the first.
    pub app: AppId,
    /// Its configuration.
    pub config: AppConfig,
    /// SHA-256 of the token that its upload address carries.
    pub upload_token_hash: KeyHash,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// One uploaded version of an app.
#[derive(Clone, Debug)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// The app it is a version of.
    pub app: AppId,
    /// Where it stands.
    pub status: BuildStatus,
    /// Its configuration.
    pub config: AppConfig,
    /// What `builder` made of it; `None` until its environment is there.
    pub prepared: Option<Prepared>,
    /// Its functions; empty until a replica of it has started.
    pub functions: Vec<Function>,
    /// SHA-256 of the token that its upload address carries.
    pub upload_token_hash: KeyHash,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
}

impl Build {
    /// Calls one replica of it works on at once.
    pub fn concurrency(&self) -> u32 {
        self.config.concurrency(&self.functions)
    }
}

/// A runnable build: where its files and its interpreter are. Absolute paths on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The folder with `main.py`.
    pub folder: String,
    /// The interpreter of its environment.
    pub python: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_needs_a_name_and_a_time_to_come() {
        let now = Timestamp::from_millis(1_000);
        let wish = |name: &str, at: Option<i64>| {
            KeyWish::new(name, Scope::Inference, at.map(Timestamp::from_millis), now)
        };
        assert!(wish(" website ", None).is_ok_and(|wish| wish.name == "website"));
        assert!(wish("website", Some(1_001)).is_ok());
        for (name, at, says) in [
            ("", None, "`name`"),
            ("two\nlines", None, "`name`"),
            (&*"x".repeat(KEY_NAME_BYTES_MAX + 1), None, "100 bytes"),
            ("website", Some(1_000), "`expiresAt`"),
        ] {
            let error = wish(name, at).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
