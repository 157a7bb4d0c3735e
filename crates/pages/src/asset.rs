//! Files of pages, inside the binary. Each name carries a hash of the content, so a browser may keep a file for ever
//! and still never shows an old one.

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

/// One file.
pub struct Asset {
    name: String,
    media_type: &'static str,
    content: Bytes,
}

impl Asset {
    /// A file of this content, called `{stem}-{hash}.{extension}`.
    pub fn new(stem: &str, extension: &str, media_type: &'static str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self { name: format!("{stem}-{:016x}.{extension}", fnv1a(&content)), media_type, content }
    }

    /// The style sheet of a room's pages: what is its own, after what all pages share.
    pub fn style(stem: &str, own: &'static [u8]) -> Self {
        let content = [include_bytes!("../assets/base.css"), own].concat();
        Self::new(stem, "css", "text/css; charset=utf-8", content)
    }

    /// A script.
    pub fn script(stem: &str, content: &'static [u8]) -> Self {
        Self::new(stem, "js", "text/javascript; charset=utf-8", content)
    }

    /// The mark of the product.
    pub fn mark() -> Self {
        Self::new("mark", "svg", "image/svg+xml", &include_bytes!("../assets/mark.svg")[..])
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The file of that name among these.
pub fn serve(assets: &[Asset], name: &str) -> Response {
    match assets.iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers =
                [(CONTENT_TYPE, asset.media_type), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (headers, asset.content.clone()).into_response()
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

#[cfg(test)]
mod tests {
    use super::Asset;

    #[test]
    fn a_room_s_style_comes_after_what_all_pages_share_and_so_decides() {
        let style = Asset::style("room", b"a { color: red; }");
        let text = std::str::from_utf8(&style.content).unwrap();
        let (shared, own) = text.split_at(text.len() - "a { color: red; }".len());
        assert!(shared.contains("--paper:") && shared.ends_with("}\n"), "{shared}");
        assert_eq!(own, "a { color: red; }");
    }
}
