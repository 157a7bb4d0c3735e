//! Lines of a log on a page.

use pages::inert::visible;
use queue::log::StoredLine;

use crate::shape;

/// A line of a log.
pub(crate) struct Line {
    /// The time of day.
    pub(crate) at: String,
    pub(crate) stream: &'static str,
    pub(crate) text: String,
}

impl Line {
    pub(crate) fn of(stored: &StoredLine) -> Self {
        let at = shape::moment(stored.line.at);
        Self {
            at: at.get(11..).unwrap_or(&at).to_owned(),
            stream: stored.line.stream.as_str(),
            text: visible(&stored.line.text).into_owned(),
        }
    }
}
