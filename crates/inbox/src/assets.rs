//! The page's style, script and mark.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::Response;
use pages::{Asset, asset};

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::style("inbox", include_bytes!("../assets/inbox.css")),
        Asset::script("inbox", include_bytes!("../assets/inbox.js")),
        Asset::mark(),
    ]
});

/// Where the pages find their files.
pub(crate) struct Links {
    pub(crate) style: String,
    pub(crate) script: String,
    pub(crate) mark: String,
}

impl Links {
    pub(crate) fn new() -> Self {
        let [style, script, mark] = &*ASSETS;
        let link = |asset: &Asset| format!("/inboxes/assets/{}", asset.name());
        Self { style: link(style), script: link(script), mark: link(mark) }
    }
}

/// `/inboxes/assets/{name}`
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    asset::serve(&*ASSETS, &name)
}
