//! What every page of this server shares, whichever room shows it.
//!
//! - [`Hosts`]: pages open under our own names only, so that a web page of somebody else cannot read them.
//! - [`lock_down`]: no script but our own runs in them, and nothing of them is kept or framed.
//! - [`inert`]: what strangers wrote is shown and never obeyed.
//! - [`shell`]: what strangers wrote in a command stays a word of it.
//! - [`Asset`]: style, script and pictures inside the binary, which a browser may keep for ever.

pub mod asset;
mod door;
pub mod inert;
mod pretty;
pub mod shell;
mod size;
mod unread;

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;

pub use asset::Asset;
pub use door::{Hosts, check_host, host, is_own_origin, lock_down, lock_down_to_forms, sandbox};
pub use pretty::pretty;
pub use size::size;
pub use unread::unread;

/// A page as an answer.
pub fn html(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
