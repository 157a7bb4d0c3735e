//! How long a link is to show something to somebody without a key, as a form asks for it.

use std::time::Duration;

use queue::limits::SHARED_LINK_MAX;
use serde::Deserialize;

use crate::error::{Shown, Trouble};

const HOUR_SECS: u64 = 3_600;
/// The longest that a link may show something.
pub(crate) const HOURS_MAX: u64 = SHARED_LINK_MAX.as_secs() / HOUR_SECS;

#[derive(Deserialize)]
pub(crate) struct Life {
    hours: u64,
}

impl Life {
    /// What is asked for, of a link that shows `what`.
    ///
    /// # Errors
    /// When it is nothing, or longer than links live.
    pub(crate) fn bounded(&self, what: &str) -> Shown<Duration> {
        if (1..=HOURS_MAX).contains(&self.hours) {
            return Ok(Duration::from_secs(self.hours * HOUR_SECS));
        }
        Err(Trouble::Invalid(format!("A link shows {what} for 1 to {HOURS_MAX} hours.")))
    }
}
