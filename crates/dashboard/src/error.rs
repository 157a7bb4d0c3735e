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

impl Trouble {
    /// A word that is none of those that there are, `what` it should be, and what to write instead.
    pub(crate) fn no_such(what: &str, word: &str, known: &[&str]) -> Self {
        let word: String = word.chars().take(100).collect();
        Self::Invalid(format!("`{word}` is no {what}; there are {}.", known.join(", ")))
    }
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
                let title = match status {
                    StatusCode::BAD_REQUEST => "This address cannot be read",
                    _ => "The form cannot be read",
                };
                (status, title, format!("{why}. Nothing was done."))
            }
            Self::Store(error) => {
                tracing::error!(%error, "a page of the dashboard could not be made");
                let (status, title, message) = of_store(&error);
                (status, title, message.to_owned())
            }
        };
        // It may repeat what somebody wrote.
        let message = visible(&message).into_owned();
        pages::html(status, &TroublePage { frame: Frame::new(None), title, message })
    }
}

/// What became of what was asked for, as far as anybody can say.
fn of_store(error: &StoreError) -> (StatusCode, &'static str, &'static str) {
    match error {
        StoreError::Unavailable(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The store does not answer",
            // A page that reads after its write may end here, too.
            "It can be neither read nor written at the moment. Look whether it was done before you try again; if it \
             stays so, the server's log says why.",
        ),
        StoreError::Full(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The disk is full",
            "Nothing was changed. It goes on by itself once somebody has freed some space on the disk of the server's \
             data directory.",
        ),
        StoreError::Unknown(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Nobody knows whether it was done",
            "The disk failed under the write: it may or may not have happened. Look before you try again; the \
             server's log says why.",
        ),
        StoreError::Corrupt(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The store holds something unreadable",
            "The server's log names it.",
        ),
    }
}

/// A request that no handler could read is answered by a page, too.
pub(crate) async fn in_words(answer: Response) -> Response {
    match pages::unread(answer).await {
        Ok((status, why)) => Trouble::Unreadable(status, why).into_response(),
        Err(answer) => answer,
    }
}

/// A page, or why there is none.
pub(crate) type Shown<T> = Result<T, Trouble>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_which_nobody_knows_is_not_called_undone() {
        let why = "at /var/lib".to_owned();
        for (error, status, undone) in [
            (StoreError::Unavailable(why.clone()), 503, false),
            (StoreError::Full(why.clone()), 503, true),
            (StoreError::Unknown(why.clone()), 503, false),
            (StoreError::Corrupt(why.clone()), 500, false),
        ] {
            let (_, title, message) = of_store(&error);
            assert_eq!(message.contains("Nothing was changed"), undone, "{error}");
            assert!(!title.contains(&why) && !message.contains(&why), "{error}");
            assert_eq!(Trouble::from(error).into_response().status(), status);
        }
    }
}
