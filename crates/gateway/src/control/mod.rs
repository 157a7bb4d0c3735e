//! The control plane: `/v2/projects/…`, the API that Cerebrium's clients speak and that we extend.
//!
//! Promises of this folder:
//!
//! - Every route stands in one table ([`table::ROUTES`]); the router, the OpenAPI document and the tests
//!   that walk all routes are made from it, so they cannot drift apart.
//! - Whose a thing is, is decided by the extractors of [`scope`]: what belongs to another project cannot
//!   be told from what does not exist.
//! - Answers are plain 200 with JSON, errors `{"message","code"}`, as those clients expect.
//! - Every list is bounded and goes on with a cursor.

mod apps;
mod builds;
mod config;
mod deliveries;
mod endpoints;
mod events;
mod hardware;
mod inboxes;
mod keys;
mod logs;
mod openapi;
mod projects;
mod recorded;
mod request;
mod results;
mod route;
mod runs;
mod runtime;
mod scope;
mod secrets;
mod settings;
mod table;

use axum::Router;
use serde_json::Value;

use crate::Gateway;

/// Every route of the control plane, each also with a slash at its end and one more at its beginning:
/// clients join a base address that ends in one to a path that begins with one.
pub(crate) fn routes() -> Router<Gateway> {
    table::ROUTES.iter().fold(Router::new(), |router, route| {
        let path = route.path;
        [path.to_owned(), format!("{path}/"), format!("/{path}"), format!("/{path}/")]
            .iter()
            .fold(router, |router, spelling| router.route(spelling, route.handler()))
    })
}

/// The OpenAPI document of a server at this address.
pub(crate) fn openapi(public_url: &str, version: &str) -> Value {
    openapi::of_all(public_url, version)
}
