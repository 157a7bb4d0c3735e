//! The key's project, and the notifications that Cerebrium's client asks for after a deploy.

use axum::Json;
use serde::Serialize;

use crate::auth::Control;

#[derive(Serialize)]
pub(super) struct ProjectView {
    id: String,
    name: String,
}

/// A key opens one project, so the list has one row. Projects have no other name than their id.
pub(super) async fn list(Control(project): Control) -> Json<[ProjectView; 1]> {
    let id = project.to_string();
    Json([ProjectView { name: id.clone(), id }])
}

/// The hosted service announces things here. This server is yours and has nothing to announce.
pub(super) async fn notifications(Control(_): Control) -> Json<[(); 0]> {
    Json([])
}
