//! The pages' style, script and mark.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::Response;
use pages::{Asset, asset};

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::style("dashboard", include_bytes!("../assets/dashboard.css")),
        Asset::script("dashboard", include_bytes!("../assets/dashboard.js")),
        Asset::mark(),
    ]
});

/// What stands around every page.
pub(crate) struct Frame {
    pub(crate) style: String,
    pub(crate) script: String,
    pub(crate) mark: String,
    /// The project, for whoever is signed in.
    pub(crate) project: Option<String>,
}

impl Frame {
    pub(crate) fn new(project: Option<String>) -> Self {
        let [style, script, mark] = &*ASSETS;
        let link = |asset: &Asset| format!("/dashboard/assets/{}", asset.name());
        Self { style: link(style), script: link(script), mark: link(mark), project }
    }
}

/// `/dashboard/assets/{name}`
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    asset::serve(&*ASSETS, &name)
}
