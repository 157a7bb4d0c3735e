//! What goes wrong, as HTTP: a status, a stable code, a message that says what to do next.
//!
//! Every error answer of the server has this form: `{"message","code"}`, with `run_id` in front where
//! there is one.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use queue::answer;
use queue::port::{Refused, StoreError};
use queue::{RunId, Timestamp};

/// The header that names the run of an answer.
pub(crate) const REQUEST_ID: http::HeaderName = http::HeaderName::from_static("x-request-id");

/// The media type of every body this room writes itself.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// When to look again after the disk was full: space comes from people.
const FULL_DISK_RETRY_SECS: u32 = 10;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// A few stable words for programs: `unknown_app`.
    pub(crate) code: Cow<'static, str>,
    /// For people: what, where, what to do next.
    pub(crate) message: Cow<'static, str>,
    /// The run it is about.
    pub(crate) run_id: Option<RunId>,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after: Option<u32>,
    /// When the run was removed that it is about.
    pub(crate) removed_at: Option<Timestamp>,
}

/// What handlers return.
pub(crate) type Answer<T> = Result<T, Problem>;

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            run_id: None,
            retry_after: None,
            removed_at: None,
        }
    }

    /// 400: the request cannot be read.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401: nobody knows who is calling.
    pub(crate) fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403: the key is good, but not for this.
    pub(crate) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 404: there is nothing here, or nothing that the caller may know of.
    pub(crate) fn not_found(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 404 for a project: unknown, or not the key's.
    pub(crate) fn unknown_project(project: &str) -> Self {
        Self::not_found(
            "unknown_project",
            format!(
                "this key opens no project `{}`; the key's own project is the one to name",
                clip(project)
            ),
        )
    }

    /// 410: it was there, and went with age.
    pub(crate) fn removed(run: RunId, at: Timestamp) -> Self {
        let message = format!(
            "the run and its result were removed at {at}: finished runs are kept for 7 days, and 30 days after the \
             last attempt when their webhook was never delivered"
        );
        let problem = Self { removed_at: Some(at), ..Self::new(StatusCode::GONE, "run_removed", message) };
        problem.about(run)
    }

    /// 409: it contradicts what is there.
    pub(crate) fn conflict(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 413: more than fits.
    pub(crate) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// 422: readable, but against a rule.
    pub(crate) fn unprocessable(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 429: later.
    pub(crate) fn too_many(code: &'static str, message: impl Into<Cow<'static, str>>, secs: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(secs)
    }

    /// 500: our fault.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server met a fault of its own; its log has the details",
        )
    }

    /// 503: not now.
    pub(crate) fn unavailable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The same, with a time to come back.
    #[must_use]
    pub(crate) fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after = Some(secs);
        self
    }

    /// The same, about this run.
    #[must_use]
    pub(crate) fn about(mut self, run: RunId) -> Self {
        self.run_id = Some(run);
        self
    }
}

/// At most 100 characters of what a caller wrote, for repeating it in a message.
pub(crate) fn clip(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(end, _)| &text[..end])
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!(error.message = reason, "the store is unavailable");
                Self::unavailable(
                    "store_unavailable",
                    "the store is unavailable and nothing was changed; try again",
                )
                .retry_after(1)
            }
            StoreError::Full(reason) => {
                tracing::warn!(error.message = reason, "the disk is full");
                Self::unavailable(
                    "storage_full",
                    "the disk of the server's data directory is full and nothing was changed; it goes on by \
                     itself once somebody has freed some space",
                )
                .retry_after(FULL_DISK_RETRY_SECS)
            }
            StoreError::Unknown(reason) => {
                tracing::error!(error.message = reason, "the outcome of a write is unknown");
                Self::unavailable(
                    "outcome_unknown",
                    "outcome unknown: the write may or may not have happened; look before you try again",
                )
            }
            StoreError::Corrupt(reason) => {
                tracing::error!(error.message = reason, "the store holds something unreadable");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "store_corrupt",
                    "the store holds something unreadable; the server's log names it",
                )
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy => Self::too_many("too_many_waiting", refused.to_string(), 1),
            Refused::Stopping => Self::unavailable("stopping", refused.to_string()).retry_after(1),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = match (self.run_id, self.removed_at) {
            (Some(run), Some(at)) => answer::removed_body(run, &self.message, &self.code, at),
            _ => answer::error_body(self.run_id, &self.message, &self.code),
        };
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        if let Some(run) = self.run_id {
            headers.insert(REQUEST_ID, run_header(run));
        }
        if let Some(secs) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A run id as a header value.
pub(crate) fn run_header(run: RunId) -> HeaderValue {
    HeaderValue::from_str(run.encode(&mut [0; 36])).expect("a run id is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_of_the_store_has_a_status_and_a_reason() {
        let problem = Problem::from(StoreError::Unavailable("disk full".into()));
        assert_eq!((problem.status.as_u16(), problem.retry_after), (503, Some(1)));
        let problem = Problem::from(StoreError::Full("page 7".into()));
        assert_eq!((problem.status.as_u16(), &*problem.code), (503, "storage_full"));
        assert!(problem.retry_after.is_some());
        let problem = Problem::from(StoreError::Unknown("fsync".into()));
        assert_eq!(problem.status.as_u16(), 503);
        assert!(problem.message.starts_with("outcome unknown"));
        let problem = Problem::from(StoreError::Corrupt("row".into()));
        assert_eq!(problem.status.as_u16(), 500);
    }

    #[test]
    fn a_problem_never_repeats_more_than_a_little_of_what_it_was_given() {
        assert_eq!(clip(&"é".repeat(300)).chars().count(), 100);
        assert_eq!(clip("short"), "short");
    }
}
