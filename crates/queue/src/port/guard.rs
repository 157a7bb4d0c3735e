//! The port by which addresses are judged before they are promised anything.

use async_trait::async_trait;

use crate::run::EndpointUrl;

/// An address that may be called, as far as can be known now.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The address, normalised.
    pub url: EndpointUrl,
    /// What the caller should know, such as a name that does not resolve at the moment.
    pub warning: Option<String>,
}

/// A webhook address that breaks a rule.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct AddressRefused {
    /// The rule, in a few stable words: `scheme`, `port`, `address_not_allowed` …
    pub rule: &'static str,
    /// What is wrong and what to do, for the caller. Never what a name resolved to.
    pub message: String,
}

/// Which addresses the server may be made to call.
#[async_trait]
pub trait AddressGuard: Send + Sync {
    /// Checks an address when a run is accepted. Only a positive finding refuses; a resolver that
    /// fails or is slow leaves a warning. The check that counts is made again at every connect.
    async fn check(&self, url: &str) -> Result<Admitted, AddressRefused>;
}
