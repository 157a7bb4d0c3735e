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
mod inboxes;
mod logs;
mod openapi;
mod projects;
mod request;
mod runs;
mod scope;
mod table;

use axum::Router;

use crate::Gateway;

/// Every route of the control plane, each with and without a slash at its end: the clients' base
/// address may carry one.
pub(crate) fn routes() -> Router<Gateway> {
    table::ROUTES.iter().fold(Router::new(), |router, route| {
        router.route(route.path, route.handler()).route(&format!("{}/", route.path), route.handler())
    })
}
