//! Requests that no handler saw, since their address or their form could not be read.

use axum::body::to_bytes;
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;

/// Bytes of what is said about a request.
const WHY_BYTES_MAX: usize = 4 << 10;

/// What an extractor says of a request that it could not read. It is bare text: a room makes a page of it.
///
/// # Errors
/// With the answer itself when it is any other.
pub async fn unread(answer: Response) -> Result<(StatusCode, String), Response> {
    let is_bare =
        answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let status = answer.status();
    let is_unread = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    );
    if !is_bare || !is_unread {
        return Err(answer);
    }
    let why = to_bytes(answer.into_body(), WHY_BYTES_MAX).await.unwrap_or_default();
    Ok((status, String::from_utf8_lossy(&why).into_owned()))
}

#[cfg(test)]
mod tests {
    use axum::extract::{FromRequest as _, Query, Request};
    use axum::response::IntoResponse as _;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is never read")]
    struct Hours {
        hours: u64,
    }

    #[tokio::test]
    async fn what_extractors_say_is_told_from_pages() {
        let asked = || Request::get("/x?hours=many").body(axum::body::Body::empty()).unwrap();
        let query = Query::<Hours>::from_request(asked(), &()).await.unwrap_err().into_response();
        let (status, why) = unread(query).await.unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.contains("hours"), "{why}");
        let form = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Form requests must have another `Content-Type`")
            .into_response();
        assert_eq!(unread(form).await.unwrap().0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        for other in [
            (StatusCode::BAD_REQUEST, axum::response::Html("a page")).into_response(),
            (StatusCode::FORBIDDEN, "a change of another site").into_response(),
            (StatusCode::UNPROCESSABLE_ENTITY, [(CONTENT_TYPE, "application/json")], "{}").into_response(),
            "a file".into_response(),
        ] {
            let status = other.status();
            assert_eq!(unread(other).await.unwrap_err().status(), status);
        }
    }
}
