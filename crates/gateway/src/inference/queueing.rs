//! When a run starts, and starts again, as its caller says it: a header everywhere, on v4 also a parameter of the query.
//! The header wins.
//!
//! | header | parameter | meaning |
//! |---|---|---|
//! | `X-Delay` | `delay` | seconds before which it does not start |
//! | `X-Max-Queue-Time` | `max_queue_time` | seconds it may wait from then on |
//! | `X-Priority` | `priority` | higher ones of an app start first |
//! | `X-Retries` | `retries` | how often it is executed again after a failure |
//! | `X-Max-Attempts` | `max_attempts` | how often it may be executed, whatever the reason |
//! | `X-Retry-On` | `retry_on` | the end codes after which it is |

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use http::request;
use queue::Timestamp;
use queue::app::AppConfig;
use queue::limits::{DELAY_MAX, MAX_ATTEMPTS_MAX, PRIORITY_MAX, QUEUE_TIME_MAX, RETRIES_MAX};
use queue::rerun::{RetryOn, RetryPolicy};
use queue::run::{Generation, RunOptions};

use super::Form;
use crate::problem::{Answer, Problem, clip};

/// An option's two names.
type Names = (&'static str, &'static str);

const DELAY: Names = ("X-Delay", "delay");
const QUEUE_TIME: Names = ("X-Max-Queue-Time", "max_queue_time");
const PRIORITY: Names = ("X-Priority", "priority");
const RETRIES: Names = ("X-Retries", "retries");
const MAX_ATTEMPTS: Names = ("X-Max-Attempts", "max_attempts");
const RETRY_ON: Names = ("X-Retry-On", "retry_on");

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queueing {
    pub(super) delay: Option<Duration>,
    max_queue_time: Option<Duration>,
    priority: Option<i8>,
    retries: Option<u32>,
    retry_on: Option<RetryOn>,
    max_attempts: Option<u32>,
}

impl Queueing {
    /// Reads headers and query.
    pub(super) fn read(form: Form, parts: &request::Parts) -> Answer<Self> {
        let seconds = |names, most: Duration| -> Answer<_> {
            let seconds = whole(form, parts, names, "a whole number of seconds", 1..=most.as_secs())?;
            Ok(seconds.map(Duration::from_secs))
        };
        Ok(Self {
            delay: seconds(DELAY, DELAY_MAX)?,
            max_queue_time: seconds(QUEUE_TIME, QUEUE_TIME_MAX)?,
            priority: whole(form, parts, PRIORITY, "a whole number", -PRIORITY_MAX..=PRIORITY_MAX)?,
            retries: whole(form, parts, RETRIES, "a whole number", 0..=RETRIES_MAX)?,
            retry_on: retry_on(form, parts)?,
            max_attempts: whole(form, parts, MAX_ATTEMPTS, "a whole number", 1..=MAX_ATTEMPTS_MAX)?,
        })
    }

    /// Whether the request asks for anything, so that its run is kept even if the caller waits.
    pub(super) fn is_asked(&self) -> bool {
        *self != Self::default()
    }

    /// Puts it into the terms of a run accepted at `accepted_at`.
    pub(super) fn apply(self, options: &mut RunOptions, accepted_at: Timestamp, app: &AppConfig) {
        options.not_before = self.delay.map(|delay| accepted_at.plus(delay));
        let may_start = options.not_before.unwrap_or(accepted_at);
        options.start_by = self.max_queue_time.map(|time| may_start.plus(time));
        options.priority = self.priority.unwrap_or(0);
        options.retry = RetryPolicy::of(app, self.retries, self.retry_on);
        options.max_attempts = self.max_attempts.or(app.max_attempts);
    }

    /// Refuses what cannot be meant of a call of this app.
    pub(super) fn check(&self, form: Form, waits: bool, app: &AppConfig) -> Answer<()> {
        let message = if waits && self.delay.is_some() {
            // A caller cannot wait for what begins in a week.
            let way_out = match form.generation() {
                Generation::V4 => "add `?async=true`",
                Generation::V3 | Generation::Legacy => "send a `webhook_endpoint` in the body",
            };
            format!("`X-Delay` is for calls that do not wait for their result; {way_out}")
        } else if self.retry_on.is_some() && self.retries.or(app.retries).is_none() {
            "`X-Retry-On` says after what the run is executed again; say how often with `X-Retries`"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(Problem::unprocessable("invalid_parameter", message))
    }
}

/// The number that a request gives an option.
fn whole<N: FromStr + PartialOrd + Display + Copy>(
    form: Form,
    parts: &request::Parts,
    (header, parameter): Names,
    kind: &str,
    range: RangeInclusive<N>,
) -> Answer<Option<N>> {
    let Some((name, text)) = given(form, parts, (header, parameter)) else { return Ok(None) };
    let number = text.trim().parse().ok().filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        Problem::unprocessable(
            "invalid_parameter",
            format!("`{name}` is {kind} from {least} to {most}, not `{}`", clip(&text)),
        )
    })
}

/// The end codes that a request names.
fn retry_on(form: Form, parts: &request::Parts) -> Answer<Option<RetryOn>> {
    let Some((name, text)) = given(form, parts, RETRY_ON) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| {
        Problem::unprocessable("invalid_parameter", format!("`{name}` cannot be used: {error}"))
    })
}

/// What a request gives an option, and by which of its names.
fn given<'r>(
    form: Form,
    parts: &'r request::Parts,
    (header, parameter): Names,
) -> Option<(&'static str, Cow<'r, str>)> {
    match parts.headers.get(header) {
        Some(value) => Some((header, Cow::Borrowed(value.to_str().unwrap_or("?")))),
        None => in_query(form, parts, parameter).map(|text| (parameter, text)),
    }
}

fn in_query<'r>(form: Form, parts: &'r request::Parts, parameter: &str) -> Option<Cow<'r, str>> {
    if form.generation() != Generation::V4 {
        return None;
    }
    let query = parts.uri.query().filter(|query| query.contains(parameter))?;
    url::form_urlencoded::parse(query.as_bytes())
        .find_map(|(name, value)| (name == parameter).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(form: Form, uri: &str, headers: &[(&str, &str)]) -> Answer<Queueing> {
        let request = headers
            .iter()
            .fold(http::Request::post(uri), |request, (name, value)| request.header(*name, *value));
        Queueing::read(form, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_query_counts_on_v4_and_the_header_everywhere() {
        let uri = "/?async=1&max_queue_time=60&delay=5&priority=-7&retries=2&retry_on=timeout&max_attempts=3";
        let seconds = |secs| Some(Duration::from_secs(secs));
        let all = Queueing {
            delay: seconds(5),
            max_queue_time: seconds(60),
            priority: Some(-7),
            retries: Some(2),
            retry_on: "timeout".parse().ok(),
            max_attempts: Some(3),
        };
        assert_eq!(asked(Form::V4, uri, &[]).unwrap(), all);
        assert_eq!(asked(Form::V3, uri, &[]).unwrap(), Queueing::default());
        let headers = [
            ("x-max-queue-time", "60"),
            ("x-delay", "5"),
            ("x-priority", "-7"),
            ("x-retries", "2"),
            ("x-retry-on", "timeout"),
            ("x-max-attempts", "3"),
        ];
        assert_eq!(asked(Form::Bare, "/", &headers).unwrap(), all);
        let both = asked(Form::V4, uri, &[("x-priority", "100")]).unwrap();
        assert_eq!(both, Queueing { priority: Some(100), ..all });
        assert!(!asked(Form::V4, "/?async=1", &[]).unwrap().is_asked());
    }

    #[test]
    fn the_time_to_start_counts_from_when_the_run_may() {
        let now = Timestamp::from_millis(0);
        let mut options = RunOptions::default();
        asked(Form::V4, "/?delay=5&max_queue_time=60", &[]).unwrap().apply(
            &mut options,
            now,
            &AppConfig::default(),
        );
        assert_eq!(options.not_before, Some(Timestamp::from_millis(5_000)));
        assert_eq!(options.start_by, Some(Timestamp::from_millis(65_000)));
    }

    #[test]
    fn the_attempts_of_a_call_count_before_those_of_its_app() {
        let app = AppConfig { max_attempts: Some(5), ..AppConfig::default() };
        let of = |uri: &str, app: &AppConfig| {
            let mut options = RunOptions::default();
            asked(Form::V4, uri, &[]).unwrap().apply(&mut options, Timestamp::from_millis(0), app);
            options.max_attempts
        };
        assert_eq!(of("/?max_attempts=1", &app), Some(1));
        assert_eq!(of("/", &app), Some(5));
        assert_eq!(of("/", &AppConfig::default()), None);
    }

    #[test]
    fn codes_to_retry_on_are_refused_by_name_and_not_without_a_number() {
        for wrong in ["", "cancelled", "user_error;timeout"] {
            let problem = asked(Form::V4, "/", &[("x-retry-on", wrong)]).unwrap_err();
            assert!(problem.message.contains("X-Retry-On") && problem.message.contains("result_invalid"));
        }
        let on = asked(Form::V4, "/?retry_on=user_error", &[]).unwrap();
        assert!(on.check(Form::V4, false, &AppConfig::default()).unwrap_err().message.contains("X-Retries"));
        let app = AppConfig { retries: Some(1), ..AppConfig::default() };
        on.check(Form::V4, false, &app).unwrap();
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let times = ["0", "-1", "soon", "604801", "1.5", ""].map(|wrong| ("X-Delay", wrong));
        let limits = ["0", "-1", "soon", "604801", "1.5", ""].map(|wrong| ("X-Max-Queue-Time", wrong));
        let retries = ["11", "-1", "often", ""].map(|wrong| ("X-Retries", wrong));
        let attempts = ["101", "0", "-1", "once", ""].map(|wrong| ("X-Max-Attempts", wrong));
        let priorities = ["101", "-101", "high", "1.5", ""].map(|wrong| ("X-Priority", wrong));
        for (name, wrong) in times.into_iter().chain(limits).chain(priorities).chain(retries).chain(attempts)
        {
            let problem = asked(Form::V4, "/", &[(name, wrong)]).unwrap_err();
            assert_eq!(problem.status.as_u16(), 422, "{wrong}");
            assert!(
                problem.message.contains(name) && problem.message.contains("from"),
                "{}",
                problem.message
            );
        }
    }
}
