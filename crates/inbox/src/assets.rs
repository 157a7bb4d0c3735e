//! The page's style and script, inside the binary. Each name carries a hash of the content, so a
//! browser may keep a file for ever and still never shows an old one.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

struct Asset {
    name: String,
    media_type: &'static str,
    content: &'static [u8],
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("inbox", "css", "text/css; charset=utf-8", include_bytes!("../assets/inbox.css")),
        Asset::new("inbox", "js", "text/javascript; charset=utf-8", include_bytes!("../assets/inbox.js")),
        Asset::new("mark", "svg", "image/svg+xml", include_bytes!("../assets/mark.svg")),
    ]
});

impl Asset {
    fn new(stem: &str, extension: &str, media_type: &'static str, content: &'static [u8]) -> Self {
        Self { name: format!("{stem}-{:016x}.{extension}", fnv1a(content)), media_type, content }
    }
}

/// Where the pages find their files.
pub(crate) struct Links {
    pub(crate) style: String,
    pub(crate) script: String,
    pub(crate) mark: String,
}

impl Links {
    pub(crate) fn new() -> Self {
        let [style, script, mark] = &*ASSETS;
        let link = |asset: &Asset| format!("/inboxes/assets/{}", asset.name);
        Self { style: link(style), script: link(script), mark: link(mark) }
    }
}

/// `/inboxes/assets/{name}`
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers =
                [(CONTENT_TYPE, asset.media_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (headers, asset.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// FNV-1a: tells contents apart; nobody attacks our own files.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
