//! What a control route is: who may call it, what it reads and answers, and who handles it.

use axum::routing::{MethodFilter, MethodRouter};
use http::Method;

use crate::Gateway;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Holders of the private key or of a service-account token.
    PrivateKey,
    /// Holders of any key of the project.
    AnyKey,
    /// Holders of the token in the upload address.
    UploadToken,
    /// Holders of a signed link.
    Link,
    /// Everybody.
    Anybody,
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) who: Who,
    /// Query parameters it reads, with what they do.
    pub(super) query: &'static [(&'static str, &'static str)],
    /// What it does, in one line.
    pub(super) summary: &'static str,
    /// What a 200 carries, in one line.
    pub(super) answer: &'static str,
    pub(super) on: fn(MethodFilter) -> MethodRouter<Gateway>,
}

impl Route {
    /// Its handler, answering its method only.
    pub(super) fn handler(&self) -> MethodRouter<Gateway> {
        let filter = MethodFilter::try_from(self.method.clone()).expect("the table holds standard methods");
        (self.on)(filter)
    }
}
