//! How long a run may wait for its start, as its caller says it: `?max_queue_time=` on v4, the header
//! `X-Max-Queue-Time` everywhere. Seconds.

use std::time::Duration;

use http::{HeaderName, request};
use queue::limits::QUEUE_TIME_MAX;
use queue::run::Generation;

use super::Form;
use crate::problem::{Answer, Problem, clip};

const HEADER: HeaderName = HeaderName::from_static("x-max-queue-time");
const PARAMETER: &str = "max_queue_time";

/// The limit that a request brings.
pub(super) fn max_queue_time(form: Form, parts: &request::Parts) -> Answer<Option<Duration>> {
    if let Some(value) = parts.headers.get(HEADER) {
        return read(value.to_str().unwrap_or("?"), "X-Max-Queue-Time").map(Some);
    }
    let query = parts.uri.query().filter(|query| query.contains(PARAMETER));
    let (Generation::V4, Some(query)) = (form.generation(), query) else { return Ok(None) };
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == PARAMETER)
        .map(|(_, value)| read(&value, PARAMETER))
        .transpose()
}

fn read(text: &str, name: &str) -> Answer<Duration> {
    let most = QUEUE_TIME_MAX.as_secs();
    let seconds = text.trim().parse().ok().filter(|seconds| (1..=most).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        Problem::unprocessable(
            "invalid_parameter",
            format!("`{name}` is a whole number of seconds from 1 to {most}, not `{}`", clip(text)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(form: Form, uri: &str, header: Option<&str>) -> Answer<Option<Duration>> {
        let mut request = http::Request::post(uri);
        if let Some(header) = header {
            request = request.header(HEADER, header);
        }
        max_queue_time(form, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_query_counts_on_v4_and_the_header_everywhere() {
        let (uri, minute) = ("/?async=1&max_queue_time=60", Some(Duration::from_secs(60)));
        assert_eq!(asked(Form::V4, uri, None).unwrap(), minute);
        assert_eq!(asked(Form::V3, uri, None).unwrap(), None);
        assert_eq!(asked(Form::Bare, "/", Some("60")).unwrap(), minute);
        assert_eq!(asked(Form::V4, uri, Some("5")).unwrap(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn what_is_no_time_is_refused_by_name() {
        for wrong in ["0", "-1", "soon", "604801", "1.5", ""] {
            let problem = asked(Form::V4, "/", Some(wrong)).unwrap_err();
            assert_eq!(problem.status.as_u16(), 422, "{wrong}");
            assert!(problem.message.contains("X-Max-Queue-Time"));
        }
    }
}
