//! What a page says when it cannot be shown.

use askama::Template;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use pages::inert::visible;
use queue::port::StoreError;

use crate::assets::Frame;

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The project has no such thing.
    Unknown(&'static str),
    /// The API has no such operation.
    NoOperation,
    /// A link that shows nothing, or nothing any more.
    NoLink,
    /// What was asked for cannot be done now.
    Refused(String),
    /// Something that was written means nothing here.
    Invalid(String),
    /// What a form sent cannot be read.
    Unreadable(StatusCode, String),
    /// The store cannot be read or written.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct TroublePage {
    frame: Frame,
    title: &'static str,
    message: String,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, title, message) = match self {
            Self::Unknown(what) => (
                StatusCode::NOT_FOUND,
                "Not here",
                format!("The project has no such {what}; it may have been removed with age."),
            ),
            Self::NoOperation => (
                StatusCode::NOT_FOUND,
                "Not here",
                "The API has no such operation; /dashboard/api lists those that there are.".to_owned(),
            ),
            Self::NoLink => (
                StatusCode::NOT_FOUND,
                "This link shows nothing",
                "It has ended, or it is not complete. Ask whoever sent it for a new one.".to_owned(),
            ),
            Self::Refused(message) => (StatusCode::CONFLICT, "Not possible now", message),
            Self::Invalid(message) => (StatusCode::UNPROCESSABLE_ENTITY, "Not understood", message),
            Self::Unreadable(status, why) => {
                (status, "The form cannot be read", format!("{why}. Nothing was done."))
            }
            Self::Store(error) => {
                tracing::error!(%error, "a page of the dashboard could not be made");
                let message = "The store cannot be read at the moment. Try again; if it stays so, the server's log says why.";
                (StatusCode::SERVICE_UNAVAILABLE, "The store does not answer", message.to_owned())
            }
        };
        // It may repeat what somebody wrote.
        let message = visible(&message).into_owned();
        pages::html(status, &TroublePage { frame: Frame::new(None), title, message })
    }
}

/// A page, or why there is none.
pub(crate) type Shown<T> = Result<T, Trouble>;
