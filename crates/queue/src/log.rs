//! What user code and builds print.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::{AppId, BuildId, ReplicaId, RunId};

/// Which of its outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, and the `logger` argument.
    Stdout,
    /// Standard error, and Python's `logging`.
    Stderr,
    /// Said by postback itself: build steps, replica starts and ends.
    System,
}

impl Stream {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
}

/// One line, without its line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was printed.
    pub at: Timestamp,
    /// The app it belongs to.
    pub app: AppId,
    /// The build that printed it, for build logs only.
    pub build: Option<BuildId>,
    /// The run it belongs to, if it was printed inside one.
    pub run: Option<RunId>,
    /// The replica that printed it.
    pub replica: Option<ReplicaId>,
    /// Which output.
    pub stream: Stream,
    /// The text, cut at [`crate::limits::LOG_LINE_BYTES_MAX`].
    pub text: String,
}

/// Whose lines to read.
#[derive(Clone, Debug)]
pub enum LogScope {
    /// Those of one run.
    Run(RunId),
    /// Those of one build.
    Build(BuildId),
    /// Those of one app's replicas, runs included, builds not.
    App(AppId),
}

/// Which lines to read, oldest first.
#[derive(Clone, Debug)]
pub struct LogQuery {
    /// Whose.
    pub scope: LogScope,
    /// Only lines after this one.
    pub after: Option<i64>,
    /// Only lines printed after this moment.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
    /// The newest lines that fit the limit instead of the oldest; still given oldest first.
    pub newest: bool,
}

/// A stored line.
#[derive(Clone, Debug)]
pub struct StoredLine {
    /// Grows with every line: the cursor of the next page.
    pub id: i64,
    /// The line.
    pub line: LogLine,
}
