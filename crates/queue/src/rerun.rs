//! When a run that failed is executed again. Nothing is, unless the app or the call asks for it: an
//! exception is an answer.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::AppConfig;
use crate::limits::{RERUN_PAUSE_FIRST, RERUN_PAUSE_MAX, RETRIES_MAX};
use crate::outcome::Code;
use crate::retry::JITTER_MAX;

/// The end codes on which a run may be executed again. What its replica's death brings has rules of its
/// own, and needs no asking.
pub const RETRYABLE: [Code; 6] = [
    Code::UserError,
    Code::Timeout,
    Code::ResultInvalid,
    Code::ResultTooLarge,
    Code::OutputLimit,
    Code::FailedToStart,
];

/// The end codes that count when nobody names any, in the order of their words.
const DEFAULT_ON: [Code; 2] = [Code::Timeout, Code::UserError];

/// End codes on which a run is executed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RetryOn(Arc<[Code]>);

/// A word that is no end code on which a run may be executed again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of the end codes to retry on: {words}", words = words(&RETRYABLE))]
pub struct NotRetryable(String);

fn words(codes: &[Code]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(",")
}

impl RetryOn {
    /// From the codes' words.
    ///
    /// # Errors
    /// When one of them is no code on which a run may be executed again, or there is none.
    pub fn of<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, NotRetryable> {
        let codes: Result<Vec<_>, _> = words
            .into_iter()
            .map(|word| {
                let code = RETRYABLE.into_iter().find(|code| code.as_str() == word.trim());
                code.ok_or_else(|| NotRetryable(word.trim().chars().take(64).collect()))
            })
            .collect();
        let mut codes = codes?;
        codes.sort_unstable_by_key(|code| code.as_str());
        codes.dedup();
        if codes.is_empty() { Err(NotRetryable(String::new())) } else { Ok(Self(codes.into())) }
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        Self(DEFAULT_ON.into())
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words(&self.0))
    }
}

impl FromStr for RetryOn {
    type Err = NotRetryable;

    fn from_str(text: &str) -> Result<Self, NotRetryable> {
        Self::of(text.split(','))
    }
}

/// How often a run is executed again, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetryPolicy {
    /// Attempts after the first that failed, at most.
    pub retries: u32,
    /// The end codes that count.
    pub on: RetryOn,
}

impl RetryPolicy {
    /// What holds for a run: the app's word, and over it the call's. `None` when nothing is retried.
    pub fn of(config: &AppConfig, retries: Option<u32>, on: Option<RetryOn>) -> Option<Arc<Self>> {
        let retries = retries.or(config.retries).unwrap_or(0).min(RETRIES_MAX);
        let on = || on.or_else(|| config.retry_on.clone()).unwrap_or_default();
        (retries > 0).then(|| Arc::new(Self { retries, on: on() }))
    }

    /// Whether a run with so many failures behind it, that now failed with `code`, is executed again.
    pub fn allows(&self, failures: u32, code: Code) -> bool {
        failures < self.retries && self.on.0.contains(&code)
    }
}

/// Whether an attempt that failed with `code` counts towards `max_attempts`: one for which no replica could be
/// started does not.
pub fn is_execution(code: Code) -> bool {
    code != Code::FailedToStart
}

/// How long a run waits after its failure number `failure` (from 1): twice as long each time, up to a
/// bound. `chance` in `0.0..1.0` places the jitter, which is added, never subtracted.
pub fn pause(failure: u32, chance: f64) -> Duration {
    let doublings = failure.saturating_sub(1).min(16);
    let step = (RERUN_PAUSE_FIRST * 2_u32.pow(doublings)).min(RERUN_PAUSE_MAX);
    step.mul_f64(1.0 + JITTER_MAX * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_counts_before_the_app() {
        let app =
            AppConfig { retries: Some(3), retry_on: RetryOn::of(["timeout"]).ok(), ..AppConfig::default() };
        let policy = RetryPolicy::of(&app, None, None).unwrap();
        assert_eq!((policy.retries, policy.on.to_string().as_str()), (3, "timeout"));
        let policy = RetryPolicy::of(&app, Some(1), "user_error".parse().ok()).unwrap();
        assert_eq!((policy.retries, policy.on.to_string().as_str()), (1, "user_error"));
        assert_eq!(RetryPolicy::of(&app, Some(0), None), None);
        assert_eq!(RetryPolicy::of(&AppConfig::default(), None, "timeout".parse().ok()), None);
        let policy = RetryPolicy::of(&AppConfig::default(), Some(99), None).unwrap();
        assert_eq!((policy.retries, policy.on.to_string().as_str()), (RETRIES_MAX, "timeout,user_error"));
        assert_eq!(RetryOn::default(), "user_error,timeout".parse().unwrap());
    }

    #[test]
    fn only_chosen_codes_are_retried_and_only_so_often() {
        let policy = RetryPolicy { retries: 2, on: RetryOn::of(["user_error", " timeout"]).unwrap() };
        assert!(policy.allows(0, Code::UserError) && policy.allows(1, Code::Timeout));
        assert!(!policy.allows(2, Code::UserError));
        assert!(!policy.allows(0, Code::ResultInvalid) && !policy.allows(0, Code::Cancelled));
    }

    #[test]
    fn what_is_no_code_to_retry_on_is_named_with_those_that_are() {
        for wrong in ["", "cancelled", "crash_loop", "user_error,", "USER_ERROR"] {
            let message = wrong.parse::<RetryOn>().unwrap_err().to_string();
            assert!(message.contains("user_error,timeout,result_invalid"), "{message}");
        }
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let secs = |failure| pause(failure, 0.0).as_secs();
        assert_eq!([1, 2, 3, 8, 9, 10, 40].map(secs), [1, 2, 4, 128, 256, 300, 300]);
        assert_eq!(pause(1, 1.0), Duration::from_millis(1_200));
    }
}
