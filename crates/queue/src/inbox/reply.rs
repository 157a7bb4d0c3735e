//! How an inbox answers: a status, headers and a body of one's choice, or a script of faults with a step for
//! each request, so that a sender's retries can be watched.
//!
//! ```text
//! script = step *( "," step )                            the last step stays
//! step   = ( status | "timeout" | "reset" ) *( ";" option )
//! option = "retry-after=" seconds | "delay=" seconds [ "s" | "ms" ] | "times=" count
//! ```
//!
//! `500,timeout,429;retry-after=3,reset,200` fails four times in four ways before it takes a request.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{
    INBOX_DELAY_MAX, INBOX_REPLY_BODY_BYTES_MAX, INBOX_REPLY_HEADERS_BYTES_MAX, INBOX_REPLY_HEADERS_MAX,
    INBOX_SCRIPT_STEPS_MAX,
};
use crate::webhook::is_token;

/// Largest `retry-after`, in seconds.
const RETRY_AFTER_MAX: u64 = 86_400;
/// Largest `times`.
const TIMES_MAX: u32 = 1_000;
/// Headers that belong to the connection, or that would act on pages of this server in a browser.
const REFUSED: &[&str] = &[
    "clear-site-data",
    "connection",
    "content-length",
    "content-security-policy",
    "date",
    "keep-alive",
    "proxy-connection",
    "referrer-policy",
    "refresh",
    "service-worker-allowed",
    "set-cookie",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-content-type-options",
];
/// Types that a page of this server could be made to load from an inbox.
const ACTIVE_TYPES: &[&str] = &["javascript", "ecmascript", "css", "wasm"];

/// How an inbox answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What is done with each request.
    pub script: Script,
    /// Headers of every answer, names in lower case.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Body of every answer; without one it is the recorded request's id.
    #[serde(default)]
    pub body: Option<String>,
}

/// Why a reply cannot be given. A sentence that names what is wrong and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReply {
    /// A step of the script.
    #[error("step {place} of the script, `{step}`: {why}")]
    Step {
        /// Counted from 1.
        place: usize,
        /// Its text.
        step: String,
        /// What is wrong with it.
        why: String,
    },
    /// The script as a whole.
    #[error("a script has 1 to {INBOX_SCRIPT_STEPS_MAX} steps, not {0}")]
    Steps(usize),
    /// A header.
    #[error("header `{name}`: {why}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The headers as a whole.
    #[error(
        "a reply has up to {INBOX_REPLY_HEADERS_MAX} headers of {INBOX_REPLY_HEADERS_BYTES_MAX} bytes in all"
    )]
    Headers,
    /// The body.
    #[error("the body of a reply has up to {INBOX_REPLY_BODY_BYTES_MAX} bytes, not {0}")]
    Body(usize),
}

impl Reply {
    /// Puts a reply together.
    ///
    /// # Errors
    /// When a header or the body is not one that an inbox sends.
    pub fn new(
        script: Script,
        headers: Vec<(String, String)>,
        body: Option<String>,
    ) -> Result<Self, InvalidReply> {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > INBOX_REPLY_HEADERS_MAX || bytes > INBOX_REPLY_HEADERS_BYTES_MAX {
            return Err(InvalidReply::Headers);
        }
        let headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        for (name, value) in &headers {
            let refuse = |why| Err(InvalidReply::Header { name: name.chars().take(100).collect(), why });
            if name.is_empty() || !name.bytes().all(is_token) {
                return refuse("this cannot be the name of a header");
            }
            if REFUSED.contains(&name.as_str()) {
                return refuse("the server sets it itself, or it would act on the server's own pages");
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                return refuse("its value has other characters than printable ASCII");
            }
            let value = value.to_ascii_lowercase();
            if name == "content-type" && ACTIVE_TYPES.iter().any(|active| value.contains(active)) {
                return refuse(
                    "scripts and styles are not sent from an inbox; `text/plain` shows their text",
                );
            }
        }
        match &body {
            Some(body) if body.len() > INBOX_REPLY_BODY_BYTES_MAX => Err(InvalidReply::Body(body.len())),
            _ => Ok(Self { script, headers, body }),
        }
    }

    /// One `Name: value` a line, as people write them.
    ///
    /// # Errors
    /// When a line has no colon.
    pub fn header_lines(text: &str) -> Result<Vec<(String, String)>, InvalidReply> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines
            .map(|line| match line.split_once(':') {
                Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
                None => Err(InvalidReply::Header {
                    name: line.chars().take(100).collect(),
                    why: "there is no colon; a header is `Name: value`",
                }),
            })
            .collect()
    }
}

/// Steps, one for each request; the last one stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Script(Vec<Step>);

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The answer, or none.
    pub does: Does,
    /// Waited before it.
    pub delay: Duration,
    /// Told the sender as `Retry-After`.
    pub retry_after: Option<u64>,
    /// Requests for which it stands.
    pub times: u32,
}

/// What becomes of a request once it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It is answered with this status.
    Status(u16),
    /// It is never answered.
    Timeout,
    /// Its connection is reset.
    Reset,
}

impl Script {
    /// A single step that stays.
    ///
    /// # Errors
    /// When the status or the delay is out of bounds.
    pub fn status(status: u16, delay: Duration) -> Result<Self, InvalidReply> {
        let wait = if delay.is_zero() { String::new() } else { format!(";delay={}ms", delay.as_millis()) };
        format!("{status}{wait}").parse()
    }

    /// The steps, at least one.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The step for the request that is the `place`th since the script was set, counted from 0.
    pub fn step(&self, place: u64) -> Step {
        let mut before = 0;
        for step in &self.0 {
            before += u64::from(step.times);
            if place < before {
                return *step;
            }
        }
        self.0[self.0.len() - 1]
    }
}

impl FromStr for Script {
    type Err = InvalidReply;

    fn from_str(text: &str) -> Result<Self, InvalidReply> {
        let steps: Vec<_> = text.split(',').map(str::trim).collect();
        if steps.len() > INBOX_SCRIPT_STEPS_MAX || text.trim().is_empty() {
            return Err(InvalidReply::Steps(if text.trim().is_empty() { 0 } else { steps.len() }));
        }
        let read = |(at, step): (usize, &&str)| {
            Step::read(step).map_err(|why| InvalidReply::Step {
                place: at + 1,
                step: step.chars().take(60).collect(),
                why,
            })
        };
        steps.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl Step {
    fn read(text: &str) -> Result<Self, String> {
        let mut parts = text.split(';').map(str::trim);
        let word = parts.next().unwrap_or_default();
        let does = match word.to_ascii_lowercase().as_str() {
            "timeout" => Does::Timeout,
            "reset" => Does::Reset,
            status => match status.parse() {
                Ok(status @ 200..=599) => Does::Status(status),
                _ => return Err("a step is a status from 200 to 599, `timeout` or `reset`".to_owned()),
            },
        };
        let mut step = Self { does, delay: Duration::ZERO, retry_after: None, times: 1 };
        for option in parts {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            match name.as_str() {
                "retry-after" if !matches!(does, Does::Status(_)) => {
                    return Err("`retry-after` goes with a status; this step sends no answer".to_owned());
                }
                "retry-after" => {
                    let seconds = value.parse().ok().filter(|seconds| *seconds <= RETRY_AFTER_MAX);
                    step.retry_after = Some(seconds.ok_or_else(|| {
                        format!("`retry-after` is a whole number of seconds, {RETRY_AFTER_MAX} at most")
                    })?);
                }
                "delay" => {
                    let delay = duration(value).filter(|delay| *delay <= INBOX_DELAY_MAX);
                    step.delay = delay.ok_or_else(|| {
                        format!(
                            "`delay` is seconds or milliseconds such as `2`, `2s` or `250ms`, {} s at most",
                            INBOX_DELAY_MAX.as_secs()
                        )
                    })?;
                }
                "times" => {
                    let times = value.parse().ok().filter(|times| (1..=TIMES_MAX).contains(times));
                    step.times =
                        times.ok_or_else(|| format!("`times` is a whole number from 1 to {TIMES_MAX}"))?;
                }
                _ => return Err("an option is `retry-after=`, `delay=` or `times=`".to_owned()),
            }
        }
        Ok(step)
    }
}

/// `2`, `2s`, `1.5s` or `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let (number, millis) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1_000.0),
    };
    let number: f64 = number.trim().parse().ok()?;
    let seconds = number * millis / 1_000.0;
    // Whole milliseconds, so that it is written as it was read.
    let exact = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Duration::from_millis(u64::try_from(exact.as_millis()).ok()?))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.does {
            Does::Status(status) => write!(f, "{status}")?,
            Does::Timeout => f.write_str("timeout")?,
            Does::Reset => f.write_str("reset")?,
        }
        if let Some(seconds) = self.retry_after {
            write!(f, ";retry-after={seconds}")?;
        }
        match self.delay.as_millis() {
            0 => {}
            millis if millis % 1_000 == 0 => write!(f, ";delay={}s", millis / 1_000)?,
            millis => write!(f, ";delay={millis}ms")?,
        }
        if self.times > 1 {
            write!(f, ";times={}", self.times)?;
        }
        Ok(())
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            step.fmt(f)?;
        }
        Ok(())
    }
}

impl From<Script> for String {
    fn from(script: Script) -> Self {
        script.to_string()
    }
}

impl TryFrom<String> for Script {
    type Error = InvalidReply;

    fn try_from(text: String) -> Result<Self, InvalidReply> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read_and_written_alike() {
        for (text, written) in [
            ("200", "200"),
            ("500,timeout,429;retry-after=3,reset,200", "500,timeout,429;retry-after=3,reset,200"),
            (" 503 ; Retry-After = 0 , RESET ", "503;retry-after=0,reset"),
            ("201;delay=2", "201;delay=2s"),
            ("200;delay=1.5s", "200;delay=1500ms"),
            ("200;delay=250ms", "200;delay=250ms"),
            ("timeout;delay=30s", "timeout;delay=30s"),
            ("500;times=3,200", "500;times=3,200"),
            ("500;delay=0", "500"),
        ] {
            let script: Script = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(script.to_string(), written);
            assert_eq!(written.parse::<Script>().unwrap(), script);
            let json = serde_json::to_string(&script).unwrap();
            assert_eq!(serde_json::from_str::<Script>(&json).unwrap(), script);
        }
    }

    #[test]
    fn a_bad_step_is_named_with_what_is_allowed() {
        for (text, said) in [
            ("", "a script has 1 to 32 steps, not 0"),
            (&"200,".repeat(40), "a script has 1 to 32 steps, not 41"),
            (
                "500,banana",
                "step 2 of the script, `banana`: a step is a status from 200 to 599, `timeout` or",
            ),
            ("500,,200", "step 2 of the script, ``: a step is a status"),
            ("199", "step 1 of the script, `199`: a step is a status"),
            ("600", "a status from 200 to 599"),
            ("200,429;retry-after=soon", "`retry-after` is a whole number of seconds, 86400 at most"),
            ("429;retry-after=86401", "86400 at most"),
            ("timeout;retry-after=3", "this step sends no answer"),
            ("200;delay=31", "`delay` is seconds or milliseconds such as `2`, `2s` or `250ms`, 30 s at most"),
            ("200;delay=-1", "`delay` is"),
            ("200;delay=inf", "`delay` is"),
            ("200;delay=1h", "`delay` is"),
            ("200;times=0", "`times` is a whole number from 1 to 1000"),
            ("200;wait=1", "an option is `retry-after=`, `delay=` or `times=`"),
            ("200;", "an option is"),
        ] {
            let error = text.parse::<Script>().unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn each_request_has_its_step_and_the_last_stays() {
        let script: Script = "500;times=2,timeout,200".parse().unwrap();
        let does: Vec<_> = (0..6).map(|place| script.step(place).does).collect();
        let (failed, good) = (Does::Status(500), Does::Status(200));
        assert_eq!(does, [failed, failed, Does::Timeout, good, good, good]);
        assert_eq!(script.step(u64::MAX).does, good);
    }

    #[test]
    fn headers_are_those_that_an_inbox_may_send() {
        let reply = |name: &str, value: &str| {
            let headers = vec![(name.to_owned(), value.to_owned())];
            Reply::new("200".parse().unwrap(), headers, None)
        };
        let good = reply(" X-Mine ", " 1 ").unwrap();
        assert_eq!(good.headers, [("x-mine".to_owned(), "1".to_owned())]);
        assert!(reply("content-type", "text/html").is_ok() && reply("location", "https://a.example").is_ok());
        for (name, value) in [
            ("", "1"),
            ("a b", "1"),
            ("a", "b\r\nc: d"),
            ("Set-Cookie", "a=b"),
            ("content-length", "3"),
            ("Content-Security-Policy", "default-src *"),
            ("content-type", "application/JavaScript"),
            ("content-type", "text/css"),
        ] {
            assert!(matches!(reply(name, value), Err(InvalidReply::Header { .. })), "{name}: {value}");
        }
        assert_eq!(reply("a", &"x".repeat(5_000)), Err(InvalidReply::Headers));
        let body = Reply::new("200".parse().unwrap(), vec![], Some("x".repeat(65_537)));
        assert_eq!(body, Err(InvalidReply::Body(65_537)));
        assert_eq!(
            Reply::header_lines("A: b: c\n\n D:e \n").unwrap(),
            [("A".to_owned(), "b: c".to_owned()), ("D".to_owned(), "e".to_owned())]
        );
        assert!(Reply::header_lines("none").unwrap_err().to_string().contains("there is no colon"));
    }
}
