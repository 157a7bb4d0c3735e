//! A keyring that says what it was asked for.

use std::time::Duration;

use async_trait::async_trait;
use queue::port::{Keyring, Stored, TooManySecrets};
use queue::registry::{CreatedKey, KeyKind, KeyWish, NewKeys};
use queue::{Clock as _, ProjectId};

use crate::fakes::World;

#[async_trait]
impl Keyring for World {
    async fn rotate(
        &self,
        project: &ProjectId,
        kinds: &[KeyKind],
        overlap: Duration,
    ) -> Stored<Option<Result<NewKeys, TooManySecrets>>> {
        let told = |kind: KeyKind| {
            kinds.contains(&kind).then(|| format!("{} of {project} after {overlap:?}", kind.as_str()))
        };
        Ok(Some(Ok(NewKeys {
            public_key: told(KeyKind::PublicKey),
            private_key: told(KeyKind::PrivateKey),
            service_account_token: told(KeyKind::ServiceAccountToken),
            webhook_secret: told(KeyKind::WebhookSecret),
            webhook_public_key: told(KeyKind::WebhookKey),
        })))
    }

    async fn create(&self, _: &ProjectId, wish: KeyWish) -> Stored<CreatedKey> {
        let key = format!("a key for {}", wish.scope().as_str());
        Ok(CreatedKey::Done { key, view: wish.view(self.now(), self) })
    }

    async fn sign_v1a(&self, _: &ProjectId, _: bool) -> Stored<bool> {
        Ok(true)
    }
}
