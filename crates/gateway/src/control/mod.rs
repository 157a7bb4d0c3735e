//! The control plane: `/v2/projects/…`, the API that Cerebrium's clients speak and that we extend.

use axum::Router;

use crate::Gateway;

/// Every route of the control plane.
pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
}
