//! What only its holders may know: keys, signing secrets, secrets of apps.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Stored;
use crate::clock::Timestamp;
use crate::id::{AppId, ProjectId};
use crate::registry::{CreatedKey, KeyKind, KeyWish, NewKeys, SecretChange};

/// Secrets of projects and apps: environment variables of replicas, told to nobody else.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The names of a project's secrets, or of those of one of its apps, in order.
    async fn secret_names(&self, project: &ProjectId, app: Option<&AppId>) -> Stored<Vec<String>>;

    /// Changes some of them. `false` when there would be too many; nothing changes then.
    async fn change_secrets(
        &self,
        project: &ProjectId,
        app: Option<&AppId>,
        change: SecretChange,
    ) -> Stored<bool>;

    /// What a replica of the app finds in its environment: the project's secrets, and over them the app's.
    async fn secrets_of(&self, app: &AppId) -> Stored<BTreeMap<String, String>>;
}

/// A project's keys as people hold them: made, told once, written into their owner's file.
#[async_trait]
pub trait Keyring: Send + Sync {
    /// Makes a named key, and tells it this once.
    async fn create(&self, project: &ProjectId, wish: KeyWish) -> Stored<CreatedKey>;

    /// Replaces keys of a project by newly made ones. `None` when there is no such project.
    async fn rotate(
        &self,
        project: &ProjectId,
        kinds: &[KeyKind],
        overlap: Duration,
    ) -> Stored<Option<Result<NewKeys, TooManySecrets>>>;

    /// Switches the `v1a` signature; the first time makes the key. Returns whether there is such a project.
    async fn sign_v1a(&self, project: &ProjectId, on: bool) -> Stored<bool>;
}

/// As many replaced secrets as there may be still sign, the first of them until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets(pub Timestamp);
