//! The keyring: makes new keys, puts them in force and into `credentials.json`, as one step.
//!
//! Whatever a crash leaves out is made good by the next start: the new file lies beside the old one before
//! the store changes, and takes its place only if the store did.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue::port::{Registry, StoreError, Stored, TooManySecrets};
use queue::registry::{CreatedKey, FreshKeys, KeyKind, KeyMade, KeyWish, NewKeys, Project, Rotated, Scope};
use queue::signature::SigningKey;
use queue::signature::ed25519::PrivateKey;
use queue::{Clock, Entropy, ProjectId};
use tokio::sync::Mutex;

use crate::credentials::{self, Credentials};

/// A rotation's answer.
type Answer = Option<Result<NewKeys, TooManySecrets>>;

/// Shared by all who rotate.
#[derive(Clone)]
pub(crate) struct Keyring(Arc<Inner>);

struct Inner {
    data_dir: PathBuf,
    registry: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// There is one file.
    one_at_a_time: Mutex<()>,
}

impl Keyring {
    /// The keyring of a data directory.
    pub(crate) fn new(
        data_dir: PathBuf,
        registry: Arc<dyn Registry>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self(Arc::new(Inner { data_dir, registry, clock, entropy, one_at_a_time: Mutex::default() }))
    }
}

#[async_trait]
impl queue::port::Keyring for Keyring {
    async fn create(&self, project: &ProjectId, wish: KeyWish) -> Stored<CreatedKey> {
        let Inner { registry, clock, entropy, .. } = &*self.0;
        let key = match wish.scope() {
            Scope::Inference => credentials::public_key(&**entropy),
            Scope::Everything => credentials::private_key(&**entropy),
        };
        let view = wish.view(clock.now(), &**entropy);
        let made = registry.create_key(project, view.clone(), credentials::hash(&key)).await?;
        Ok(match made {
            KeyMade::Done => {
                tracing::info!(project.id = %project, key.id = view.id, key.scope = view.scope.as_str(), "a key was made");
                CreatedKey::Done { key, view }
            }
            KeyMade::TooMany => CreatedKey::TooMany,
            KeyMade::Unknown => CreatedKey::Unknown,
        })
    }

    async fn rotate(&self, project: &ProjectId, kinds: &[KeyKind], overlap: Duration) -> Stored<Answer> {
        let (inner, project, kinds) = (Arc::clone(&self.0), project.clone(), kinds.to_owned());
        // Goes to its end even if whoever asked goes away: store and file change together.
        tokio::spawn(async move { inner.rotate(&project, &kinds, overlap).await })
            .await
            .map_err(|error| StoreError::Unknown(format!("the rotation ended early: {error}")))?
    }

    async fn sign_v1a(&self, project: &ProjectId, on: bool) -> Stored<bool> {
        self.0.registry.sign_v1a(project, on, PrivateKey::generate(&*self.0.entropy)).await
    }
}

impl Inner {
    async fn rotate(&self, project: &ProjectId, kinds: &[KeyKind], overlap: Duration) -> Stored<Answer> {
        let _turn = self.one_at_a_time.lock().await;
        let Some(found) = self.registry.project(project).await? else { return Ok(None) };
        let (keys, fresh) = self.make(project, kinds, overlap);
        let staged = match self.next_file(&found, &keys).map_err(|error| refused(&error))? {
            Some(next) => {
                next.stage(&self.data_dir).map_err(|error| refused(&error))?;
                true
            }
            None => false,
        };
        let rotated = self.registry.rotate_keys(project, fresh).await;
        match rotated {
            Ok(Rotated::Done) if staged => {
                if let Err(error) = credentials::adopt(&self.data_dir) {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the keys are replaced, and their file could not be; the next start does it"
                    );
                }
            }
            // Nobody knows what happened; the next start looks.
            Err(StoreError::Unknown(_)) | Ok(Rotated::Done) => {}
            Ok(Rotated::TooMany(_) | Rotated::Unknown) | Err(_) if staged => {
                credentials::unstage(&self.data_dir).map_err(|error| refused(&error))?;
            }
            Ok(Rotated::TooMany(_) | Rotated::Unknown) | Err(_) => {}
        }
        Ok(match rotated? {
            Rotated::Done => {
                let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
                tracing::info!(project.id = %project, keys = kinds.join(","), "keys were replaced");
                Some(Ok(keys))
            }
            Rotated::TooMany(until) => Some(Err(TooManySecrets(until))),
            Rotated::Unknown => None,
        })
    }

    fn make(&self, project: &ProjectId, kinds: &[KeyKind], overlap: Duration) -> (NewKeys, FreshKeys) {
        let (mut keys, mut fresh) = (NewKeys::default(), FreshKeys { overlap, ..FreshKeys::default() });
        for kind in kinds {
            match kind {
                KeyKind::PublicKey => {
                    let key = credentials::public_key(&*self.entropy);
                    fresh.public_key_hash = Some(credentials::hash(&key));
                    keys.public_key = Some(key);
                }
                KeyKind::PrivateKey => {
                    let key = credentials::private_key(&*self.entropy);
                    fresh.private_key_hash = Some(credentials::hash(&key));
                    keys.private_key = Some(key);
                }
                KeyKind::ServiceAccountToken => {
                    let secret = self.entropy.bytes::<32>().to_vec();
                    keys.service_account_token =
                        Some(credentials::issue_token(project, &secret, self.clock.now()));
                    fresh.token_secret = Some(secret);
                }
                KeyKind::WebhookSecret => {
                    let secret = SigningKey::generate(&*self.entropy);
                    keys.webhook_secret = Some(secret.clone());
                    fresh.webhook_secret = Some(secret);
                }
                KeyKind::WebhookKey => {
                    let key = PrivateKey::generate(&*self.entropy);
                    keys.webhook_public_key = PrivateKey::parse(&key).ok().map(|key| key.public().as_text());
                    fresh.webhook_key = Some(key);
                }
            }
        }
        (keys, fresh)
    }

    /// The file as it is to be. `None` when it is another project's, or was removed and cannot be made
    /// whole, since keys that stay are known by their hashes only.
    fn next_file(&self, project: &Project, keys: &NewKeys) -> anyhow::Result<Option<Credentials>> {
        let old = credentials::read(&self.data_dir)?;
        if old.as_ref().is_some_and(|old| old.project_id != project.id) {
            return Ok(None);
        }
        let take = |new: &Option<String>, old: Option<&String>| new.as_ref().or(old).cloned();
        let old = old.as_ref();
        let parts = (
            take(&keys.public_key, old.map(|old| &old.public_key)),
            take(&keys.private_key, old.map(|old| &old.private_key)),
            take(&keys.service_account_token, old.map(|old| &old.service_account_token)),
        );
        let (Some(public_key), Some(private_key), Some(service_account_token)) = parts else {
            return Ok(None);
        };
        Ok(Some(Credentials {
            project_id: project.id.clone(),
            public_key,
            private_key,
            service_account_token,
            webhook_secret: keys
                .webhook_secret
                .clone()
                .unwrap_or_else(|| project.webhook_secret().to_owned()),
        }))
    }
}

fn refused(error: &anyhow::Error) -> StoreError {
    StoreError::Unavailable(format!("{error:#}"))
}
